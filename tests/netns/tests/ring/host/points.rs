//! The daemon, killed at a chosen point of a request: strace delivers the signal before the system
//! call that the thread which answers clients is about to make.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::clients::{Active, DONE, socket};
use super::scene;
use pointsman_imtl_client::request::{Record, get_lcore, heartbeat, put_lcore, register};
use pointsman_imtl_client::{Client, DIALECTS, Dialect};
use pointsman_netns::daemon::Host;
use pointsman_netns::random::{Random, full};
use pointsman_netns::skip;
use pointsman_netns::tracer::Tracer;
use rustix::process::Signal;

/// A system call, and which one of its kind.
#[derive(Debug, Clone, Copy)]
struct Point {
    what: &'static str,
    call: &'static str,
    /// The how many-th one since strace has come.
    when: usize,
}

const fn point(what: &'static str, call: &'static str, when: usize) -> Point {
    Point { what, call, when }
}

/// Of any request that changes something.
const POINTS: [Point; 4] = [
    point("told, and not read", "recvmsg", 1),
    point("read and granted, and not in the journal", "pwrite64", 1),
    point("in the journal, and not answered", "sendmsg", 1),
    point("answered, and the next one told", "recvmsg", 2),
];

/// Of the first request for an lcore on a connection.
const FIRST: [Point; 2] = [
    point("read, and its client not looked at", "openat", 1),
    point("its client's CPUs in the journal, and the grant not", "pwrite64", 2),
];

/// The thread that answers clients.
const THREAD: &str = "leases";

fn attach(host: &Host, Point { call, when, .. }: Point) -> Option<Tracer> {
    Tracer::killing(host, THREAD, call, when)
}

/// The requests of a client before the kill, and the one that is asked when it comes.
fn cases(dialect: Dialect) -> Vec<(Vec<Record>, Record, Vec<Point>)> {
    let hello = register(dialect, 1, "tests", &[]);
    let (get, put) = (get_lcore(5), put_lcore(dialect, 5));
    let first = POINTS.into_iter().chain(FIRST).collect();
    vec![
        (vec![], hello, POINTS.to_vec()),
        (vec![hello], get, first),
        (vec![hello, get, put], get, POINTS.to_vec()),
        (vec![hello, get], put, POINTS.to_vec()),
    ]
}

/// How the world is afterwards, whatever was cut off: what is asked for is done, once.
fn check(host: &Host, client: &mut Client, asked: &Record, holder: &mut Client, what: &str) {
    let dialect = client.dialect();
    let mut other = Client::register(&socket(host), Dialect::Mtlm).unwrap();
    let busy = -16;
    assert_eq!(other.ask(&get_lcore(77)).unwrap().value, busy, "{what}: it is held still");
    assert_eq!(holder.ask(&heartbeat(9)).unwrap().value, 9);
    match asked[7] {
        // Registered: it may have something.
        101 => assert_eq!(client.ask(&get_lcore(5)).unwrap(), DONE, "{what}"),
        103 => {
            assert_eq!(other.ask(&get_lcore(5)).unwrap().value, busy, "{what}: granted twice");
            assert_eq!(client.ask(&put_lcore(dialect, 5)).unwrap(), DONE, "{what}: lost");
            assert!(client.ask(&put_lcore(dialect, 5)).unwrap().value < 0, "{what}: doubled");
        }
        _ => {
            assert!(client.ask(&put_lcore(dialect, 5)).unwrap().value < 0, "{what}: undone");
            assert_eq!(other.ask(&get_lcore(5)).unwrap(), DONE, "{what}: it is free");
        }
    }
}

#[test]
fn killed_at_every_point_of_a_request_it_is_answered_once_and_done_once() {
    let (host, pair) = scene();
    let mut command = host.command();
    command.args(["--restart-delay", "0"]);
    let daemon = host.start_as(&pair.right, command).unwrap();
    let mut holder = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(holder.ask(&get_lcore(77)).unwrap(), DONE);
    for (dialect, (before, asked, points)) in DIALECTS
        .into_iter()
        .flat_map(|dialect| cases(dialect).into_iter().map(move |c| (dialect, c)))
    {
        for point in points {
            let what = point.what;
            let mut client = Client::connect(&socket(&host), dialect).unwrap();
            for request in &before {
                assert_eq!(client.ask(request).unwrap(), DONE);
            }
            // Connected, and that is known: nothing but the request comes next.
            assert_eq!(client.ask(&heartbeat(3)).unwrap().value, 3);
            let Some(tracer) = attach(&host, point) else {
                return skip("killed_at_every_point_of_a_request", "there is no strace");
            };
            client.send(&asked).unwrap();
            // The kill comes with the next request where this one is answered before it.
            let answered = point.call == "recvmsg" && point.when > 1;
            if answered {
                assert_eq!(client.reply().unwrap(), DONE, "{what}");
                client.send(&heartbeat(4)).unwrap();
            }
            tracer.died(point.call);
            daemon.ready_again().unwrap();
            let reply = client.reply().unwrap();
            if answered {
                assert_eq!(reply.value, 4, "{what}");
            } else {
                assert_eq!(reply, DONE, "{what}");
            }
            check(&host, &mut client, &asked, &mut holder, what);
        }
    }
    assert_eq!(holder.ask(&put_lcore(Dialect::Libmtl, 77)).unwrap(), DONE);
}

#[test]
fn killed_at_every_point_under_twenty_clients_nobody_notices() {
    let (host, pair) = scene();
    let mut command = host.command();
    command.args(["--restart-delay", "0"]);
    let daemon = host.start_as(&pair.right, command).unwrap();
    let mut holder = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(holder.ask(&get_lcore(77)).unwrap(), DONE);
    let active = Active::start(&host, 20);
    let mut random = Random::new("points");
    // Any of the requests that come: of many in one batch some are carried out, and none answered.
    let mut any = |round: usize| {
        let point = Point { when: 1 + random.below(40), ..POINTS[round % POINTS.len()] };
        (attach(&host, point), point.call)
    };
    for round in 0..if full() { 60 } else { 8 } {
        let (Some(tracer), call) = any(round) else {
            active.stop();
            return skip("killed_at_every_point_under_twenty_clients", "there is no strace");
        };
        tracer.died(call);
        daemon.ready_again().unwrap();
    }
    // While it is swapped: whichever comes first ends it.
    for round in 0..if full() { 20 } else { 4 } {
        let mut tracer = any(round).0.expect("there was one");
        daemon.signal(Signal::HUP).unwrap();
        tracer.ended();
    }
    active.stop();
    assert_eq!(holder.ask(&put_lcore(Dialect::Libmtl, 77)).unwrap(), DONE);
}
