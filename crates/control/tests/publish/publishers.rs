//! More than one publisher.

use crate::child::Process;
use crate::faulty::Faulty;
use crate::lab::{Lab, PLAIN, Place, ann, counter, set_policy, store_in};
use crate::on_both;
use object_store::local::LocalFileSystem;
use pointsman_control::db::Db;
use pointsman_control::store::Store;
use pointsman_model::fleet::Cause;
use pointsman_services::{Postgres, skip};
use serde_json::json;
use std::sync::Arc;

on_both!(
    processes_that_publish_at_once_take_turns,
    who_lost_the_lock_changes_nothing_any_more,
    who_lost_the_lock_between_naming_and_noting_has_not_the_last_word,
);

async fn processes_that_publish_at_once_take_turns(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(0..5, json!({})).await;
    lab.policy("count", counter("eth0", 1)).await;
    lab.publish(PLAIN).await;
    let mut processes: Vec<_> =
        [1_000, 2_000].map(|first| Process::start(&lab, Some(first), 20, None)).into();
    for process in &mut processes {
        assert_eq!(process.line().as_deref(), Some("ready"));
    }
    let mut snapshots = Vec::new();
    for mut process in processes {
        while let Some(line) = process.line() {
            lab.audit();
            // What one changed the other may have published: then there is nothing to do.
            snapshots.extend(line.strip_prefix("Some(").map(str::to_owned));
        }
        assert!(process.wait().success());
    }
    let told = snapshots.len();
    snapshots.sort();
    snapshots.dedup();
    assert_eq!(snapshots.len(), told, "a snapshot was published twice: {snapshots:?}");
    assert!(told >= 20, "{told}");
    lab.publish(PLAIN).await;
    let newest = lab.db.newest_snapshot().await.unwrap().unwrap().0;
    assert_eq!(lab.auditor.latest.as_ref().unwrap().snapshot, newest.number);
}

/// Takes the lock away from whoever has it, without telling.
async fn break_lock(url: &str) {
    use sqlx::Connection as _;
    if let Some(path) = url.strip_prefix("sqlite://") {
        std::fs::remove_file(format!("{path}.publisher-lock")).unwrap();
        return;
    }
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let text = "select count(pg_terminate_backend(pid)) from pg_locks \
                where locktype = 'advisory' and database = \
                (select oid from pg_database where datname = current_database())";
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn who_lost_the_lock_changes_nothing_any_more(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(0..3, json!({})).await;
    lab.policy("count", counter("eth0", 1)).await;
    lab.publish(PLAIN).await;
    let inner = Arc::new(LocalFileSystem::new_with_prefix(lab.blobs()).unwrap());
    let faulty = Faulty::over(inner);
    let store = Store::over(Arc::new(faulty.clone()), "faulty");
    let mut priority = 1;
    let mut overtaken = 0;
    for well in 0.. {
        priority += 10;
        lab.policy("count", counter("eth0", priority)).await;
        let (url, blobs, key) = (lab.place.url.clone(), lab.blobs(), lab.key.clone());
        faulty.before(well, move || async move {
            break_lock(&url).await;
            let db = Db::open(&url, 2).await.unwrap();
            set_policy(&db, "count", counter("eth0", priority + 1)).await;
            let other = crate::lab::publisher(db, store_in(&blobs), key);
            other.publish(PLAIN, ann(), Cause::Request).await.unwrap();
        });
        let result = lab.try_publish(&lab.publisher_to(store.clone()), PLAIN).await;
        lab.audit();
        if !faulty.was_hit() {
            result.unwrap();
            break;
        }
        overtaken += usize::from(result.is_err());
        // The other one had the last word.
        assert_eq!(lab.priority_of(0), u64::from(priority) + 1, "{well}");
        assert_eq!(lab.publish(PLAIN).await.snapshot, None);
    }
    // All but the first operation, which comes before anything is looked at.
    assert!(overtaken >= 4, "{overtaken}");
}

/// The old one stalls just before it writes `latest`; the new one has written its own, and not
/// noted it yet, when the old one goes on.
async fn who_lost_the_lock_between_naming_and_noting_has_not_the_last_word(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(0..3, json!({})).await;
    lab.policy("count", counter("eth0", 1)).await;
    lab.publish(PLAIN).await;
    let faulty = || Faulty::over(Arc::new(LocalFileSystem::new_with_prefix(lab.blobs()).unwrap()));
    let (old, new) = (faulty(), faulty());
    let (written, is_written) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = tokio::sync::oneshot::channel::<()>();
    new.after("latest", move || async move {
        written.send(()).unwrap();
        may_finish.await.unwrap();
    });
    let (url, key, store) =
        (lab.place.url.clone(), lab.key.clone(), Store::over(Arc::new(new), "new"));
    let (started, new_one) = tokio::sync::oneshot::channel();
    // `latest`, two lists, a shard, `latest`.
    old.before(4, move || async move {
        break_lock(&url).await;
        let db = Db::open(&url, 2).await.unwrap();
        set_policy(&db, "count", counter("eth0", 3)).await;
        let other = crate::lab::publisher(db, store, key);
        let publish = async move { other.publish(PLAIN, ann(), Cause::Request).await };
        started.send(tokio::spawn(publish)).ok().unwrap();
        is_written.await.unwrap();
    });
    lab.policy("count", counter("eth0", 2)).await;
    let publisher = lab.publisher_to(Store::over(Arc::new(old.clone()), "old"));
    let result = lab.try_publish(&publisher, PLAIN).await;
    assert!(old.was_hit() && result.is_err(), "{result:?}");
    finish.send(()).unwrap();
    let report = new_one.await.unwrap().await.unwrap().unwrap();
    lab.audit();
    let newest = report.snapshot.unwrap().number;
    assert_eq!(lab.auditor.latest.as_ref().unwrap().snapshot, newest);
    assert_eq!(lab.priority_of(0), 3);
    assert_eq!(lab.publish(PLAIN).await.snapshot, None);
}

#[test]
fn a_database_that_is_cut_off_loses_nothing() {
    let server = match Postgres::start() {
        Ok(server) => Arc::new(server),
        Err(why) => return skip("a_database_that_is_cut_off_loses_nothing", why),
    };
    crate::run(async {
        let mut lab = Lab::new(Place::on(server.clone())).await;
        lab.enrol(0..3, json!({})).await;
        lab.policy("count", counter("eth0", 1)).await;
        lab.publish(PLAIN).await;
        let inner = Arc::new(LocalFileSystem::new_with_prefix(lab.blobs()).unwrap());
        let faulty = Faulty::over(inner);
        let store = Store::over(Arc::new(faulty.clone()), "faulty");
        let publisher = lab.publisher_to(store);
        // `latest`, two lists, a shard, `latest`.
        for (well, priority) in (0..5).zip(2..) {
            lab.policy("count", counter("eth0", priority)).await;
            let cut = server.clone();
            faulty.before(well, move || async move { cut.cut() });
            let error = lab.try_publish(&publisher, PLAIN).await.unwrap_err();
            lab.audit();
            assert!(faulty.was_hit(), "{well}: {error}");
            server.resume();
            lab.try_publish(&publisher, PLAIN).await.unwrap();
            lab.audit();
            assert_eq!(lab.priority_of(0), u64::from(priority), "{well}");
        }
    });
}
