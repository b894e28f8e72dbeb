//! Blob stores that fail: nothing that becomes visible is wrong, and the next publish puts
//! everything right.

use crate::faulty::{Fault, Faulty};
use crate::lab::{Lab, PLAIN, Place, ann, counter, store_in};
use crate::on_both;
use object_store::local::LocalFileSystem;
use pointsman_control::publish::PublishError;
use pointsman_control::store::Store;
use pointsman_model::fleet::Cause;
use serde_json::{Value, json};
use std::sync::Arc;

on_both!(
    whatever_operation_fails_the_next_publish_converges,
    a_store_that_is_wiped_is_filled_again,
    a_store_of_another_fleet_is_left_alone,
    a_forged_number_ends_nothing,
);

/// A store over the lab's directory that fails by a script.
fn faulty(lab: &Lab) -> (Faulty, Store) {
    store_in(&lab.blobs());
    let faulty = Faulty::over(Arc::new(LocalFileSystem::new_with_prefix(lab.blobs()).unwrap()));
    (faulty.clone(), Store::over(Arc::new(faulty), "faulty"))
}

/// A policy for all nodes that needs an object.
fn with_object(priority: u32) -> Value {
    let mut spec = counter("eth0", priority);
    spec["chain"] = json!([
        {"program": "builtin:counting-pass", "priority": priority}, {"program": "ddos"}
    ]);
    spec
}

async fn whatever_operation_fails_the_next_publish_converges(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=3, json!({})).await;
    lab.program("ddos", b"object 0").await;
    let (faulty, store) = faulty(&lab);
    let mut priority = 0;
    let mut failures = 0;
    for fault in [Fault::Refused, Fault::Torn, Fault::Unheard] {
        for for_good in [false, true] {
            for well in 0.. {
                priority += 1;
                lab.program("ddos", format!("object {priority}").as_bytes()).await;
                lab.policy("p", with_object(priority)).await;
                faulty.fail_after(well, fault, for_good);
                let publisher = lab.publisher_to(store.clone());
                let result = lab.try_publish(&publisher, PLAIN).await;
                failures += usize::from(result.is_err());
                lab.auditor.may_be_torn = true;
                lab.audit();
                lab.auditor.may_be_torn = false;
                if !faulty.was_hit() {
                    result.unwrap();
                    break;
                }
                // By the same process, and by another one.
                faulty.fail_after(usize::MAX, fault, false);
                if well % 2 == 0 {
                    lab.try_publish(&publisher, PLAIN).await.unwrap();
                    lab.audit();
                } else {
                    lab.publish(PLAIN).await;
                }
                let now = &lab.auditor.now[&crate::lab::node(1)].1;
                let chain = &now["interfaces"]["eth0"]["xdp"]["chain"];
                assert_eq!(chain[0]["priority"], priority.min(50), "{fault:?} {well}");
            }
        }
    }
    // `latest`, two lists, a shard, an object, `latest`.
    assert!(failures >= 6 * 6, "{failures}");
}

async fn a_store_that_is_wiped_is_filled_again(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=3, json!({})).await;
    lab.program("ddos", b"object").await;
    let spec = with_object(1);
    lab.policy("p", spec).await;
    let publisher = lab.publisher();
    let first = lab.try_publish(&publisher, PLAIN).await.unwrap().snapshot.unwrap();
    lab.audit();
    let names = ["latest".to_owned(), format!("shards/{}.cdb", first.shards[0])];
    for name in &names {
        std::fs::remove_file(lab.blobs().join(name)).unwrap();
        lab.try_publish(&publisher, PLAIN).await.unwrap();
        lab.audit();
        assert_eq!(lab.auditor.now.len(), 3);
    }
    std::fs::remove_dir_all(lab.blobs()).unwrap();
    std::fs::create_dir(lab.blobs()).unwrap();
    let again = lab.try_publish(&publisher, PLAIN).await.unwrap();
    lab.audit();
    assert_eq!((again.snapshot.unwrap(), again.unchanged), (first, 3));
    // Another store altogether.
    std::fs::rename(lab.blobs(), lab.blobs().with_extension("old")).unwrap();
    lab.publish(PLAIN).await;
    assert_eq!(lab.auditor.now.len(), 3);
}

async fn a_store_of_another_fleet_is_left_alone(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.publish(PLAIN).await;
    let path = lab.blobs().join("latest");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"lab\"", "\"other\"");
    std::fs::write(&path, &text).unwrap();
    let error = lab.try_publish(&lab.publisher(), PLAIN).await.unwrap_err().to_string();
    assert!(error.contains("the fleet other") && error.contains("fleet lab"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

/// `latest` is not signed: whoever owns the store can write any number into it.
async fn a_forged_number_ends_nothing(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({})).await;
    let mut expected = 0;
    for (round, by_itself) in [(1, false), (2, true)] {
        for forged in [u64::MAX, i64::MAX as u64, (1 << 53) - 1, 1 << 53, 1 << 40] {
            expected += 1;
            lab.policy("count", counter("eth0", 100 * round + expected)).await;
            lab.publish(PLAIN).await;
            let path = lab.blobs().join("latest");
            let text = std::fs::read_to_string(&path).unwrap();
            let (from, to) =
                (format!(r#""snapshot":{expected},"#), format!(r#""snapshot":{forged},"#));
            assert!(text.contains(&from), "{text}");
            std::fs::write(&path, text.replace(&from, &to)).unwrap();
            // What is asked for, and what happens by itself, goes on from the database's number.
            expected += 1;
            let priority = 100 * round + expected;
            lab.policy("count", counter("eth0", priority)).await;
            let cause = if by_itself { Cause::Interval } else { Cause::Request };
            let report = lab.publisher().publish(PLAIN, ann(), cause).await.unwrap();
            assert_eq!(report.snapshot.unwrap().number, u64::from(expected), "{forged}");
            lab.audit();
            assert_eq!(lab.priority_of(1), u64::from(priority), "{forged}");
        }
    }
    // A little ahead is what a database from a backup sees: see `restored`.
    let path = lab.blobs().join("latest");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace(&format!(r#""snapshot":{expected},"#), r#""snapshot":4000000000,"#);
    std::fs::write(&path, text).unwrap();
    let error = lab.publisher().publish(PLAIN, ann(), Cause::Interval).await.unwrap_err();
    assert!(matches!(error, PublishError::OldDatabase { .. }), "{error}");
    let report = lab.publish(PLAIN).await;
    assert_eq!(report.snapshot.unwrap().number, 4_000_000_001);
}
