//! Interfaces with a dispatcher that come, go, and change their names.

use super::{DROP, PASS, Scene, document, dropping};
use pointsman_netns::daemon::Host;
use pointsman_netns::dispatcher::{Stage, path, rows, text, well};
use pointsman_netns::netns::Pair;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

fn filter(generation: u64, interface: &str) -> Value {
    let chain = json!([{"program": "filter", "priority": 20}]);
    let programs = json!({"filter": dropping(5001)});
    let mut document = document(generation, &programs, &json!({ "chain": chain }));
    document["interfaces"] = json!({interface: document["interfaces"]["v1"]});
    document
}

/// The pins of all dispatchers.
fn directories(host: &Host) -> Vec<PathBuf> {
    let list = host.bpffs.list().expect("a list");
    let dispatchers = list.into_iter().filter(|path| path.starts_with("xdp"));
    dispatchers.filter(|path| path.components().count() == 2).collect()
}

#[test]
fn what_a_deleted_interface_leaves_is_cleaned_and_another_namespaces_is_not() {
    let Some(scene) = Scene::long("interfaces::deleted") else { return };
    scene.daemon.apply_whole(&filter(1, "v1"));
    let Scene { daemon, host, stage } = &scene;
    // The same number in another network namespace, with pins in the same BPF filesystem.
    let other = Pair::new().expect("root");
    assert_eq!(other.right.index("v1"), stage.index());
    let object = path("verdict");
    let elsewhere = |arguments: &[&str]| -> Output {
        let run = || stage.command("xdp-loader".as_ref(), arguments).output();
        other.right.run(|| run().expect("xdp-loader"))
    };
    well(&elsewhere(&["load", "-n", "v_pass", "v1", &object]));
    assert_eq!(directories(host).len(), 2);
    scene.load(50, "v_opaque", "XDP_PASS");
    stage.pair.right.ip(&["link", "delete", "v1"]).expect("deleted");
    daemon.until(|status| status["hooks"][0]["state"] == "pending");
    stage.pair.connect().expect("made again");
    let index = stage.index();
    daemon.until(|status| {
        let hook = &status["hooks"][0];
        (&hook["state"], &hook["interface_index"]) == (&json!("running"), &json!(index))
    });
    assert_eq!(scene.order(), [(20, "v_port".into())], "what theirs had went with it");
    assert_eq!((scene.verdict(5001), scene.verdict(5002)), (DROP, PASS));
    let left = directories(host);
    let live = format!("xdp/dispatch-{index}-{}", stage.chain().program.id);
    assert!(left.contains(&live.into()), "{left:?}");
    assert_eq!(left.len(), 2, "that of the other namespace, and ours: {left:?}");
    let status = elsewhere(&["status", "v1"]);
    assert_eq!(rows(&text(&status.stdout)).len(), 1, "{status:?}");
}

#[test]
fn a_chain_follows_its_interface_through_a_change_of_its_name() {
    let Some(scene) = Scene::long("interfaces::renamed") else { return };
    scene.daemon.apply_whole(&filter(1, "v1"));
    let Scene { daemon, stage, .. } = &scene;
    scene.load(50, "v_opaque", "XDP_PASS");
    let before: Vec<_> = stage.chain().components.iter().map(|c| c.id).collect();
    let rename = |from: &str, to: &str| {
        let steps: [&[&str]; 3] =
            [&["set", from, "down"], &["set", from, "name", to], &["set", to, "up"]];
        for step in steps {
            stage.pair.right.ip(&[&["link"], step].concat()).expect("ip");
        }
    };
    rename("v1", "wan0");
    let status = daemon.until(|status| status["notes"].to_string().contains("called wan0 now"));
    assert_eq!((&status["hooks"][0]["state"], &status["foreign"]), (&json!("running"), &json!([])));
    // A document that names it as it is called now takes the chain over as it runs.
    let applied = daemon.apply_whole(&filter(2, "wan0"));
    let hook = daemon.hook();
    assert_eq!(hook["hook"]["interface"], "wan0", "{applied:#}");
    let programs = hook["dispatcher"]["programs"].as_array().expect("programs").iter();
    let now: Vec<_> = programs.map(|p| p["id"].clone()).collect();
    let wanted: Vec<_> = before.iter().map(|id| json!(id)).collect();
    assert_eq!(now, wanted, "nothing was built or moved");
    rename("wan0", "v1");
    daemon.until(|status| status["notes"].to_string().contains("called v1 now"));
    daemon.apply_whole(&filter(3, "v1"));
    let now: Vec<_> = stage.chain().components.iter().map(|c| c.id).collect();
    assert_eq!((now, scene.verdict(5001)), (before, DROP));
}

#[test]
fn chains_in_another_network_namespace_live_beside_libxdp_there() {
    let host = Host::told().expect("root");
    let stage = Stage::set_in("interfaces::away", || Arc::clone(&host.bpffs));
    let Some(stage) = stage else { return };
    let daemon = host.start(&stage.pair.left).expect("a daemon");
    let object = path("verdict");
    well(&stage.xdp_loader(&["load", "-P", "50", "-n", "v_opaque", "v1", &object]));
    let mut wanted = filter(1, "away/v1");
    wanted["namespaces"] = json!({"away": {"name": stage.pair.right.name()}});
    daemon.apply_whole(&wanted);
    assert_eq!(daemon.hook()["hook"]["interface"], "away/v1");
    let row = |priority: u32, name: &str| (priority, name.to_owned(), "XDP_PASS".to_owned());
    let both = [row(20, "v_port"), row(50, "v_opaque")];
    assert_eq!(stage.theirs(), both);
    assert_eq!(stage.ours(), both);
    // Theirs takes ours away there, and it comes back.
    let id = stage.chain().components[0].id.to_string();
    well(&stage.xdp_loader(&["unload", "v1", "--id", &id]));
    daemon.hook_until("repair", |hook| hook["drift"]["repaired"] == true);
    assert_eq!(stage.theirs(), both);
    // A document that names neither takes ours out of it.
    let mut none = wanted.clone();
    none["generation"] = json!(2);
    none["allow_empty"] = json!(true);
    none["interfaces"] = json!({});
    none["namespaces"] = json!({});
    daemon.apply_whole(&none);
    assert_eq!((stage.theirs(), daemon.peek()["hooks"].clone()), (both[1..].to_vec(), json!([])));
    // And so does a drain.
    wanted["generation"] = json!(3);
    daemon.apply_whole(&wanted);
    assert_eq!(stage.theirs(), both);
    let drained = daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    assert_eq!(stage.theirs(), both[1..]);
    assert_eq!(
        host.bpffs.list().expect("a list").iter().filter(|p| p.starts_with("pointsman")).count(),
        1
    );
}
