//! A control plane's publishing, as small as it can be.

use pointsman_model::fleet::{LATEST_SCHEMA, Latest, RECORD_SCHEMA, RecordObject, RecordPayload};
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_snapshot::keys::SigningKey;
use pointsman_snapshot::{cdb, latest, sign};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Fleet {
    pub(crate) name: FleetName,
    pub(crate) key: SigningKey,
    pub(crate) root: PathBuf,
    pub(crate) snapshot: u64,
    pub(crate) records: BTreeMap<NodeName, Vec<u8>>,
}

impl Fleet {
    pub(crate) fn new(root: &Path) -> Self {
        for name in ["shards", "objects"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        Self {
            name: FleetName::new("lab").unwrap(),
            key: SigningKey::generate().unwrap(),
            root: root.to_owned(),
            snapshot: 0,
            records: BTreeMap::new(),
        }
    }

    /// Stores an object.
    pub(crate) fn object(&self, bytes: &[u8]) -> RecordObject {
        let sha256 = Sha256::of(bytes);
        write(&self.root.join(latest::object_name(&sha256)), bytes);
        RecordObject { sha256, bytes: bytes.len() as u64 }
    }

    /// What is signed for a node.
    pub(crate) fn payload(
        &self,
        node: &str,
        generation: u64,
        objects: &[RecordObject],
        more: Value,
    ) -> RecordPayload {
        let mut document = json!({"schema": "pointsman.node/v1", "node": node,
            "generation": generation, "programs": {}, "interfaces": {}});
        if let Value::Object(more) = more {
            document.as_object_mut().unwrap().extend(more);
        }
        RecordPayload {
            schema: RECORD_SCHEMA.into(),
            fleet: self.name.clone(),
            node: node.parse().unwrap(),
            generation,
            issued_unix_ms: 1_790_000_000_000,
            objects: objects.to_vec(),
            document,
        }
    }

    /// Makes a node's next record.
    pub(crate) fn put(&mut self, node: &str, generation: u64, objects: &[RecordObject]) {
        self.put_with(node, generation, objects, json!({}));
    }

    pub(crate) fn put_with(
        &mut self,
        node: &str,
        generation: u64,
        objects: &[RecordObject],
        more: Value,
    ) {
        let payload = self.payload(node, generation, objects, more);
        let record = sign(&self.key, &payload).unwrap();
        self.records.insert(node.parse().unwrap(), record);
    }

    /// Publishes all records; gives what `latest` says now.
    pub(crate) fn publish(&mut self, shards: usize) -> Latest {
        let mut writers = vec![cdb::Writer::new(); shards];
        for (node, record) in &self.records {
            let place = Latest::place(node, shards);
            writers[place].add(node.as_str().as_bytes(), record).unwrap();
        }
        let files: Vec<_> = writers.into_iter().map(cdb::Writer::finish).collect();
        self.snapshot += 1;
        let now = Latest {
            schema: LATEST_SCHEMA.into(),
            fleet: self.name.clone(),
            snapshot: self.snapshot,
            shards: files.iter().map(|file| Sha256::of(file)).collect(),
        };
        for (hash, file) in now.shards.iter().zip(&files) {
            write(&self.root.join(latest::shard_name(hash)), file);
        }
        self.point(&now);
        now
    }

    /// Publishes generation after generation of one node.
    pub(crate) fn publish_one(&mut self, node: &str, generation: u64, objects: &[RecordObject]) {
        self.put(node, generation, objects);
        self.publish(1);
    }

    /// Writes `latest`.
    pub(crate) fn point(&self, to: &Latest) {
        write(&self.root.join(latest::NAME), &latest::write(to).unwrap());
    }
}

/// Readers see the old file or the new one.
fn write(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("aside");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, path).unwrap();
}
