//! An AF_XDP socket opened with libxdp's own functions, through changes of the document.

use super::{Scene, document, dropping};
use crate::vm::dispatcher::sockets::Socket;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use pointsman_bpf::dispatcher::XSK_NAME;
use serde_json::{Value, json};

/// A filter at `priority`, and one that stays behind all others.
fn filter(generation: u64, priority: u32) -> Value {
    let programs = json!({"moves": dropping(5001), "stays": dropping(5002)});
    let chain = json!([
        {"program": "moves", "priority": priority}, {"program": "stays", "priority": 95}
    ]);
    document(generation, &programs, &json!({ "chain": chain }))
}

/// The program that feeds sockets: the kernel's id, and how many sockets it has counted.
#[track_caller]
fn feeder(scene: &Scene) -> (u32, i32) {
    let chain = scene.stage.chain();
    let found = chain.components.iter().find(|c| c.name == XSK_NAME).expect("it");
    let count = found.maps.iter().find_map(|&id| {
        let map = MapHandle::from_map_id(id).ok()?;
        if !map.name().to_string_lossy().ends_with(".data") {
            return None;
        }
        let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::empty()).ok()??;
        Some(i32::from_ne_bytes(value[..4].try_into().ok()?))
    });
    (found.id, count.expect("a count"))
}

#[test]
fn a_socket_of_libxdps_receives_through_changes_of_the_document() {
    let Some(scene) = Scene::set("sockets::document") else { return };
    let mut socket = Socket::open(&scene.stage);
    socket.receives(&scene.stage);
    let before = feeder(&scene);
    // Before it, behind it, before it again.
    for (generation, priority) in (1..).zip([10, 90, 5]) {
        scene.daemon.apply_whole(&filter(generation, priority));
        socket.receives(&scene.stage);
        assert_eq!(feeder(&scene), before, "the same program, and as many sockets");
    }
    let mut none = filter(4, 5);
    none["interfaces"] = json!({});
    none["allow_empty"] = json!(true);
    scene.daemon.apply_whole(&none);
    socket.receives(&scene.stage);
    assert_eq!(feeder(&scene), before);
    // The last socket takes its program with it, and nothing of ours.
    scene.daemon.apply_whole(&filter(5, 5));
    assert_eq!(scene.order().len(), 3);
    socket.close();
    scene.repaired("rearranged", 1);
    assert_eq!(scene.order(), [(5, "v_port".into())], "neighbours share a slot again");
}
