//! Clients of libmtl's socket, which notice nothing of the daemon's ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{passing, scene};
use pointsman_imtl_client::request::{self, Flow, Record};
use pointsman_imtl_client::{Client, DIALECTS, Dialect, Reply};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::random::full;
use rustix::process::Signal;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) fn socket(host: &Host) -> PathBuf {
    host.path("run/mtl_manager.sock")
}

const DONE: Reply = Reply { kind: 201, value: 0, clean: true };

/// Every request but those for the map, and the type of its reply.
fn requests(dialect: Dialect) -> Vec<(Record, u32)> {
    let any = Ipv4Addr::UNSPECIFIED;
    let flow =
        Flow { queue: 1, source: any, destination: any, source_port: 0, destination_port: 20_000 };
    vec![
        (request::register(dialect, 1, "tests", &[]), 201),
        (request::heartbeat(7), 204),
        (request::get_lcore(3), 201),
        (request::put_lcore(dialect, 3), 201),
        (request::add_port(1, 20_000), 201),
        (request::delete_port(1, 20_000), 201),
        (request::get_queue(1), 202),
        (request::put_queue(1, 1), 201),
        (request::add_flow(dialect, 1, flow), 203),
        (request::delete_flow(1, 1), 201),
        (request::raw(9999, [0; 4], &[]), 201),
    ]
}

/// What a daemon without AF_XDP answers: lcores are leased, all else of an interface is not there.
fn check(request: &Record, kind: u32, reply: Reply) {
    assert!(reply.clean, "B-05: bytes of our memory: {reply:?}");
    assert_eq!(reply.kind, kind, "{reply:?} to {:?}", &request[..16]);
    match request[7] {
        102 => assert_eq!(reply.value, 7),
        101 | 103 | 104 => assert_eq!(reply.value, 0, "{reply:?} to {:?}", &request[..16]),
        _ => assert!(reply.value < 0, "{reply:?} to {:?}", &request[..16]),
    }
}

fn every_operation(socket: &Path) {
    for dialect in DIALECTS {
        let requests = requests(dialect);
        let mut client = Client::connect(socket, dialect).unwrap();
        for (request, kind) in &requests {
            client.send(request).unwrap();
            check(request, *kind, client.reply_at_once().expect("in one piece"));
        }
        // The map is answered by a byte: with a descriptor that is no map, or without one.
        let map = client.ask_map(&request::xsk_map(1)).unwrap();
        let expected = if dialect == Dialect::Libmtl { (b' ', 1) } else { (b'E', 0) };
        assert_eq!((map.byte, map.descriptors.len()), expected);
        // All at once, and all cut at every byte.
        let all: Vec<u8> = requests.iter().flat_map(|(request, _)| *request).collect();
        for cut in (0..all.len()).step_by(if full() { 1 } else { 7 }) {
            client.send(&all[..cut]).unwrap();
            client.send(&all[cut..]).unwrap();
            for (request, kind) in &requests {
                check(request, *kind, client.reply().unwrap());
            }
        }
        // What is no record loses the stream, not the answers before it.
        client
            .send(&[&requests[1].0[..], b"GET / HTTP/1.1\r\n".as_slice(), &[0; 118]].concat())
            .unwrap();
        check(&requests[1].0, 204, client.reply().unwrap());
        assert!(client.ended().unwrap());
    }
}

#[test]
fn every_operation_in_both_dialects_cut_anywhere_and_pipelined() {
    let (host, pair) = scene();
    let _daemon = host.start(&pair.right).unwrap();
    every_operation(&socket(&host));
}

#[test]
fn a_daemon_that_sees_no_pids_serves_as_well() {
    let (host, pair) = scene();
    // Clients are outside of its pid namespace: SO_PEERCRED says pid 0.
    let plain = host.command();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(plain.get_program());
    command.args(plain.get_args()).env_remove("NOTIFY_SOCKET");
    let daemon = host.start_as(&pair.right, command).unwrap();
    every_operation(&socket(&host));
    let mut client = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(client.ask(&request::get_lcore(5)).unwrap(), DONE);
    let instances = daemon.ask(&["instances"], b"");
    assert_eq!(instances.code, 0, "{instances:#?}");
    drop(client);
    let mut next = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    until_granted(&mut next, 5);
}

/// Asks for an lcore that is about to be given back.
fn until_granted(client: &mut Client, lcore: u16) {
    while client.ask(&request::get_lcore(lcore)).unwrap() != DONE {}
}

/// Clients that take and give back lcores without a pause: one of their own, and one that all want.
struct Active {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

const WANTED_BY_ALL: u16 = 500;

impl Active {
    fn start(host: &Host, clients: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let holders = Arc::new(AtomicU64::new(0));
        let start = |number: u16| {
            let (socket, stop, holders) = (socket(host), Arc::clone(&stop), Arc::clone(&holders));
            std::thread::spawn(move || {
                let dialect = DIALECTS[usize::from(number % 2)];
                let mut client = Client::register(&socket, dialect).expect("connect");
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(&mut client, number, &holders);
                    rounds += 1;
                }
                rounds
            })
        };
        let threads = (1..=clients).map(start).collect();
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().expect("no client noticed anything") > 0);
        }
    }
}

fn work(client: &mut Client, own: u16, holders: &AtomicU64) {
    let dialect = client.dialect();
    // Nobody else asks for it: a request that was done twice, or lost, is refused here.
    assert_eq!(client.ask(&request::get_lcore(own)).unwrap(), DONE);
    if client.ask(&request::get_lcore(WANTED_BY_ALL)).unwrap().value == 0 {
        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "granted twice");
        holders.fetch_sub(1, Ordering::SeqCst);
        assert_eq!(client.ask(&request::put_lcore(dialect, WANTED_BY_ALL)).unwrap(), DONE);
    }
    assert_eq!(client.ask(&request::put_lcore(dialect, own)).unwrap(), DONE);
}

#[test]
fn kills_of_the_daemon_at_any_moment_are_not_noticed_and_no_lease_is_lost() {
    let (host, pair) = scene();
    let mut command = host.command();
    // Many crashes in a row are what this is about.
    command.args(["--restart-delay", "0"]);
    let daemon = host.start_as(&pair.right, command).unwrap();
    let mut holder = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(holder.ask(&request::get_lcore(77)).unwrap(), DONE);
    let active = Active::start(&host, 20);
    let kills = if full() { 200 } else { 10 };
    for kill in 0..kills {
        if kill % 4 == 3 {
            daemon.signal(Signal::HUP).unwrap();
        } else {
            daemon.kill_engine().unwrap();
        }
        daemon.ready_again().unwrap();
    }
    active.stop();
    let mut other = Client::register(&socket(&host), Dialect::Mtlm).unwrap();
    assert_eq!(other.ask(&request::get_lcore(77)).unwrap().value, -16, "it is held still");
    let put = request::put_lcore(Dialect::Libmtl, 77);
    assert_eq!(holder.ask(&put).unwrap(), DONE);
    assert_eq!(other.ask(&request::get_lcore(77)).unwrap(), DONE);
}

#[test]
fn a_killed_keeper_ends_its_clients_and_leases_and_leaves_the_chain() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&passing(1));
    let fused = daemon.hook()["fused"].clone();
    let mut client = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(client.ask(&request::get_lcore(4)).unwrap(), DONE);
    // Also waits until no second daemon remains.
    daemon.stop(Signal::KILL).unwrap();
    assert!(client.ended().unwrap());
    let daemon: Daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.hook()["fused"], fused);
    let mut next = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(next.ask(&request::get_lcore(4)).unwrap(), DONE);
}

#[test]
fn a_thousand_clients_hold_an_lcore_each_over_a_kill() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let mut clients: Vec<_> = (0..1000)
        .map(|lcore| {
            let dialect = DIALECTS[usize::from(lcore % 2)];
            let mut client = Client::register(&socket(&host), dialect).unwrap();
            assert_eq!(client.ask(&request::get_lcore(lcore)).unwrap(), DONE);
            client
        })
        .collect();
    for client in &mut clients {
        client.send(&request::heartbeat(1)).unwrap();
    }
    daemon.kill_engine().unwrap();
    daemon.ready_again().unwrap();
    for (lcore, client) in (0..).zip(&mut clients) {
        assert_eq!(client.reply().unwrap().kind, 204);
        let put = request::put_lcore(client.dialect(), lcore);
        assert_eq!(client.ask(&put).unwrap(), DONE, "lcore {lcore} was lost");
    }
}
