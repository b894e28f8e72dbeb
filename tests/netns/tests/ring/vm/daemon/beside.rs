//! Changes of ours beside programs of theirs: those stay, and no packet passes without the chain.

use super::{DROP, PASS, Scene, document, dropping, program};
use pointsman_netns::traffic::Watch;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The port that every chain drops, and the one that every chain passes.
const DROPPED: u16 = 5001;
const PASSED: u16 = 5002;

/// What must not change of a program of theirs: the kernel's id and its maps.
fn identity(scene: &Scene) -> BTreeMap<String, (u32, Vec<u32>)> {
    let chain = scene.stage.chain();
    let theirs = chain.components.iter().filter(|c| c.name != "v_port" && c.name != "v_global");
    let facts = theirs.map(|c| (c.name.clone(), (c.id, c.maps.clone())));
    facts.collect()
}

/// A filter at `priority`, and a second program behind it that differs by edition.
fn edition(generation: u64, priority: u32, own: bool, verdict: u32) -> Value {
    let mut second = program("v_global");
    second["globals"] = json!({ "verdict": verdict });
    let programs = json!({"filter": dropping(DROPPED), "second": second});
    let slot = if own { "own" } else { "shared" };
    let chain = json!([
        {"program": "filter", "priority": priority, "slot": slot},
        {"program": "second", "priority": priority + 1, "chain_call_actions": ["pass", "drop"]}
    ]);
    document(generation, &programs, &json!({"chain": chain}))
}

#[test]
fn ours_moves_upgrades_and_leaves_and_theirs_never_notice() {
    let Some(scene) = Scene::set("beside::changes") else { return };
    // Theirs were there first.
    scene.load(10, "v_opaque", "XDP_PASS");
    scene.load(30, "v_live", "XDP_PASS");
    let theirs = identity(&scene);
    assert_eq!(theirs.len(), 2);
    assert!(!theirs["v_live"].1.is_empty(), "it has maps");
    let applied = scene.daemon.apply_whole(&edition(1, 20, false, 2));
    assert_eq!(applied["outcome"], "applied", "{applied:#}");
    assert_eq!(scene.order()[1], (20, "v_port".into()));
    let watch = Watch::start(&scene.stage.pair, DROPPED, PASSED);
    watch.more(5);
    // Before all others, behind all others, in slots of their own, another build.
    let editions = [(5, false, 2), (50, false, 2), (20, true, 2), (20, true, 1), (20, false, 1)];
    for (generation, (priority, own, verdict)) in (2..).zip(editions) {
        let document = edition(generation, priority, own, verdict);
        assert_eq!(scene.daemon.apply_whole(&document)["outcome"], "applied");
        watch.more(5);
        let order = scene.order();
        let at = order.iter().position(|(_, name)| name == "v_port").expect("ours");
        assert_eq!(
            at,
            match priority {
                5 => 0,
                50 => 2,
                _ => 1,
            },
            "{order:?}"
        );
        assert_eq!(order.len(), 3 + usize::from(own), "{order:?}");
        assert_eq!(identity(&scene), theirs, "generation {generation}");
        assert_eq!((scene.verdict(DROPPED), scene.verdict(PASSED)), (DROP, PASS));
    }
    assert!(scene.runs("filter") >= 2 * 5 * 6, "counted through all of it");
    assert!(watch.stop() > 0);
    // Ours leaves; theirs stays as it was.
    let mut none = document(7, &json!({}), &json!({"chain": []}));
    none["allow_empty"] = json!(true);
    none["interfaces"] = json!({});
    assert_eq!(scene.daemon.apply_whole(&none)["outcome"], "applied");
    let foreign = scene.daemon.status()["foreign"].clone();
    assert_eq!(foreign[0]["dispatcher"]["programs"].as_array().map(Vec::len), Some(2));
    assert_eq!(identity(&scene), theirs);
    assert_eq!(scene.stage.theirs(), scene.stage.ours());
    let pins = scene.host.bpffs.list().expect("a list");
    assert_eq!(pins.iter().filter(|pin| pin.starts_with("pointsman")).count(), 1, "{pins:?}");
}

#[test]
fn what_stays_alone_answers_as_it_did_among_others() {
    // MTL's way: "drop" for a listed port, after which the chain goes on; the rest is for the stack.
    let ports = json!({"builtin": "udp-port-filter",
        "globals": {"listed": "XDP_DROP", "unlisted": "XDP_PASS"},
        "maps": {"ports": {"entries": [{"key": 20_000, "value": 1}]}}});
    let chain = json!([{"program": "ports", "priority": 19, "chain_call_actions": ["drop"],
        "slot": "own"}]);
    let document = document(1, &json!({"ports": ports}), &json!({"chain": chain}));
    let Some(scene) = Scene::set("beside::alone") else { return };
    scene.load(40, "v_drop", "XDP_PASS");
    scene.daemon.apply_whole(&document);
    assert_eq!((scene.verdict(5000), scene.verdict(20_000)), (PASS, DROP), "theirs drops it");
    // The last of theirs goes: after the last "go on" stands PASS, not the lone program's DROP.
    scene.unload(scene.ids("v_drop")[0]);
    scene.daemon.hook_until("company", |hook| {
        hook["dispatcher"]["programs"].as_array().is_some_and(|programs| programs.len() == 2)
            && hook["state"] == "running"
    });
    assert_eq!((scene.verdict(5000), scene.verdict(20_000)), (PASS, PASS));
    let stage = &scene.stage;
    let came = pointsman_netns::traffic::received(&stage.pair, &[5000, 20_000], 5999, 3);
    assert_eq!(came, [3, 3]);
    assert_eq!(stage.theirs()[0].1, "mtl_dp_filter");
    // Theirs comes back beside the lone filter, behind it and then before it.
    scene.load(40, "v_drop", "XDP_PASS");
    assert_eq!((scene.verdict(5000), scene.verdict(20_000)), (PASS, DROP));
    scene.unload(scene.ids("v_drop")[0]);
    assert_eq!(scene.verdict(20_000), PASS);
    scene.load(1, "v_opaque", "XDP_PASS");
    assert_eq!((scene.verdict(5000), scene.verdict(20_000)), (PASS, PASS));
    assert_eq!(scene.daemon.hook()["state"], "running");
}
