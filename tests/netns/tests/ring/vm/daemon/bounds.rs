//! What cannot be: a clear refusal, and nothing of anybody's lost.

use super::{DROP, PASS, Scene, document, dropping, program};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::daemon::Answer;
use pointsman_netns::dispatcher::{path, well};
use serde_json::{Value, json};

/// A filter, with more under `xdp`.
fn filter(generation: u64, xdp: &Value) -> Value {
    let mut with = json!({"chain": [{"program": "filter", "priority": 20}]});
    with.as_object_mut().expect("an object").extend(xdp.as_object().expect("an object").clone());
    document(generation, &json!({"filter": dropping(5001)}), &with)
}

#[track_caller]
fn refused(answer: &Answer, reason: &str, parts: &[&str]) {
    assert_eq!(answer.code, 3, "{answer:#?}");
    let refusal = &answer.value["refusals"][0];
    assert_eq!(refusal["reason"], reason, "{refusal:#}");
    let message = refusal["message"].as_str().expect("a message");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn an_eleventh_that_is_visible_is_refused_and_many_more_share_a_slot() {
    let Some(scene) = Scene::long("bounds::eleven") else { return };
    let object = path("verdict");
    let load = ["load", "-P", "10", "-n", "v_opaque", "v1"];
    scene.theirs(&[&load[..], &[object.as_str(); 5]].concat());
    let theirs = scene.ids("v_opaque");
    let wanted = |generation: u64, slot: &str, count: u32| {
        let name = |at: u32| format!("p{at}");
        let programs: serde_json::Map<_, _> =
            (0..count).map(|at| (name(at), program("v_pass"))).collect();
        let chain: Vec<_> = (0..count)
            .map(|at| json!({"program": name(at), "priority": 20 + at, "slot": slot}))
            .collect();
        document(generation, &json!(programs), &json!({"chain": chain}))
    };
    let answer = scene.daemon.apply(&wanted(1, "own", 6));
    let parts = ["11 programs", "5 of them of others", "room for 10", "share a slot"];
    refused(&answer, "does_not_fit", &parts);
    assert_eq!(scene.ids("v_opaque"), theirs);
    scene.daemon.apply_whole(&wanted(2, "own", 5));
    assert_eq!(scene.order().len(), 10);
    // No room for one more of theirs either; twenty of ours take one place.
    let full = scene.stage.xdp_loader(&["load", "v1", "-n", "v_drop", &object]);
    assert_eq!(full.status.code(), Some(249), "{full:?}");
    scene.daemon.apply_whole(&wanted(3, "shared", 20));
    assert_eq!(scene.order().len(), 6);
    assert_eq!((scene.ids("v_opaque"), scene.verdict(5001)), (theirs, PASS));
    scene.load(25, "v_drop", "XDP_PASS");
    scene.repaired("rearranged", 1);
    assert_eq!(scene.order().len(), 8, "ours before and behind it");
    assert_eq!(scene.verdict(5001), DROP);
    assert_eq!((scene.runs("p0"), scene.runs("p19")), (2, 1));
}

#[test]
fn a_mode_that_does_not_fit_is_refused_and_auto_joins() {
    let Some(scene) = Scene::long("bounds::mode") else { return };
    // With pins in another BPF filesystem nothing can join it, and it is nobody's to replace.
    let other = Bpffs::mount().expect("root");
    let elsewhere = |arguments: &[&str]| {
        let mut command = scene.stage.command("xdp-loader".as_ref(), arguments);
        command.env("LIBXDP_BPFFS", other.path());
        well(&scene.stage.pair.right.run(|| command.output().expect("xdp-loader")));
    };
    elsewhere(&["load", "-n", "v_drop", "v1", &path("verdict")]);
    let answer = scene.daemon.apply(&filter(1, &json!({})));
    refused(&answer, "foreign_program", &["xdp_dispatcher", "--bpffs", "stays untouched"]);
    assert_eq!(scene.verdict(5002), DROP, "it runs");
    elsewhere(&["unload", "v1", "--all"]);
    scene.daemon.hook_until("chain", |hook| hook["state"] == "running");
    let mut none = document(2, &json!({}), &json!({"chain": []}));
    none["interfaces"] = json!({});
    none["allow_empty"] = json!(true);
    scene.daemon.apply_whole(&none);
    scene.theirs(&["load", "-m", "skb", "-n", "v_opaque", "v1", &path("verdict")]);
    let theirs = scene.ids("v_opaque");
    let answer = scene.daemon.apply(&filter(3, &json!({"mode": "native"})));
    refused(&answer, "mode_unsupported", &["in skb mode", "joins it as it is"]);
    let answer = scene.daemon.apply(&filter(4, &json!({"engine": "fused"})));
    refused(&answer, "foreign_program", &["xdp_dispatcher", "stays untouched"]);
    assert_eq!(scene.ids("v_opaque"), theirs);
    assert_eq!(scene.verdict(5001), PASS, "nothing of ours runs");
    scene.daemon.apply_whole(&filter(5, &json!({})));
    assert_eq!(scene.daemon.hook()["mode"], "skb");
    assert_eq!((scene.ids("v_opaque"), scene.verdict(5001)), (theirs, DROP));
}

#[test]
fn engines_are_changed_only_where_a_gap_is_allowed_and_nobody_else_is_there() {
    let fused = |generation| filter(generation, &json!({"engine": "fused"}));
    let slots = |generation| filter(generation, &json!({"engine": "dispatcher"}));
    let Some(scene) = Scene::long("bounds::engines") else { return };
    scene.daemon.apply_whole(&fused(1));
    let apply_with_gap = |document: &Value| {
        let text = document.to_string();
        scene.daemon.ask(&["apply", "--allow-gap", "-"], text.as_bytes())
    };
    let dispatched = || !scene.daemon.hook()["dispatcher"].is_null();
    assert!(!dispatched());
    assert_eq!(scene.verdict(5001), DROP);
    // Theirs finds the place taken.
    let taken = scene.stage.xdp_loader(&["load", "v1", "-n", "v_pass", &path("verdict")]);
    assert!(!taken.status.success(), "{taken:?}");
    let answer = scene.daemon.apply(&slots(2));
    refused(&answer, "needs_gap", &["by a BPF link", "--allow-gap"]);
    assert_eq!((dispatched(), scene.verdict(5001)), (false, DROP));
    let answer = apply_with_gap(&slots(3));
    assert_eq!(answer.code, 0, "{answer:#?}");
    assert!(dispatched());
    assert_eq!((scene.verdict(5001), scene.runs("filter")), (DROP, 3), "counted on");
    // Beside theirs there is no way back, whatever is allowed.
    scene.load(50, "v_opaque", "XDP_PASS");
    let answer = apply_with_gap(&fused(4));
    refused(&answer, "foreign_program", &["a program of others", "xdp-loader status v1"]);
    scene.unload(scene.ids("v_opaque")[0]);
    let answer = scene.daemon.apply(&fused(5));
    refused(&answer, "needs_gap", &["in a dispatcher", "--allow-gap"]);
    assert!(dispatched());
    let answer = apply_with_gap(&fused(6));
    assert_eq!(answer.code, 0, "{answer:#?}");
    assert!(!dispatched());
    assert_eq!(scene.verdict(5001), DROP);
    let left: Vec<_> = scene.host.bpffs.list().expect("a list");
    assert!(!left.iter().any(|pin| pin.to_string_lossy().contains("dispatch-")), "{left:?}");
}
