//! Publishing, and waiting for nodes.

use crate::fake_control::{Answer, FakeControl, Request, User, code, stderr, stdout};
use crate::samples::{change, node, published};
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::{NodeHealth, NodeOutcome, PublishReport};
use serde_json::{Value, json};

#[test]
fn a_publish_ends_with_a_code_for_done_refused_and_pending() {
    use NodeOutcome::{Changed, Refused, WouldEmpty};
    let user = User::new();
    let nothing = PublishReport { snapshot: None, nodes: vec![], unchanged: 3 };
    for (report, codes) in [
        (nothing, [0, 0]),
        (published(vec![change("a", Changed)]), [0, 4]),
        (published(vec![change("a", Changed), change("b", WouldEmpty)]), [3, 3]),
        (published(vec![change("a", Refused)]), [3, 3]),
    ] {
        let control = FakeControl::new(move |_| Answer::ok(&report));
        let output = user.run(&control, &["publish"]);
        assert_eq!(code(&output), codes[0], "{output:?}");
        let output = user.run(&control, &["publish", "--dry-run", "--allow-empty"]);
        assert_eq!(code(&output), codes[1], "{output:?}");
        let bodies: Vec<_> = control.requests().iter().map(Request::json).collect();
        assert_eq!(bodies[0], json!({"dry_run": false, "allow_empty": false}));
        assert_eq!(bodies[1], json!({"dry_run": true, "allow_empty": true}));
    }
}

/// A fleet in which a change is published and `edge-1` takes it at its third look. `ends`: how
/// `edge-2` ends.
fn fleet(ends: NodeHealth) -> FakeControl {
    let mut looks = 0;
    FakeControl::new(move |request| {
        if request.is("POST /v1/publish") {
            let nodes = [("edge-1", NodeOutcome::Changed), ("edge-2", NodeOutcome::Added)];
            let nodes = nodes.map(|(name, outcome)| change(name, outcome));
            return Answer::ok(&published(nodes.to_vec()));
        }
        if request.is("GET /v1/nodes/edge-1") {
            looks += 1;
            return match looks {
                1 => Answer::problem(503, ProblemKind::Unavailable, &[]),
                2 => Answer::ok(&node("edge-1", NodeHealth::Behind, 41)),
                3 => Answer::ok(&node("edge-1", NodeHealth::Well, 42)),
                _ => panic!("a node that is done is not asked after"),
            };
        }
        if request.is("GET /v1/nodes/edge-2/status") {
            return Answer::ok(&json!({"courier": {"version": "1", "poll_interval_ms": 1,
                                                  "handed_over": 42}}));
        }
        assert!(request.is("GET /v1/nodes/edge-2"), "{request:?}");
        let done = ends == NodeHealth::Well;
        let mut it = node("edge-2", ends, if done { 42 } else { 41 });
        it.seen_unix_ms = Some(looks);
        Answer::ok(&it)
    })
}

#[test]
fn a_wait_ends_when_the_last_node_has_it() {
    let (control, user) = (fleet(NodeHealth::Well), User::new());
    let output = user.run(&control, &["publish", "--wait"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("in force on 2 nodes after "), "{output:?}");
    assert!(stdout(&output).starts_with("snapshot 7 is published: 2 nodes changed"), "{output:?}");
    assert_eq!(stderr(&output), "", "no progress where nobody watches");
}

#[test]
fn a_wait_ends_when_a_node_fails() {
    let (control, user) = (fleet(NodeHealth::Failing), User::new());
    let output = user.run(&control, &["--json", "publish", "--wait", "5m"]);
    assert_eq!(code(&output), 3, "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["snapshot"]["number"], 7);
    assert_eq!(told["waited"]["in_force"], json!(["edge-1"]));
    assert_eq!(told["waited"]["failing"], json!([{"node": "edge-2", "why": "eth0 is gone"}]));
}

#[test]
fn a_wait_ends_when_its_time_is_over() {
    let (control, user) = (fleet(NodeHealth::Silent), User::new());
    let output = user.run(&control, &["publish", "--wait", "3s"]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert!(stdout(&output).contains("not in force yet: edge-2: eth0 is gone\n"), "{output:?}");
}

#[test]
fn many_nodes_are_asked_after_together() {
    let user = User::new();
    let names: Vec<_> = (0..40).map(|n| format!("edge-{n}")).collect();
    let control = FakeControl::new(move |request| {
        if request.is("POST /v1/publish") {
            let nodes = names.iter().map(|name| change(name, NodeOutcome::Changed)).collect();
            return Answer::ok(&published(nodes));
        }
        assert!(request.is("GET /v1/nodes"), "{request:?}");
        let all: Vec<_> = names.iter().map(|name| node(name, NodeHealth::Well, 42)).collect();
        Answer::ok(&crate::samples::page(all))
    });
    let output = user.run(&control, &["publish", "--wait"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("in force on 40 nodes"), "{output:?}");
    assert_eq!(control.lines(), ["POST /v1/publish", "GET /v1/nodes?limit=1000"]);
}

#[test]
fn a_glance_counts_and_names_who_is_not_well() {
    let user = User::new();
    let control = FakeControl::new(|request| {
        if request.is("GET /v1/snapshots") {
            assert!(request.line.ends_with("?limit=1"), "{request:?}");
            return Answer::ok(&json!({"items": [published(vec![]).snapshot]}));
        }
        if request.is("GET /v1/whoami") {
            return Answer::ok(&json!({"name": "ann", "role": "viewer", "fleet": "lab",
                "key_id": "7", "public_key": "RWQ"}));
        }
        let nodes =
            vec![node("edge-1", NodeHealth::Well, 42), node("edge-2", NodeHealth::Silent, 41)];
        Answer::ok(&crate::samples::page(nodes))
    });
    let output = user.run(&control, &["status"]);
    assert!(stdout(&output).starts_with("2 nodes: 1 silent, 1 well\nsnapshot 7: "), "{output:?}");
    assert!(stdout(&output).contains("\nfleet lab, signed with the key 7: RWQ\n"), "{output:?}");
    let output = user.run(&control, &["--json", "status"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["health"]["silent"], 1);
    assert_eq!(told["not_well"][0]["name"], "edge-2");
    assert_eq!((&told["key_id"], &told["public_key"]), (&json!("7"), &json!("RWQ")));
}
