//! Restarts, bypass, return and rollback of chains in a dispatcher, beside a program of theirs.

use super::{DROP, PASS, Scene, document, dropping};
use pointsman_netns::dispatcher::{path, well};
use pointsman_netns::traffic::Watch;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Drops two ports, by programs before and behind what theirs has at 30.
fn around(generation: u64, first: u16) -> Value {
    let programs = json!({"before": dropping(first), "behind": dropping(6001)});
    let chain = json!([
        {"program": "before", "priority": 20}, {"program": "behind", "priority": 40}
    ]);
    document(generation, &programs, &json!({"chain": chain}))
}

#[track_caller]
fn done(scene: &Scene, arguments: &[&str]) -> Value {
    let answer = scene.daemon.ask(arguments, b"");
    assert_eq!(answer.code, 0, "{answer:#?}");
    answer.value
}

/// Verdicts of what the first edition drops, the second drops, and every edition drops.
fn verdicts(scene: &Scene) -> [u32; 3] {
    [5001, 5002, 6001].map(|port| scene.verdict(port))
}

#[test]
fn chains_are_bypassed_confirmed_and_rolled_back_and_theirs_runs_on() {
    let Some(scene) = Scene::long("glass::all") else { return };
    scene.load(30, "v_opaque", "XDP_PASS");
    let theirs = scene.ids("v_opaque");
    scene.daemon.apply_whole(&around(1, 5001));
    assert_eq!(verdicts(&scene), [DROP, PASS, DROP]);
    done(&scene, &["bypass", "v1"]);
    assert_eq!(verdicts(&scene), [PASS; 3]);
    assert_eq!(
        (scene.daemon.hook()["state"].clone(), scene.ids("v_opaque")),
        (json!("bypassed"), theirs.clone())
    );
    // It outlives the daemon.
    let scene = scene.restarted(|daemon| drop(daemon.stop(Signal::KILL)));
    assert_eq!(verdicts(&scene), [PASS; 3]);
    done(&scene, &["bypass", "v1", "--off"]);
    assert_eq!(verdicts(&scene), [DROP, PASS, DROP]);
    // What nobody confirms goes by itself.
    let text = around(2, 5002).to_string();
    let watch = Watch::start(&scene.stage.pair, 6001, 7000);
    let answer = scene.daemon.ask(&["apply", "--confirm-within", "60s", "-"], text.as_bytes());
    assert_eq!(answer.code, 0, "{answer:#?}");
    assert_eq!(verdicts(&scene), [PASS, DROP, DROP]);
    done(&scene, &["confirm"]);
    done(&scene, &["rollback"]);
    assert_eq!(verdicts(&scene), [DROP, PASS, DROP]);
    let text = around(3, 5002).to_string();
    let answer = scene.daemon.ask(&["apply", "--confirm-within", "1s", "-"], text.as_bytes());
    assert_eq!(answer.code, 0, "{answer:#?}");
    scene.daemon.until(|status| status["generation"] == 1 && status["unconfirmed"].is_null());
    assert_eq!(verdicts(&scene), [DROP, PASS, DROP]);
    assert!(watch.stop() > 0, "no packet passed what all editions drop");
    assert_eq!(scene.ids("v_opaque"), theirs);
    assert_eq!(scene.order().len(), 3);
}

#[test]
fn a_restart_adopts_what_runs_and_a_drain_takes_only_ours() {
    let Some(scene) = Scene::set("glass::adopts") else { return };
    scene.load(30, "v_opaque", "XDP_PASS");
    scene.daemon.apply_whole(&around(1, 5001));
    let ids = |scene: &Scene| {
        let chain = scene.stage.chain();
        let slots: Vec<_> = chain.components.iter().map(|c| c.id).collect();
        (chain.program.id, slots)
    };
    let before = ids(&scene);
    assert_eq!(before.1.len(), 3);
    let mut scene = scene;
    for signal in [Signal::TERM, Signal::KILL] {
        scene = scene.restarted(|daemon| drop(daemon.stop(signal)));
        assert_eq!(ids(&scene), before, "adopted, not built again");
        assert_eq!(scene.daemon.hook()["state"], "running");
        let plan = scene.daemon.ask(&["plan", "-"], around(1, 5001).to_string().as_bytes());
        assert_eq!((plan.code, &plan.value["steps"]), (0, &json!([])), "{plan:#?}");
    }
    assert_eq!((scene.verdict(5001), scene.runs("before")), (DROP, 1));
    done(&scene, &["drain", "--yes"]);
    assert_eq!(scene.stage.ours(), [(30, "v_opaque".into(), "XDP_PASS".into())]);
    assert_eq!(scene.stage.theirs(), scene.stage.ours());
    let pins = scene.host.bpffs.list().expect("a list");
    assert_eq!(pins.iter().filter(|pin| pin.starts_with("pointsman")).count(), 1, "{pins:?}");
}

#[test]
fn what_theirs_does_while_there_is_no_daemon_is_put_right_at_the_start() {
    let Some(scene) = Scene::long("glass::absent") else { return };
    scene.daemon.apply_whole(&around(1, 5001));
    let ours = scene.ids("v_port");
    assert_eq!(ours.len(), 1, "neighbours");
    // Between two programs of ours, and one of ours away.
    let Scene { daemon, host, stage } = scene;
    drop(daemon);
    let (object, id) = (path("verdict"), ours[0].to_string());
    well(&stage.xdp_loader(&["load", "-P", "30", "-n", "v_opaque", "v1", &object]));
    well(&stage.xdp_loader(&["unload", "v1", "--id", &id]));
    let scene = Scene { daemon: host.start(&stage.pair.right).expect("a daemon"), host, stage };
    scene.daemon.hook_until("chain", |hook| hook["state"] == "running");
    assert_eq!(verdicts(&scene), [DROP, PASS, DROP]);
    let order: Vec<_> = scene.order().into_iter().map(|(priority, _)| priority).collect();
    assert_eq!(order, [20, 30, 40]);
}
