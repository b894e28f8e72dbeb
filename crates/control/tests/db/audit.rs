use crate::{NOW, Place, ann, on_both, page};
use pointsman_control::db::Actor;

on_both!(the_trail_is_whole_and_in_order_whoever_writes_it, the_trail_comes_in_pages);

/// Two processes, each with several writers at once.
async fn the_trail_is_whole_and_in_order_whoever_writes_it(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let db = if writer % 2 == 0 { one.clone() } else { other.clone() };
        writers.spawn(async move {
            let actor = Actor { name: format!("writer-{writer}"), from: None };
            for _ in 0..10 {
                let mut change = db.change(&actor, NOW).await.unwrap();
                change.note("update", "thing", None::<&()>, Some(&writer)).await.unwrap();
                change.commit().await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let trail = one.audit(None, None, &page(1000, None)).await.unwrap().items;
    let numbers: Vec<_> = trail.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=80).rev().collect::<Vec<_>>());
    let by_one = one.audit(Some("thing"), Some("writer-3"), &page(1000, None)).await.unwrap();
    assert_eq!(by_one.items.len(), 10);
}

async fn the_trail_comes_in_pages(place: Place) {
    let db = place.open().await;
    let mut change = db.change(&ann(), NOW).await.unwrap();
    for number in 0..5 {
        change.note("update", "thing", Some(&number), Some(&(number + 1))).await.unwrap();
    }
    change.commit().await.unwrap();
    let first = db.audit(None, None, &page(3, None)).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("3"));
    let last = db.audit(None, None, &page(3, first.next.as_deref())).await.unwrap();
    assert_eq!(last.items.iter().map(|entry| entry.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(last.next, None);
}
