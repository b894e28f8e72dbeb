//! What the document decides about programs of others.

use super::{DROP, Scene, document, dropping};
use serde_json::{Value, json};

fn deciding(generation: u64, others: &Value) -> Value {
    let chain = json!([{"program": "filter", "priority": 20}]);
    let programs = json!({"filter": dropping(5001)});
    document(generation, &programs, &json!({"chain": chain, "others": others}))
}

/// Priority and actions of the one program of theirs.
fn told(scene: &Scene) -> (u32, String) {
    let rows = scene.stage.ours();
    let theirs: Vec<_> = rows.into_iter().filter(|row| row.1 == "v_opaque").collect();
    match theirs.as_slice() {
        [(priority, _, actions)] => (*priority, actions.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_decided_holds_whoever_rebuilds_and_a_fight_is_slowed() {
    let Some(scene) = Scene::long("policy::decided") else { return };
    scene.load(10, "v_opaque", "XDP_TX");
    let id = scene.ids("v_opaque")[0];
    let others = json!([{"name": "v_opaque", "priority": 90,
        "chain_call_actions": ["pass", "drop"]}]);
    let plan = scene.daemon.ask(&["plan", "-"], deciding(1, &others).to_string().as_bytes());
    assert_eq!(plan.value["hooks"][0]["others"][0]["priority"], 90, "{plan:#?}");
    scene.daemon.apply_whole(&deciding(1, &others));
    let decided = (90, "XDP_DROP,XDP_PASS".to_owned());
    assert_eq!(told(&scene), decided);
    assert_eq!((scene.ids("v_opaque"), scene.verdict(5001)), (vec![id], DROP));
    // A rebuild of theirs keeps what it finds.
    scene.load(50, "v_pass", "XDP_PASS");
    assert_eq!(told(&scene), decided);
    // A tag is one build, and its word is closer than the name's.
    let tag = scene.stage.chain().components.iter().find(|c| c.id == id).expect("it").tag.clone();
    let closer = json!([{"tag": tag, "priority": 91}, others[0]]);
    scene.daemon.apply_whole(&deciding(2, &closer));
    assert_eq!(told(&scene), (91, decided.1.clone()));
    // A peer that does not give up: it loads its program as it likes it, over and over. It is
    // followed after longer and longer waits, so one of them is longer than a round of its own.
    let waits = |hook: &Value| {
        let drift = &hook["drift"];
        let message = drift["message"].as_str().unwrap_or_default();
        drift["next_repair_unix_ms"].is_u64() && message.contains("find out who")
    };
    let mut round = 0;
    let hook = loop {
        round += 1;
        assert!(round < 20, "no wait is ever longer than a round");
        scene.unload(scene.ids("v_opaque")[0]);
        scene.load(10, "v_opaque", "XDP_TX");
        let hook = scene.daemon.hook_until("repair or wait", |hook| {
            let done = (&hook["drift"]["repairs"], &hook["drift"]["repaired"]);
            waits(hook) || done == (&json!(round), &json!(true))
        });
        if waits(&hook) {
            break hook;
        }
        assert_eq!(told(&scene).1, decided.1, "round {round}: {hook:#}");
    };
    assert_eq!((&hook["state"], told(&scene).0), (&json!("drifted"), 10), "{hook:#}");
    assert!(hook["drift"]["repairs"].as_u64() >= Some(3), "{hook:#}");
    let page = scene.daemon.ask(&["events", "-n", "100"], b"").value;
    let fights = |event: &&Value| {
        event["message"].as_str().is_some_and(|message| message.contains("keeps undoing"))
    };
    assert!(page["events"].as_array().expect("events").iter().any(|e| fights(&e)), "{page:#}");
}
