//! Programs of instances in a dispatcher: as libxdp's tools show them, beside those of others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Scene, document, dropping};
use crate::host::afxdp;
use pointsman_bpf::dispatcher::freplace;
use pointsman_imtl_client::request::{add_port, get_queue, heartbeat, register, xsk_map};
use pointsman_imtl_client::{Client, Dialect};
use pointsman_netns::netns::Pair;
use pointsman_netns::random::full;
use pointsman_netns::skip;
use pointsman_netns::sockets::{self, Source};
use pointsman_xsk::XskMap;
use serde_json::json;

fn client(scene: &Scene) -> (Client, u32) {
    let path = scene.host.path("run/mtl_manager.sock");
    let index = scene.stage.pair.right.index("v1");
    let mut client =
        scene.stage.pair.right.run(move || Client::connect(&path, Dialect::Libmtl).unwrap());
    let reply = client.ask(&register(Dialect::Libmtl, 1, "tests", &[index])).unwrap();
    assert_eq!((reply.kind, reply.value), (201, 0));
    (client, index)
}

/// The two lines that the MTL Manager's documentation shows, and nothing left of them afterwards.
#[test]
fn b_12_libxdps_tools_show_both_while_a_client_is_there_and_neither_afterwards() {
    let Some(scene) = Scene::set("instances::b_12") else { return };
    let programs = json!({"moves": dropping(5001)});
    let chain = json!([{"program": "moves", "priority": 30}]);
    scene.daemon.apply_whole(&document(1, &programs, &json!({ "chain": chain })));
    scene.load(60, "v_pass", "XDP_PASS");
    let (one, _) = client(&scene);
    let both = [(19, "mtl_dp_filter".to_owned()), (20, "xsk_def_prog".to_owned())];
    let order = scene.order();
    assert_eq!(order[..2], both, "{order:?}");
    assert_eq!(order.len(), 4, "what was there stays: {order:?}");
    let said = scene.their_status();
    for line in [["19", "mtl_dp_filter", "XDP_DROP"], ["20", "xsk_def_prog", "XDP_PASS"]] {
        let found = said.lines().any(|text| line.iter().all(|word| text.contains(word)));
        assert!(found, "{line:?} in {said}");
    }
    drop(one);
    scene.daemon.until(|status| !status.to_string().contains("mtl_dp_filter"));
    let left: Vec<_> = scene.order().into_iter().map(|(priority, _)| priority).collect();
    assert_eq!(left, [30, 60]);
}

/// The same as on the host's kernel, which has no freplace: from REGISTER to the last packet, while
/// the operator's programs come and go in slots beside.
#[test]
fn numbered_packets_go_through_a_dispatcher_to_their_owner_and_other_ports_to_the_stack() {
    if let Err(why) = freplace() {
        return skip("instances::numbered", &why);
    }
    afxdp::end_to_end("dispatcher", if full() { afxdp::MILLION } else { 30 });
}

/// B-13: a second filter stacked before the first took every new port after a kill.
#[test]
fn b_13_after_a_kill_there_is_one_filter_and_new_ports_reach_their_socket() {
    let Some(scene) = Scene::on("instances::b_13", || Pair::with_queues(3)) else { return };
    let (mut one, index) = client(&scene);
    let before = scene.ids("mtl_dp_filter");
    scene.daemon.kill_engine().unwrap();
    assert_eq!(one.ask(&heartbeat(7)).unwrap().value, 7);
    scene.daemon.ready_again().unwrap();
    assert_eq!(scene.ids("mtl_dp_filter"), before, "the same, and only that");
    assert_eq!(one.ask(&add_port(index, 19_999)).unwrap().value, 0);
    let queue = one.ask(&get_queue(index)).unwrap().value;
    let queue = u32::try_from(queue).expect("a queue");
    let mut receives = sockets::Client::open(&scene.stage.pair, queue);
    let map = one.ask_map(&xsk_map(index)).unwrap().descriptors.pop().unwrap();
    XskMap::from(map).insert(queue, &receives.socket).unwrap();
    assert_eq!(one.ask(&add_port(index, 20_000)).unwrap().value, 0);
    let datagrams: Vec<_> = (0..50).map(|number| (20_000, number)).collect();
    Source::open(&scene.stage.pair, queue).send(&datagrams);
    receives.wait_for(50);
}
