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
use rustix::process::Signal;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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

/// strace on the thread that answers clients.
struct Tracer {
    child: Child,
    trace: PathBuf,
    point: Point,
}

impl Tracer {
    /// Attaches to the daemon that runs, or runs next; `None`: there is no strace here.
    fn attach(host: &Host, point: Point) -> Option<Self> {
        let start = Instant::now();
        loop {
            let task = task(host);
            let tracer = task.map(|task| Self::attach_to(&task, host.path("trace"), point));
            match tracer {
                Some(Ok(Some(tracer))) => return Some(tracer),
                Some(Err(())) => return None,
                // It has ended since, or starts at this moment.
                Some(Ok(None)) | None => {}
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no daemon to attach to");
        }
    }

    fn attach_to(task: &OsStr, trace: PathBuf, point: Point) -> Result<Option<Self>, ()> {
        let Point { call, when, .. } = point;
        let child = Command::new("strace")
            .arg("--attach")
            .arg(task)
            .arg("--output")
            .arg(&trace)
            .arg(format!("--inject={call}:signal=KILL:when={when}"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(()),
            child => child.unwrap(),
        };
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        let tracer = Self { child, trace, point };
        Ok(said.ends_with(" attached\n").then_some(tracer))
    }

    /// Waits until the daemon is dead, however that came.
    fn ended(&mut self) {
        self.child.wait().unwrap();
    }

    /// Waits until the daemon is dead, and makes sure that it died where it was meant to.
    fn died(mut self) {
        self.ended();
        let trace = fs::read_to_string(&self.trace).unwrap();
        let last = trace.lines().rfind(|line| !line.starts_with("---") && !line.starts_with("+++"));
        let last = last.unwrap_or_default();
        assert!(last.starts_with(self.point.call), "{:?}, and died at {last}", self.point);
        assert!(trace.contains("+++ killed by SIGKILL +++"), "{trace}");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The thread that answers clients, if there is one now.
fn task(host: &Host) -> Option<OsString> {
    let engine = fs::read_to_string(host.path("run/engine.pid")).ok()?;
    let tasks = fs::read_dir(format!("/proc/{}/task", engine.trim())).ok()?;
    let leases = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "leases")
    };
    let mut tasks = tasks.flatten().map(|entry| entry.path());
    Some(tasks.find(leases)?.file_name()?.to_owned())
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
            let Some(tracer) = Tracer::attach(&host, point) else {
                return skip("killed_at_every_point_of_a_request", "there is no strace");
            };
            client.send(&asked).unwrap();
            // The kill comes with the next request where this one is answered before it.
            let answered = point.call == "recvmsg" && point.when > 1;
            if answered {
                assert_eq!(client.reply().unwrap(), DONE, "{what}");
                client.send(&heartbeat(4)).unwrap();
            }
            tracer.died();
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
    let mut attach = |round: usize| {
        let point = Point { when: 1 + random.below(40), ..POINTS[round % POINTS.len()] };
        Tracer::attach(&host, point)
    };
    for round in 0..if full() { 60 } else { 8 } {
        let Some(tracer) = attach(round) else {
            active.stop();
            return skip("killed_at_every_point_under_twenty_clients", "there is no strace");
        };
        tracer.died();
        daemon.ready_again().unwrap();
    }
    // While it is swapped: whichever comes first ends it.
    for round in 0..if full() { 20 } else { 4 } {
        let mut tracer = attach(round).expect("there was one");
        daemon.signal(Signal::HUP).unwrap();
        tracer.ended();
    }
    active.stop();
    assert_eq!(holder.ask(&put_lcore(Dialect::Libmtl, 77)).unwrap(), DONE);
}
