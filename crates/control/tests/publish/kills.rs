//! `kill -9` of a publisher: at every step, and at any moment.

use crate::child::Process;
use crate::lab::{Lab, PLAIN, Place, counter};
use crate::on_both;
use pointsman_model::Sha256;
use pointsman_services::skip;
use pointsman_snapshot::cdb;
use pointsman_snapshot::latest::{object_name, shard_name};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant, SystemTime};

on_both!(
    killed_at_every_step_the_next_publish_converges,
    killed_at_any_moment_the_next_publish_converges,
);

/// How many moments are tried, on each database.
const MOMENTS: usize = 50;

const STEPS: [&str; 9] = [
    "locked",
    "viewed",
    "recorded",
    "sharded",
    "stored",
    "numbered",
    "named",
    "noted",
    "collected",
];

/// A policy that needs an object.
fn with_object(priority: u32) -> Value {
    let mut spec = counter("eth0", priority);
    spec["chain"] = json!([
        {"program": "builtin:counting-pass", "priority": priority},
        {"program": "ddos", "priority": 1_000_000},
    ]);
    spec
}

/// A shard and an object that nobody needs, and that have been there for long.
fn litter(lab: &Lab, number: u32) {
    let bytes = number.to_be_bytes();
    let shard = cdb::Writer::new().finish();
    let old = SystemTime::now() - Duration::from_secs(3600);
    for (name, bytes) in [
        (shard_name(&Sha256::of(&shard)), &shard[..]),
        (object_name(&Sha256::of(&bytes)), &bytes[..]),
    ] {
        let path = lab.blobs().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
}

async fn killed_at_every_step_the_next_publish_converges(place: Place) {
    if !cfg!(debug_assertions) {
        skip("killed_at_every_step", "a release build has no steps to be killed at");
        return;
    }
    let mut lab = Lab::new(place).await;
    // Two shards, and records in two batches.
    lab.enrol(0..520, json!({})).await;
    lab.program("ddos", b"object 0").await;
    lab.policy("count", with_object(1)).await;
    lab.publish(PLAIN).await;
    let mut priority = 1;
    for step in STEPS {
        let mut killed = 0;
        for time in 1..10 {
            priority += 1;
            lab.program("ddos", format!("object {priority}").as_bytes()).await;
            lab.policy("count", with_object(priority)).await;
            litter(&lab, priority);
            let process = Process::start(&lab, None, 1, Some(&format!("{step}:{time}")));
            let ended = process.wait();
            lab.audit();
            if ended.success() {
                break;
            }
            assert_eq!(ended.signal(), Some(9), "{step}:{time}: {ended}");
            killed += 1;
            lab.publish(PLAIN).await;
            assert_eq!(lab.priority_of(7), u64::from(priority), "{step}:{time}");
        }
        let expected = match step {
            "recorded" | "sharded" | "collected" => 2,
            _ => 1,
        };
        assert!(killed >= expected, "{step}: {killed}");
    }
    assert_eq!(lab.publish(PLAIN).await.snapshot, None);
}

async fn killed_at_any_moment_the_next_publish_converges(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(0..3, json!({})).await;
    lab.policy("count", counter("eth0", 1)).await;
    lab.publish(PLAIN).await;
    // Moments all over the first few publishes, however long one takes here.
    let mut moment = 1_u64;
    let mut publish = Duration::from_millis(50);
    let mut priority = 1;
    for _ in 0..MOMENTS {
        let mut process = Process::start(&lab, Some(priority + 1), 1000, None);
        assert_eq!(process.line().as_deref(), Some("ready"));
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let share = (moment >> 33) as f64 / (1_u64 << 31) as f64;
        tokio::time::sleep(publish.mul_f64(3.0 * share)).await;
        lab.audit();
        process.kill();
        lab.audit();
        priority += 1000;
        let started = Instant::now();
        lab.policy("count", counter("eth0", priority)).await;
        lab.publish(PLAIN).await;
        publish = started.elapsed();
        for number in 0..3 {
            assert_eq!(lab.priority_of(number), u64::from(priority));
        }
    }
    // Some of them were killed after they had published: the moments were not all before.
    let by_us = 3 * (MOMENTS + 1);
    assert!(lab.auditor.generations() > by_us + 15, "{}", lab.auditor.generations());
}
