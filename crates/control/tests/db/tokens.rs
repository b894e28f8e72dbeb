use crate::{NOW, Place, ann, on_both, page};
use pointsman_control::db::{DbError, NewSecret};
use pointsman_model::TokenName;
use pointsman_model::fleet::Role;

on_both!(a_token_is_found_by_its_hash_until_it_is_revoked, a_session_ends_with_its_token);

fn token(name: &str, hash: &str) -> NewSecret {
    let name = TokenName::new(name).unwrap();
    NewSecret { name, role: Role::Operator, expires_ms: Some(NOW + 1000), hash: hash.into() }
}

async fn a_token_is_found_by_its_hash_until_it_is_revoked(place: Place) {
    let db = place.open().await;
    let mut change = db.change(&ann(), NOW).await.unwrap();
    assert!(change.has_no_token().await.unwrap());
    let made = change.add_token(token("ci", "aa")).await.unwrap();
    assert!(!change.has_no_token().await.unwrap());
    let error = change.add_token(token("ci", "bb")).await.unwrap_err();
    assert!(matches!(error, DbError::Conflict(_)), "{error}");
    change.commit().await.unwrap();

    assert_eq!(db.token_by_hash("bb").await.unwrap(), None);
    let found = db.token_by_hash("aa").await.unwrap().unwrap();
    assert_eq!(found, made);
    db.token_used(&found, NOW + 61_500).await.unwrap();
    let used = db.token_by_hash("aa").await.unwrap().unwrap();
    let minute = (NOW + 61_500) / 60_000 * 60_000;
    assert_eq!(used.used_unix_ms, Some(minute));
    db.token_used(&used, minute + 59_999).await.unwrap();
    assert_eq!(db.token_by_hash("aa").await.unwrap().unwrap().used_unix_ms, Some(minute));

    for _ in 0..2 {
        let mut change = db.change(&ann(), NOW + 9).await.unwrap();
        change.revoke_token(&made.name).await.unwrap();
        change.commit().await.unwrap();
    }
    let void = db.token_by_hash("aa").await.unwrap().unwrap();
    assert_eq!(void.revoked_unix_ms, Some(NOW + 9));
    assert_eq!(db.tokens(&page(5, None)).await.unwrap().items, [void]);
    let trail = db.audit(Some("token ci"), None, &page(5, None)).await.unwrap().items;
    assert_eq!(
        trail.iter().map(|entry| entry.verb.as_str()).collect::<Vec<_>>(),
        ["revoke", "create"]
    );
    // The secret, also its hash, is nowhere in the trail.
    assert!(!serde_json::to_string(&trail).unwrap().contains("\"aa\""));
    let mut change = db.change(&ann(), NOW).await.unwrap();
    let error = change.revoke_token(&TokenName::new("no").unwrap()).await.unwrap_err();
    assert!(matches!(error, DbError::NotFound(_)), "{error}");
}

async fn a_session_ends_with_its_token(place: Place) {
    let db = place.open().await;
    let mut change = db.change(&ann(), NOW).await.unwrap();
    let made = change.add_token(token("ann", "aa")).await.unwrap();
    change.commit().await.unwrap();
    db.add_session("s1", &made.name, "c1", NOW, NOW + 100).await.unwrap();
    db.add_session("s2", &made.name, "c2", NOW + 50, NOW + 200).await.unwrap();
    assert_eq!(db.session("s1", NOW + 99).await.unwrap().unwrap().csrf, "c1");
    assert!(db.session("s1", NOW + 100).await.unwrap().is_none());
    assert!(db.session("'or 1=1", NOW).await.unwrap().is_none());
    db.end_session("s1").await.unwrap();
    assert!(db.session("s1", NOW).await.unwrap().is_none());
    let session = db.session("s2", NOW + 99).await.unwrap().unwrap();
    assert_eq!((session.csrf.as_str(), &session.token), ("c2", &made));
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.revoke_token(&made.name).await.unwrap();
    change.commit().await.unwrap();
    assert!(db.session("s2", NOW + 99).await.unwrap().is_none());
}
