//! The binary: what it serves, what it says, and how it ends.

use crate::stage::daemon::Daemon;
use crate::stage::process::{BINARY, Running, eventually, output};
use crate::stage::server::{Seen, Server};
use crate::stage::{CREDENTIAL, NODE, Stage};
use pointsman_model::fleet::NodeReport;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

fn reports(seen: &[Seen]) -> Vec<NodeReport> {
    seen.iter()
        .filter(|seen| seen.path == "/v1/report" && seen.method == "PUT")
        .map(|seen| serde_json::from_slice(&seen.body).unwrap())
        .collect()
}

/// Where the metrics of a courier are.
fn metrics(courier: &Running) -> SocketAddr {
    eventually("the metrics' address", || {
        let log = courier.log();
        let start = log.find("metrics on http://")? + "metrics on http://".len();
        let end = log[start..].find('/')?;
        log[start..start + end].parse().ok()
    })
}

fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_fetches_reports_counts_and_ends_when_it_is_told() {
    let mut stage = Stage::new();
    stage.enrolled();
    let object = stage.fleet.object(b"object");
    stage.fleet.publish_one(NODE, 1, &[object]);
    let daemon = Daemon::start(&stage.path("node.sock"));
    let courier = stage.start(&["--metrics-listen", "127.0.0.1:0", "--log-level", "trace"]);
    eventually("generation 1", || (stage.in_place() == Some(1)).then_some(()));

    // The outcome at the daemon is told as soon as it happens, also between two reports.
    stage.server.await_seen(|seen| {
        reports(seen).iter().any(|report| report.courier.handed_over == Some(1))
    });
    daemon.takes(1);
    stage.server.await_seen(|seen| {
        let told =
            |report: &NodeReport| report.status.as_ref().and_then(|s| s.generation) == Some(1);
        reports(seen).iter().any(told)
    });
    let seen = stage.server.seen();
    let all = reports(&seen);
    assert!(all[0].status.is_some() && all[0].counters.is_some(), "{:?}", all[0]);
    assert!(all.iter().filter(|report| report.status.is_some()).count() < all.len().max(4));
    let bearer = format!("Bearer {CREDENTIAL}");
    assert!(seen.iter().all(|seen| seen.authorization.as_ref() == Some(&bearer)));

    let address = metrics(&courier);
    let text = get(address, "GET /metrics");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains(r#"pointsman_courier_polls_total{outcome="handed_over"} 1"#), "{text}");
    assert!(text.contains("pointsman_courier_generation 1"), "{text}");
    let text = get(address, "GET /healthz");
    assert!(text.contains(r#""healthy":true"#) && text.contains(r#""generation":1"#), "{text}");
    assert!(get(address, "POST /metrics").starts_with("HTTP/1.1 405"));
    assert!(get(address, "GET /../etc/passwd").starts_with("HTTP/1.1 404"));

    // Whoever asks nothing and does not go keeps nobody waiting.
    let idle: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    stage.fleet.publish_one(NODE, 2, &[]);
    eventually("generation 2", || (stage.in_place() == Some(2)).then_some(()));
    drop(idle);

    let (log, status) = (courier.log(), courier.stop());
    assert!(status.success(), "{status}");
    assert!(!log.contains(CREDENTIAL), "no level of the log shows it");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}

#[test]
fn each_side_does_without_the_other_and_a_trouble_is_told_once() {
    let mut stage = Stage::new();
    stage.enrolled();
    stage.fleet.publish_one(NODE, 1, &[]);
    let store = stage.fleet.root.clone();
    // No daemon: what is published is handed over, and the trouble is reported.
    let courier = stage.start(&[]);
    eventually("generation 1", || (stage.in_place() == Some(1)).then_some(()));
    stage.server.await_seen(|seen| {
        let down = |report: &NodeReport| {
            let trouble = report.courier.daemon_trouble.as_deref().unwrap_or_default();
            report.status.is_none() && trouble.contains("nobody listens")
        };
        reports(seen).iter().any(down)
    });
    // The daemon comes.
    let daemon = Daemon::start(&stage.path("node.sock"));
    stage.server.await_seen(|seen| reports(seen).iter().any(|report| report.status.is_some()));

    // The control plane goes; many polls later it is another one on the same address.
    let address = stage.server.address;
    drop(std::mem::replace(&mut stage.server, Server::start(&store)));
    let down = |log: &str| log.matches("cannot reach").count();
    courier.await_log("cannot reach");
    // Several polls and reports, by their lines at debug level, which are not there: so wait for
    // the only thing that time changes.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(down(&courier.log()), 2, "one line of the source and one of the control plane");
    stage.server = Server::start_on(&store, address);
    stage.fleet.publish_one(NODE, 2, &[]);
    eventually("generation 2", || (stage.in_place() == Some(2)).then_some(()));
    courier.await_log("source: well again");
    courier.await_log("control plane: well again");
    // All of it, because nobody knows what the other one had.
    let first = reports(&stage.server.seen()).remove(0);
    assert!(first.status.is_some() && first.counters.is_some());
    // The daemon goes.
    drop(daemon);
    fs::remove_file(stage.path("node.sock")).unwrap();
    stage.server.take();
    stage.server.await_seen(|seen| {
        reports(seen).iter().any(|report| report.courier.daemon_trouble.is_some())
    });
    stage.fleet.publish_one(NODE, 3, &[]);
    eventually("generation 3", || (stage.in_place() == Some(3)).then_some(()));
    assert!(courier.stop().success());
}

#[test]
fn two_couriers_do_not_share_a_directory() {
    let mut stage = Stage::new();
    stage.enrolled();
    stage.fleet.publish_one(NODE, 1, &[]);
    let courier = stage.start(&[]);
    eventually("generation 1", || (stage.in_place() == Some(1)).then_some(()));
    let other = stage.path("cache2").display().to_string();
    for more in [&[][..], &["--cache", &other]] {
        let mut command = Command::new(BINARY);
        stage.arguments(&mut command, &[]);
        if let [option, value] = more {
            let mut arguments: Vec<_> =
                command.get_args().map(|a| a.to_str().unwrap().to_owned()).collect();
            let at = arguments.iter().position(|argument| argument == option).unwrap();
            arguments[at + 1] = (*value).to_owned();
            command = Command::new(BINARY);
            command.args(arguments);
        }
        let (ok, _, log) = output(command);
        let pid = format!("pid {}", courier.child.id());
        assert!(!ok && log.contains(&pid) && log.contains("in use"), "{log}");
    }
    // Killed, it leaves no lock behind.
    courier.kill();
    let again = stage.start(&[]);
    stage.fleet.publish_one(NODE, 2, &[]);
    eventually("generation 2", || (stage.in_place() == Some(2)).then_some(()));
    drop(again);
}

#[test]
fn the_service_manager_is_told_how_it_stands() {
    let stage = Stage::new();
    stage.enrolled();
    let socket = UnixDatagram::bind(stage.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = stage.command(&[]);
    command.env("NOTIFY_SOCKET", stage.path("notify")).env("WATCHDOG_USEC", "300000");
    let mut courier = Running::spawn(command, &stage.path("log"));
    let mut said = String::new();
    let mut hear = |wanted: &str| {
        let mut buffer = [0; 4096];
        while !said.contains(wanted) {
            let length = socket.recv(&mut buffer).unwrap();
            said += std::str::from_utf8(&buffer[..length]).unwrap();
            said.push('\n');
        }
        said.clear();
    };
    hear("READY=1");
    hear("STATUS=nothing handed over yet");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    courier.signal(rustix::process::Signal::INT);
    hear("STOPPING=1");
    assert!(courier.wait().success());
}

#[test]
fn one_poll_by_hand_says_what_it_did() {
    let mut stage = Stage::new();
    stage.enrolled();
    let once = |stage: &Stage| output(stage.command(&["--once"]));
    let (ok, out, log) = once(&stage);
    assert!(
        !ok && out.contains("nothing could be fetched") && log.contains("/blobs/latest"),
        "{log}"
    );
    let _daemon = Daemon::start(&stage.path("node.sock"));
    stage.fleet.publish_one(NODE, 3, &[]);
    let (ok, out, log) = once(&stage);
    assert!(ok && out == "generation 3 handed over\n", "{out}{log}");
    let (ok, out, log) = once(&stage);
    assert!(ok && out == "nothing new for this node\n", "{out}{log}");
    stage.fleet.publish_one(NODE, 2, &[]);
    let (ok, out, log) = once(&stage);
    assert!(!ok && out.contains("generation 2 is published, and 3 stays"), "{out}{log}");
    assert!(log.contains("pointsman-courier forget"), "{log}");

    let mut forget = Command::new(BINARY);
    forget.arg("forget").arg("--cache").arg(stage.path("cache"));
    let (ok, out, _) = output(forget);
    assert!(ok && out.contains("generation 3 was handed over last"), "{out}");
    let (ok, out, log) = once(&stage);
    assert!(ok && out == "generation 2 handed over\n", "{out}{log}");
}

#[test]
fn what_is_wrong_on_this_host_is_said_at_once() {
    let stage = Stage::new();
    let start = |more: &[&str]| {
        let (ok, _, log) = output(stage.command(more));
        assert!(!ok, "{log}");
        log
    };
    let log = start(&[]);
    assert!(log.contains("courier.json") && log.contains("enrol this node first"), "{log}");
    stage.enrolled();
    fs::set_permissions(stage.path("courier.json"), Permissions::from_mode(0o644)).unwrap();
    assert!(start(&[]).contains("chmod 600"));
    stage.enrolled();
    fs::write(stage.path("fleet.json"), r#"{"fleet":"x","node":"y","public_key":"z"}"#).unwrap();
    assert!(start(&[]).contains("enrol again"));
    stage.enrolled();
    let log = start(&["--ca", "/nowhere/ca.pem"]);
    assert!(log.contains("/nowhere/ca.pem"), "{log}");
    let log = start(&["--source", "ftp://x/"]);
    assert!(log.contains("ftp"), "{log}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let log = start(&["--metrics-listen", &address]);
    assert!(log.contains(&address) && log.contains("--metrics-listen"), "{log}");
}

#[test]
fn help_tells_what_there_is() {
    for (arguments, expected) in [
        (&["--help"][..], &["run", "enroll", "forget", "--log-format"][..]),
        (&["run", "--help"], &["--poll-interval", "127.0.0.1:9600", "/var/lib/pointsman/drop"]),
        (&["enroll", "--help"], &["--token-file", "--force", "/etc/pointsman/fleet.json"]),
    ] {
        let mut command = Command::new(BINARY);
        command.args(arguments);
        let (ok, out, _) = output(command);
        assert!(ok);
        for word in expected {
            assert!(out.contains(word), "{word}: {out}");
        }
    }
}
