//! The whole daemon but for the kernel: locks, watch, socket, signals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use clap::Parser as _;
use common::{TestHost, document};
use pointsman_model::fleet::{RECORD_SCHEMA, RecordObject, RecordPayload};
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_node::args::Args;
use pointsman_node::daemon::{self, DaemonError};
use pointsman_node::host::KernelError;
use pointsman_snapshot::cdb::Writer;
use pointsman_snapshot::keys::SigningKey;
use pointsman_snapshot::sign;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Signals belong to the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn args(host: &TestHost, more: &[&str]) -> Args {
    let (run, state) = (host.path("run"), host.path("state"));
    let base = [("--run-dir", run.as_path()), ("--state-dir", &state)];
    let base = base.iter().flat_map(|(option, path)| [Path::new(option), path]);
    let more = more.iter().map(Path::new);
    Args::parse_from([Path::new("pointsman-node")].into_iter().chain(base).chain(more))
}

type Daemon = JoinHandle<Result<(), DaemonError>>;

fn start(host: &TestHost, more: &[&str]) -> Daemon {
    let args = args(host, more);
    let kernel = host.kernel();
    let run = move || daemon::run(&args, None, |_| Ok(kernel));
    std::thread::spawn(run)
}

/// Asks for the status; the connection waits until the daemon is there and has adopted.
fn status(host: &TestHost) -> String {
    let mut stream = UnixStream::connect(host.path("run/node.sock")).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.0\r\n\r\n").unwrap();
    BufReader::new(stream).lines().last().unwrap().unwrap()
}

/// Waits until a daemon that is starting listens, or has ended.
fn listening(host: &TestHost, daemon: &Daemon) {
    while UnixStream::connect(host.path("run/node.sock")).is_err() && !daemon.is_finished() {
        std::thread::yield_now();
    }
}

#[test]
fn it_starts_watches_and_ends_on_sigterm_with_everything_attached() {
    let _alone = alone();
    let host = TestHost::new();
    let text = document(1, &[("a", "c")]).to_string();
    let watched = host.path("etc/node.json");
    fs::create_dir_all(host.path("etc")).unwrap();
    fs::write(&watched, text).unwrap();
    let daemon = start(&host, &["--document", watched.to_str().unwrap()]);
    listening(&host, &daemon);
    assert!(status(&host).contains(r#""generation":1"#));
    assert_eq!(host.running("a"), ["c"]);
    let mut shows = UnixStream::connect(host.path("run/status.sock")).unwrap();
    shows.write_all(b"POST /v1/drain HTTP/1.0\r\n\r\n").unwrap();
    let answer = BufReader::new(shows).lines().last().unwrap().unwrap();
    assert!(answer.contains("nothing can be changed"), "{answer}");
    assert_eq!(host.running("a"), ["c"]);
    let pid = fs::read_to_string(host.path("run/engine.pid")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());

    // Written aside and renamed, next to files that are none of its business.
    fs::write(host.path("etc/other.json"), "{").unwrap();
    let aside = host.path("etc/.node.json.new");
    fs::write(&aside, document(2, &[("a", "uc")]).to_string()).unwrap();
    fs::rename(&aside, &watched).unwrap();
    while !status(&host).contains(r#""generation":2"#) {
        std::thread::yield_now();
    }
    assert_eq!(host.running("a"), ["u", "c"]);
    // A bad one is refused and shown; the chain stays.
    fs::write(&aside, "{").unwrap();
    fs::rename(&aside, &watched).unwrap();
    while status(&host).contains(r#""refused_document":null"#) {
        std::thread::yield_now();
    }
    assert_eq!(host.running("a"), ["u", "c"]);

    // A second daemon on the same directories is told who has them, and harms nothing.
    let second = start(&host, &[]).join().unwrap().unwrap_err().to_string();
    assert!(second.contains(&format!("pid {}", std::process::id())), "{second}");
    assert!(second.contains("--run-dir"), "{second}");
    let state = host.path("state");
    let other_run = host.path("run2");
    let mut other = args(&host, &[]);
    other.run_dir = other_run;
    other.state_dir.clone_from(&state);
    let second = daemon::run(&other, None, |_| Ok(host.kernel())).unwrap_err().to_string();
    assert!(second.contains("--state-dir"), "{second}");
    assert!(status(&host).contains(r#""generation":2"#));

    // A client that keeps its connection open does not keep the daemon.
    let _idle = UnixStream::connect(host.path("run/node.sock")).unwrap();
    kill_process(getpid(), Signal::TERM).unwrap();
    daemon.join().unwrap().unwrap();
    assert_eq!(host.running("a"), ["u", "c"]);
    assert!(!host.path("run/node.sock").exists());
    assert!(!host.path("run/status.sock").exists());
    assert!(!host.path("run/engine.pid").exists());
}

#[test]
fn what_a_daemon_that_was_killed_left_is_no_obstacle() {
    let _alone = alone();
    let host = TestHost::new();
    fs::create_dir_all(host.path("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(host.path("run/node.sock")).unwrap());
    fs::write(host.path("run/lock"), "4194304\n").unwrap();
    fs::write(host.path("run/engine.pid"), "4194304\n").unwrap();
    let daemon = start(&host, &[]);
    listening(&host, &daemon);
    assert!(status(&host).contains(r#""generation":null"#));
    kill_process(getpid(), Signal::INT).unwrap();
    daemon.join().unwrap().unwrap();
}

#[test]
fn a_daemon_that_cannot_work_says_why_and_ends() {
    let _alone = alone();
    let host = TestHost::new();
    let none = || Err(KernelError("no BPF file system at /x; mount it".into()));
    let error = daemon::run(&args(&host, &[]), None, |_| none()).unwrap_err();
    assert_eq!(error.to_string(), "no BPF file system at /x; mount it");
    let missing = host.path("missing/node.json");
    let daemon = start(&host, &["--document", missing.to_str().unwrap()]);
    let error = daemon.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("missing of the document") && error.contains("create it"), "{error}");
    let error = start(&host, &["--status-group", "no such group"]).join().unwrap().unwrap_err();
    assert!(error.to_string().starts_with("--status-group no such group"), "{error}");
    fs::write(host.path("state/accepted.json"), "garbage").unwrap();
    let error = start(&host, &[]).join().unwrap().unwrap_err().to_string();
    assert!(error.contains("accepted.json cannot be used"), "{error}");
}

/// A snapshot of the fleet `lab` with the record of `edge-1`.
fn snapshot(key: &SigningKey, document: serde_json::Value, objects: Vec<RecordObject>) -> Vec<u8> {
    let payload = RecordPayload {
        schema: RECORD_SCHEMA.to_owned(),
        fleet: FleetName::new("lab").unwrap(),
        node: NodeName::new("edge-1").unwrap(),
        generation: document["generation"].as_u64().unwrap(),
        issued_unix_ms: 1,
        objects,
        document,
    };
    let mut writer = Writer::new();
    writer.add(b"edge-1", &sign(key, &payload).unwrap()).unwrap();
    writer.finish()
}

#[test]
fn it_notices_that_it_is_enrolled_and_what_is_laid_down() {
    let _alone = alone();
    let host = TestHost::new();
    let daemon = start(&host, &[]);
    listening(&host, &daemon);
    assert!(!status(&host).contains(r#""fleet""#));
    let until = |says: &str| {
        while !status(&host).contains(says) {
            assert!(!daemon.is_finished());
            std::thread::yield_now();
        }
    };
    // A courier is installed and the node enrolled while it runs, in whatever order.
    let drop_dir = host.path("state/drop");
    fs::create_dir_all(&drop_dir).unwrap();
    let key = SigningKey::generate().unwrap();
    fs::write(
        drop_dir.join("snapshot.cdb"),
        snapshot(&key, document(1, &[("a", "c")]), Vec::new()),
    )
    .unwrap();
    let public_key = key.public_key().to_base64();
    let member = json!({ "fleet": "lab", "node": "edge-1", "public_key": public_key });
    fs::write(host.path("state/fleet.json.new"), member.to_string()).unwrap();
    fs::rename(host.path("state/fleet.json.new"), host.path("state/fleet.json")).unwrap();
    until(r#""generation":1"#);
    assert_eq!(host.running("a"), ["c"]);

    // The record first, its object afterwards, in a directory that was not there.
    let hash = Sha256::of(b"OBJECT x");
    let mut next = document(2, &[("a", "cx")]);
    next["programs"]["x"] = json!({ "object": { "sha256": hash } });
    let next = snapshot(&key, next, vec![RecordObject { sha256: hash, bytes: 8 }]);
    fs::write(drop_dir.join("aside"), next).unwrap();
    fs::rename(drop_dir.join("aside"), drop_dir.join("snapshot.cdb")).unwrap();
    until(r#""kind":"incomplete""#);
    assert_eq!(host.running("a"), ["c"]);
    fs::create_dir(drop_dir.join("objects")).unwrap();
    fs::write(drop_dir.join("objects/aside"), "OBJECT x").unwrap();
    fs::rename(drop_dir.join("objects/aside"), drop_dir.join("objects").join(hash.to_string()))
        .unwrap();
    until(r#""generation":2"#);
    assert_eq!(host.running("a"), ["c", "x"]);

    // Somebody makes the file writable for all, and somebody sets that right.
    let mode = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(host.path("state/fleet.json"), mode).unwrap();
    };
    mode(0o666);
    until("others may write");
    mode(0o644);
    until(r#""fleet":{"#);
    // The node leaves its fleet.
    fs::remove_file(host.path("state/fleet.json")).unwrap();
    while status(&host).contains(r#""fleet":{"#) {
        assert!(!daemon.is_finished());
        std::thread::yield_now();
    }
    assert_eq!(host.running("a"), ["c", "x"]);
    kill_process(getpid(), Signal::TERM).unwrap();
    daemon.join().unwrap().unwrap();
}

#[test]
fn an_engine_that_dies_ends_the_daemon() {
    let _alone = alone();
    let host = TestHost::new();
    host.shared.dies.store(true, std::sync::atomic::Ordering::SeqCst);
    host.shared.sim().plant(pointsman_plan::simulator::Fault::Crash(0));
    fs::create_dir_all(host.path("state")).unwrap();
    fs::write(host.path("state/node.json"), document(1, &[("a", "c")]).to_string()).unwrap();
    let error = start(&host, &[]).join().unwrap().unwrap_err();
    assert!(matches!(error, DaemonError::EngineDied), "{error}");
}
