//! What is wrong with the original's AF_XDP half, by the ids of its list, and is not here. Those that
//! take a dispatcher or flow rules (B-09, B-12, B-26, B-27) are in `vm`; B-04, B-14, B-15 and B-17
//! are the desk's too (`crates/lease`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::afxdp::{Holder, LISTED, Stage, next, numbered};
use super::clients::{DONE, socket};
use pointsman_imtl_client::request::{
    add_port, delete_port, get_queue, put_queue, register, xsk_map,
};
use pointsman_imtl_client::{Client, DIALECTS, Dialect};
use pointsman_netns::daemon::Host;
use pointsman_netns::netns::{Netns, Pair};
use pointsman_netns::sockets::Source;
use rustix::process::Signal;
use std::process::Command;

fn registered(netns: &Netns, host: &Host, index: u32) -> (Client, i32) {
    let path = socket(host);
    let mut client = netns.run(move || Client::connect(&path, Dialect::Mtlm).unwrap());
    let value = client.ask(&register(Dialect::Mtlm, 1, "tests", &[index])).unwrap().value;
    (client, value)
}

fn has_xdp(netns: &Netns, interface: &str) -> bool {
    let link = netns.ip_json(&["-details", "link", "show", interface]).unwrap();
    link[0].get("xdp").is_some()
}

#[test]
fn b_03_without_registering_nothing_is_had_and_nothing_is_attached() {
    let stage = Stage::set();
    for dialect in DIALECTS {
        let mut client = stage.connect(dialect);
        for (asked, kind) in [
            (get_queue(stage.index), 202),
            (put_queue(stage.index, 1), 201),
            (add_port(stage.index, 5), 201),
            (delete_port(stage.index, 5), 201),
        ] {
            let reply = client.ask(&asked).unwrap();
            assert_eq!((reply.kind, reply.value), (kind, -1));
        }
        let map = client.ask_map(&xsk_map(stage.index)).unwrap();
        assert!(map.byte == b' ', "its dialect is not known: a descriptor that is no map");
    }
    assert!(!has_xdp(&stage.pair.right, "v1"));
}

#[test]
fn b_04_queues_and_ports_are_given_back_by_their_owner_alone() {
    let stage = Stage::set();
    let (mut one, mut two) = (stage.client(Dialect::Mtlm), stage.client(Dialect::Mtlm));
    assert_eq!(one.ask(&get_queue(stage.index)).unwrap().value, 1);
    assert_eq!(one.ask(&add_port(stage.index, LISTED)).unwrap(), DONE);
    assert_eq!(two.ask(&put_queue(stage.index, 1)).unwrap().value, -22);
    assert_eq!(two.ask(&delete_port(stage.index, LISTED)).unwrap().value, -22);
    // Nor does its end give them to anybody.
    drop(two);
    let mut three = stage.client(Dialect::Mtlm);
    assert_eq!(three.ask(&get_queue(stage.index)).unwrap().value, 2);
}

#[test]
fn b_07_an_interface_without_combined_channels_crashes_nobody() {
    let (host, pair) = (Host::new().expect("root"), Pair::new().expect("root"));
    let daemon = host.start(&pair.right).unwrap();
    let (engine, index) = (daemon.engine(), pair.right.index("v1"));
    let (mut client, value) = registered(&pair.right, &host, index);
    assert_eq!(value, 0);
    assert_eq!(client.ask(&get_queue(index)).unwrap().value, -28, "its one queue is the stack's");
    assert_eq!(client.ask(&add_port(index, 1)).unwrap(), DONE);
    assert_eq!(daemon.engine(), engine, "it is the same daemon");
}

#[test]
fn b_10_b_33_where_there_is_no_native_xdp_it_is_skb_mode_and_comes_off_again() {
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let daemon = host.start(&netns).unwrap();
    for _ in 0..3 {
        // lo, in every namespace.
        let (client, value) = registered(&netns, &host, 1);
        assert_eq!(value, 0);
        assert_eq!(daemon.hook()["mode"], "skb");
        drop(client);
        daemon.until(|status| status["hooks"].as_array().is_some_and(Vec::is_empty));
        assert!(!has_xdp(&netns, "lo"));
    }
}

#[test]
fn b_08_b_19_an_interface_that_is_not_there_is_refused_in_the_type_that_is_waited_for() {
    let stage = Stage::set();
    for dialect in DIALECTS {
        let mut client = stage.client(dialect);
        let nowhere = 0x7fff_ffff;
        assert_eq!(client.ask(&get_queue(nowhere)).unwrap().kind, 202);
        let map = client.ask_map(&xsk_map(nowhere)).unwrap();
        assert_eq!(map.descriptors.len(), usize::from(dialect == Dialect::Libmtl));
        // And the stream is where it was.
        assert!(client.ask(&get_queue(stage.index)).unwrap().value > 0);
    }
}

/// The original leaves what it attached before the failure.
#[test]
fn b_11_a_register_of_which_one_interface_fails_leaves_nothing_of_the_others() {
    let stage = Stage::set();
    let mut client = stage.connect(Dialect::Mtlm);
    let asked = register(Dialect::Mtlm, 1, "tests", &[stage.index, 0x7fff_ffff]);
    assert_eq!(client.ask(&asked).unwrap().value, -19);
    assert!(client.ask(&get_queue(stage.index)).unwrap().value < 0, "it holds nothing");
    assert!(!has_xdp(&stage.pair.right, "v1"));
}

#[test]
fn b_13_after_every_kind_of_end_new_ports_reach_their_sockets() {
    let mut stage = Stage::set();
    let ends = [Signal::KILL, Signal::TERM, Signal::INT, Signal::KILL];
    for (port, signal) in (LISTED..).zip(ends) {
        let mut holder = Holder::new(&stage, Dialect::Libmtl, port);
        Source::open(&stage.pair, holder.queue).send(&numbered(port, 0, 50));
        holder.sockets.wait_for(50);
        assert_eq!(stage.entries(), ["mtl_dp_filter", "xsk_def_prog"], "one filter");
        stage = stage.restarted(signal);
        // What an operator stops for good leaves nothing; the next start takes the rest.
        stage.until_entries(&[]);
        assert!(!has_xdp(&stage.pair.right, "v1"));
        drop(holder);
    }
}

#[test]
fn b_16_ports_of_a_client_that_died_are_not_listed_while_another_lives() {
    let stage = Stage::set();
    let one = Holder::new(&stage, Dialect::Libmtl, LISTED);
    let mut two = Holder::new(&stage, Dialect::Libmtl, LISTED + 1);
    drop(one);
    // What its end leaves to do is done before the next request of another is.
    let start = std::time::Instant::now();
    loop {
        let instances = stage.daemon.ask(&["instances"], b"").value;
        if instances["instances"].as_array().unwrap().len() == 1 {
            break;
        }
        assert!(start.elapsed().as_secs() < 30);
    }
    assert_eq!(two.client.ask(&add_port(stage.index, 9)).unwrap(), DONE);
    let stack = stage.stack(LISTED);
    Source::open(&stage.pair, two.queue).send(&[(LISTED, 1), (LISTED + 1, 2)]);
    assert_eq!(next(&stack), 1);
    two.sockets.wait_for(1);
}

#[test]
fn b_17_the_first_queue_is_never_handed_out_whoever_gives_it_back() {
    let stage = Stage::set();
    let mut client = stage.client(Dialect::Libmtl);
    // libmtl does that on its way out, for slots that it never filled.
    for _ in 0..3 {
        assert_eq!(client.ask(&put_queue(stage.index, 0)).unwrap().value, -1);
    }
    let got = [1, 2, 3, 4].map(|_| client.ask(&get_queue(stage.index)).unwrap().value);
    assert_eq!(got, [1, 2, 3, 4]);
    assert_eq!(client.ask(&get_queue(stage.index)).unwrap().value, -1);
}

#[test]
fn b_28_an_interface_is_the_clients_and_not_the_one_with_that_number_here() {
    let stage = Stage::set();
    let elsewhere = Netns::new().expect("root");
    for (netns, one, other) in [(&elsewhere, "d0", "d1"), (&stage.pair.right, "w0", "w1")] {
        let add = ["link", "add", one, "index", "77", "type", "veth", "peer", "name", other];
        netns.ip(&add).unwrap();
    }
    let (client, value) = registered(&elsewhere, &stage.host, 77);
    assert_eq!(value, 0);
    assert!(has_xdp(&elsewhere, "d0") && !has_xdp(&stage.pair.right, "w0"));
    drop(client);
    stage.daemon.until(|status| status["hooks"].as_array().is_some_and(Vec::is_empty));
    assert!(!has_xdp(&elsewhere, "d0"));
    // Also where it has no name here.
    let path = socket(&stage.host);
    let reply =
        Command::new("unshare").args(["--net", "--", "python3", "-c", UNNAMED]).arg(path).output();
    match reply {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said.trim(), "0", "{output:?}");
        }
        _ => pointsman_netns::skip("b_28: a namespace without a name", "no unshare or python3"),
    }
}

/// SIGINT is the original's clean end, and takes off what is there for clients at once.
#[test]
fn b_12_sigint_leaves_nothing_attached_but_what_is_the_operators() {
    let stage = Stage::set();
    let _client = stage.client(Dialect::Libmtl);
    assert!(has_xdp(&stage.pair.right, "v1"));
    let Stage { daemon, host: _host, pair, .. } = stage;
    assert_eq!(daemon.stop(Signal::INT).unwrap().code(), Some(0));
    assert!(!has_xdp(&pair.right, "v1"));
}

/// Registers with lo, in dialect 1.1, and prints the answer.
const UNNAMED: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(sys.argv[1])
record = b"IMTL" + struct.pack(">III", 101, 106, 1) + struct.pack(">I", 0) + bytes(64)
record += struct.pack(">H8I", 1, 1, *[0] * 7)
s.sendall(record)
print(struct.unpack(">i", s.recv(118)[12:16])[0])
"#;

#[test]
fn b_32_without_freplace_there_is_one_program_and_every_client_registers() {
    let stage = Stage::set();
    let clients = DIALECTS.map(|dialect| stage.client(dialect));
    let hook = stage.daemon.hook();
    if hook.get("dispatcher").is_some_and(|dispatcher| !dispatcher.is_null()) {
        return pointsman_netns::skip("b_32", "this kernel has freplace");
    }
    assert_eq!(hook["engine"]["taken"].as_str().unwrap_or("fused"), "fused", "{hook:#}");
    drop(clients);
}
