//! What several policies make together, and what they are told where they do not go together.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values to be given away")]

use pointsman_fleet::{Composed, Library, compose};
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{Labels, PolicySpec, RecordObject};
use pointsman_model::{NodeName, PolicyName, ProgramName, Sha256};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn library() -> Library {
    let object = |name: &str| {
        let object = RecordObject { sha256: Sha256::of(name.as_bytes()), bytes: 4096 };
        (ProgramName::new(name).unwrap(), object)
    };
    // The same object under two names.
    let copy = (ProgramName::new("ddos-copy").unwrap(), object("ddos").1);
    [object("ddos"), object("sampler"), copy].into_iter().collect()
}

fn composed(policies: Value) -> Result<Composed, Vec<DocumentError>> {
    let policies: BTreeMap<PolicyName, PolicySpec> = serde_json::from_value(policies).unwrap();
    compose(&NodeName::new("edge-17").unwrap(), &Labels::new(), policies, &library())
}

fn document(policies: Value) -> Value {
    composed(policies).unwrap().document(&NodeName::new("edge-17").unwrap(), 42, false)
}

#[track_caller]
fn errors(policies: Value) -> String {
    let errors = composed(policies).unwrap_err();
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn policy(interface: &str, chain: Value) -> Value {
    json!({"selector": {"all": true}, "interface": interface, "chain": chain})
}

#[test]
fn entries_of_all_policies_become_one_chain_for_each_interface() {
    let mut first = policy(
        "eth0",
        json!([
            {"program": "ddos", "priority": 30, "entry": "ddos_main", "enforce": false,
             "globals": {"rate_limit": 5000},
             "maps": {"blocklist": {"entries": [{"key": "192.0.2.0/24", "value": 1}], "on_upgrade": "keep"}}},
            {"program": "builtin:udp-port-filter", "name": "ports", "priority": 10, "slot": "own"},
        ]),
    );
    first["mode"] = json!("native");
    let mut second = policy(
        "eth0",
        json!([
            {"program": "sampler", "priority": 20, "chain_call_actions": ["pass", "drop"]},
            {"program": "builtin:counting-pass", "priority": 10},
        ]),
    );
    second["drift"] = json!("leave");
    let mut absent = policy("eth0", json!([{"program": "nowhere"}]));
    absent["enabled"] = json!(false);
    let mut elsewhere = policy("eth0", json!([{"program": "nowhere"}]));
    elsewhere["selector"] = json!({"nodes": ["edge-18"]});
    let policies = json!({
        "a": first, "b": second, "keep-empty": policy("blue/eth1", json!([])),
        "disabled": absent, "elsewhere": elsewhere,
    });
    assert_eq!(
        composed(policies.clone()).unwrap().objects.iter().map(|o| o.sha256).collect::<Vec<_>>(),
        {
            let mut both = [Sha256::of(b"ddos"), Sha256::of(b"sampler")];
            both.sort_unstable();
            both
        }
    );
    insta::assert_snapshot!(format!("{:#}", document(policies)));
}

#[test]
fn no_policy_is_a_document_without_anything() {
    insta::assert_snapshot!(document(json!({})), @r#"{"generation":42,"interfaces":{},"node":"edge-17","programs":{},"schema":"pointsman.node/v1"}"#);
    assert!(composed(json!({})).unwrap().is_empty);
    assert!(composed(json!({"a": policy("eth0", json!([]))})).unwrap().is_empty);
}

#[test]
fn a_program_on_two_interfaces_is_one_program() {
    let entry = json!([{"program": "ddos", "globals": {"rate": 1}}]);
    let copy = json!([{"program": "ddos-copy", "name": "ddos", "globals": {"rate": 1}}]);
    let document = document(json!({"a": policy("eth0", entry), "b": policy("eth1", copy)}));
    assert_eq!(document["programs"].as_object().unwrap().len(), 1);
    assert_eq!(document["interfaces"].as_object().unwrap().len(), 2);
}

#[test]
fn one_name_for_two_programs_is_a_conflict_that_names_both_and_the_field() {
    let mut told = Vec::new();
    for other in [
        json!({"program": "sampler", "name": "ddos"}),
        json!({"program": "ddos", "entry": "other"}),
        json!({"program": "ddos", "globals": {"a/b~": 1}}),
        json!({"program": "ddos", "maps": {"m": {"on_upgrade": "fresh"}}}),
    ] {
        told.push(errors(json!({
            "a": policy("eth0", json!([{"program": "builtin:counting-pass"}, {"program": "ddos"}])),
            "b": policy("eth1", json!([other])),
        })));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    /policies/b/chain/0/program: policy "b" calls a program "ddos" that is not the one of policy "a": compare /chain/0/program with /chain/1/program there; programs that differ need different names
    /policies/b/chain/0/entry: policy "b" calls a program "ddos" that is not the one of policy "a": compare /chain/0/entry with /chain/1/entry there; programs that differ need different names
    /policies/b/chain/0/globals/a~1b~0: policy "b" calls a program "ddos" that is not the one of policy "a": compare /chain/0/globals/a~1b~0 with /chain/1/globals/a~1b~0 there; programs that differ need different names
    /policies/b/chain/0/maps/m: policy "b" calls a program "ddos" that is not the one of policy "a": compare /chain/0/maps/m with /chain/1/maps/m there; programs that differ need different names
    "#);
}

#[test]
fn engine_mode_and_drift_are_agreed_upon() {
    let with = |field: &str, value: &str| {
        let mut policy = policy("eth0", json!([]));
        policy[field] = json!(value);
        policy
    };
    insta::assert_snapshot!(document(json!({
        "a": with("engine", "fused"), "b": with("engine", "fused"), "c": with("mode", "skb"),
        "d": with("drift", "repair"),
    }))["interfaces"], @r#"{"eth0":{"xdp":{"chain":[],"drift":"repair","engine":"fused","mode":"skb"}}}"#);
    insta::assert_snapshot!(errors(json!({
        "a": with("engine", "auto"), "b": with("engine", "fused"), "c": with("mode", "skb"),
        "d": with("mode", "native"), "e": with("drift", "repair"), "f": with("drift", "leave"),
    })), @r#"
    /policies/b/engine: policy "b" wants engine "fused" on eth0, and policy "a" wants "auto": leave it out in one of them
    /policies/d/mode: policy "d" wants mode "native" on eth0, and policy "c" wants "skb": leave it out in one of them
    /policies/f/drift: policy "f" wants drift "leave" on eth0, and policy "e" wants "repair": leave it out in one of them
    "#);
}

#[test]
fn a_program_is_in_a_chain_once() {
    insta::assert_snapshot!(errors(json!({
        "a": policy("eth0", json!([{"program": "ddos"}, {"program": "sampler"}, {"program": "ddos"}])),
        "b": policy("eth0", json!([{"program": "sampler", "priority": 1}])),
    })), @r#"
    /policies/a/chain/2: policy "a" puts "ddos" into the chain of eth0, and it is put there at /chain/0 already: to run a program twice, give it a second `name`
    /policies/b/chain/0: policy "b" puts "sampler" into the chain of eth0, and it is put there by policy "a" at /chain/1 already: to run a program twice, give it a second `name`
    "#);
}

#[test]
fn what_the_library_does_not_have_is_named() {
    insta::assert_snapshot!(errors(json!({
        "edge-guard": policy("eth0", json!([{"program": "ddos"}, {"program": "ddoss"}])),
    })), @r#"/policies/edge-guard/chain/1/program: policy "edge-guard" names the program "ddoss", and the library has none of that name: upload it, or name another one"#);
}

#[test]
fn a_slot_of_its_own_needs_a_dispatcher() {
    let mut fused = policy("eth0", json!([]));
    fused["engine"] = json!("fused");
    insta::assert_snapshot!(errors(json!({
        "a": fused, "b": policy("eth0", json!([{"program": "ddos", "slot": "own"}])),
    })), @r#"/policies/b/chain/0/slot: policy "b" wants a slot of its own on eth0, which needs a dispatcher, and policy "a" wants the engine fused: leave one of the two out"#);
}

#[test]
fn a_map_of_which_nothing_is_said_is_named() {
    insta::assert_snapshot!(errors(json!({
        "a": policy("eth0", json!([{"program": "ddos", "maps": {"m": {}}}])),
    })), @r#"/policies/a/chain/0/maps/m: policy "a" says nothing about this map: expected `entries`, `on_upgrade`, or both"#);
}

#[test]
fn a_chain_has_an_end() {
    let chain = |from: u32| {
        let entry = |n| json!({"program": "builtin:counting-pass", "name": format!("p{n}")});
        policy("eth0", (from..from + 65).map(entry).collect())
    };
    insta::assert_snapshot!(errors(json!({"a": chain(0), "b": chain(100)})), @r#"/policies/b/chain: the policies for eth0 make a chain of 130 programs; expected at most 128"#);
}

#[test]
fn what_does_not_fit_into_a_record_is_refused() {
    let long = "x".repeat(4 << 20);
    let chain = |name: &str| json!([{"program": "ddos", "name": name, "globals": {"text": long}}]);
    let told =
        errors(json!({"a": policy("eth0", chain("one")), "b": policy("eth1", chain("two"))}));
    assert!(told.starts_with("document: the policies of this node make a document of 8"), "{told}");
    // A value that lies deeper in a record than a reader goes.
    let mut deep = json!(1);
    for _ in 0..130 {
        deep = json!([deep]);
    }
    let spec = policy("eth0", json!([{"program": "ddos", "globals": {"deep": deep}}]));
    assert!(errors(json!({ "a": spec })).contains("recursion limit exceeded"));
}

#[test]
fn many_errors_are_told_in_few() {
    let chain: Value = (0..1000).map(|n| json!({"program": format!("no-{n}")})).collect();
    let errors = composed(json!({"a": policy("eth0", chain)})).unwrap_err();
    assert_eq!((errors.len(), errors[50].message.as_str()), (51, "and 951 more"));
}
