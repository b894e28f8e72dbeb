//! The same fleet with an S3 server for its store.

use super::store::{ask_for, publish_in_vain};
use super::{assert_edition, settle};
use pointsman_netns::fleet::Fleet;
use pointsman_netns::random::{Random, full};
use std::fs;
use std::time::Duration;

/// A fleet on a bucket, if there can be one.
fn fleet(test: &str, nodes: u8) -> Option<Fleet> {
    match Fleet::with_bucket(nodes).unwrap() {
        Ok(fleet) => Some(fleet),
        Err(why) => {
            pointsman_netns::skip(test, &why.to_string());
            None
        }
    }
}

#[test]
fn a_policy_reaches_packets_through_a_bucket() {
    let Some(fleet) = fleet("bucket::path", 3) else { return };
    for edition in 1..4 {
        settle(&fleet, edition);
        assert_edition(&fleet, edition);
    }
    let kept = fleet.bucket.as_ref().unwrap().files("lab");
    assert!(kept.join("latest").exists(), "it is all in the bucket");
    assert!(!fleet.store().exists(), "and nothing beside");
}

#[test]
fn a_bucket_that_is_away_keeps_hosts_as_they_are() {
    let Some(fleet) = fleet("bucket::away", 2) else { return };
    settle(&fleet, 1);
    fleet.cut_bucket();
    publish_in_vain(&fleet, 2);
    assert_edition(&fleet, 1);
    fleet.resume_bucket();
    fleet.publish();
    fleet.converge();
    assert_edition(&fleet, 2);
}

#[test]
fn a_bucket_that_lost_all_gets_it_again() {
    let Some(fleet) = fleet("bucket::lost", 2) else { return };
    settle(&fleet, 1);
    let kept = fleet.bucket.as_ref().unwrap().files("lab");
    fs::remove_dir_all(&kept).unwrap();
    assert_edition(&fleet, 1);
    settle(&fleet, 2);
    assert_edition(&fleet, 2);
}

#[test]
fn a_bucket_that_is_cut_at_random_moments_converges() {
    let Some(fleet) = fleet("bucket::cuts", 2) else { return };
    let mut random = Random::new("bucket::cuts");
    settle(&fleet, 1);
    let rounds = if full() { 40 } else { 4 };
    for edition in 2..2 + rounds {
        ask_for(&fleet, edition);
        let delay = Duration::from_micros(random.below(60_000) as u64);
        std::thread::scope(|scope| {
            let publish = scope.spawn(|| fleet.publish());
            // A random moment of the publish, or soon after.
            std::thread::sleep(delay);
            fleet.cut_bucket();
            fleet.resume_bucket();
            publish.join().unwrap();
        });
        fleet.publish();
        fleet.converge();
        assert_edition(&fleet, edition);
    }
}
