//! Clients of libmtl's socket, which notice nothing of the daemon's ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{passing, scene};
use pointsman_imtl_client::request::{self, Flow, Record};
use pointsman_imtl_client::{Client, DIALECTS, Dialect, Reply};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::random::{Random, full};
use rustix::process::{Pid, Signal};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) fn socket(host: &Host) -> PathBuf {
    host.path("run/mtl_manager.sock")
}

pub(super) const DONE: Reply = Reply { kind: 201, value: 0, clean: true };

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

/// A daemon whose clients are outside of its pid namespace: SO_PEERCRED says pid 0.
fn apart(host: &Host) -> Command {
    let plain = host.command();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(plain.get_program());
    command.args(plain.get_args()).env_remove("NOTIFY_SOCKET");
    command
}

/// The child of a process, by its number here.
fn child_of(process: u32) -> u32 {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(children).unwrap();
    children.split_ascii_whitespace().next().expect("a child").parse().unwrap()
}

/// All that clients ask, of a daemon that sees none of their pids.
#[test]
fn a_daemon_that_sees_no_pids_serves_as_well() {
    let (host, pair) = scene();
    let daemon = host.start_as(&pair.right, apart(&host)).unwrap();
    every_operation(&socket(&host));
    let mut client = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(client.ask(&request::get_lcore(1)).unwrap(), DONE);
    let instances = daemon.ask(&["instances"], b"").value;
    let [instance] = &instances["instances"].as_array().unwrap()[..] else {
        panic!("one instance: {instances:#}")
    };
    assert_eq!(instance["peer"].get("pid"), None, "{instance:#}");
    assert_eq!(instance["peer"]["uid"], 0);
    drop(client);
    let mut next = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    until_granted(&mut next, 1);
    drop(next);
    garbage_beside_good(&socket(&host));
    // The keeper is the child of unshare, the daemon that of the keeper.
    thousand(&host, &daemon, || {
        let engine = child_of(child_of(daemon.pid()));
        let engine = Pid::from_raw(i32::try_from(engine).unwrap()).unwrap();
        rustix::process::kill_process(engine, Signal::KILL).unwrap();
    });
}

/// Asks for an lcore that is about to be given back.
fn until_granted(client: &mut Client, lcore: u16) {
    while client.ask(&request::get_lcore(lcore)).unwrap() != DONE {}
}

/// Clients that take and give back lcores without a pause: one of their own, and one that all want.
pub(super) struct Active {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const WANTED_BY_ALL: u16 = 500;

impl Active {
    pub(super) fn start(host: &Host, clients: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let holders = Arc::new(AtomicU64::new(0));
        let start = |number: u16| {
            let (socket, stop, holders) = (socket(host), Arc::clone(&stop), Arc::clone(&holders));
            std::thread::spawn(move || {
                let dialect = DIALECTS[usize::from(number % 2)];
                let mut client = Client::register(&socket, dialect).expect("connect");
                let mut rounds = 0;
                // Each gets through at least once, however little time daemons had between kills.
                while rounds == 0 || !stop.load(Ordering::Relaxed) {
                    work(&mut client, number, &holders);
                    rounds += 1;
                }
            })
        };
        let threads = (1..=clients).map(start).collect();
        Self { stop, threads }
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client noticed anything");
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
    let mut random = Random::new("kills into swaps");
    let kills = if full() { 200 } else { 12 };
    for kill in 0..kills {
        if kill % 2 == 1 {
            daemon.signal(Signal::HUP).unwrap();
        }
        // Every fourth one falls into a swap: on the daemon that ends, the next one that starts, or
        // between them, where there is none.
        if kill % 4 == 1 {
            let (start, moment) = (Instant::now(), random.below(30_000) as u128);
            while start.elapsed().as_micros() < moment {
                std::thread::yield_now();
            }
        }
        if kill % 4 != 3 {
            // One that was killed in its swap and was ready before has a successor that nobody has
            // waited for: until that is there, there is none to kill.
            let start = Instant::now();
            while let Err(error) = daemon.kill_engine() {
                if kill % 4 == 1 {
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(60), "{error:#}");
                std::thread::yield_now();
            }
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
    thousand(&host, &daemon, || daemon.kill_engine().unwrap());
}

fn thousand(host: &Host, daemon: &Daemon, kill: impl FnOnce()) {
    let mut clients: Vec<_> = (0..1000)
        .map(|lcore| {
            let dialect = DIALECTS[usize::from(lcore % 2)];
            let mut client = Client::register(&socket(host), dialect).unwrap();
            assert_eq!(client.ask(&request::get_lcore(lcore)).unwrap(), DONE);
            client
        })
        .collect();
    for client in &mut clients {
        client.send(&request::heartbeat(1)).unwrap();
    }
    kill();
    daemon.ready_again().unwrap();
    for (lcore, client) in (0..).zip(&mut clients) {
        assert_eq!(client.reply().unwrap().kind, 204);
        let put = request::put_lcore(client.dialect(), lcore);
        assert_eq!(client.ask(&put).unwrap(), DONE, "lcore {lcore} was lost");
    }
}

#[test]
fn a_hundred_garbage_clients_do_not_disturb_ten_good_ones() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    garbage_beside_good(&socket(&host));
    let engine = daemon.engine();
    garbage_beside_good(&socket(&host));
    assert_eq!(daemon.engine(), engine, "it did not even end");
}

/// A client that means no good, and stays if it can.
fn garbage(socket: &Path, number: usize, random: &mut Random) -> Option<Client> {
    let dialect = DIALECTS[number % 2];
    let mut client = Client::connect(socket, dialect).unwrap();
    client.stream().set_nonblocking(true).unwrap();
    let mut bytes: Vec<u8> = (0..random.below(4000)).map(|_| random.below(256) as u8).collect();
    let mut claims = request::register(dialect, 1, "x\n[ERROR] y\x1b[2J", &[]);
    match number % 8 {
        // Part of a record, and silence.
        0 => bytes.truncate(117),
        // Noise, and nobody reads the answers.
        1 => {}
        // Noise, and away.
        2 => {
            let _ = client.send(&bytes);
            return None;
        }
        // Records of any type and body, all at once.
        3 => {
            bytes.clear();
            for _ in 0..40 {
                let body: Vec<u8> = (0..106).map(|_| random.below(256) as u8).collect();
                let kind = 100 + random.below(15) as u32;
                bytes.extend_from_slice(&request::raw(kind, [body[0]; 4], &body));
            }
        }
        // More interfaces than there is room for, and a name that is none.
        4 => {
            claims[84..86].copy_from_slice(&[0xff; 2]);
            bytes = claims.to_vec();
        }
        5 => {
            claims[20..84].fill(0xff);
            bytes = claims.to_vec();
        }
        // As much as is taken.
        6 => {
            let request = request::get_lcore(900);
            while client.send(&request).is_ok() {}
            bytes.clear();
        }
        // Another protocol.
        _ => bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20),
    }
    let _ = client.send(&bytes);
    Some(client)
}

fn garbage_beside_good(socket: &Path) {
    let mut random = Random::new("garbage");
    let mut good: Vec<_> =
        (1..=10).map(|number| Client::register(socket, DIALECTS[number % 2]).unwrap()).collect();
    for _ in 0..if full() { 50 } else { 3 } {
        let mut bad = Vec::new();
        for number in 0..100 {
            bad.extend(garbage(socket, number, &mut random));
            let own = number % good.len();
            let client = &mut good[own];
            let lcore = 700 + own as u16;
            assert_eq!(client.ask(&request::get_lcore(lcore)).unwrap(), DONE);
            let put = request::put_lcore(client.dialect(), lcore);
            assert_eq!(client.ask(&put).unwrap(), DONE);
        }
    }
}
