//! Values as a control plane gives them.

use pointsman_model::fleet::{
    Cause, Node, NodeChange, NodeHealth, NodeOutcome, Page, Policy, PolicyDiff, PublishReport,
    Snapshot,
};
use pointsman_model::{NodeName, PolicyName};
use serde_json::{Value, json};

pub(crate) fn page<T>(items: Vec<T>) -> Page<T> {
    Page { items, next: None }
}

pub(crate) fn node(name: &str, health: NodeHealth, in_force: u64) -> Node {
    Node {
        name: NodeName::new(name).unwrap(),
        revision: 3,
        labels: serde_json::from_value(json!({"site": "fra", "role": "edge"})).unwrap(),
        enrolled_unix_ms: Some(1),
        seen_unix_ms: Some(1_000),
        published: Some(42),
        in_force: Some(in_force),
        health,
        trouble: if health == NodeHealth::Well { String::new() } else { "eth0 is gone".into() },
    }
}

pub(crate) fn spec() -> Value {
    json!({"selector": {"all": true}, "interface": "eth0",
           "chain": [{"program": "builtin:counting-pass", "priority": 10}]})
}

pub(crate) fn policy(revision: u64, spec: &Value) -> Policy {
    Policy {
        name: PolicyName::new("guard").unwrap(),
        revision,
        updated_unix_ms: 0,
        updated_by: "alice".into(),
        spec: serde_json::from_value(spec.clone()).unwrap(),
    }
}

pub(crate) fn change(node: &str, outcome: NodeOutcome) -> NodeChange {
    NodeChange {
        node: NodeName::new(node).unwrap(),
        outcome,
        generation: Some(42),
        diff: "@@ -1 +1 @@\n-a\n+b\n".into(),
        errors: vec![],
    }
}

pub(crate) fn diff(nodes: Vec<NodeChange>) -> PolicyDiff {
    PolicyDiff { policy: "@@ -1 +1 @@\n-old\n+new\n".into(), nodes }
}

pub(crate) fn published(nodes: Vec<NodeChange>) -> PublishReport {
    let snapshot = Snapshot {
        number: 7,
        at_unix_ms: 0,
        by: "alice".into(),
        cause: Cause::Request,
        nodes: 3,
        changed: 1,
        shards: vec![],
        bytes_written: 10,
    };
    PublishReport { snapshot: Some(snapshot), nodes, unchanged: 1 }
}
