//! Snapshots that nobody published: what is laid down by hand, and what is put into the store.

use super::{MARKER, assert_edition, first_port, open, settle, taken};
use pointsman_model::document::MAX_GENERATION;
use pointsman_model::fleet::{LATEST_SCHEMA, Latest, RECORD_SCHEMA, RecordPayload};
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_netns::fleet::{Fleet, Node};
use pointsman_snapshot::cdb::Writer;
use pointsman_snapshot::keys::SigningKey;
use pointsman_snapshot::{latest, sign};
use serde_json::json;
use std::fs;

/// A record for a node of a fleet, signed with a key: it would let port 9 through.
fn record(key: &SigningKey, fleet: &str, node: &str, generation: u64) -> Vec<u8> {
    let document = json!({"schema": "pointsman.node/v1", "node": node, "generation": generation,
        "programs": {"forged": {"builtin": "udp-port-filter", "maps": {"ports": {"entries": [
            {"key": 9, "value": 1}, {"key": MARKER, "value": 1}]}}}},
        "interfaces": {"v1": {"xdp": {"chain": [{"program": "forged"}]}}}});
    let payload = RecordPayload {
        schema: RECORD_SCHEMA.to_owned(),
        fleet: FleetName::new(fleet).unwrap(),
        node: NodeName::new(node).unwrap(),
        generation,
        issued_unix_ms: 1,
        objects: vec![],
        document,
    };
    sign(key, &payload).unwrap()
}

fn database(node: &str, record: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.add(node.as_bytes(), record).unwrap();
    writer.finish()
}

/// Lays a snapshot down as a courier, or somebody with a USB stick, does.
fn lay_down(node: &Node, bytes: &[u8]) {
    let aside = node.host.path("drop/snapshot.cdb.new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, node.host.path("drop/snapshot.cdb")).unwrap();
}

#[test]
fn what_is_not_whole_signed_meant_for_the_host_and_newer_is_refused_and_shown() {
    let mut fleet = Fleet::new(1).unwrap();
    settle(&fleet, 1);
    settle(&fleet, 2);
    let key = SigningKey::load(&fleet.path("control/fleet.key")).unwrap();
    let other_key = SigningKey::generate().unwrap();
    let node = &mut fleet.nodes[0];
    node.courier.take().unwrap().stop().unwrap();
    let name = node.name.clone();
    let good = record(&key, "lab", &name, 7);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let unsigned = good.split(|&byte| byte == b'\n').nth(4).unwrap().to_vec();
    let cut = database(&name, &good);
    let cut = cut[..cut.len() - 9].to_vec();
    let mut lying = database(&name, &good);
    lying[..2048].chunks_mut(8).for_each(|slot| slot[..4].copy_from_slice(&[0xff; 4]));
    for (what, bytes, kinds) in [
        (
            "another key",
            database(&name, &record(&other_key, "lab", &name, 7)),
            ["bad_signature"; 2],
        ),
        ("another fleet", database(&name, &record(&key, "other", &name, 7)), ["other_fleet"; 2]),
        ("another node", database(&name, &record(&key, "lab", "edge-9", 7)), ["other_node"; 2]),
        ("no record", database("edge-9", &good), ["no_record"; 2]),
        ("older", database(&name, &record(&key, "lab", &name, 1)), ["older"; 2]),
        ("flipped", database(&name, &flipped), ["bad_signature"; 2]),
        ("unsigned", database(&name, &unsigned), ["unsigned"; 2]),
        ("cut off", cut, ["unreadable", "no_record"]),
        ("lying offsets", lying, ["unreadable", "no_record"]),
        ("no database", b"not a database".to_vec(), ["unreadable"; 2]),
    ] {
        lay_down(node, &bytes);
        let status = node.daemon().until(|status| {
            let kind = status["fleet"]["refused"]["kind"].as_str();
            kind.is_some_and(|kind| kinds.contains(&kind))
        });
        assert_eq!(status["generation"], 2, "{what}: {status:#}");
        assert_eq!(open(node, &[9, first_port(0) + 2]), [first_port(0) + 2], "{what}");
        // The next one's refusal must not be this one's.
        lay_down(node, &database(&name, &record(&key, "lab", &name, 1)));
        node.daemon().until(|status| status["fleet"]["refused"]["kind"] == "older");
    }
    // What is all of it is taken, whoever brings it.
    lay_down(node, &database(&name, &good));
    node.daemon().until(|status| status["generation"] == 7);
    assert_eq!(taken(node), (Some(7), None));
    assert_eq!(open(node, &[9, first_port(0) + 2]), [9]);
}

#[test]
fn whoever_owns_the_store_can_hold_changes_back_and_no_more() {
    let fleet = Fleet::new(2).unwrap();
    settle(&fleet, 1);
    let before: Vec<_> = fleet.nodes.iter().map(taken).collect();
    let key = SigningKey::generate().unwrap();
    let mut writer = Writer::new();
    for node in &fleet.nodes {
        let name = node.name.as_str();
        writer.add(name.as_bytes(), &record(&key, "lab", name, MAX_GENERATION)).unwrap();
    }
    let shard = writer.finish();
    let hash = Sha256::of(&shard);
    let store = fleet.store();
    let published = fs::read(store.join(latest::NAME)).unwrap();
    let number = latest::parse(&published).unwrap().snapshot;
    fs::write(store.join(latest::shard_name(&hash)), &shard).unwrap();
    let forged = Latest {
        schema: LATEST_SCHEMA.to_owned(),
        fleet: FleetName::new("lab").unwrap(),
        snapshot: number + 1,
        shards: vec![hash],
    };
    fs::write(store.join(latest::NAME), latest::write(&forged).unwrap()).unwrap();
    for node in &fleet.nodes {
        let path = format!("/v1/nodes/{}/status", node.name);
        fleet.until("told of", |_| {
            let trouble = fleet.get(&path)["courier"]["source_trouble"].to_string();
            trouble.contains("is signed with the key")
        });
    }
    assert_edition(&fleet, 1);
    assert_eq!(fleet.nodes.iter().map(taken).collect::<Vec<_>>(), before);
    // The next publish is newer than what was forged, and is taken.
    settle(&fleet, 2);
    assert_edition(&fleet, 2);
}
