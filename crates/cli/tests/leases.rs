//! The verbs about instances and lcores as an operator and a script see them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod fake_node;

use fake_node::{FakeNode, Served};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

const INSTANCE: &str = r#"{"id":3,"protocol":"imtl","dialect":"1.0",
    "peer":{"pid":4711,"uid":1000,"gid":44,"command":"x\u001b[2Jy","network_namespace":7},
    "claimed":{"hostname":"edge","pid":1,"uid":0,"interfaces":[],"pid_differs":true},
    "liveness":"stuck","since_unix_ms":0,"idle_ms":5000,"requests":9,"refused":1,
    "cpuset":"4-7","mapping":"remapped","lcores":[{"id":1,"cpu":5}]}"#;
const LCORES: &str = r#"{"topology":{"cpus":[
    {"id":0,"online":true,"isolated":false,"node":0,"socket":0,"siblings":"0-1"},
    {"id":1,"online":true,"isolated":false,"node":0,"socket":0,"siblings":"0-1"}]},
    "reserved":"0","limit":1024,"lcore_ids":"auto","held":[]}"#;

fn node() -> FakeNode {
    FakeNode::new(|request| match request.lines().next().unwrap_or_default() {
        "GET /v1/instances HTTP/1.1" => Served::ok(&format!(r#"{{"instances":[{INSTANCE}]}}"#)),
        "GET /v1/instances/3 HTTP/1.1" => Served::ok(INSTANCE),
        "POST /v1/instances/3/clear HTTP/1.1" => {
            Served::ok(r#"{"instance":3,"lcores":[{"id":1,"cpu":5}]}"#)
        }
        "GET /v1/lcores HTTP/1.1" => Served::ok(LCORES),
        _ => Served::problem(
            "403 Forbidden",
            r#"{"kind":"forbidden","status":403,"title":"only an administrator may do that"}"#,
        ),
    })
}

fn run(node: &FakeNode, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(arguments)
        .env("POINTSMAN_NODE", node.socket())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn each_verb_asks_for_what_it_shows() {
    let node = node();
    for (arguments, words) in [
        (&["instances"][..], &["4711", "stuck", "edge", "imtl 1.0"][..]),
        (&["instance", "3"], &["not what the kernel says", "re-mapped", "lcore 1 is CPU 5"]),
        (&["clear", "3"], &["took 1 lcore from instance 3"]),
        (&["lcores"], &["1 socket, 1 NUMA node, 1 core, 2 CPUs", "reserved + free"]),
    ] {
        let output = run(&node, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{arguments:?}: no {word:?} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "{arguments:?}: {text:?}");
    }
}

#[test]
fn json_is_what_the_node_said() {
    let node = node();
    for (arguments, answer) in [(&["instance", "3"][..], INSTANCE), (&["lcores"], LCORES)] {
        let output = run(&node, &[&["--json"], arguments].concat());
        let [told, said] = [&output.stdout[..], answer.as_bytes()]
            .map(|text| serde_json::from_slice::<Value>(text).unwrap());
        assert_eq!(told, said, "{arguments:?}");
    }
}

#[test]
fn what_is_refused_is_an_error_with_its_reason() {
    let node = node();
    let output = run(&node, &["clear", "4"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"pointsman: only an administrator may do that\n");
    for wrong in [&["clear"][..], &["clear", "all"], &["instance", "-1"], &["lcores", "3"]] {
        assert_eq!(run(&node, wrong).status.code(), Some(2), "{wrong:?}");
    }
}
