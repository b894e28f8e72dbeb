//! From a call of the API to packets, as the demo shows it.

use super::{MARKER, assert_edition, open, settle};
use pointsman_netns::fleet::{Fleet, filter};
use pointsman_netns::object_path;
use serde_json::{Value, json};

#[test]
fn one_policy_changed_by_one_call_changes_packets_on_every_host() {
    let fleet = Fleet::new(3).unwrap();
    let object = object_path("verdict");
    let answer = fleet.cli(&["program", "upload", "verdict", object.to_str().unwrap()], b"");
    assert_eq!(answer.code, 0, "{answer:#?}");
    let mut policy = filter(&json!({"labels": {"role": "edge"}}), &[MARKER, 20_009]);
    let uploaded = json!({"program": "verdict", "entry": "v_pass", "priority": 10});
    policy["chain"].as_array_mut().unwrap().push(uploaded);
    let put = |policy: &Value| {
        let answer = fleet.cli(&["policy", "put", "guard", "-"], policy.to_string().as_bytes());
        assert_eq!(answer.code, 0, "{answer:#?}");
    };
    let publish = || {
        let answer = fleet.cli(&["publish", "--wait", "60s"], b"");
        assert_eq!(answer.code, 0, "{answer:#?}");
        assert_eq!(answer.value["waited"]["in_force"].as_array().unwrap().len(), 3, "{answer:#?}");
        answer.value
    };
    put(&policy);
    let dry = fleet.cli(&["publish", "--dry-run"], b"");
    assert_eq!(dry.code, 4, "{dry:#?}");
    publish();
    for node in &fleet.nodes {
        assert_eq!(open(node, &[20_009, 20_010]), [20_009], "{}", node.name);
    }

    policy["chain"][0]["maps"]["ports"]["entries"] = json!([{"key": MARKER, "value": 1}]);
    put(&policy);
    let report = publish();
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3);
    for node in &fleet.nodes {
        assert!(open(node, &[20_009]).is_empty(), "{}", node.name);
        let shown = fleet.cli(&["node", "show", &node.name], b"").value;
        assert_eq!(shown["health"], "well", "{shown:#}");
        assert_eq!(shown["report"]["status"]["hooks"][0]["state"], "running", "{shown:#}");
    }
    // Nothing more is published, and a signed record is what the public key says.
    let again = fleet.cli(&["publish"], b"");
    assert_eq!((again.code, &again.value["snapshot"]), (0, &Value::Null), "{again:#?}");
    let member = std::fs::read(fleet.nodes[0].host.path("fleet.json")).unwrap();
    let member: Value = serde_json::from_slice(&member).unwrap();
    let key = member["public_key"].as_str().unwrap();
    for node in &fleet.nodes {
        let record = fleet.cli(&["node", "record", &node.name, "--verify", key], b"");
        assert_eq!(record.code, 0, "{record:#?}");
        assert_eq!(record.value["generation"], 2);
    }
    let audit = fleet.cli(&["audit", "--object", "policy guard"], b"").value;
    assert_eq!(audit["items"].as_array().unwrap().len(), 2, "{audit:#}");
}

#[test]
fn emptying_a_host_takes_a_decision() {
    let fleet = Fleet::new(1).unwrap();
    settle(&fleet, 1);
    let name = "of-edge-1";
    let removed = fleet.cli(&["policy", "rm", name, "--yes"], b"");
    assert_eq!(removed.code, 0, "{removed:#?}");
    let refused = fleet.cli(&["publish"], b"");
    assert_eq!(refused.code, 3, "{refused:#?}");
    assert_eq!(refused.value["nodes"][0]["outcome"], "would_empty");
    assert_edition(&fleet, 1);
    let allowed = fleet.cli(&["publish", "--allow-empty", "--wait", "60s"], b"");
    assert_eq!(allowed.code, 0, "{allowed:#?}");
    assert_eq!(open(&fleet.nodes[0], &[20_009]), [20_009]);
}

#[test]
fn a_host_goes_on_while_everything_else_is_down() {
    let mut fleet = Fleet::new(2).unwrap();
    settle(&fleet, 1);
    fleet.control.take().unwrap().stop().unwrap();
    for at in 0..fleet.nodes.len() {
        let node = &mut fleet.nodes[at];
        drop(node.courier.take());
        drop(node.daemon.take());
    }
    assert_edition(&fleet, 1);
    for node in &mut fleet.nodes {
        node.start_daemon().unwrap();
        node.start_courier().unwrap();
    }
    assert_edition(&fleet, 1);
    fleet.start_control().unwrap();
    settle(&fleet, 2);
    assert_edition(&fleet, 2);
}
