//! What a fleet lays down for a node, and what somebody else lays down there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod hostile;
mod kills;
mod life;
mod objects;
mod refused;

use common::{Node, TestHost, document};
use pointsman_model::event::EventKind;
use pointsman_model::fleet::{RECORD_SCHEMA, RecordObject, RecordPayload, RefusedSnapshot};
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_snapshot::cdb::Writer;
use pointsman_snapshot::keys::SigningKey;
use pointsman_snapshot::sign;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const NONE: [&str; 0] = [];

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());
static OTHER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

/// A host that belongs to the fleet `lab` as `edge-1`, with an empty drop directory.
fn enrolled() -> TestHost {
    let host = TestHost::new();
    fs::create_dir_all(host.path("etc")).unwrap();
    fs::create_dir_all(host.path("drop/objects")).unwrap();
    enrol(&host, "lab", "edge-1", &KEY);
    host
}

fn enrol(host: &TestHost, fleet: &str, node: &str, key: &SigningKey) {
    let public_key = key.public_key().to_base64();
    let text = json!({ "fleet": fleet, "node": node, "public_key": public_key }).to_string();
    fs::write(host.places().config, text).unwrap();
}

fn payload(document: Value, objects: &[&str]) -> RecordPayload {
    let object = |text: &&str| RecordObject {
        sha256: Sha256::of(text.as_bytes()),
        bytes: text.len() as u64,
    };
    RecordPayload {
        schema: RECORD_SCHEMA.to_owned(),
        fleet: FleetName::new("lab").unwrap(),
        node: NodeName::new(document["node"].as_str().unwrap()).unwrap(),
        generation: document["generation"].as_u64().unwrap(),
        issued_unix_ms: 1_735_689_600_000,
        objects: objects.iter().map(object).collect(),
        document,
    }
}

/// The record of a document without objects.
fn record(generation: u64, chains: &[(&str, &str)]) -> Vec<u8> {
    sign(&KEY, &payload(document(generation, chains), &[])).unwrap()
}

/// A snapshot in which `edge-1` has this record.
fn snapshot(record: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.add(b"edge-0", b"another's").unwrap();
    writer.add(b"edge-1", record).unwrap();
    writer.finish()
}

/// Lays a file down as a courier does.
fn lay_down_file(host: &TestHost, bytes: &[u8]) {
    let aside = host.path("drop/aside");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, host.path("drop/snapshot.cdb")).unwrap();
}

/// Lays a snapshot with this record down, and lets the node look at it.
fn lay_down(host: &TestHost, node: &Node, record: &[u8]) {
    lay_down_file(host, &snapshot(record));
    node.laid_down();
}

fn object_path(host: &TestHost, text: &str) -> PathBuf {
    host.path("drop/objects").join(Sha256::of(text.as_bytes()).to_string())
}

fn lay_down_object(host: &TestHost, text: &str) {
    let aside = host.path("drop/objects/aside");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, object_path(host, text)).unwrap();
}

fn refusal(node: &Node) -> Option<RefusedSnapshot> {
    node.status().fleet.unwrap().refused
}

/// The kind of the refusal that is shown; empty: none is.
fn kind(node: &Node) -> String {
    refusal(node).map_or(String::new(), |refused| refused.kind)
}

/// How often an event of this kind was written down.
fn told(node: &Node, kind: EventKind) -> usize {
    node.events().into_iter().filter(|event| *event == kind).count()
}

/// That the host stands as after generation 5, with no document refused and nothing left over.
fn stands_at_5(host: &TestHost, node: &Node) {
    assert_eq!(host.running("a"), ["c", "u"]);
    let status = node.status();
    assert_eq!(status.generation, Some(5));
    assert_eq!(status.refused_document, None);
    let fleet = status.fleet.unwrap();
    assert_eq!((fleet.fleet.as_str(), fleet.node.as_str()), ("lab", "edge-1"));
    assert_eq!(fleet.key_id, KEY.public_key().key_id());
    assert_eq!(fleet.generation, Some(5));
}

/// A node with generation 5 of the fleet in force.
fn at_5() -> (TestHost, Node) {
    let host = enrolled();
    let node = host.start_in_fleet();
    lay_down(&host, &node, &record(5, &[("a", "cu")]));
    stands_at_5(&host, &node);
    assert_eq!(refusal(&node), None);
    (host, node)
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_file())
}
