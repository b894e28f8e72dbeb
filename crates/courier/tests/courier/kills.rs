//! `kill -9` of the real binary. Whenever it comes, whoever watches the drop directory sees nothing
//! but whole, signed, newer records with all their objects, and the next courier goes on.

use crate::stage::process::{BINARY, Running, eventually};
use crate::stage::server::{Fault, Seen};
use crate::stage::watcher::Watcher;
use crate::stage::{NODE, Stage};
use pointsman_model::fleet::RecordObject;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

fn full() -> bool {
    std::env::var("POINTSMAN_FULL").is_ok_and(|full| full == "1")
}

/// Publishes the next generation, which needs objects of its own and one of the one before.
fn publish(stage: &mut Stage, generation: u64) {
    let object = |stage: &Stage, seed: u64| -> RecordObject {
        let bytes: Vec<u8> = (0..60_000_u64).map(|at| ((at * seed) >> 3) as u8).collect();
        stage.fleet.object(&bytes)
    };
    let needs = [object(stage, generation), object(stage, generation + 1)];
    stage.fleet.publish_one(NODE, generation, &needs);
}

/// A courier comes through with the newest generation.
fn converges(stage: &Stage, generation: u64) {
    stage.server.take();
    let courier = stage.start(&[]);
    eventually("the newest generation", || (stage.in_place() == Some(generation)).then_some(()));
    // From its first report on it can be told to stop.
    stage.server.await_seen(|seen| seen.iter().any(|seen| seen.path == "/v1/report"));
    assert!(courier.stop().success());
    let parts = std::fs::read_dir(stage.path("drop/.courier")).unwrap();
    let parts: Vec<_> = parts.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(parts, ["lock"], "nothing unfinished is left");
}

fn is_at(part: &'static str, nth: usize) -> impl Fn(&Seen) -> bool + Send {
    let count = std::sync::atomic::AtomicUsize::new(0);
    move |seen| {
        seen.path.contains(part) && count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == nth
    }
}

#[test]
fn killed_at_every_step_of_fetching() {
    let mut stage = Stage::new();
    stage.enrolled();
    publish(&mut stage, 1);
    let watcher = Watcher::start(&stage.path("drop"), stage.fleet.key.public_key());
    converges(&stage, 1);
    let points = [
        ("latest", 0, 0),
        ("latest", 0, 40),
        ("shards/", 0, 0),
        ("shards/", 1, 3),
        ("shards/", 2, 0),
        ("shards/", 2, 500),
        ("objects/", 0, 0),
        ("objects/", 0, 30_000),
        ("objects/", 0, 59_999),
        ("/v1/report", 0, 0),
    ];
    for (number, (part, nth, bytes)) in points.into_iter().enumerate() {
        let generation = number as u64 + 2;
        publish(&mut stage, generation);
        stage.server.fault(is_at(part, nth), Fault::Hold(bytes));
        let before = stage.server.held();
        let courier = stage.start(&[]);
        stage.server.await_held(before + 1);
        courier.kill();
        stage.server.heal();
        converges(&stage, generation);
    }
    let seen = watcher.finish();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    assert_eq!(seen.generations.last(), Some(&(points.len() as u64 + 1)));
}

/// What changes files, as system calls.
const STEPS: &str = "fsync,renameat,unlinkat,mkdirat,ftruncate,fchmod";

#[test]
fn killed_before_every_change_of_a_file() {
    let strace = |options: &[&str], stage: &Stage| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq"]).args(options).arg(BINARY);
        stage.arguments(&mut command, &["--once"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    if Command::new("strace").arg("-V").output().is_err() {
        println!("SKIP kills::killed_before_every_change_of_a_file: strace is not installed");
        return;
    }
    let mut stage = Stage::new();
    stage.enrolled();
    publish(&mut stage, 1);
    let watcher = Watcher::start(&stage.path("drop"), stage.fleet.key.public_key());
    converges(&stage, 1);

    // Which steps one change takes.
    publish(&mut stage, 2);
    let log = stage.path("strace");
    let file = log.display().to_string();
    let trace = format!("trace={STEPS},renameat2");
    let status = strace(&["-o", &file, "-e", &trace], &stage)
        .stderr(File::create(stage.path("log")).unwrap())
        .status()
        .unwrap();
    assert_eq!(stage.in_place(), Some(2), "{status}");
    let text = std::fs::read_to_string(&log).unwrap();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let steps: Vec<(String, usize)> = text
        .lines()
        .filter_map(|line| {
            let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
            let call = call.split_once('(')?.0.to_owned();
            let count = counts.entry(call.clone()).or_default();
            *count += 1;
            Some((call, *count))
        })
        .collect();
    println!("{} steps: {counts:?}", steps.len());
    let renames: usize =
        counts.iter().filter(|(call, _)| call.starts_with("renameat")).map(|(_, n)| n).sum();
    assert_eq!(renames, 4, "one object, the snapshot, the record and the state: {text}");

    let mut generation = 2;
    let mut kills = 0;
    for (number, (call, nth)) in steps.iter().enumerate() {
        // All of them in a long run, a third of them in a short one.
        if !full() && number % 3 != 0 {
            continue;
        }
        generation += 1;
        publish(&mut stage, generation);
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let status = strace(&["-o", "/dev/null", "-e", &inject], &stage)
            .stderr(File::create(stage.path("log")).unwrap())
            .status()
            .unwrap();
        kills += usize::from(!status.success() && status.code() != Some(1));
        converges(&stage, generation);
    }
    println!("{kills} kills");
    assert!(kills > steps.len() / 6, "{kills} of {}", steps.len());
    let seen = watcher.finish();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    assert_eq!(seen.generations.last(), Some(&generation));
}

#[test]
fn killed_at_random_moments() {
    let mut stage = Stage::new();
    stage.enrolled();
    publish(&mut stage, 1);
    let watcher = Watcher::start(&stage.path("drop"), stage.fleet.key.public_key());
    // Long enough for kills to find it at work.
    stage.server.fault_at("objects/", Fault::Slow(10_000, Duration::from_millis(3)));
    let rounds = if full() { 300 } else { 60 };
    let mut handed_over = 0;
    for generation in 2..2 + rounds {
        publish(&mut stage, generation);
        stage.server.take();
        let courier: Running = stage.start(&[]);
        stage.server.await_seen(|seen| !seen.is_empty());
        let mut random = [0; 1];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(random[0]) * 2400));
        courier.kill();
        handed_over += u64::from(stage.in_place() == Some(generation));
    }
    stage.server.heal();
    converges(&stage, rounds + 1);
    let seen = watcher.finish();
    println!("{handed_over} of {rounds} came through before the kill, {} looks", seen.looks);
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    assert!((1..rounds).contains(&handed_over), "kills come at all moments: {handed_over}");
}
