//! A database that was restored from a backup, while the blob store went on.

use crate::lab::{Lab, PLAIN, Place, ann, counter, node, outcomes};
use pointsman_control::db::Db;
use pointsman_control::publish::PublishError;
use pointsman_model::fleet::Cause;
use serde_json::json;
use std::path::Path;

/// A copy of a database that nobody has open.
fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        let _ = std::fs::remove_file(name(to));
        if Path::new(&name(from)).exists() {
            std::fs::copy(name(from), name(to)).unwrap();
        }
    }
}

#[test]
fn generations_that_were_used_since_the_backup_are_not_used_again() {
    crate::run(async {
        let mut lab = Lab::new(Place::sqlite()).await;
        let database = lab.place.url.strip_prefix("sqlite://").unwrap().to_owned();
        let (database, backup) = (Path::new(&database), lab.directory().join("backup.db"));
        lab.enrol(1..=3, json!({})).await;
        lab.program("ddos", b"object").await;
        lab.policy("count", counter("eth0", 10)).await;
        lab.publish(PLAIN).await;
        lab.db.close().await;
        copy(database, &backup);

        lab.db = Db::open(&lab.place.url, 4).await.unwrap();
        let mut other = counter("eth0", 11);
        other["chain"] = json!([
            {"program": "builtin:counting-pass", "priority": 11}, {"program": "ddos"}
        ]);
        lab.policy("count", other).await;
        lab.publish(PLAIN).await;
        lab.policy("count", counter("eth0", 12)).await;
        lab.enrol([4], json!({})).await;
        lab.publish(PLAIN).await;
        assert_eq!(lab.auditor.now[&node(1)].0, 3);
        lab.db.close().await;
        copy(&backup, database);

        lab.db = Db::open(&lab.place.url, 4).await.unwrap();
        let publisher = crate::lab::publisher(lab.db.clone(), lab.store(), lab.key.clone());
        let error = publisher.publish(PLAIN, ann(), Cause::Interval).await.unwrap_err();
        assert!(matches!(error, PublishError::OldDatabase { .. }), "{error}");
        lab.audit();
        assert_eq!(lab.priority_of(1), 12, "nothing goes back by itself");
        let report = lab.publish(PLAIN).await;
        assert_eq!(
            outcomes(&report),
            ["edge-1 changed 4", "edge-2 changed 4", "edge-3 changed 4", "edge-4 removed 1"]
        );
        assert_eq!(report.snapshot.unwrap().number, 4);
        assert_eq!(lab.priority_of(1), 10);
        assert_eq!(lab.publish(PLAIN).await.snapshot, None);
    });
}

/// What is torn is left out, and what is whole of it is not.
#[test]
fn a_torn_shard_does_not_end_publishing_after_a_restore() {
    for torn in ["cut", "damaged", "empty"] {
        crate::run(async {
            let mut lab = Lab::new(Place::sqlite()).await;
            let database = lab.place.url.strip_prefix("sqlite://").unwrap().to_owned();
            let (database, backup) = (Path::new(&database), lab.directory().join("backup.db"));
            lab.enrol(1..=3, json!({})).await;
            lab.policy("count", counter("eth0", 10)).await;
            lab.publish(PLAIN).await;
            lab.db.close().await;
            copy(database, &backup);
            lab.db = Db::open(&lab.place.url, 4).await.unwrap();
            for priority in [11, 12] {
                lab.policy("count", counter("eth0", priority)).await;
                lab.publish(PLAIN).await;
            }
            lab.db.close().await;
            copy(&backup, database);
            let latest = lab.auditor.latest.clone().unwrap();
            let shard = lab.blobs().join(format!("shards/{}.cdb", latest.shards[0]));
            let mut bytes = std::fs::read(&shard).unwrap();
            // Records come first, by name: where the third one's key is, it starts.
            let third = bytes.windows(6).position(|window| window == b"edge-3").unwrap();
            match torn {
                "cut" => bytes.truncate(third),
                "damaged" => bytes[third - 8..third].fill(0xff),
                _ => bytes.clear(),
            }
            std::fs::write(&shard, bytes).unwrap();

            lab.db = Db::open(&lab.place.url, 4).await.unwrap();
            let publisher = crate::lab::publisher(lab.db.clone(), lab.store(), lab.key.clone());
            let report = publisher.publish(PLAIN, ann(), Cause::Request).await.unwrap();
            let expected = match torn {
                "empty" => [None; 3],
                _ => [Some(4), Some(4), None],
            };
            let told = |number: usize| {
                let one = report.nodes.iter().find(|change| change.node == node(number));
                one.map(|change| change.generation.unwrap())
            };
            assert_eq!([1, 2, 3].map(told), expected, "{torn}");
            assert_eq!(report.snapshot.unwrap().number, 4, "{torn}");
            let again = publisher.publish(PLAIN, ann(), Cause::Interval).await.unwrap();
            assert_eq!(again.snapshot, None, "{torn}");
        });
    }
}
