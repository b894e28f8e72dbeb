//! What others do to our links and pins, and what becomes of it.

use super::{document, scene};
use libbpf_rs::{Link, MapHandle, MapInfo, ObjectBuilder};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::foreign;
use pointsman_netns::netns::Pair;
use pointsman_netns::object_path;
use pointsman_netns::traffic::received;
use serde_json::{Value, json};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

/// A chain that drops datagrams to all ports but 5999.
fn filtering(generation: u64, drift: &str) -> Value {
    let programs = json!({"ports": {"builtin": "udp-port-filter",
        "maps": {"ports": {"entries": [{"key": 5999, "value": 1}]}}}});
    let mut document = document(generation, &programs, &json!([{"program": "ports"}]));
    document["interfaces"]["v1"]["xdp"]["drift"] = json!(drift);
    document
}

struct Scene {
    host: Host,
    pair: Pair,
    daemon: Daemon,
}

impl Scene {
    fn new(drift: &str) -> Self {
        let (host, pair) = scene();
        let daemon = host.start(&pair.right).expect("a daemon");
        daemon.apply_whole(&filtering(1, drift));
        let scene = Self { host, pair, daemon };
        scene.settle();
        scene
    }

    /// Waits for two looks at the host: one that began after everything before.
    fn settle(&self) {
        let checks = || self.daemon.status()["checks"].as_u64().expect("a number");
        let before = checks();
        while checks() < before + 2 {}
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.host.bpffs.path().join("pointsman/hooks/v1/xdp").join(name)
    }

    fn link(&self) -> Link {
        Link::open(self.pin("link")).expect("a pinned link")
    }

    /// Whether packets run through the chain.
    fn filters(&self) -> bool {
        match received(&self.pair, &[5001], 5999, 5).as_slice() {
            [0] => true,
            [5] => false,
            other => panic!("some of the packets: {other:?}"),
        }
    }

    #[track_caller]
    fn repaired(&self, kind: &str) {
        let hook = self.daemon.hook_until("repair", |hook| {
            hook["drift"]["kind"] == kind && hook["drift"]["repaired"] == true
        });
        assert_eq!(hook["state"], "running", "{hook:#}");
        assert!(self.filters(), "after the repair of {kind}");
        assert!(self.pin("link").exists() && self.pin("chains").exists());
    }
}

#[test]
fn a_detached_link_is_attached_again() {
    let scene = Scene::new("repair");
    scene.link().detach().unwrap();
    scene.repaired("detached");
    assert_eq!(scene.daemon.hook()["drift"]["repairs"], 1);
}

#[test]
fn a_link_that_runs_another_program_gets_ours_back_in_one_swap() {
    let scene = Scene::new("repair");
    let mut object = ObjectBuilder::default();
    let mut object = object.open_file(object_path("verdict")).unwrap();
    for mut program in object.progs_mut() {
        let passes = program.name() == "v_pass";
        program.set_autoload(passes);
    }
    let object = object.load().unwrap();
    let passes = object.progs_mut().find(|program| program.name() == "v_pass").unwrap();
    scene.link().update_prog(&passes).unwrap();
    scene.repaired("replaced");
}

#[test]
fn pins_that_are_removed_are_made_again_and_no_packet_notices() {
    let scene = Scene::new("repair");
    let before = scene.daemon.hook()["fused"]["id"].clone();
    std::fs::remove_file(scene.pin("link")).unwrap();
    assert!(scene.filters(), "the daemon holds the link");
    scene.repaired("unpinned");
    assert_eq!(scene.daemon.hook()["fused"]["id"], before, "pinned again, not built again");
    // It is really pinned: the daemon may go.
    let Scene { host, pair, daemon } = scene;
    drop(daemon);
    assert_eq!(received(&pair, &[5001], 5999, 5), [0], "without a daemon");
    drop(host);
}

#[test]
fn a_map_that_is_unpinned_is_pinned_again_with_its_contents() {
    let scene = Scene::new("repair");
    let before = scene.daemon.hook();
    let maps = PathBuf::from(before["members"][0]["maps"].as_str().unwrap());
    let pin = maps.join("ports");
    let id = || MapInfo::new(MapHandle::from_pinned_path(&pin).unwrap().as_fd()).unwrap().info.id;
    let made = id();
    std::fs::remove_file(&pin).unwrap();
    scene.repaired("maps_unpinned");
    assert_eq!(id(), made, "the same map");
    // Something else in its place is not taken for it.
    std::fs::rename(maps.join("%2erodata"), &pin).unwrap_or_else(|_| {
        std::fs::remove_file(&pin).unwrap();
    });
    scene.settle();
    scene.daemon.hook_until("second repair", |hook| hook["drift"]["repairs"] == 2);
    assert_eq!(id(), made, "the same map again");
    assert_eq!(scene.daemon.hook()["fused"]["id"], before["fused"]["id"], "no chain was built");
}

#[test]
fn a_host_of_which_all_pins_are_removed_filters_on_and_has_them_again() {
    let scene = Scene::new("repair");
    let root = scene.host.bpffs.path().join("pointsman");
    std::fs::remove_dir_all(&root).unwrap();
    assert!(scene.filters(), "the daemon holds the link");
    scene.repaired("unpinned");
    let Scene { host, pair, daemon } = scene;
    drop(daemon);
    assert_eq!(received(&pair, &[5001], 5999, 5), [0], "without a daemon");
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.apply_whole(&filtering(1, "repair"))["outcome"], "unchanged");
}

#[test]
fn a_foreign_program_in_our_place_stays_until_its_owner_takes_it() {
    let scene = Scene::new("repair");
    scene.link().detach().unwrap();
    // Whoever is first has the place; a repair may have come before.
    scene.daemon.hook_until("repair", |hook| hook["drift"]["repaired"] == true);
    scene.link().detach().unwrap();
    foreign::attach(&scene.pair.right, "v1", "verdict", "v_pass").unwrap();
    let displaced =
        scene.daemon.hook_until("displacement", |hook| hook["drift"]["kind"] == "displaced");
    assert_eq!(displaced["state"], "drifted", "{displaced:#}");
    assert!(!scene.filters(), "what is not ours stays");
    scene.pair.right.ip(&["link", "set", "dev", "v1", "xdp", "off"]).unwrap();
    scene.daemon.hook_until("return", |hook| hook["state"] == "running");
    assert!(scene.filters());
}

#[test]
fn what_the_document_leaves_is_only_shown() {
    let scene = Scene::new("leave");
    scene.link().detach().unwrap();
    scene.daemon.hook_until("drift", |hook| hook["state"] == "drifted");
    scene.settle();
    assert!(!scene.filters());
    assert_eq!(scene.daemon.apply_whole(&filtering(1, "leave"))["outcome"], "applied");
    assert!(scene.filters());
    assert!(scene.daemon.hook()["drift"].is_null());
}

#[test]
fn a_peer_that_keeps_detaching_is_not_fought_at_its_speed() {
    let scene = Scene::new("repair");
    let start = std::time::Instant::now();
    let mut detached = 0;
    while start.elapsed() < std::time::Duration::from_secs(6) {
        if let Ok(link) = Link::open(scene.pin("link"))
            && scene.daemon.hook()["state"] == "running"
        {
            detached += u32::from(link.detach().is_ok());
        }
    }
    let hook = scene.daemon.hook();
    let repairs = hook["drift"]["repairs"].as_u64().unwrap();
    // At once, after 1, 2 and 4 seconds.
    assert!((2..=4).contains(&repairs), "{repairs} repairs of {detached}: {hook:#}");
    println!("a peer that detached {detached} times in 6 s was followed {repairs} times");
}
