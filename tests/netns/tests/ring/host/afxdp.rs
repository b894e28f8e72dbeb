//! AF_XDP for clients of libmtl's socket, from REGISTER to packets, and what is left when they go.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod interfaces;
mod kills;
mod native;
mod stage;
mod upgraded;

use super::clients::DONE;
use super::{hook_of, program};
use pointsman_imtl_client::request::{self, add_port, delete_port, get_queue, put_queue, xsk_map};
use pointsman_imtl_client::{DIALECTS, Dialect};
use pointsman_netns::random::full;
use pointsman_netns::sockets::{self, Source};
use pointsman_xsk::XskMap;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::fd::AsFd as _;

pub(super) use native::Native;
pub(super) use stage::{Holder, Stage, next, numbered};

pub(super) const LISTED: u16 = 20_000;
const OTHER: u16 = 30_000;
/// Fewer than what an interface of the pair holds.
const BATCH: u64 = 60;

fn operators(engine: &str, generation: u64, first: bool) -> Value {
    let mut chain = vec![json!({"program": "last", "priority": 60})];
    if first {
        chain.insert(0, json!({"program": "first", "priority": 5}));
    }
    json!({
        "schema": "pointsman.node/v1", "node": "test", "generation": generation,
        "programs": {"first": program("verdict", "v_pass"), "last": {"builtin": "counting-pass"}},
        "interfaces": {"v1": {"xdp": {"engine": engine, "chain": chain}}}
    })
}

#[test]
fn numbered_packets_reach_the_socket_of_their_owner_and_other_ports_the_stack() {
    end_to_end("auto", if full() { MILLION } else { 100 });
}

/// As many rounds as a million packets for sockets take.
pub(crate) const MILLION: u64 = 1_000_000_u64.div_ceil(3 * BATCH);

/// From REGISTER to the last packet, while the operator changes his chain, which this engine runs.
pub(crate) fn end_to_end(engine: &str, rounds: u64) {
    let stage = Stage::set();
    stage.daemon.apply_whole(&operators(engine, 1, true));
    let mut holders = [
        Holder::new(&stage, Dialect::Libmtl, LISTED),
        Holder::new(&stage, Dialect::Mtlm, LISTED + 1),
        Holder::new(&stage, Dialect::Libmtl, LISTED),
    ];
    assert_eq!(holders.each_ref().map(|holder| holder.queue), [1, 2, 3]);
    assert_eq!(
        stage.entries(),
        ["v_pass", "mtl_dp_filter", "xsk_def_prog", "counting_pass"],
        "the operator's programs stay before and behind"
    );
    let members = hook_of(&stage.daemon.status(), "v1")["members"].clone();
    let brought: Vec<_> =
        members.as_array().unwrap().iter().map(|member| &member["from_instances"]).collect();
    let (yes, no) = (&json!(true), &Value::Null);
    assert_eq!(brought, [no, yes, yes, no]);
    let other = stage.stack(OTHER);
    let mut sources = [1, 2, 3].map(|queue| Source::open(&stage.pair, queue));
    for round in 0..rounds {
        for (holder, source) in holders.iter_mut().zip(&mut sources) {
            let port = if holder.queue == 2 { LISTED + 1 } else { LISTED };
            let mut batch = numbered(port, round * BATCH, BATCH);
            batch.insert(30, (OTHER, round));
            source.send(&batch);
        }
        for holder in &mut holders {
            holder.sockets.wait_for(((round + 1) * BATCH) as usize);
        }
        for _ in &sources {
            assert_eq!(next(&other), round, "another port reaches the stack");
        }
        if round % 25 == 0 {
            stage.daemon.apply_whole(&operators(engine, round + 2, round % 50 != 0));
        }
    }
    for holder in &mut holders {
        let port = if holder.queue == 2 { LISTED + 1 } else { LISTED };
        let wanted = numbered(port, 0, rounds * BATCH);
        assert!(holder.sockets.came == wanted, "queue {}: each once, in order", holder.queue);
        let counted = holder.sockets.socket.statistics().unwrap();
        assert_eq!(counted, Default::default());
    }
    drop(holders);
    let first = stage.entries().first().is_some_and(|entry| entry == "v_pass");
    let left: &[&str] = if first { &["v_pass", "counting_pass"] } else { &["counting_pass"] };
    stage.until_entries(left);
    let stack = stage.stack(LISTED);
    sources[0].send(&[(LISTED, 7)]);
    assert_eq!(next(&stack), 7);
}

/// Whatever an operator does to the chain, the client does nothing and has its packets again.
#[test]
fn rollback_bypass_and_drain_find_the_clients_as_they_were() {
    let stage = Stage::set();
    let asked = |arguments: &[&str]| {
        let answer = stage.daemon.ask(arguments, b"");
        assert_eq!(answer.code, 0, "{arguments:?}: {answer:#?}");
    };
    stage.daemon.apply_whole(&operators("auto", 1, true));
    let mut holder = Holder::new(&stage, Dialect::Libmtl, LISTED);
    let mut source = Source::open(&stage.pair, holder.queue);
    let stack = stage.stack(LISTED);
    let mut sent = 0;
    let mut to_socket = |holder: &mut Holder, what: &str| {
        source.send(&numbered(LISTED, sent, BATCH));
        sent += BATCH;
        holder.sockets.wait_for(sent as usize);
        assert!(holder.sockets.came == numbered(LISTED, 0, sent), "{what}");
    };
    to_socket(&mut holder, "at first");
    stage.daemon.apply_whole(&operators("auto", 2, false));
    asked(&["rollback"]);
    assert_eq!(stage.entries(), ["v_pass", "mtl_dp_filter", "xsk_def_prog", "counting_pass"]);
    to_socket(&mut holder, "after a rollback");
    asked(&["bypass", "v1"]);
    assert_eq!(stage.entries(), [""; 0]);
    Source::open(&stage.pair, 4).send(&[(LISTED, 77)]);
    assert_eq!(next(&stack), 77, "a bypassed chain passes everything");
    // A port that is asked for meanwhile is there when the chain is.
    assert_eq!(holder.client.ask(&delete_port(stage.index, LISTED)).unwrap(), DONE);
    assert_eq!(holder.client.ask(&add_port(stage.index, LISTED)).unwrap(), DONE);
    asked(&["bypass", "v1", "--off"]);
    // What is behind this request was done after the chain's maps were told.
    assert_eq!(holder.client.ask(&add_port(stage.index, 1)).unwrap(), DONE);
    to_socket(&mut holder, "after a bypass");
    asked(&["drain", "--yes"]);
    let mut late = stage.connect(Dialect::Mtlm);
    assert_eq!(stage.ask_register(&mut late).value, -5, "a drained node serves no interface");
    stage.daemon.apply_whole(&operators("auto", 3, false));
    assert_eq!(stage.ask_register(&mut late), DONE);
    assert_eq!(holder.client.ask(&add_port(stage.index, 2)).unwrap(), DONE);
    to_socket(&mut holder, "after a drain");
    let status = stage.daemon.status();
    let hook = hook_of(&status, "v1");
    assert_eq!((&hook["state"], hook.get("drift")), (&json!("running"), None), "{hook:#}");
}

/// Whoever has the number of a neighbour's queue cannot take its packets.
#[test]
fn a_client_that_writes_to_its_neighbours_queue_disturbs_nobody() {
    let stage = Stage::set();
    let mut one = Holder::new(&stage, Dialect::Libmtl, LISTED);
    let mut two = Holder::new(&stage, Dialect::Libmtl, LISTED);
    two.map.insert(one.queue, &two.sockets.socket).unwrap();
    // Nor by passing its map on, nor by giving back what is not its own.
    let passed =
        XskMap::from(two.client.ask_map(&xsk_map(stage.index)).unwrap().descriptors.remove(0));
    passed.insert(one.queue, &two.sockets.socket).unwrap();
    let foreign = u16::try_from(one.queue).unwrap();
    assert!(two.client.ask(&put_queue(stage.index, foreign)).unwrap().value < 0);
    Source::open(&stage.pair, one.queue).send(&numbered(LISTED, 0, BATCH));
    one.sockets.wait_for(BATCH as usize);
    two.sockets.take();
    assert_eq!(two.sockets.came, []);
    // Its queue is another's after it is gone, and its map feeds nobody.
    let queue = one.queue;
    drop(one.client);
    let mut three = loop {
        let mut client = stage.client(Dialect::Mtlm);
        if client.ask(&get_queue(stage.index)).unwrap().value == i32::try_from(queue).unwrap() {
            break client;
        }
    };
    let own = sockets::Client::open(&stage.pair, 4);
    one.map.insert(queue, &own.socket).unwrap();
    assert_eq!(three.ask(&add_port(stage.index, LISTED)).unwrap(), DONE);
    let stack = stage.stack(LISTED);
    Source::open(&stage.pair, queue).send(&[(LISTED, 9)]);
    assert_eq!(next(&stack), 9, "the new owner has no socket yet");
}

#[test]
fn without_a_document_the_programs_come_and_go_with_the_clients() {
    let stage = Stage::set();
    assert_eq!(stage.entries(), [""; 0]);
    let one = stage.client(Dialect::Libmtl);
    let two = stage.client(Dialect::Mtlm);
    assert_eq!(stage.entries(), ["mtl_dp_filter", "xsk_def_prog"]);
    drop(one);
    // A third one that registers is answered after what the first one's end leaves to do.
    let three = stage.client(Dialect::Mtlm);
    assert_eq!(stage.entries(), ["mtl_dp_filter", "xsk_def_prog"]);
    drop((two, three));
    stage.until_entries(&[]);
    let link = stage.pair.right.ip_json(&["-details", "link", "show", "v1"]).unwrap();
    assert_eq!(link[0].get("xdp"), None, "{link:#}");
    let pins = stage.host.bpffs.path().join("pointsman");
    for directory in ["hooks", "programs"] {
        // Without anything in it, the directory goes too.
        let files = std::fs::read_dir(pins.join(directory)).into_iter().flatten().flatten();
        let left: Vec<_> = files.collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_foreign_program_refuses_a_register_and_nothing_is_left_of_it() {
    let stage = Stage::set();
    let object = pointsman_netns::object_path("verdict");
    let object = object.to_str().unwrap();
    let on = ["link", "set", "dev", "v1", "xdpgeneric", "obj", object, "sec", "xdp"];
    if stage.pair.right.ip(&on).is_err() {
        return pointsman_netns::skip("foreign", "this ip cannot load objects");
    }
    let mut client = stage.connect(Dialect::Mtlm);
    let reply = stage.ask_register(&mut client);
    assert_eq!((reply.kind, reply.value), (201, -5));
    assert!(client.ask(&get_queue(stage.index)).unwrap().value < 0);
    stage.pair.right.ip(&["link", "set", "dev", "v1", "xdpgeneric", "off"]).unwrap();
    assert_eq!(stage.ask_register(&mut client), DONE, "it may try again");
}

/// Clients that end while the daemon is dead are found out by the next one.
#[test]
fn what_clients_held_that_end_while_the_daemon_is_dead_comes_back() {
    let stage = Stage::set();
    let one = Holder::new(&stage, Dialect::Libmtl, LISTED);
    let mut two = Holder::new(&stage, Dialect::Libmtl, LISTED + 1);
    let queue = one.queue;
    stage.daemon.kill_engine().unwrap();
    drop(one);
    stage.daemon.ready_again().unwrap();
    assert_eq!(two.client.ask(&get_queue(stage.index)).unwrap().value, queue as i32);
    let stack = stage.stack(LISTED);
    Source::open(&stage.pair, two.queue).send(&[(LISTED, 1), (LISTED + 1, 2)]);
    assert_eq!(next(&stack), 1, "the port of the one that is gone is not listed any more");
    two.sockets.wait_for(1);
    // The keeper's end is the end of all.
    drop(stage.daemon.stop(Signal::KILL));
    let daemon = stage.host.start(&stage.pair.right).unwrap();
    daemon.until(|status| status["hooks"].as_array().is_some_and(Vec::is_empty));
    assert!(two.client.ended().unwrap());
}

#[test]
fn every_wrong_request_has_one_answer_that_its_dialect_can_take() {
    let stage = Stage::set();
    for dialect in DIALECTS {
        let code = |number: i32| if dialect == Dialect::Libmtl { -1 } else { number };
        let mut client = stage.connect(dialect);
        // Before REGISTER nothing is had of an interface (B-03).
        for (asked, kind) in
            [(get_queue(stage.index), 202), (add_port(stage.index, 5), 201), (put_queue(1, 1), 201)]
        {
            let reply = client.ask(&asked).unwrap();
            assert_eq!((reply.kind, reply.value), (kind, -1));
        }
        assert_eq!(stage.entries(), [""; 0], "and nothing is attached for it");
        assert_eq!(stage.ask_register(&mut client), DONE);
        let mut value = |asked: &[u8]| client.ask(asked).unwrap().value;
        assert_eq!(value(&get_queue(0x7fff_ffff)), code(-1), "not registered with it");
        assert_eq!(value(&put_queue(stage.index, 0)), code(-22), "B-17");
        assert_eq!(value(&delete_port(stage.index, 5)), code(-22), "B-14");
        for port in [0, 65_535] {
            assert_eq!(value(&add_port(stage.index, port)), 0);
            assert_eq!(value(&delete_port(stage.index, port)), 0);
        }
        assert_eq!(value(&request::delete_flow(stage.index, 3)), code(-22));
        // The first queue stays with the stack.
        let got = [1, 2, 3, 4].map(|_| value(&get_queue(stage.index)));
        assert_eq!(got, [1, 2, 3, 4]);
        assert_eq!(value(&get_queue(stage.index)), code(-28));
        assert_eq!(value(&put_queue(stage.index, 3)), 0);
        assert_eq!(value(&get_queue(stage.index)), 3);
        let map = client.ask_map(&xsk_map(0x7fff_ffff)).unwrap();
        match dialect {
            Dialect::Libmtl => {
                let null = XskMap::from(map.descriptors.into_iter().next().unwrap());
                let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
                assert!(null.insert(1, socket.as_fd()).is_err(), "it is no map");
            }
            Dialect::Mtlm => assert_eq!((map.byte, map.descriptors.len()), (b'E', 0)),
        }
        drop(client);
        stage.until_entries(&[]);
    }
}
