//! Upgrades as an operator makes them: what the plan says, and what is there afterwards.

use super::{document, program, scene};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use pointsman_netns::daemon::Daemon;
use pointsman_netns::random::{Random, full};
use pointsman_netns::traffic::received;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// A document with one program of `object`.
fn version(generation: u64, object: &str, maps: &Value) -> Value {
    let mut counts = program(object, "counts");
    counts["maps"] = maps.clone();
    document(generation, &json!({"counts": counts}), &json!([{"program": "counts"}]))
}

fn pinned(daemon: &Daemon, map: &str) -> MapHandle {
    let hook = daemon.hook();
    let directory = hook["members"][0]["maps"].as_str().expect("a directory");
    let path = Path::new(directory).join(pointsman_bpf::pins::file_name(map));
    MapHandle::from_pinned_path(path).expect("a pinned map")
}

fn entry(daemon: &Daemon, map: &str, key: &[u8]) -> Option<Vec<u8>> {
    pinned(daemon, map).lookup(key, MapFlags::ANY).expect("a lookup")
}

fn packets(daemon: &Daemon) -> u64 {
    let values = pinned(daemon, "packets").lookup_percpu(&[0; 4], MapFlags::ANY).expect("a lookup");
    let number = |bytes: Vec<u8>| u64::from_ne_bytes(bytes[..8].try_into().expect("8 bytes"));
    values.expect("a value").into_iter().map(number).sum()
}

fn runs(daemon: &Daemon) -> u64 {
    daemon.hook()["members"][0]["runs"].as_u64().expect("a count")
}

/// The step of a plan that prepares the program.
fn prepared(plan: &Value) -> Value {
    let steps = plan["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["step"] == "prepare_program");
    step.unwrap_or_else(|| panic!("{plan:#}")).clone()
}

fn names(maps: &Value) -> Vec<String> {
    maps.as_object().map(|maps| maps.keys().cloned().collect()).unwrap_or_default()
}

fn told(plan: &Value) -> String {
    let notes = plan["notes"].as_array().expect("notes").iter();
    notes.map(|note| note["message"].as_str().expect("text")).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_upgrade_keeps_what_agrees_and_says_what_it_loses() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&version(1, "upgrade_1", &json!({})));
    let (flow, sum) = ([7; 8], [9; 16]);
    pinned(&daemon, "flows").update(&flow, &sum, MapFlags::ANY).unwrap();
    pinned(&daemon, "limits").update(&[7; 4], &[9; 8], MapFlags::ANY).unwrap();
    assert_eq!(received(&pair, &[5000], 5999, 9), [9]);
    assert_eq!((packets(&daemon), runs(&daemon)), (10, 10));

    let next = version(2, "upgrade_2", &json!({}));
    let plan = daemon.ask(&["plan", "-"], next.to_string().as_bytes()).value;
    let step = prepared(&plan);
    let kept = ["events", "flows", "only", "packets", "recent", "sockets", "tables"];
    assert_eq!(names(&step["keeps"]), kept);
    let lost = [".bss", ".data", "flagged", "limits", "slots", "untyped"];
    assert_eq!(names(&step["loses"]), lost);
    assert_eq!(step["loses"]["limits"], "its value had `u32 rate@0`, has `u32 burst@0` now");
    assert_eq!(step["loses"]["slots"], "entries: 4 before, 8 now");
    assert!(told(&plan).contains("state lost: map limits of program counts"), "{}", told(&plan));
    assert_eq!(entry(&daemon, "limits", &[7; 4]).as_deref(), Some(&[9; 8][..]), "a plan is a plan");

    daemon.apply_whole(&next);
    assert_eq!(received(&pair, &[5000], 5999, 4), [4]);
    assert_eq!(entry(&daemon, "flows", &flow).as_deref(), Some(&sum[..]));
    assert_eq!(entry(&daemon, "limits", &[7; 4]), None);
    assert_eq!((packets(&daemon), runs(&daemon)), (10 + 5000, 15));

    // Back, and with a word for one map.
    let back = version(3, "upgrade_1", &json!({"recent": {"on_upgrade": "fresh"}}));
    pinned(&daemon, "recent").update(&[7; 4], &sum, MapFlags::ANY).unwrap();
    let report = daemon.apply_whole(&back);
    assert!(!names(&prepared(&report["plan"])["keeps"]).contains(&"recent".to_owned()));
    assert!(told(&report["plan"]).contains("map recent of program counts starts anew"));
    assert_eq!(entry(&daemon, "flows", &flow).as_deref(), Some(&sum[..]));
    assert_eq!(entry(&daemon, "recent", &[7; 4]), None);
    assert_eq!(received(&pair, &[5000], 5999, 4), [4]);
    assert_eq!((packets(&daemon), runs(&daemon)), (10 + 5000 + 5, 20));
    // One load is left, and nothing of the others.
    let loads = host.bpffs.path().join("pointsman/programs/counts");
    assert_eq!(std::fs::read_dir(loads).unwrap().count(), 1);

    let wrong = version(4, "upgrade_1", &json!({"resent": {"on_upgrade": "fresh"}}));
    let refused = daemon.apply(&wrong);
    assert_ne!(refused.code, 0, "{refused:#?}");
    let message = refused.value["refusals"][0]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("no such map"), "{message}");
}

#[test]
fn a_kept_map_with_listed_entries_is_written_only_when_they_change() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let key = json!({"address": 1, "port": 2, "protocol": 3, "pad": 0});
    let maps = |packets: u64| {
        let value = json!({"packets": packets, "bytes": 0});
        json!({"flows": {"entries": [{"key": key, "value": value}], "on_upgrade": "keep"}})
    };
    daemon.apply_whole(&version(1, "upgrade_1", &maps(1)));
    let other = [7; 8];
    pinned(&daemon, "flows").update(&other, &[9; 16], MapFlags::ANY).unwrap();
    daemon.apply_whole(&version(2, "upgrade_2", &maps(1)));
    assert!(entry(&daemon, "flows", &other).is_some());
    daemon.apply_whole(&version(3, "upgrade_1", &maps(2)));
    assert!(entry(&daemon, "flows", &other).is_none());
    let mut listed = 1u32.to_ne_bytes().to_vec();
    listed.extend(2u16.to_ne_bytes());
    listed.extend([3, 0]);
    let found = entry(&daemon, "flows", &listed).expect("the listed entry");
    assert_eq!(found[..8], 2u64.to_ne_bytes());
}

#[test]
fn counters_go_on_over_upgrades_and_re_orders_under_traffic() {
    const SENT: usize = 20_000;
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let edition = |generation: u64| {
        let object = if generation.is_multiple_of(2) { "upgrade_2" } else { "upgrade_1" };
        let programs = json!({"counts": program(object, "counts"),
            "pass": program("verdict", "v_pass")});
        let (one, two) = (generation % 3, (generation + 1) % 3);
        let chain = json!([{"program": "counts", "priority": one},
            {"program": "pass", "priority": two}]);
        document(generation, &programs, &chain)
    };
    daemon.apply_whole(&edition(1));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| received(&pair, &[5000], 5999, SENT));
        let mut generation = 1;
        while !sending.is_finished() || generation < 4 {
            generation += 1;
            daemon.apply_whole(&edition(generation));
        }
        println!("{generation} generations under {SENT} datagrams");
        sending.join().expect("a sender");
    });
    let hook = daemon.hook();
    for member in hook["members"].as_array().expect("members") {
        assert_eq!(member["runs"], SENT + 1, "{member:#}");
    }
}

#[test]
fn a_kept_timer_goes_on_and_the_plan_says_whose_it_is() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let path = host.path("timer.o");
    std::fs::copy(pointsman_netns::object_path("timer"), &path).unwrap();
    let document = |generation| {
        let timer = json!({"object": {"path": path}, "entry": "arm", "globals": {"again": 1}});
        document(generation, &json!({"timer": timer}), &json!([{"program": "timer"}]))
    };
    daemon.apply_whole(&document(1));
    assert_eq!(received(&pair, &[5000], 5999, 3), [3]);
    // Bytes behind the end of an ELF object change its hash and nothing else.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, bytes).unwrap();
    let report = daemon.apply_whole(&document(2));
    let note = "map clocks of program timer is kept with its timers";
    assert!(told(&report["plan"]).contains(note), "{}", told(&report["plan"]));
    assert_eq!(received(&pair, &[5000], 5999, 3), [3]);
    let clock = entry(&daemon, "clocks", &[0; 4]).expect("a clock");
    assert_eq!(clock[16..24], 8u64.to_ne_bytes(), "armed by both");
    let fired = || entry(&daemon, "clocks", &[0; 4]).expect("a clock")[24..32].to_vec();
    let (before, start) = (fired(), std::time::Instant::now());
    while fired() == before {
        assert!(start.elapsed() < Duration::from_secs(10), "the timer was cancelled");
        std::thread::yield_now();
    }
}

#[test]
fn a_kill_at_any_moment_of_an_upgrade_loses_no_kept_map() {
    let (host, pair) = scene();
    let mut random = Random::new("kills of upgrades");
    let edition = |generation: u64| {
        let object = if generation.is_multiple_of(2) { "upgrade_2" } else { "upgrade_1" };
        version(generation, object, &json!({}))
    };
    let loads = host.bpffs.path().join("pointsman/programs/counts");
    let mut daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&edition(1));
    pinned(&daemon, "flows").update(&[7; 8], &[9; 16], MapFlags::ANY).unwrap();
    for round in 0..if full() { 200 } else { 20 } {
        let generation = round + 2;
        let text = edition(generation).to_string();
        let delay = Duration::from_micros(random.next() % 40_000);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| daemon.ask(&["apply", "-"], text.as_bytes()));
            // The moment of the kill is what is tried: any will do, and none is waited for.
            std::thread::sleep(delay);
            daemon.signal(Signal::KILL).unwrap();
            let _ = asking.join();
        });
        drop(daemon);
        daemon = host.start(&pair.right).unwrap();
        daemon.apply_whole(&edition(generation));
        let found = entry(&daemon, "flows", &[7; 8]);
        assert_eq!(found.as_deref(), Some(&[9; 16][..]), "killed after {delay:?}");
        assert_eq!(std::fs::read_dir(&loads).unwrap().count(), 1, "one load is pinned");
    }
}
