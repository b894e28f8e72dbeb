//! Binaries and requests that are bad for the daemon, under clients that notice nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::clients::{Active, DONE, socket};
use super::scene;
use pointsman_imtl_client::request::{get_lcore, heartbeat, put_lcore};
use pointsman_imtl_client::{Client, Dialect};
use pointsman_netns::daemon::Host;
use pointsman_netns::random::{Random, full};
use pointsman_netns::skip;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// The daemon's command from a copy, which can be replaced.
fn installed(host: &Host) -> (Command, PathBuf) {
    let plain = host.command();
    let path = host.path("pointsman-node");
    fs::copy(plain.get_program(), &path).unwrap();
    let mut command = Command::new(&path);
    command.args(plain.get_args()).args(["--restart-delay", "0"]).env_remove("NOTIFY_SOCKET");
    (command, path)
}

/// Puts a copy of `from` in the place of what is installed, as a package manager does.
fn install(from: &Path, path: &Path) -> u64 {
    let aside = path.with_extension("new");
    fs::copy(from, &aside).unwrap();
    fs::rename(&aside, path).unwrap();
    fs::metadata(path).unwrap().ino()
}

/// The daemon that runs, if one does at this moment.
fn engine(host: &Host) -> Option<Pid> {
    let text = fs::read_to_string(host.path("run/engine.pid")).ok()?;
    text.trim().parse().ok().and_then(Pid::from_raw)
}

/// What it runs.
fn runs(host: &Host) -> Option<u64> {
    let exe = format!("/proc/{}/exe", engine(host)?.as_raw_nonzero());
    Some(fs::metadata(exe).ok()?.ino())
}

#[test]
fn upgrades_and_bad_upgrades_under_kills_are_not_noticed() {
    let (host, pair) = scene();
    let (command, path) = installed(&host);
    let good = host.command().get_program().to_owned();
    let daemon = host.start_as(&pair.right, command).unwrap();
    let mut holder = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(holder.ask(&get_lcore(77)).unwrap(), DONE);
    let first = runs(&host);
    let active = Active::start(&host, 20);
    let mut random = Random::new("swaps");
    for _ in 0..if full() { 20 } else { 3 } {
        let inode = install(Path::new(&good), &path);
        daemon.signal(Signal::HUP).unwrap();
        // At any moment of the swap, or behind it.
        for _ in 0..random.below(4) {
            let _ = engine(&host).map(|engine| kill_process(engine, Signal::KILL));
        }
        let start = Instant::now();
        while runs(&host) != Some(inode) {
            assert!(start.elapsed() < PATIENCE, "what is installed does not run");
        }
    }
    install(Path::new("/bin/false"), &path);
    daemon.signal(Signal::HUP).unwrap();
    let log = || fs::read_to_string(host.path("log")).unwrap();
    let start = Instant::now();
    while !log().contains("failed 5 times in a row: the daemon that worked before is started") {
        assert!(start.elapsed() < PATIENCE, "it is not given up");
    }
    assert_eq!(holder.ask(&heartbeat(1)).unwrap().value, 1, "it is answered by somebody");
    // None of those that came between has served for ten seconds.
    assert_eq!(runs(&host), first);
    active.stop();
    assert_eq!(holder.ask(&put_lcore(Dialect::Libmtl, 77)).unwrap(), DONE);
}

/// strace makes the real daemon crash whenever it is about to write one request's grant down.
#[test]
fn a_request_that_crashes_daemon_after_daemon_is_refused_and_others_are_served() {
    let (host, pair) = scene();
    let mut command = host.command();
    command.args(["--restart-delay", "0"]);
    let daemon = host.start_as(&pair.right, command).unwrap();
    let mut guilty = Client::register(&socket(&host), Dialect::Mtlm).unwrap();
    let mut other = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(other.ask(&get_lcore(3)).unwrap(), DONE);
    assert_eq!(guilty.ask(&get_lcore(4)).unwrap(), DONE);
    let strace = Command::new("strace")
        .args(["--follow-forks", "--output", "/dev/null", "--trace=pwrite64"])
        .arg("--inject=pwrite64:error=EIO:signal=ABRT:when=1+")
        .arg(format!("--attach={},{}", daemon.pid(), daemon.engine()))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut strace = match strace {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return skip("a_request_that_crashes_daemon_after_daemon", "there is no strace");
        }
        strace => strace.unwrap(),
    };
    let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
    // A line for the keeper, one for the daemon: with all their threads.
    for _ in 0..2 {
        let line = said.next().expect("a line").unwrap();
        assert!(line.contains("attached"), "strace: {line}");
    }
    guilty.send(&get_lcore(5)).unwrap();
    other.send(&heartbeat(7)).unwrap();
    let refused = guilty.reply().unwrap();
    assert_eq!((refused.kind, refused.value), (201, -5), "EIO of 1.1, in its own type");
    assert_eq!(other.reply().unwrap().value, 7);
    assert_eq!(guilty.ask(&heartbeat(8)).unwrap().value, 8, "it goes on");
    kill_process(Pid::from_child(&strace), Signal::TERM).unwrap();
    strace.wait().unwrap();
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert_eq!(log.matches("the daemon ended: signal: 6").count(), 3, "{log}");
    assert!(log.contains("crashed 3 times over a request of connection"), "{log}");
    // Nothing of it was carried out, and nothing else was lost.
    assert_eq!(other.ask(&get_lcore(5)).unwrap(), DONE);
    for (client, lcore) in [(&mut other, 3), (&mut guilty, 4)] {
        let put = put_lcore(client.dialect(), lcore);
        assert_eq!(client.ask(&put).unwrap(), DONE);
    }
}
