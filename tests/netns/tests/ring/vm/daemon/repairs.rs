//! What libxdp's tool does to chains of ours, and what becomes of it.

use super::{DROP, PASS, Scene, document, dropping};
use pointsman_netns::traffic::received;
use serde_json::{Value, json};

fn filter(generation: u64, drift: &str) -> Value {
    let chain = json!([{"program": "filter", "priority": 20}]);
    let programs = json!({"filter": dropping(5001)});
    document(generation, &programs, &json!({"chain": chain, "drift": drift}))
}

/// Whether packets run through the chain.
fn filters(scene: &Scene) -> bool {
    match received(&scene.stage.pair, &[5001], 5999, 3).as_slice() {
        [0] => true,
        [3] => false,
        other => panic!("some of the packets: {other:?}"),
    }
}

#[test]
fn what_theirs_removes_is_put_back() {
    let Some(scene) = Scene::running("repairs::removed", &filter(1, "repair")) else { return };
    assert!(filters(&scene));
    scene.load(50, "v_opaque", "XDP_PASS");
    assert!(filters(&scene), "rebuilt by libxdp");
    let theirs = scene.ids("v_opaque");
    // One of ours, out of a dispatcher that stays.
    scene.unload(scene.ids("v_port")[0]);
    scene.repaired("rearranged", 1);
    assert!(filters(&scene));
    assert_eq!(scene.ids("v_opaque"), theirs, "theirs stays what it was");
    // All of it.
    scene.theirs(&["unload", "v1", "--all"]);
    scene.repaired("detached", 2);
    assert!(filters(&scene));
    assert_eq!(scene.order(), [(20, "v_port".into())]);
}

#[test]
fn a_dispatcher_whose_pins_are_removed_is_replaced_with_or_without_a_daemon() {
    let Some(scene) = Scene::long("repairs::pins") else { return };
    scene.daemon.apply_whole(&filter(1, "repair"));
    let root = scene.host.bpffs.path().to_owned();
    let remove = |directory: &str| std::fs::remove_dir_all(root.join(directory)).expect("pins");
    // Links of slots live by their pins alone: nothing runs in the dispatcher any more.
    remove("xdp");
    assert_eq!(scene.verdict(5001), PASS);
    // Removing pins makes no event; a new interface does.
    scene.stage.pair.right.ip(&["link", "add", "w0", "type", "veth"]).expect("ip");
    scene.repaired("rearranged", 1);
    assert!(filters(&scene));
    assert_eq!(scene.order(), [(20, "v_port".into())]);
    // Ours alone: the slot runs on, and the daemon knows it for its own.
    remove("pointsman");
    assert_eq!(scene.verdict(5001), DROP);
    scene.stage.pair.right.ip(&["link", "delete", "w0"]).expect("ip");
    scene.daemon.hook_until("repair", |hook| {
        (&hook["drift"]["repairs"], &hook["state"]) == (&json!(2), &json!("running"))
    });
    assert!(root.join("pointsman/hooks/v1/xdp/chains").exists());
    assert_eq!((scene.order().len(), scene.verdict(5001)), (1, DROP));
    // All of both, and no daemon meanwhile.
    let scene = scene.restarted(|daemon| {
        drop(daemon);
        remove("xdp");
        remove("pointsman");
    });
    scene.daemon.hook_until("chain", |hook| hook["state"] == "running");
    assert!(filters(&scene));
    assert_eq!(scene.order().len(), 1);
}

#[test]
fn what_the_document_leaves_is_only_shown() {
    let Some(scene) = Scene::long("repairs::left") else { return };
    scene.daemon.apply_whole(&filter(1, "leave"));
    scene.load(50, "v_opaque", "XDP_PASS");
    scene.unload(scene.ids("v_port")[0]);
    let hook = scene.daemon.hook_until("drift", |hook| hook["state"] == "drifted");
    assert_eq!(hook["drift"]["kind"], "rearranged", "{hook:#}");
    assert!(!filters(&scene));
    assert_eq!(scene.daemon.apply_whole(&filter(1, "leave"))["outcome"], "applied");
    assert!(filters(&scene));
    assert_eq!((scene.verdict(5001), scene.verdict(5002)), (DROP, PASS));
    scene.theirs(&["unload", "v1", "--all"]);
    let hook = scene.daemon.hook_until("drift", |hook| hook["drift"]["kind"] == "detached");
    assert_eq!(hook["drift"]["repaired"], false, "{hook:#}");
    assert!(!filters(&scene));
}
