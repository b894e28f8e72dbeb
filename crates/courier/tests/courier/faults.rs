//! Servers that fail, lie, or never come to an end. Whatever they do, the last good state stays,
//! the error names the thing, and all is well again when they are.

use crate::stage::process::eventually;
use crate::stage::server::{Fault, Seen};
use crate::stage::watcher::Watcher;
use crate::stage::{CREDENTIAL, NODE, Stage, TestCourier, run};
use pointsman_courier::source::{Client, ClientOptions, Source as _, Traffic, Web};
use pointsman_courier::{Config, Courier, Outcome, PollError};
use pointsman_model::fleet::RecordObject;
use serde_json::json;
use std::fs;
use std::time::Duration;

/// A node at generation 1, with generation 2 published; its document needs an object.
fn stage() -> (Stage, RecordObject) {
    let mut stage = Stage::new();
    stage.fleet.publish_one(NODE, 1, &[]);
    run(stage.courier().poll_once()).unwrap();
    let bytes: Vec<u8> = (0..400_000_u32).map(|number| (number / 7) as u8).collect();
    let object = stage.fleet.object(&bytes);
    stage.fleet.publish_one(NODE, 2, std::slice::from_ref(&object));
    (stage, object)
}

/// Polls until there is nothing to wait for.
fn poll(courier: &mut TestCourier) -> Result<Outcome, PollError> {
    run(async {
        loop {
            match courier.poll_once().await {
                Ok(Outcome::Fetching { .. }) => {}
                other => break other,
            }
        }
    })
}

/// The trouble that a poll finds, whether it ends with it or goes on later.
fn trouble(courier: &mut TestCourier) -> (String, String) {
    match poll(courier) {
        Err(error) | Ok(Outcome::Incomplete { error, .. }) => {
            assert_eq!(courier.status().source_trouble, Some(error.to_string()));
            (error.kind().to_owned(), error.to_string())
        }
        other => panic!("{other:?}"),
    }
}

/// Polls until the newest generation is there.
fn recovers(stage: &Stage, courier: &mut TestCourier, generation: u64) {
    eventually("a recovery", || {
        let _ = run(courier.poll_once());
        (stage.in_place() == Some(generation)).then_some(())
    });
}

#[test]
fn whatever_fails_the_last_good_state_stays_and_all_is_well_afterwards() {
    let is_shard = |nth: usize| {
        move |seen: &Seen| {
            // The three reads of a lookup differ in their offsets.
            let offset = seen.range.as_deref().and_then(|range| {
                range.strip_prefix("bytes=")?.split('-').next()?.parse::<u64>().ok()
            });
            let read = match offset {
                Some(offset) if offset < 2048 => 0,
                Some(2048) => 2,
                _ => 1,
            };
            seen.path.contains("shards/") && read == nth
        }
    };
    type Rule = Box<dyn Fn(&Seen) -> bool + Send>;
    let at = |part: &'static str| -> Rule { Box::new(move |seen| seen.path.contains(part)) };
    let shard = |nth| -> Rule { Box::new(is_shard(nth)) };
    let cases: Vec<(&str, Rule, Fault, &[&str])> = vec![
        ("latest 500", at("latest"), Fault::Status(500), &["status"]),
        ("latest 404", at("latest"), Fault::Status(404), &["missing"]),
        ("latest 401", at("latest"), Fault::Status(401), &["denied"]),
        ("latest 304 unasked", at("latest"), Fault::Status(304), &["status"]),
        ("latest 206", at("latest"), Fault::Status(206), &["status"]),
        ("latest cut", at("latest"), Fault::Cut(20), &["interrupted"]),
        ("latest endless", at("latest"), Fault::Endless, &["too_large"]),
        ("latest scrambled", at("latest"), Fault::Scrambled, &["latest"]),
        ("table 500", shard(0), Fault::Status(500), &["status"]),
        ("table cut", shard(0), Fault::Cut(3), &["interrupted"]),
        ("table scrambled", shard(0), Fault::Scrambled, &["shard", "ok"]),
        ("table of another range", shard(0), Fault::WrongRange, &["odd_answer"]),
        ("slots cut", shard(1), Fault::Cut(3), &["interrupted"]),
        ("slots scrambled", shard(1), Fault::Scrambled, &["shard", "ok"]),
        ("slots short", shard(1), Fault::ShortRange, &["odd_answer"]),
        ("slots of another range", shard(1), Fault::WrongRange, &["odd_answer", "shard"]),
        ("record cut", shard(2), Fault::Cut(100), &["interrupted"]),
        ("record scrambled", shard(2), Fault::Scrambled, &["shard", "unsigned", "ok"]),
        ("record short", shard(2), Fault::ShortRange, &["odd_answer"]),
        ("record of another range", shard(2), Fault::WrongRange, &["odd_answer"]),
        ("record 416", shard(2), Fault::Status(416), &["shard"]),
        ("shard missing", at("shards/"), Fault::Status(404), &["missing"]),
        ("shard empty", at("shards/"), Fault::Instead(vec![]), &["shard"]),
        ("shard of zeroes", at("shards/"), Fault::Instead(vec![0; 9000]), &["ok"]),
        ("shard endless", at("shards/"), Fault::Endless, &["shard", "odd_answer"]),
        ("object 500", at("objects/"), Fault::Status(500), &["status"]),
        ("object missing", at("objects/"), Fault::Status(404), &["missing"]),
        ("object scrambled", at("objects/"), Fault::Scrambled, &["wrong_hash"]),
        ("object of other bytes", at("objects/"), Fault::Instead(vec![1; 9]), &["interrupted"]),
        ("object endless", at("objects/"), Fault::Endless, &["too_large"]),
        ("object always cut", at("objects/"), Fault::Cut(0), &["interrupted"]),
        (
            "redirect to a file",
            at("/"),
            Fault::Redirect("file:///etc/passwd".into()),
            &["redirect"],
        ),
        ("redirect to itself", at("/"), Fault::Redirect("/blobs/latest".into()), &["redirect"]),
        ("redirect to ftp", at("objects/"), Fault::Redirect("ftp://x/".into()), &["redirect"]),
        ("redirect to nowhere", at("objects/"), Fault::Status(302), &["odd_answer"]),
    ];
    for (name, rule, fault, kinds) in cases {
        let (stage, _) = stage();
        let watcher = Watcher::start(&stage.path("drop"), stage.fleet.key.public_key());
        stage.server.fault(rule, fault);
        let mut courier = stage.hasty_courier();
        let (kind, text) = match poll(&mut courier) {
            Err(error) | Ok(Outcome::Incomplete { error, .. }) => {
                (error.kind().to_owned(), error.to_string())
            }
            // What was scrambled may also say that there is no record.
            Ok(Outcome::NoRecord) => ("ok".into(), String::new()),
            Ok(other) => panic!("{name}: {other:?}"),
        };
        assert!(kinds.contains(&&*kind), "{name}: {kind}: {text}");
        assert!(!text.contains(CREDENTIAL), "{name}: {text}");
        assert_eq!(stage.in_place(), Some(1), "{name}");
        stage.server.heal();
        if kind == "ok" {
            // It was believed: what is published next is looked at again.
            drop(courier);
            courier = stage.hasty_courier();
        }
        recovers(&stage, &mut courier, 2);
        let seen = watcher.finish();
        assert!(seen.violations.is_empty(), "{name}: {:?}", seen.violations);
        assert_eq!(seen.generations, [1, 2], "{name}");
    }
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let (stage, object) = stage();
    stage.server.fault_at("objects/", Fault::Cut(150_000));
    let mut courier = stage.courier();
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 2 })));
    let ranges: Vec<_> = stage
        .server
        .take()
        .into_iter()
        .filter(|seen| seen.path.contains("objects/"))
        .map(|seen| seen.range)
        .collect();
    let from = |at: u64| Some(format!("bytes={at}-"));
    assert_eq!(ranges, [None, from(150_000), from(300_000)]);
    let path = stage.path(&format!("drop/objects/{}", object.sha256));
    assert_eq!(fs::metadata(path).unwrap().len(), object.bytes);
}

#[test]
fn a_server_without_ranges_is_asked_for_all_again() {
    let (stage, _) = stage();
    let rule = |seen: &Seen| seen.path.contains("objects/") && seen.range.is_none();
    stage.server.fault(rule, Fault::Cut(150_000));
    stage.server.fault_at("objects/", Fault::NoRanges);
    let mut courier = stage.courier();
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 2 })));
}

#[test]
fn two_halves_of_different_objects_are_found_out_and_fetched_anew() {
    let (stage, _) = stage();
    // The first half is of something else; the second would complete it to nonsense.
    let first = |seen: &Seen| seen.path.contains("objects/") && seen.range.is_none();
    stage.server.fault(first, Fault::Cut(150_000));
    let second = |seen: &Seen| seen.path.contains("objects/") && seen.range.is_some();
    stage.server.fault(second, Fault::Scrambled);
    let mut courier = stage.hasty_courier();
    let (kind, text) = trouble(&mut courier);
    assert!(["wrong_hash", "interrupted"].contains(&&*kind), "{text}");
    assert_eq!(stage.in_place(), Some(1));
    stage.server.heal();
    recovers(&stage, &mut courier, 2);
}

#[test]
fn an_object_that_cannot_be_had_does_not_hide_what_is_published_next() {
    let (mut stage, _) = stage();
    stage.server.fault_at("objects/", Fault::Scrambled);
    let mut courier = stage.courier();
    assert_eq!(trouble(&mut courier).0, "wrong_hash");
    // It is not fetched again at every poll.
    stage.server.take();
    assert_eq!(trouble(&mut courier).0, "wrong_hash");
    assert_eq!(stage.server.take().len(), 1);
    stage.fleet.publish_one(NODE, 3, &[]);
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 3 })));
    assert_eq!(courier.status().source_trouble, None);
}

#[test]
fn a_slow_object_does_not_keep_us_from_noticing_what_is_published_next() {
    let (mut stage, _) = stage();
    stage.server.fault_at("objects/", Fault::Slow(1000, Duration::from_millis(100)));
    let config = Config { interval: Duration::from_millis(300), ..stage.config() };
    let mut courier = Courier::new(config, stage.source(), stage.drop_dir());
    run(async {
        for _ in 0..3 {
            let outcome = courier.poll_once().await.unwrap();
            assert!(matches!(outcome, Outcome::Fetching { generation: 2 }), "{outcome:?}");
        }
        // One download went on through all of them.
        let objects = |seen: &[Seen]| seen.iter().filter(|s| s.path.contains("objects/")).count();
        assert_eq!(objects(&stage.server.seen()), 1);
        stage.fleet.publish_one(NODE, 3, &[]);
        let outcome = courier.poll_once().await.unwrap();
        assert!(matches!(outcome, Outcome::HandedOver { generation: 3 }), "{outcome:?}");
    });
    assert_eq!(stage.in_place(), Some(3));
}

#[test]
fn an_object_larger_than_allowed_is_not_begun() {
    let mut stage = Stage::new();
    let object = stage.fleet.object(b"small");
    let huge = RecordObject { bytes: (16 << 20) + 1, ..object };
    stage.fleet.publish_one(NODE, 1, &[huge]);
    let mut courier = stage.courier();
    let (kind, text) = trouble(&mut courier);
    assert!(kind == "too_large" && text.contains("16777216"), "{text}");
    assert!(stage.server.take().iter().all(|seen| !seen.path.contains("objects/")));
    // A linked one of unknown size: the limit holds while it comes.
    let url = stage.server.url.join("blobs/objects/endless").unwrap();
    stage.server.fault_at("endless", Fault::Endless);
    let program = json!({"object": {"url": url, "sha256": object.sha256}});
    stage.fleet.put_with(NODE, 2, &[], json!({"programs": {"linked": program}}));
    stage.fleet.publish(1);
    assert_eq!(trouble(&mut courier).0, "too_large");
    assert_eq!(fs::read_dir(stage.path("drop/.courier")).unwrap().count(), 1, "the lock alone");
}

#[test]
fn the_credential_stays_at_its_origin() {
    let (stage, _) = stage();
    let other = crate::stage::server::Server::start(&stage.fleet.root);
    let to = |name: &str| other.url.join("blobs/").unwrap().join(name).unwrap().to_string();
    stage.server.fault_at("latest", Fault::Redirect(to("latest")));
    let now = fs::read(stage.fleet.root.join("latest")).unwrap();
    let shard = pointsman_snapshot::latest::parse(&now).unwrap().shards[0];
    stage.server.fault_at("shards/", Fault::Redirect(to(&format!("shards/{shard}.cdb"))));
    let mut courier = stage.courier();
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 2 })));
    let elsewhere = other.take();
    assert_eq!(elsewhere.len(), 4);
    assert!(elsewhere.iter().all(|seen| seen.authorization.is_none()), "{elsewhere:?}");
    // What makes a read cheap goes along.
    assert!(elsewhere[1..].iter().all(|seen| seen.range.is_some()), "{elsewhere:?}");
    assert!(stage.server.take().iter().all(|seen| seen.authorization.is_some()));
}

#[test]
fn who_asks_for_patience_gets_it() {
    let (stage, _) = stage();
    let fault = Fault::StatusWith(429, "retry-after", "77".into());
    stage.server.fault_at("latest", fault);
    let mut courier = stage.courier();
    let error = run(courier.poll_once()).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(77)));
    stage.server.heal();
    let fault = Fault::StatusWith(503, "retry-after", "999999999".into());
    stage.server.fault_at("latest", fault);
    let error = run(courier.poll_once()).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(300)));
}

#[test]
fn what_a_document_links_to_must_be_on_the_web() {
    let client = Client::new(&ClientOptions::default()).unwrap();
    let web = Web::new(client, Traffic::default());
    for url in ["file:///etc/passwd", "ftp://x/y", "x", "data:,x", "//x/y"] {
        let error = run(web.get(url, 0)).unwrap_err();
        assert_eq!(error.kind(), "odd_answer", "{url}: {error}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let (stage, _) = stage();
    let address = stage.server.address;
    let mut source = stage.source();
    drop(stage.server);
    let error = eventually("the end of the server", || run(source.latest(None)).err());
    let text = error.to_string();
    assert!(error.kind() == "unreachable" && text.contains(&address.to_string()), "{text}");
}
