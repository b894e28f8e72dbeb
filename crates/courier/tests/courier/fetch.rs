//! What a poll fetches, what that costs, and what is handed over.

use crate::stage::server::Fault;
use crate::stage::{CREDENTIAL, NODE, Stage, run};
use pointsman_courier::{Cache, Config, Outcome, PollError, Trust};
use pointsman_model::Sha256;
use pointsman_model::fleet::Latest;
use pointsman_snapshot::keys::SigningKey;
use pointsman_snapshot::{cdb, latest, sign};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// What a node may cost for a change of a document of 4 KB.
const MOST_REQUESTS: usize = 4;
const MOST_BYTES: u64 = 16 << 10;

/// A large fleet around our node: its records are as large as ours, and nobody reads them.
fn crowd(stage: &mut Stage, nodes: usize) {
    let text = "x".repeat(4096 - 120);
    stage.fleet.put_with(NODE, 1, &[], json!({"padding": text}));
    let ours = stage.fleet.records[&NODE.parse().unwrap()].clone();
    for number in 0..nodes {
        let node = format!("node-{number}").parse().unwrap();
        stage.fleet.records.insert(node, ours.clone());
    }
}

#[test]
fn a_change_costs_four_requests_and_sixteen_kilobytes_on_one_connection() {
    let mut stage = Stage::new();
    crowd(&mut stage, 64 * 40);
    stage.fleet.publish(64);
    let mut courier = stage.courier();
    run(async {
        for generation in 1..=3 {
            if generation > 1 {
                let text = "y".repeat(4096 - 120);
                stage.fleet.put_with(NODE, generation, &[], json!({"padding": text}));
                stage.fleet.publish(64);
            }
            stage.server.traffic();
            stage.server.take();
            let outcome = courier.poll_once().await.unwrap();
            assert!(matches!(outcome, Outcome::HandedOver { generation: g } if g == generation));
            let (connections, bytes) = stage.server.traffic();
            let requests = stage.server.take();
            println!("generation {generation}: {} requests, {bytes} bytes", requests.len());
            assert!(requests.len() <= MOST_REQUESTS, "{requests:?}");
            // Heads and requests are in it.
            assert!(bytes <= MOST_BYTES, "{bytes}");
            assert_eq!(connections, u64::from(generation == 1), "connections are kept");
            let bearer = format!("Bearer {CREDENTIAL}");
            assert!(requests.iter().all(|seen| seen.authorization.as_ref() == Some(&bearer)));
        }

        // Nothing has changed: one conditional request.
        stage.server.traffic();
        assert!(matches!(courier.poll_once().await, Ok(Outcome::Unchanged)));
        let requests = stage.server.take();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].status, 304);
        let (connections, bytes) = stage.server.traffic();
        println!("unchanged: {bytes} bytes");
        assert!(connections == 0 && bytes < 1024, "{connections} {bytes}");

        // Another shard has changed: what it costs is `latest`.
        let elsewhere = (0..).map(|number| format!("other-{number}").parse().unwrap());
        let ours = Latest::place(&NODE.parse().unwrap(), 64);
        let other = elsewhere.into_iter().find(|node| Latest::place(node, 64) != ours).unwrap();
        stage.fleet.records.insert(other, b"new".to_vec());
        stage.fleet.publish(64);
        assert!(matches!(courier.poll_once().await, Ok(Outcome::NothingNew)));
        assert_eq!(stage.server.take().len(), 1);
    });
    assert_eq!(stage.in_place(), Some(3));
}

#[test]
fn a_large_document_costs_one_request_more_and_a_neighbour_in_the_shard_none_that_matters() {
    let mut stage = Stage::new();
    stage.fleet.put_with(NODE, 1, &[], json!({"padding": "x".repeat(100_000)}));
    stage.fleet.publish(1);
    let mut courier = stage.courier();
    run(async {
        courier.poll_once().await.unwrap();
        assert_eq!(stage.server.take().len(), 5);
        stage.fleet.publish_one("edge-2", 1, &[]);
        assert!(matches!(courier.poll_once().await, Ok(Outcome::NothingNew)));
    });
    assert_eq!(courier.status().snapshot, Some(2));
    assert_eq!(stage.in_place(), Some(1));
}

#[test]
fn objects_come_before_the_record_that_needs_them_and_go_two_generations_later() {
    let mut stage = Stage::new();
    let objects: Vec<_> = (0_u8..5)
        .map(|seed| stage.fleet.object(&vec![seed; 100_000 * usize::from(seed + 1)]))
        .collect();
    let mut courier = stage.courier();
    let there = |stage: &Stage| {
        let mut names: Vec<_> = fs::read_dir(stage.path("drop/objects"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let names = |range: std::ops::Range<usize>| {
        let mut names: Vec<_> = objects[range].iter().map(|o| o.sha256.to_string()).collect();
        names.sort();
        names
    };
    run(async {
        for generation in 1..=4_usize {
            let needs = &objects[generation - 1..=generation];
            stage.fleet.publish_one(NODE, generation as u64, needs);
            courier.poll_once().await.unwrap();
            assert_eq!(stage.in_place(), Some(generation as u64));
            // Those of this generation and of the one before.
            assert_eq!(there(&stage), names(generation.saturating_sub(2)..generation + 1));
        }
        // What was there already was not fetched again.
        let fetched: Vec<_> = stage.server.take().into_iter().map(|seen| seen.path).collect();
        for object in &objects {
            let name = latest::object_name(&object.sha256);
            assert_eq!(fetched.iter().filter(|path| path.ends_with(&name)).count(), 1, "{name}");
        }
    });
    for name in ["drop/snapshot.cdb".to_owned(), format!("drop/objects/{}", there(&stage)[0])] {
        let mode = fs::metadata(stage.path(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
    for name in ["cache/record", "cache/state.json"] {
        let mode = fs::metadata(stage.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn an_object_that_a_document_links_to_is_fetched_without_our_credential() {
    let mut stage = Stage::new();
    let object = stage.fleet.object(b"linked");
    let url = stage.server.url.join(&format!("blobs/objects/{}", object.sha256)).unwrap();
    let program = json!({"object": {"url": url, "sha256": object.sha256}});
    stage.fleet.put_with(NODE, 1, &[], json!({"programs": {"linked": program}}));
    stage.fleet.publish(1);
    let mut courier = stage.courier();
    run(courier.poll_once()).unwrap();
    assert_eq!(stage.in_place(), Some(1));
    assert_eq!(
        fs::read(stage.path(&format!("drop/objects/{}", object.sha256))).unwrap(),
        b"linked"
    );
    let last = stage.server.take().pop().unwrap();
    assert_eq!(last.path, url.path());
    assert_eq!(last.authorization, None);
}

#[test]
fn a_plain_server_of_files_will_do() {
    let mut stage = Stage::new();
    let object = stage.fleet.object(&vec![1; 300_000]);
    stage.fleet.put_with(NODE, 1, &[object], json!({"padding": "x".repeat(50_000)}));
    stage.fleet.publish(1);
    stage.server.fault_at("latest", Fault::NoTags);
    stage.server.fault_at("/", Fault::NoRanges);
    let mut courier = stage.courier();
    run(async {
        assert!(matches!(courier.poll_once().await, Ok(Outcome::HandedOver { generation: 1 })));
        assert!(matches!(courier.poll_once().await, Ok(Outcome::Unchanged)));
    });
    assert_eq!(stage.in_place(), Some(1));
}

#[test]
fn nothing_published_is_no_harm_and_no_record_of_ours_is_none() {
    let mut stage = Stage::new();
    let mut courier = stage.courier();
    run(async {
        let error = courier.poll_once().await.unwrap_err();
        assert_eq!(error.kind(), "missing");
        assert!(error.to_string().contains("nothing has been published yet"), "{error}");
        stage.fleet.publish_one("edge-2", 1, &[]);
        assert!(matches!(courier.poll_once().await, Ok(Outcome::NoRecord)));
        assert_eq!(courier.status().source_trouble, None);
        stage.fleet.publish_one(NODE, 1, &[]);
        assert!(matches!(courier.poll_once().await, Ok(Outcome::HandedOver { generation: 1 })));
        // It has left the fleet: what it has stays.
        stage.fleet.records.remove(&NODE.parse().unwrap());
        stage.fleet.publish(1);
        assert!(matches!(courier.poll_once().await, Ok(Outcome::NoRecord)));
    });
    assert_eq!(stage.in_place(), Some(1));
}

#[test]
fn a_store_that_goes_back_is_not_followed_and_costs_little() {
    let mut stage = Stage::new();
    stage.fleet.put(NODE, 6, &[]);
    let old = stage.fleet.publish(1);
    stage.fleet.put(NODE, 7, &[]);
    let new = stage.fleet.publish(1);
    let mut courier = stage.courier();
    run(async {
        courier.poll_once().await.unwrap();
        for round in 0..5 {
            stage.server.take();
            stage.fleet.point(&old);
            let stale = courier.poll_once().await.unwrap();
            assert!(matches!(stale, Outcome::Stale { offered: 6, kept: 7 }), "{stale:?}");
            // It stays known until something else is published.
            assert!(matches!(courier.poll_once().await, Ok(Outcome::Unchanged)));
            let trouble = courier.status().source_trouble.unwrap();
            assert!(trouble.contains("generation 6") && trouble.contains("forget"), "{trouble}");
            stage.fleet.point(&new);
            assert!(matches!(courier.poll_once().await, Ok(Outcome::NothingNew)));
            assert_eq!(courier.status().source_trouble, None);
            let requests = stage.server.take().len();
            assert_eq!(requests, if round == 0 { 6 } else { 3 });
        }
    });
    assert_eq!(stage.in_place(), Some(7));
    drop(courier);

    // Another life remembers, also if somebody empties the drop directory.
    for wiped in [false, true] {
        if wiped {
            fs::remove_dir_all(stage.path("drop")).unwrap();
        }
        stage.fleet.point(&old);
        let mut courier = stage.courier();
        let outcome = run(courier.poll_once()).unwrap();
        match wiped {
            false => assert!(matches!(outcome, Outcome::Stale { offered: 6, kept: 7 })),
            true => assert!(matches!(outcome, Outcome::HandedOver { generation: 7 })),
        }
        assert_eq!(stage.in_place(), Some(7));
    }

    // The operator decides otherwise, once.
    let cache = Cache::open(&stage.path("cache")).unwrap();
    let memory = cache.recall().unwrap().memory.unwrap();
    let any = pointsman_courier::Memory { any_generation: true, ..memory };
    cache.remember(&any, None).unwrap();
    drop(cache);
    let mut courier = stage.courier();
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 6 })));
    assert_eq!(stage.in_place(), Some(6));
    stage.fleet.put(NODE, 5, &[]);
    stage.fleet.publish(1);
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::Stale { offered: 5, kept: 6 })));
}

#[test]
fn what_was_handed_over_comes_back_from_the_cache_when_everything_is_down() {
    let mut stage = Stage::new();
    let object = stage.fleet.object(b"object");
    stage.fleet.publish_one(NODE, 3, &[object]);
    run(stage.hasty_courier().poll_once()).unwrap();
    stage.server.fault_at("/", Fault::Status(503));
    // The record alone is gone.
    fs::remove_file(stage.path("drop/snapshot.cdb")).unwrap();
    let mut courier = stage.hasty_courier();
    assert_eq!(run(courier.poll_once()).unwrap_err().kind(), "status");
    assert_eq!(stage.in_place(), Some(3));
    drop(courier);
    // The object as well: it has to wait, and comes as soon as it can.
    fs::remove_dir_all(stage.path("drop")).unwrap();
    let mut courier = stage.hasty_courier();
    run(courier.poll_once()).unwrap_err();
    assert_eq!(stage.in_place(), None);
    stage.server.heal();
    crate::stage::process::eventually("the record", || {
        let _ = run(courier.poll_once());
        stage.in_place()
    });
    assert_eq!(stage.in_place(), Some(3));
}

#[test]
fn whoever_is_faster_with_a_stick_is_not_overwritten_with_something_older() {
    let mut stage = Stage::new();
    stage.fleet.publish_one(NODE, 4, &[]);
    let mut courier = stage.courier();
    run(courier.poll_once()).unwrap();
    // A whole shard of the fleet, newer than what the network has.
    let payload = stage.fleet.payload(NODE, 9, &[], json!({}));
    let mut writer = cdb::Writer::new();
    writer.add(b"edge-0", b"of somebody else").unwrap();
    writer.add(NODE.as_bytes(), &sign(&stage.fleet.key, &payload).unwrap()).unwrap();
    fs::write(stage.path("drop/snapshot.cdb"), writer.finish()).unwrap();
    stage.fleet.publish_one(NODE, 5, &[]);
    run(courier.poll_once()).unwrap();
    assert_eq!(stage.in_place(), Some(9));
    // From then on it counts.
    stage.fleet.publish_one(NODE, 6, &[]);
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::Stale { offered: 6, kept: 9 })));
    drop(courier);
    let mut courier = stage.courier();
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::Stale { offered: 6, kept: 9 })));
    stage.fleet.publish_one(NODE, 10, &[]);
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 10 })));
}

#[test]
fn what_was_signed_by_another_or_for_another_never_reaches_the_daemon() {
    let mut stage = Stage::new();
    stage.fleet.publish_one(NODE, 1, &[]);
    let mut courier = stage.courier();
    run(courier.poll_once()).unwrap();
    let node: pointsman_model::NodeName = NODE.parse().unwrap();
    let good = sign(&stage.fleet.key, &stage.fleet.payload(NODE, 2, &[], json!({}))).unwrap();
    let other = sign(&stage.fleet.key, &stage.fleet.payload("edge-2", 2, &[], json!({}))).unwrap();
    let strange = SigningKey::generate().unwrap();
    let strange = sign(&strange, &stage.fleet.payload(NODE, 2, &[], json!({}))).unwrap();
    let mut fleet = stage.fleet.payload(NODE, 2, &[], json!({}));
    fleet.fleet = "other".parse().unwrap();
    let fleet = sign(&stage.fleet.key, &fleet).unwrap();
    let flipped = |at: usize| {
        let mut record = good.clone();
        record[at] ^= 1;
        record
    };
    let unsigned = good.splitn(5, |&byte| byte == b'\n').last().unwrap().to_vec();
    for (record, kind) in [
        (other, "other_node"),
        (strange, "bad_signature"),
        (fleet, "other_fleet"),
        (flipped(good.len() - 2), "bad_signature"),
        (flipped(2), "unsigned"),
        (good[..good.len() - 1].to_vec(), "bad_signature"),
        (good[..100].to_vec(), "unsigned"),
        (unsigned, "unsigned"),
        (Vec::new(), "unsigned"),
    ] {
        stage.fleet.records.insert(node.clone(), record);
        stage.fleet.publish(1);
        let error = run(courier.poll_once()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(courier.status().source_trouble, Some(error.to_string()));
        assert_eq!(stage.in_place(), Some(1));
    }
    stage.fleet.records.insert(node, good);
    stage.fleet.publish(1);
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 2 })));
}

#[test]
fn without_a_key_the_daemon_alone_decides() {
    let mut stage = Stage::new();
    let strange = SigningKey::generate().unwrap();
    let payload = stage.fleet.payload(NODE, 2, &[], json!({}));
    stage.fleet.records.insert(NODE.parse().unwrap(), sign(&strange, &payload).unwrap());
    stage.fleet.publish(1);
    let trust = Trust::File(stage.path("no-fleet.json"));
    let config = Config { trust, ..stage.config() };
    let mut courier = pointsman_courier::Courier::new(config, stage.source(), stage.drop_dir());
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 2 })));
    let file = fs::read(stage.path("drop/snapshot.cdb")).unwrap();
    assert!(cdb::find(&file, NODE.as_bytes()).unwrap().is_some());
}

#[test]
fn a_source_of_another_fleet_or_of_nonsense_is_named() {
    let mut stage = Stage::new();
    let good = {
        stage.fleet.put(NODE, 1, &[]);
        stage.fleet.publish(1)
    };
    let mut courier = stage.courier();
    let poll = |courier: &mut crate::stage::TestCourier| run(courier.poll_once()).unwrap_err();
    let other = Latest { fleet: "other".parse().unwrap(), ..good.clone() };
    stage.fleet.point(&other);
    let error = poll(&mut courier);
    assert!(matches!(error, PollError::OtherFleet { .. }), "{error}");
    let text = fs::read(stage.fleet.root.join("latest")).unwrap();
    for torn in [&b""[..], b"{", &text[..text.len() / 2], b"<html>", &[b' '; 9000]] {
        stage.server.heal();
        stage.server.fault_at("latest", Fault::Instead(torn.to_vec()));
        let error = poll(&mut courier);
        assert!(["latest", "too_large"].contains(&error.kind()), "{error}");
    }
    stage.server.heal();
    stage.fleet.point(&Latest { shards: vec![Sha256::of(b"nowhere")], ..good.clone() });
    let error = poll(&mut courier);
    assert!(error.kind() == "missing" && error.to_string().contains("shards/"), "{error}");
    stage.fleet.point(&good);
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 1 })));
}
