use crate::{NOW, Place, ann, on_both, page};
use pointsman_control::db::{DbError, PublishedRecord, RecordState};
use pointsman_model::fleet::{Cause, RecordObject, Snapshot};
use pointsman_model::{NodeName, Sha256};

on_both!(
    records_are_kept_byte_for_byte_and_generations_of_those_that_left,
    numbers_of_snapshots_rise,
    settings_are_kept,
);

fn record(node: usize, generation: u64, record: Option<&[u8]>) -> PublishedRecord {
    PublishedRecord {
        state: RecordState {
            node: NodeName::new(format!("n{node:04}")).unwrap(),
            generation,
            digest: record.map(|_| format!("digest {generation}")),
            snapshot: 1,
            at_ms: NOW,
        },
        objects: vec![RecordObject { sha256: Sha256::of(&[node as u8]), bytes: node as u64 }],
        record: record.map(<[u8]>::to_vec),
    }
}

async fn records_are_kept_byte_for_byte_and_generations_of_those_that_left(place: Place) {
    let db = place.open().await;
    let bytes: Vec<u8> = (0..=255).collect();
    // More than fit into one statement.
    let all: Vec<_> = (0..250).map(|node| record(node, 1, Some(&bytes))).collect();
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.put_records(&all).await.unwrap();
    change.commit().await.unwrap();
    let states: Vec<_> = all.iter().map(|record| record.state.clone()).collect();
    assert_eq!(db.record_states().await.unwrap(), states);
    let first = db.records(&page(200, None)).await.unwrap();
    let rest = db.records(&page(200, first.next.as_deref())).await.unwrap();
    assert_eq!([first.items, rest.items].concat(), all);

    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.put_records(&[record(3, 2, None), record(4, 2, Some(b"new"))]).await.unwrap();
    assert_eq!(change.record_states().await.unwrap().len(), 250);
    change.commit().await.unwrap();
    let node = |number: usize| NodeName::new(format!("n{number:04}")).unwrap();
    let left = db.record(&node(3)).await.unwrap().unwrap();
    assert_eq!((left.state.generation, left.state.digest, left.record), (2, None, None));
    assert_eq!(db.record(&node(4)).await.unwrap().unwrap().record.unwrap(), b"new");
    assert_eq!(db.record(&NodeName::new("no").unwrap()).await.unwrap(), None);
}

fn snapshot(number: u64) -> Snapshot {
    Snapshot {
        number,
        at_unix_ms: NOW + number,
        by: "ann".into(),
        cause: Cause::Interval,
        nodes: 3,
        changed: 1,
        shards: vec![Sha256::of(b"a"), Sha256::of(&number.to_be_bytes())],
        bytes_written: 77,
    }
}

async fn numbers_of_snapshots_rise(place: Place) {
    let db = place.open().await;
    assert!(db.newest_snapshot().await.unwrap().is_none());
    for number in 1..=3 {
        let mut change = db.change(&ann(), NOW).await.unwrap();
        change.add_snapshot(&snapshot(number)).await.unwrap();
        let error = change.add_snapshot(&snapshot(number)).await.unwrap_err();
        assert!(matches!(error, DbError::Conflict(_)), "{error}");
        change.commit().await.unwrap();
        let (newest, latest) = db.newest_snapshot().await.unwrap().unwrap();
        assert_eq!((newest, latest), (snapshot(number), false));
    }
    db.snapshot_is_latest(3, NOW).await.unwrap();
    assert!(db.newest_snapshot().await.unwrap().unwrap().1);
    assert_eq!(db.snapshot(2).await.unwrap(), snapshot(2));
    let error = db.snapshot(4).await.unwrap_err().to_string();
    assert_eq!(error, "there is no snapshot 4");
    let found = db.snapshots(&page(2, None)).await.unwrap();
    assert_eq!(found.items, [snapshot(3), snapshot(2)]);
    assert_eq!(db.snapshots(&page(2, found.next.as_deref())).await.unwrap().items, [snapshot(1)]);
}

async fn settings_are_kept(place: Place) {
    let db = place.open().await;
    assert_eq!(db.setting("fleet").await.unwrap(), None);
    for value in ["prod", "test"] {
        let mut change = db.change(&ann(), NOW).await.unwrap();
        change.put_setting("fleet", value).await.unwrap();
        change.commit().await.unwrap();
        assert_eq!(db.setting("fleet").await.unwrap().as_deref(), Some(value));
    }
}
