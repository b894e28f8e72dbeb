//! Somebody sets the wall clock: nothing that a client holds or waits for goes by it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::clients::{DONE, socket};
use super::scene;
use pointsman_imtl_client::request::{get_lcore, heartbeat, put_lcore};
use pointsman_imtl_client::{Client, Dialect};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::skip;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TEN_YEARS_MS: u64 = 3650 * 86_400_000;

/// libfaketime, which answers for the wall clock and leaves the monotonic one alone.
fn library() -> Option<PathBuf> {
    let mut directories = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    directories.find_map(|path| {
        let library = path.join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    })
}

/// Makes the daemon's wall clock differ from the host's by so much.
fn jump(host: &Host, by: &str) {
    let aside = host.path("clock.new");
    fs::write(&aside, format!("{by}\n")).unwrap();
    fs::rename(aside, host.path("clock")).unwrap();
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// What is shown of the instance that is the how many-th.
fn instance(daemon: &Daemon, at: usize) -> Value {
    let answer = daemon.ask(&["instances"], b"");
    assert_eq!(answer.code, 0, "{answer:#?}");
    answer.value["instances"][at].clone()
}

#[test]
fn a_wall_clock_that_jumps_takes_nothing_and_makes_nobody_wait() {
    let (host, pair) = scene();
    let Some(library) = library() else {
        return skip("a_wall_clock_that_jumps", "there is no libfaketime");
    };
    let mut command = host.command();
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", host.path("clock"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    jump(&host, "+0");
    let daemon = host.start_as(&pair.right, command).unwrap();
    let mut holder = Client::register(&socket(&host), Dialect::Mtlm).unwrap();
    assert_eq!(holder.ask(&get_lcore(1)).unwrap(), DONE);
    let first = instance(&daemon, 0);
    let since = first["since_unix_ms"].as_u64().unwrap();
    assert!(since.abs_diff(now_ms()) < 600_000, "{first:#}");

    for (round, (by, years_on)) in (2..).zip([("+3650d", true), ("-3650d", false)]) {
        jump(&host, by);
        // The daemon's clock did jump: who comes now comes then.
        let mut late = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
        let seen = instance(&daemon, 1)["since_unix_ms"].as_u64().unwrap();
        let expected = if years_on { now_ms() + TEN_YEARS_MS } else { now_ms() - TEN_YEARS_MS };
        assert!(seen.abs_diff(expected) < 600_000, "{seen} is not about {expected}");
        assert_eq!(late.ask(&get_lcore(round)).unwrap(), DONE);
        assert!(late.ask(&get_lcore(1)).unwrap().value < 0, "it is held still");
        assert_eq!(holder.ask(&heartbeat(9)).unwrap().value, 9);
        let known = instance(&daemon, 0);
        assert_eq!(known["since_unix_ms"].as_u64(), Some(since));
        // For how long it has been idle, and that it has an owner, has nothing to do with that.
        assert!(known["idle_ms"].as_u64().unwrap() < 600_000, "{known:#}");
        // Nor when a daemon is started again, and what it finds in the journal.
        daemon.kill_engine().unwrap();
        daemon.ready_again().unwrap();
        assert_eq!(late.ask(&put_lcore(Dialect::Libmtl, round)).unwrap(), DONE);
        assert!(late.ask(&get_lcore(1)).unwrap().value < 0);
        let known = instance(&daemon, 0);
        assert_eq!(known["lcores"][0]["id"], 1, "{known:#}");
        // Lines are let through as ever.
        let line = format!("lcore {round} returned by pid");
        let start = Instant::now();
        while !fs::read_to_string(host.path("log")).unwrap().contains(&line) {
            assert!(start.elapsed() < Duration::from_secs(60), "{line:?} is not in the log");
        }
    }
    assert_eq!(holder.ask(&put_lcore(Dialect::Mtlm, 1)).unwrap(), DONE);
}
