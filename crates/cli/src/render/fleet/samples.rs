//! Hand-made values for the tests of this module's siblings.

use pointsman_model::fleet::{
    Cause, Labels, Node, NodeChange, NodeHealth, NodeOutcome, Policy, Snapshot,
};
use pointsman_model::{LabelKey, LabelValue, NodeName, PolicyName, Sha256};
use serde_json::json;

/// 2025-01-01 00:01:00 UTC.
pub(crate) const NOW: u64 = 1_735_689_660_000;

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pair = |&(key, value): &(&str, &str)| {
        (LabelKey::new(key).unwrap(), LabelValue::new(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(crate) fn node(text: &str, health: NodeHealth) -> Node {
    Node {
        name: name(text),
        revision: 1,
        labels: labels(&[("site", "fra"), ("role", "edge")]),
        enrolled_unix_ms: Some(NOW - 86_400_000),
        seen_unix_ms: Some(NOW - 12_000),
        published: Some(42),
        in_force: Some(if health == NodeHealth::Well { 42 } else { 41 }),
        health,
        trouble: String::new(),
    }
}

pub(crate) fn change(node: &str, outcome: NodeOutcome, diff: &str) -> NodeChange {
    NodeChange {
        node: name(node),
        outcome,
        generation: Some(42),
        diff: diff.to_owned(),
        errors: vec![],
    }
}

pub(crate) fn snapshot(number: u64) -> Snapshot {
    Snapshot {
        number,
        at_unix_ms: NOW - 60_000,
        by: "deploy".into(),
        cause: Cause::Request,
        nodes: 1_204,
        changed: 3,
        shards: vec![Sha256::of(b"a"), Sha256::of(b"b")],
        bytes_written: 7_340_032,
    }
}

pub(crate) fn policy(name: &str) -> Policy {
    let spec = json!({
        "description": "keeps the edge clean",
        "selector": {"labels": {"role": "edge"}, "nodes": ["edge-1", "edge-2"]},
        "interface": "eth0",
        "engine": "dispatcher",
        "chain": [
            {"program": "builtin:counting-pass", "priority": 90, "enforce": false},
            {"program": "ddos", "name": "guard", "entry": "ddos_main", "priority": 10,
             "chain_call_actions": ["pass", "tx"], "slot": "own", "globals": {"rate": 5000},
             "maps": {"blocklist": {"entries": [{"key": "192.0.2.0/24", "value": 1}],
                                    "on_upgrade": "keep"}}},
        ],
    });
    Policy {
        name: PolicyName::new(name).unwrap(),
        revision: 7,
        updated_unix_ms: NOW - 3_600_000,
        updated_by: "alice".into(),
        spec: serde_json::from_value(spec).unwrap(),
    }
}
