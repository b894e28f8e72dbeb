//! Chains of documents as libxdp lists them, and programs of theirs before, between and after ours.

use super::{DROP, PASS, Scene, document, dropping, program};
use serde_json::{Value, json};
use std::path::Path;

/// Where Debian has the program that feeds libxdp's AF_XDP sockets.
const REDIRECT: &str = "/usr/lib/x86_64-linux-gnu/bpf/xsk_def_xdp_prog.o";

#[test]
fn a_port_filter_and_a_redirect_show_as_libxdp_users_know_them() {
    let ports = json!({"builtin": "udp-port-filter",
        "globals": {"listed": "XDP_DROP", "unlisted": "XDP_PASS"},
        "maps": {"ports": {"entries": [{"key": 20_000, "value": 1}]}}});
    let redirect = json!({"object": {"path": REDIRECT}, "entry": "xsk_def_prog"});
    assert!(Path::new(REDIRECT).exists(), "apt-get install libxdp1");
    let programs = json!({"ports": ports, "redirect": redirect, "last": program("v_drop")});
    let chain = json!([
        {"program": "redirect", "priority": 20, "slot": "own"},
        {"program": "ports", "priority": 19, "chain_call_actions": ["drop"], "slot": "own"}
    ]);
    let first = document(1, &programs, &json!({"chain": chain}));
    let Some(scene) = Scene::running("lists::mtl", &first) else { return };
    let status = scene.their_status();
    let shown: Vec<_> = status.lines().filter(|line| line.starts_with(" =>")).collect();
    // As the packaged tool prints them, but for ids and tags.
    let wanted = [
        (" =>              19     mtl_dp_filter  ", "  XDP_DROP"),
        (" =>              20     xsk_def_prog  ", "  XDP_PASS"),
    ];
    assert_eq!(shown.len(), wanted.len(), "{status}");
    for (line, (start, end)) in shown.iter().zip(wanted) {
        assert!(line.starts_with(start) && line.ends_with(end), "{line:?} of {status}");
    }
    assert_eq!(scene.order().len(), 2);
    // What the listing means: a datagram to a port that is not listed is for the stack; one that is
    // goes on, and meets no socket.
    assert_eq!((scene.verdict(5000), scene.verdict(20_000)), (PASS, PASS));
    // Behind the filter stands another one now, which only listed datagrams reach.
    let chain = json!([
        {"program": "last", "priority": 20, "slot": "own"},
        {"program": "ports", "priority": 19, "chain_call_actions": ["drop"], "slot": "own"}
    ]);
    scene.daemon.apply_whole(&document(2, &programs, &json!({"chain": chain})));
    assert_eq!((scene.verdict(5000), scene.verdict(20_000)), (PASS, DROP));
    assert_eq!(scene.order()[1], (20, "v_drop".into()));
}

/// Four programs that share a slot as long as nobody stands between them.
fn four(generation: u64) -> Value {
    let programs = json!({"one": dropping(1001), "two": dropping(1002), "three": dropping(1003),
        "four": dropping(1004)});
    let entry = |name: &str, priority: u32| json!({"program": name, "priority": priority});
    let chain = [entry("one", 10), entry("two", 20), entry("three", 30), entry("four", 40)];
    document(generation, &programs, &json!({"chain": chain}))
}

#[test]
fn theirs_come_before_between_and_after_ours_and_counters_go_on() {
    let Some(scene) = Scene::running("lists::between", &four(1)) else { return };
    assert_eq!(scene.order(), [(10, "v_port".into())], "neighbours share a slot");
    for port in 1001..=1005 {
        assert_eq!(scene.verdict(port), if port == 1005 { PASS } else { DROP });
    }
    assert_eq!((scene.runs("one"), scene.runs("four")), (5, 2));
    // Before and after: nothing of ours moves.
    let ours = scene.ids("v_port");
    scene.load(5, "v_opaque", "XDP_PASS");
    scene.load(99, "v_pass", "XDP_PASS");
    let around = [(5, "v_opaque".into()), (10, "v_port".into()), (99, "v_pass".into())];
    assert_eq!(scene.order(), around);
    assert_eq!(scene.ids("v_port"), ours);
    // Between: what shared a slot is divided where the newcomer belongs.
    scene.load(25, "v_drop", "XDP_PASS");
    scene.repaired("rearranged", 1);
    let divided = [
        (5, "v_opaque".into()),
        (10, "v_port".into()),
        (25, "v_drop".into()),
        (30, "v_port".into()),
        (99, "v_pass".into()),
    ];
    assert_eq!(scene.order(), divided);
    assert_eq!((scene.verdict(1001), scene.verdict(1004)), (DROP, DROP));
    assert_eq!((scene.runs("one"), scene.runs("two")), (7, 5), "counted on");
    assert_eq!(scene.runs("four"), 2, "theirs drops what goes on to it");
    // Of the same priority as ours the name decides: v_opaque is before v_port.
    let theirs = scene.ids("v_drop")[0];
    scene.unload(theirs);
    scene.repaired("rearranged", 2);
    assert_eq!(scene.order(), around, "neighbours again");
    scene.load(30, "v_opaque", "XDP_PASS");
    scene.repaired("rearranged", 3);
    let order = scene.order();
    assert_eq!(order[2..4], [(30, "v_opaque".into()), (30, "v_port".into())], "{order:?}");
    assert_eq!(scene.verdict(1003), DROP);
    assert_eq!((scene.runs("one"), scene.runs("three")), (8, 4));
    assert_eq!(scene.daemon.apply_whole(&four(1))["outcome"], "unchanged");
}
