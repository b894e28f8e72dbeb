//! The API as a client sees it: HTTP over a Unix socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{TestHost, document};
use pointsman_model::api::{ApplyReport, Doctor, DrainReport, Problem, ProblemKind};
use pointsman_model::event::EventKind;
use pointsman_model::glass::{BypassReport, ConfirmReport, EventPage, Generations, RollbackReport};
use pointsman_model::plan::Plan;
use pointsman_model::status::{Counters, Status};
use pointsman_node::engine::Handle;
use pointsman_node::http;
use pointsman_node::serve::Limits;
use serde::de::DeserializeOwned;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

struct Server {
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start(host: &TestHost, engine: Handle) -> Self {
        Self::limited(host, engine, Limits::default())
    }

    /// The socket that only shows.
    fn showing(host: &TestHost, engine: Handle) -> Self {
        let socket = host.path("status.sock");
        let group = rustix::process::getgid().as_raw();
        let listener = http::listen(&socket, Some(group)).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (leases, _) = pointsman_node::leases::Handle::new().unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let stop = async { drop(stopped.await) };
            runtime.block_on(http::serve_status(listener, engine, leases, Limits::default(), stop))
        });
        Self { socket, stop, thread }
    }

    fn limited(host: &TestHost, engine: Handle, limits: Limits) -> Self {
        let socket = host.path("node.sock");
        let listener = http::listen(&socket, None).unwrap();
        let (stop, stopped) = oneshot::channel();
        // Nobody at the other end: there are no leases here.
        let (leases, _) = pointsman_node::leases::Handle::new().unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(http::serve(listener, engine, leases, limits, async {
                drop(stopped.await);
            }))
        });
        Self { socket, stop, thread }
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn problem(&self, status: u16, kind: ProblemKind) -> Problem {
        let problem: Problem = self.json();
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        assert_eq!((self.status, problem.status, problem.kind), (status, status, kind));
        problem
    }
}

fn send(socket: &Path, method: &str, path: &str, body: &[u8]) -> Response {
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that has seen enough answers and closes before the body is through.
    let _ = stream.write_all(body);
    let mut whole = Vec::new();
    let _ = stream.read_to_end(&mut whole);
    let end = whole.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(whole[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head, body: whole[end + 4..].to_vec() }
}

#[test]
fn every_route_answers_with_its_type() {
    let host = TestHost::new();
    let node = host.start();
    let server = Server::start(&host, node.handle.clone());
    let socket = server.socket.clone();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let text = document(1, &[("a", "cu")]).to_string();
    let plan: Plan = send(&socket, "POST", "/v1/plan", text.as_bytes()).json();
    assert!(!plan.steps.is_empty());
    assert!(host.running("a").is_empty());
    let report: ApplyReport =
        send(&socket, "PUT", "/v1/document?allow_gap=true", text.as_bytes()).json();
    assert_eq!(report.plan, plan);
    assert!(report.visible_micros > 0 && report.visible_micros <= report.total_micros);
    assert_eq!(host.running("a"), ["c", "u"]);
    let status: Status = send(&socket, "GET", "/v1/status", b"").json();
    assert_eq!((status.generation, status.pid), (Some(1), std::process::id()));
    let counters: Counters = send(&socket, "GET", "/v1/counters", b"").json();
    assert_eq!(counters.hooks.len(), 1);
    let doctor: Doctor = send(&socket, "GET", "/v1/doctor", b"").json();
    let checks: Vec<_> = doctor.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(checks, ["simulator", "state directory"]);
    let drained: DrainReport = send(&socket, "POST", "/v1/drain", b"").json();
    assert_eq!(drained.failures, [] as [&str; 0]);
    assert!(host.running("a").is_empty());
    server.stop();
    assert!(node.stop());
}

#[test]
fn the_socket_that_shows_changes_nothing() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "cu")])).unwrap();
    let server = Server::showing(&host, node.handle.clone());
    let socket = server.socket.clone();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let status: Status = send(&socket, "GET", "/v1/status", b"").json();
    assert_eq!(status.generation, Some(1));
    let counters: Counters = send(&socket, "GET", "/v1/counters", b"").json();
    assert_eq!(counters.hooks.len(), 1);
    let page: EventPage = send(&socket, "GET", "/v1/events?limit=1", b"").json();
    assert_eq!(page.events.len(), 1);
    // Whatever the node's API has more of, by its own description.
    let api: serde_json::Value = serde_json::from_str(&http::openapi_json()).unwrap();
    let next = document(2, &[("a", "b")]).to_string();
    let mut refused = 0;
    for (path, methods) in api["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if ["/v1/status", "/v1/counters", "/v1/events"].contains(&path.as_str()) {
                assert_eq!(method, "get");
                continue;
            }
            let path = path.replace("{id}", "1");
            let answer = send(&socket, &method.to_uppercase(), &path, next.as_bytes());
            let problem = answer.problem(404, ProblemKind::NotFound);
            assert!(problem.title.contains("use node.sock"), "{problem:?}");
            refused += 1;
        }
    }
    assert!(refused >= 10, "{refused}");
    send(&socket, "PUT", "/v1/status", next.as_bytes()).problem(404, ProblemKind::NotFound);
    assert_eq!(
        (host.running("a"), node.status().generation),
        (vec!["c".into(), "u".to_owned()], Some(1))
    );
    server.stop();
    assert!(node.stop());
}

#[test]
fn what_is_wrong_with_a_request_is_a_problem_and_the_next_one_is_answered() {
    let host = TestHost::new();
    let node = host.start();
    let server = Server::start(&host, node.handle.clone());
    let socket = server.socket.clone();
    let problem = |method: &str, path: &str, body: &[u8], status, kind| {
        let problem = send(&socket, method, path, body).problem(status, kind);
        assert_eq!(send(&socket, "GET", "/v1/status", b"").status, 200);
        problem
    };
    let invalid = problem("PUT", "/v1/document", b"{", 422, ProblemKind::InvalidDocument);
    assert_eq!(invalid.errors.len(), 1);
    let huge = vec![b' '; 10 << 20];
    problem("PUT", "/v1/document", &huge, 413, ProblemKind::TooLarge);
    problem("POST", "/v1/plan", &huge, 413, ProblemKind::TooLarge);
    let unknown = problem("GET", "/v1/nothing", b"", 404, ProblemKind::NotFound);
    assert!(unknown.title.contains("/v1/nothing"), "{unknown:?}");
    problem("DELETE", "/v1/document", b"", 405, ProblemKind::BadRequest);
    for query in ["allow_gap=yes", "allow_gaps=true", "allow_gap="] {
        let path = format!("/v1/plan?{query}");
        let bad = problem("POST", &path, b"{}", 400, ProblemKind::BadRequest);
        assert!(bad.title.contains("allow_gap=true"), "{bad:?}");
    }
    // A client that goes away in the middle of its document changes nothing.
    let mut broken = UnixStream::connect(&socket).unwrap();
    broken
        .write_all(b"PUT /v1/document HTTP/1.1\r\nhost: n\r\ncontent-length: 100\r\n\r\n{\"sch")
        .unwrap();
    broken.shutdown(Shutdown::Both).unwrap();
    let status: Status = send(&socket, "GET", "/v1/status", b"").json();
    assert_eq!(status.generation, None);
    server.stop();
    assert!(node.stop());
}

#[test]
fn breaking_the_glass_over_the_socket() {
    let host = TestHost::new();
    let node = host.start();
    let server = Server::start(&host, node.handle.clone());
    let socket = server.socket.clone();
    for generation in [1, 2] {
        let text = document(generation, &[("a", "cu"), ("blue/a", "c")]).to_string();
        let path = "/v1/document?confirm_within_seconds=60&allow_gap=false";
        let report: ApplyReport = send(&socket, "PUT", path, text.as_bytes()).json();
        assert_eq!(report.unconfirmed.unwrap().generation, generation);
        let path = format!("/v1/confirm?generation={generation}");
        let confirmed: ConfirmReport = send(&socket, "POST", &path, b"").json();
        assert!(confirmed.remaining_ms.is_some_and(|left| left > 0 && left <= 60_000));
    }
    let path = "/v1/bypass?interface=a&for_seconds=600";
    let report: BypassReport = send(&socket, "POST", path, b"").json();
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(report.bypass.unwrap().uid, Some(uid), "the kernel says who asks");
    assert!(host.running("a").is_empty());
    let report: BypassReport = send(&socket, "POST", "/v1/bypass?interface=a&off=true", b"").json();
    assert!(report.bypass.is_none() && report.was_bypassed);
    let path = "/v1/bypass?interface=blue%2Fa";
    let report: BypassReport = send(&socket, "POST", path, b"").json();
    assert_eq!(report.hook, common::hook("blue/a"));
    let report: RollbackReport =
        send(&socket, "POST", "/v1/rollback?generation=1&allow_gap=true", b"").json();
    assert_eq!((report.from, report.to), (2, 1));
    let generations: Generations = send(&socket, "GET", "/v1/generations", b"").json();
    assert_eq!(generations.generations.len(), 2);

    for (method, path, status, kind, says) in [
        ("POST", "/v1/bypass", 400, ProblemKind::BadRequest, "interface=NAME"),
        ("POST", "/v1/bypass?interface=", 400, ProblemKind::BadRequest, "interface"),
        ("POST", "/v1/bypass?interface=a%20b", 400, ProblemKind::BadRequest, "interface"),
        ("POST", "/v1/bypass?interface=z", 404, ProblemKind::NotFound, "one on: a, blue/a"),
        (
            "POST",
            "/v1/bypass?interface=a&for_seconds=0",
            400,
            ProblemKind::BadRequest,
            "1 to 86400",
        ),
        (
            "POST",
            "/v1/bypass?interface=a&for_seconds=18446744073709551615",
            400,
            ProblemKind::BadRequest,
            "1 to 86400",
        ),
        ("POST", "/v1/bypass?interface=a&for_seconds=-1", 400, ProblemKind::BadRequest, "SECONDS"),
        (
            "POST",
            "/v1/bypass?interface=a&for_seconds=9&off=true",
            400,
            ProblemKind::BadRequest,
            "do not go together",
        ),
        ("POST", "/v1/rollback?to=1", 400, ProblemKind::BadRequest, "generation=NUMBER"),
        ("POST", "/v1/rollback?generation=9", 409, ProblemKind::Conflict, "kept are: 2"),
        ("POST", "/v1/rollback", 409, ProblemKind::Conflict, "no good generation before 1"),
        ("POST", "/v1/confirm", 409, ProblemKind::Conflict, "generation 1 is in force"),
        ("GET", "/v1/events?limit=0", 400, ProblemKind::BadRequest, "1 to 1000"),
        ("GET", "/v1/events?limit=1001", 400, ProblemKind::BadRequest, "1 to 1000"),
        ("GET", "/v1/events?wait_seconds=61", 400, ProblemKind::BadRequest, "0 to 60"),
        (
            "PUT",
            "/v1/document?confirm_within_seconds=86401",
            400,
            ProblemKind::BadRequest,
            "1 to 86400",
        ),
    ] {
        let problem = send(&socket, method, path, b"").problem(status, kind);
        assert!(problem.title.contains(says), "{path}: {}", problem.title);
    }
    server.stop();
    assert!(node.stop());
}

#[test]
fn who_waits_for_events_is_answered_when_one_happens_and_holds_nobody_up() {
    let host = TestHost::new();
    let node = host.start();
    let server = Server::start(&host, node.handle.clone());
    let socket = server.socket.clone();
    let page: EventPage = send(&socket, "GET", "/v1/events", b"").json();
    let last = page.last;
    assert_eq!((page.events.len(), page.events[0].kind), (1, EventKind::Started));
    // Nothing happens for a second.
    let path = format!("/v1/events?after={last}&wait_seconds=1");
    let page: EventPage = send(&socket, "GET", &path, b"").json();
    assert_eq!((page.events.len(), page.last), (0, last));

    let path = format!("/v1/events?after={last}&wait_seconds=60");
    let head = format!("GET {path} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n");
    let wait = || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    // More than may wait; who is one too many is told, whichever that is.
    let waiting: Vec<_> = (0..40).map(|_| wait()).collect();
    let waits = |mut stream: UnixStream| {
        let mut whole = String::new();
        stream.read_to_string(&mut whole).unwrap();
        whole
    };
    let (told, heard) = (std::sync::mpsc::channel(), waiting.len());
    for stream in waiting {
        let told = told.0.clone();
        std::thread::spawn(move || told.send(waits(stream)));
    }
    let next = || told.1.recv_timeout(Duration::from_secs(20)).unwrap();
    let refused: Vec<_> = (0..heard - 32).map(|_| next()).collect();
    assert!(refused.iter().all(|answer| answer.starts_with("HTTP/1.1 503 ")), "{refused:?}");
    // They take no place of a document's.
    let text = document(1, &[("a", "cu")]).to_string();
    assert_eq!(send(&socket, "PUT", "/v1/document", text.as_bytes()).status, 200);
    for _ in 0..32 {
        let answer = next();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let at = answer.find("\r\n\r\n").unwrap();
        let page: EventPage = serde_json::from_str(&answer[at..]).unwrap();
        assert_eq!(page.events[0].kind, EventKind::Applied);
    }
    server.stop();
    assert!(node.stop());
}

#[test]
fn clients_that_do_nothing_do_not_keep_others_from_being_served() {
    let host = TestHost::new();
    let node = host.start();
    let short = Duration::from_millis(200);
    let limits = Limits { connections: 4, documents: 1, head: short, body: short, answer: short };
    let server = Server::limited(&host, node.handle.clone(), limits);
    let put = b"PUT /v1/document HTTP/1.1\r\nhost: n\r\ncontent-length: 100\r\n\r\n";
    let starts: [&[u8]; 4] = [b"", b"GET /v1/sta", put, put];
    let idle: Vec<_> = (0..12)
        .map(|n: usize| {
            let mut stream = UnixStream::connect(&server.socket).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(starts[n % 4]).unwrap();
            stream
        })
        .collect();
    // Answers that do not fit into the socket's buffer, and that nobody reads.
    let mut deaf = UnixStream::connect(&server.socket).unwrap();
    deaf.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let asked = (0..10_000)
        .try_for_each(|_| deaf.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nhost: n\r\n\r\n"));
    let closed = [std::io::ErrorKind::BrokenPipe, std::io::ErrorKind::ConnectionReset];
    assert!(closed.contains(&asked.unwrap_err().kind()), "the connection is given up");

    let text = document(1, &[("a", "cu")]).to_string();
    let answer = send(&server.socket, "PUT", "/v1/document", text.as_bytes());
    assert_eq!(answer.status, 200);
    for (n, mut stream) in idle.into_iter().enumerate() {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("the connection is closed");
        // Who sent a head is told; who did not has asked nothing.
        let told = said.starts_with(b"HTTP/1.1 408 ");
        assert_eq!(told, starts[n % 4] == put, "{}", String::from_utf8_lossy(&said));
    }
    server.stop();
    assert!(node.stop());
}

#[test]
fn an_engine_that_dies_is_an_internal_error_of_the_request_under_way() {
    let host = TestHost::new();
    let node = host.start();
    let server = Server::start(&host, node.handle.clone());
    host.shared.dies.store(true, Ordering::SeqCst);
    host.shared.sim().plant(pointsman_plan::simulator::Fault::Crash(0));
    let text = document(1, &[("a", "c")]).to_string();
    for _ in 0..2 {
        let response = send(&server.socket, "PUT", "/v1/document", text.as_bytes());
        response.problem(500, ProblemKind::Internal);
    }
    server.stop();
    assert!(!node.stop());
}

#[test]
fn the_published_description_is_the_one_in_the_code() {
    let host = TestHost::new();
    let node = host.start();
    let server = Server::start(&host, node.handle.clone());
    let served = send(&server.socket, "GET", "/v1/openapi.json", b"");
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi-node.json");
    let published = std::fs::read(published).expect("docs/openapi-node.json");
    assert!(served.body == published, "run `cargo xtask openapi` to publish the API's changes");
    server.stop();
}
