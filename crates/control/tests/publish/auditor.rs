//! Looks at everything in a blob store, as a courier and a node would, and remembers it: what was
//! visible once must never be contradicted.

use pointsman_model::fleet::{Latest, RecordObject};
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_snapshot::keys::PublicKey;
use pointsman_snapshot::record::Record;
use pointsman_snapshot::{cdb, latest};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub(crate) struct Auditor {
    key: PublicKey,
    fleet: FleetName,
    /// The document of each generation that was ever visible.
    seen: BTreeMap<(NodeName, u64), Vec<u8>>,
    /// What `latest` led to last: the generation of each node, and its document.
    pub(crate) now: BTreeMap<NodeName, (u64, Value)>,
    /// The highest generation that `latest` ever led to.
    highest: BTreeMap<NodeName, u64>,
    pub(crate) latest: Option<Latest>,
    /// What shards hold that were looked at before: files of one hash are one file.
    known: BTreeMap<Sha256, Records>,
    /// Whether the store may leave half of what it was given: then shards are known by their
    /// hashes, as couriers know them.
    pub(crate) may_be_torn: bool,
}

/// What is in one shard.
type Records = BTreeMap<NodeName, (u64, Vec<u8>, Vec<RecordObject>)>;

impl Auditor {
    pub(crate) fn new(key: PublicKey, fleet: FleetName) -> Self {
        Self {
            key,
            fleet,
            seen: BTreeMap::new(),
            now: BTreeMap::new(),
            highest: BTreeMap::new(),
            latest: None,
            known: BTreeMap::new(),
            may_be_torn: false,
        }
    }

    /// Looks at a directory. Somebody may be publishing into it.
    pub(crate) fn look(&mut self, blobs: &Path) {
        // First `latest`, and then what it names, as everybody must.
        let text = fs::read(blobs.join(latest::NAME));
        let mut shards = BTreeSet::new();
        for (name, bytes) in files(&blobs.join("shards")) {
            let hash: Sha256 = name.strip_suffix(".cdb").unwrap().parse().unwrap();
            if Sha256::of(&bytes) == hash {
                shards.insert(hash);
                if !self.known.contains_key(&hash) {
                    let records = self.shard(&bytes);
                    self.known.insert(hash, records);
                }
            } else {
                assert!(self.may_be_torn, "shard {name} is torn");
            }
        }
        let objects: BTreeSet<Sha256> = files(&blobs.join("objects"))
            .filter(|(name, bytes)| {
                let is_whole = Sha256::of(bytes).to_string() == *name;
                assert!(is_whole || self.may_be_torn, "object {name} is torn");
                is_whole
            })
            .map(|(name, _)| name.parse().unwrap())
            .collect();
        let Ok(text) = text else { return };
        match latest::parse(&text) {
            Ok(latest) => self.led_to(latest, &shards, &objects),
            Err(error) => assert!(self.may_be_torn, "{error}"),
        }
    }

    /// Every record of a shard is whole, signed, and says for its generation what others said.
    fn shard(&mut self, bytes: &[u8]) -> Records {
        let mut records = Records::new();
        for entry in cdb::entries(bytes) {
            let (key, value) = entry.unwrap();
            let node: NodeName = std::str::from_utf8(key).unwrap().parse().unwrap();
            let record = Record::parse(value).unwrap();
            let verified = record.verify(&self.key, &self.fleet, &node).unwrap();
            let document = verified.document_bytes.to_vec();
            let seen = self.seen.entry((node.clone(), verified.generation));
            let first = seen.or_insert_with(|| document.clone());
            assert!(*first == document, "{node} has two documents of one generation");
            records.insert(node, (verified.generation, document, verified.objects));
        }
        records
    }

    /// All that `latest` names is there, and nothing of it is older than before.
    fn led_to(&mut self, latest: Latest, shards: &BTreeSet<Sha256>, objects: &BTreeSet<Sha256>) {
        let before = self.latest.as_ref().map_or(0, |latest| latest.snapshot);
        assert!(latest.snapshot >= before, "snapshot {} after {before}", latest.snapshot);
        self.now.clear();
        for (place, hash) in latest.shards.iter().enumerate() {
            assert!(shards.contains(hash), "no shard {hash}");
            for (node, (generation, document, needed)) in &self.known[hash] {
                assert_eq!(Latest::place(node, latest.shards.len()), place);
                for object in needed {
                    assert!(objects.contains(&object.sha256), "no object of {node}");
                }
                let highest = self.highest.entry(node.clone()).or_default();
                assert!(*generation >= *highest, "{node}: {generation} after {highest}");
                *highest = *generation;
                let document = serde_json::from_slice(document).unwrap();
                self.now.insert(node.clone(), (*generation, document));
            }
        }
        self.latest = Some(latest);
    }

    /// How many generations were ever visible.
    pub(crate) fn generations(&self) -> usize {
        self.seen.len()
    }
}

/// The files that a store shows: not those that it is still writing.
fn files(directory: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        // It may have been renamed, or removed, just now.
        let bytes = fs::read(entry.path()).ok()?;
        (!name.contains('#')).then_some((name, bytes))
    })
}
