use crate::{Place, on_both};
use pointsman_control::db::{Db, DbError, OpenError};
use std::time::Duration;

on_both!(
    one_publisher_at_a_time_and_its_end_is_noticed,
    a_publisher_waits_for_another,
    tables_of_a_later_version_are_left_alone,
    several_start_at_once,
);

const AT_ONCE: Duration = Duration::ZERO;

async fn one_publisher_at_a_time_and_its_end_is_noticed(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let mut lock = one.publisher_lock(AT_ONCE).await.unwrap();
    lock.still_held().await.unwrap();
    for db in [&one, &other] {
        let error = db.publisher_lock(AT_ONCE).await.unwrap_err();
        assert!(matches!(error, DbError::Busy { .. }), "{error}");
    }
    // Who publishes keeps nobody from changing things.
    let change = other.change(&crate::ann(), crate::NOW).await.unwrap();
    change.commit().await.unwrap();
    // As when its process is killed.
    drop(lock);
    let lock = other.publisher_lock(Duration::from_secs(20)).await.unwrap();
    lock.release().await.unwrap();
    one.publisher_lock(AT_ONCE).await.unwrap().release().await.unwrap();
}

async fn a_publisher_waits_for_another(place: Place) {
    let db = place.open().await;
    let lock = db.publisher_lock(AT_ONCE).await.unwrap();
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.publisher_lock(Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    lock.release().await.unwrap();
    waiting.await.unwrap().unwrap();
}

async fn tables_of_a_later_version_are_left_alone(place: Place) {
    let db = place.open().await;
    db.close().await;
    {
        use sqlx::Connection as _;
        let mut connection = sqlx::AnyConnection::connect(&place.url).await.unwrap();
        let later = "insert into _sqlx_migrations (version, description, success, checksum, \
                     execution_time) select 999, 'later', success, checksum, 1 \
                     from _sqlx_migrations where version = 1";
        sqlx::raw_sql(later).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    let error = Db::open(&place.url, 1).await.unwrap_err();
    assert!(matches!(error, OpenError::Later { version: 999, .. }), "{error}");
    assert!(error.to_string().contains("later version of pointsman-control"), "{error}");
}

async fn several_start_at_once(place: Place) {
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = place.url.clone();
        starts.spawn(async move { Db::open(&url, 2).await.map(drop) });
    }
    while let Some(started) = starts.join_next().await {
        started.unwrap().unwrap();
    }
}

#[test]
fn a_publisher_notices_that_the_lock_file_was_taken_away() {
    crate::run(async {
        let place = Place::sqlite();
        let db = place.open().await;
        let mut lock = db.publisher_lock(AT_ONCE).await.unwrap();
        let path = place.url.trim_start_matches("sqlite://").to_owned() + ".publisher-lock";
        std::fs::remove_file(path).unwrap();
        let error = lock.still_held().await.unwrap_err().to_string();
        assert!(error.contains("removed or replaced"), "{error}");
    });
}

/// A server of its own: others' tests would break with it.
#[test]
fn a_database_that_was_cut_comes_back_and_its_locks_do_not() {
    let name = "locks::a_database_that_was_cut_comes_back_and_its_locks_do_not";
    let server = match pointsman_services::Postgres::start() {
        Ok(server) => server,
        Err(why) => return pointsman_services::skip(name, why),
    };
    crate::run(async {
        let db = Db::open(&server.database(), 4).await.unwrap();
        let mut lock = db.publisher_lock(AT_ONCE).await.unwrap();
        lock.still_held().await.unwrap();
        server.cut();
        let error = lock.still_held().await.unwrap_err();
        assert!(matches!(error, DbError::Unavailable(_)), "{error}");
        let error = db.ping().await.unwrap_err();
        assert!(matches!(error, DbError::Unavailable(_) | DbError::Busy { .. }), "{error}");
        server.resume();
        db.ping().await.unwrap();
        lock.still_held().await.unwrap_err();
        db.publisher_lock(AT_ONCE).await.unwrap();
    });
}

#[test]
fn what_cannot_be_opened_is_named() {
    crate::run(async {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "this is no database, and long enough to have been one").unwrap();
        for (url, told) in [
            (format!("sqlite://{}", file.display()), "file is not a database"),
            (format!("sqlite://{}/x/y.db", file.display()), "Not a directory"),
            (format!("sqlite://{}", directory.path().display()), "Is a directory"),
            ("postgres://ann:secret@localhost/x?host=/nowhere".into(), "No such file"),
        ] {
            let error = Db::open(&url, 1).await.unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("secret"), "{error}");
        }
    });
}

/// On a file system of its own, which is gone with the test's mount namespace.
#[test]
fn a_full_disk_is_told_and_what_was_there_stays() {
    let name = "locks::a_full_disk_is_told_and_what_was_there_stays";
    if !rustix::process::geteuid().is_root() {
        return pointsman_services::skip(name, "needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
        .arg(directory.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return pointsman_services::skip(name, "cannot mount a tmpfs");
    }
    let result = std::panic::catch_unwind(|| {
        crate::run(async {
            let url = format!("sqlite://{}/control.db", directory.path().display());
            let ballast = directory.path().join("ballast");
            std::fs::write(&ballast, vec![0; 3_000_000]).unwrap();
            let db = Db::open(&url, 2).await.unwrap();
            let mut told = None;
            for number in 0..500_u32 {
                let mut change = db.change(&crate::ann(), crate::NOW).await.unwrap();
                let large = "x".repeat(100_000);
                let noted = change.note("update", "thing", Some(&number), Some(&large)).await;
                let made = match noted {
                    Ok(_) => change.commit().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = made {
                    told = Some(error);
                    break;
                }
            }
            assert!(matches!(told, Some(DbError::Full)), "{told:?}");
            let trail = db.audit(None, None, &crate::page(1000, None)).await.unwrap().items;
            assert!(!trail.is_empty());
            db.close().await;
            std::fs::remove_file(&ballast).unwrap();
            let db = Db::open(&url, 2).await.unwrap();
            assert_eq!(db.audit(None, None, &crate::page(1000, None)).await.unwrap().items, trail);
            db.close().await;
        });
    });
    let unmounted = std::process::Command::new("umount").arg("-l").arg(directory.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    result.unwrap();
}
