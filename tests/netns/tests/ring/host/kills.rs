//! `kill -9` of the daemon at any moment of a change, under traffic.

use super::{document, program, scene};
use pointsman_netns::random::{Random, full};
use pointsman_netns::traffic::received;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Component, PathBuf};
use std::time::Duration;

/// How often the daemon is killed.
fn rounds() -> u64 {
    if full() { 200 } else { 20 }
}

/// A chain of another order, length and load each time. All drop port 5001 and pass the rest.
fn edition(generation: u64) -> Value {
    let turn = usize::try_from(generation).expect("small");
    let port = json!({"port": 5001, "port_verdict": 1});
    let mut filter = program("verdict", "v_port");
    filter["globals"] = port;
    let programs = json!({
        "filter": filter, "tail": program("tailcall", "member"), "timer": program("timer", "arm"),
        "pass": program("verdict", "v_pass"),
        "upgraded": {"object": {"path": pointsman_netns::object_path("verdict")},
                     "entry": "v_global", "globals": {"verdict": 2 + 2 * (turn % 2)}}});
    let names = ["filter", "tail", "timer", "pass", "upgraded"];
    let length = 2 + turn % 4;
    let mut chain: Vec<_> = (0..length)
        .map(|at| {
            json!({"program": names[(at + turn) % names.len()], "priority": at,
                         "chain_call_actions": ["pass", "redirect"]})
        })
        .collect();
    if !chain.iter().any(|entry| entry["program"] == "filter") {
        chain.push(json!({"program": "filter"}));
    }
    for entry in &mut chain {
        if entry["program"] == "filter" {
            entry["chain_call_actions"] = json!(["pass"]);
        }
    }
    document(generation, &programs, &json!(chain))
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_chain_and_nothing_else() {
    let (host, pair) = scene();
    let mut random = Random::new("kills");
    let mut daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&edition(1));
    for round in 0..rounds() {
        let generation = round + 2;
        let text = edition(generation).to_string();
        let delay = Duration::from_micros(random.next() % 60_000);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| daemon.ask(&["apply", "-"], text.as_bytes()));
            // The moment of the kill is what is tried: any will do, and none is waited for.
            std::thread::sleep(delay);
            daemon.signal(Signal::KILL).unwrap();
            let _ = asking.join();
        });
        drop(daemon);
        // Without a daemon, and whichever chain it is: whole.
        assert_eq!(received(&pair, &[5001, 5002], 5999, 3), [0, 3], "killed after {delay:?}");
        daemon = host.start(&pair.right).unwrap();
        assert_eq!(received(&pair, &[5001, 5002], 5999, 3), [0, 3], "after the restart");
        let applied = daemon.apply(&edition(generation));
        assert_eq!(applied.code, 0, "{applied:#?}");
        let hook = daemon.hook();
        assert_eq!(
            (&hook["state"], hook["generation"].as_u64()),
            (&json!("running"), Some(generation))
        );
        let chains =
            pins_at(&host.bpffs.list().unwrap(), &["pointsman", "hooks", "v1", "xdp", "chains"]);
        assert_eq!(chains, 1, "one chain is pinned");
    }
    let drained = daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    assert_eq!(host.bpffs.list().unwrap(), [PathBuf::from("pointsman")]);
}

/// How many entries the directory of these components has.
fn pins_at(pins: &[PathBuf], directory: &[&str]) -> usize {
    let depth = directory.len();
    let inside = |pin: &&PathBuf| {
        let parts: Vec<_> = pin.components().collect();
        parts.len() == depth + 1
            && parts
                .iter()
                .zip(directory)
                .all(|(part, name)| *part == Component::Normal(name.as_ref()))
    };
    pins.iter().filter(inside).count()
}
