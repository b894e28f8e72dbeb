//! The signing key.

use crate::lab::{Lab, PLAIN, Place, counter, fleet, node};
use crate::on_both;
use pointsman_control::db::Db;
use pointsman_control::publish::{KeyError, PublishError, key};
use pointsman_snapshot::keys::SigningKey;
use serde_json::json;
use std::os::unix::fs::MetadataExt as _;

on_both!(
    the_first_start_makes_a_key_and_every_other_finds_it,
    a_lost_or_a_wrong_key_is_noticed,
    several_that_start_at_once_have_one_key,
    a_new_key_signs_everything_anew,
    who_has_a_key_that_was_replaced_signs_nothing_any_more,
);

async fn the_first_start_makes_a_key_and_every_other_finds_it(place: Place) {
    let lab = Lab::new(place).await;
    let path = lab.directory().join("made.key");
    let first = key::load(&lab.db, &path, 1).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(key::known(&lab.db).await.unwrap().as_ref(), Some(first.public_key()));
    let again = key::load(&lab.db, &path, 2).await.unwrap();
    assert_eq!(again.public_key(), first.public_key());
}

async fn a_lost_or_a_wrong_key_is_noticed(place: Place) {
    let lab = Lab::new(place).await;
    let path = lab.directory().join("made.key");
    let first = key::load(&lab.db, &path, 1).await.unwrap();
    let id = first.public_key().key_id();
    std::fs::remove_file(&path).unwrap();
    let error = key::load(&lab.db, &path, 1).await.unwrap_err();
    assert!(matches!(error, KeyError::Lost { .. }), "{error}");
    assert!(error.to_string().contains(&id) && error.to_string().contains("made.key"), "{error}");
    assert!(!path.exists(), "no other key is made in its place");
    SigningKey::generate().unwrap().save(&path).unwrap();
    let error = key::load(&lab.db, &path, 1).await.unwrap_err();
    assert!(matches!(error, KeyError::Other { .. }), "{error}");
    assert!(error.to_string().contains(&id), "{error}");
    std::fs::write(&path, "untrusted comment: x\nnonsense\n").unwrap();
    let error = key::load(&lab.db, &path, 1).await.unwrap_err();
    assert!(matches!(error, KeyError::File(_)), "{error}");
}

async fn several_that_start_at_once_have_one_key(place: Place) {
    let lab = Lab::new(place).await;
    let path = lab.directory().join("made.key");
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (url, path) = (lab.place.url.clone(), path.clone());
        starts.spawn(async move {
            let db = Db::open(&url, 2).await.unwrap();
            key::load(&db, &path, 1).await.unwrap().public_key().clone()
        });
    }
    let known = starts.join_all().await;
    let first = key::known(&lab.db).await.unwrap().unwrap();
    assert!(known.iter().all(|key| *key == first));

    // With a directory of its own it is another control plane, and must be told.
    let other = lab.directory().join("other.key");
    let error = key::load(&lab.db, &other, 1).await.unwrap_err();
    assert!(matches!(error, KeyError::Lost { .. }), "{error}");
}

async fn a_new_key_signs_everything_anew(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({})).await;
    lab.policy("count", counter("eth0", 1)).await;
    let path = lab.directory().join("fleet.key");
    key::load(&lab.db, &path, 1).await.unwrap();
    lab.publish(PLAIN).await;
    let new = key::replace(&lab.db, &path, 77).await.unwrap();
    assert_ne!(new.public_key(), lab.key.public_key());
    let old = SigningKey::load(&lab.directory().join("fleet.key.77")).unwrap();
    assert_eq!(old.public_key(), lab.key.public_key());
    let loaded = key::load(&lab.db, &path, 1).await.unwrap();
    let publisher = crate::lab::publisher(lab.db.clone(), lab.store(), loaded);
    let report = lab.try_publish(&publisher, PLAIN).await.unwrap();
    // Another generation: a record never changes.
    assert_eq!(crate::lab::outcomes(&report), ["edge-1 changed 2", "edge-2 changed 2"]);
    assert_eq!(report.nodes[0].diff, "");
    let report = lab.try_publish(&publisher, PLAIN).await.unwrap();
    assert_eq!((report.snapshot, report.unchanged), (None, 2));
    let record = lab.db.record(&node(1)).await.unwrap().unwrap().record.unwrap();
    let record = pointsman_snapshot::record::Record::parse(&record).unwrap();
    record.verify(new.public_key(), &fleet(), &node(1)).unwrap();
}

async fn who_has_a_key_that_was_replaced_signs_nothing_any_more(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({})).await;
    lab.policy("count", counter("eth0", 1)).await;
    let path = lab.directory().join("fleet.key");
    key::load(&lab.db, &path, 1).await.unwrap();
    let running = lab.publisher();
    lab.try_publish(&running, PLAIN).await.unwrap();
    lab.audit();
    let before = lab.db.record(&node(1)).await.unwrap().unwrap();
    let new = key::replace(&lab.db, &path, 77).await.unwrap();
    lab.policy("count", counter("eth0", 2)).await;
    let error = lab.try_publish(&running, PLAIN).await.unwrap_err();
    assert!(matches!(error, PublishError::Key(KeyError::Replaced { .. })), "{error}");
    let told = error.to_string();
    assert!(told.contains(&new.public_key().key_id()) && told.contains("Restart"), "{told}");
    assert_eq!(lab.db.record(&node(1)).await.unwrap().unwrap(), before);
    lab.audit();
    assert_eq!(lab.priority_of(1), 1);
}

/// Whatever goes wrong, no key is lost, and it is said where they are.
#[test]
fn a_key_that_cannot_be_replaced_is_where_it_was() {
    crate::run(async {
        use sqlx::Connection as _;
        let lab = Lab::new(Place::sqlite()).await;
        let path = lab.directory().join("fleet.key");
        key::load(&lab.db, &path, 1).await.unwrap();
        let text = std::fs::read(&path).unwrap();
        let mut connection = sqlx::AnyConnection::connect(&lab.place.url).await.unwrap();
        let refuse = "create trigger refuse before update on settings \
                      begin select raise(abort, 'refused'); end";
        sqlx::raw_sql(refuse).execute(&mut connection).await.unwrap();
        let error = key::replace(&lab.db, &path, 77).await.unwrap_err();
        assert!(matches!(error, KeyError::Database(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), text);
        assert!(!lab.directory().join("fleet.key.77").exists());
        assert_eq!(key::load(&lab.db, &path, 1).await.unwrap().public_key(), lab.key.public_key());

        // Where nobody can say whether the new one counts, both are kept.
        connection.close().await.unwrap();
        lab.db.close().await;
        let error = key::replace(&lab.db, &path, 78).await.unwrap_err();
        assert!(matches!(error, KeyError::Half { .. }), "{error}");
        assert!(error.to_string().contains("fleet.key.78"), "{error}");
        assert_eq!(std::fs::read(lab.directory().join("fleet.key.78")).unwrap(), text);
        SigningKey::load(&path).unwrap();
    });
}
