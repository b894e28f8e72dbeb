use crate::{NOW, Place, ann, on_both, page};
use pointsman_control::db::{CourierStanding, DbError, Precondition, Report, Standing, Taken};
use pointsman_model::NodeName;
use pointsman_model::fleet::Labels;
use serde_json::json;

on_both!(
    a_node_enrols_once_with_the_last_token_it_was_given,
    labels_are_changed_by_revision,
    reports_are_of_the_credential_that_holds,
    what_a_report_leaves_out_is_as_before,
    a_daemon_that_was_never_up_may_report_that,
    a_node_that_left_is_forgotten,
);

fn edge() -> NodeName {
    NodeName::new("edge-1").unwrap()
}

fn labels(site: &str) -> Labels {
    serde_json::from_value(json!({"site": site, "example.org/rack": "7"})).unwrap()
}

async fn invite(db: &pointsman_control::db::Db, labels: Option<Labels>, hash: &str, until: u64) {
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.invite_node(&edge(), labels, hash, until).await.unwrap();
    change.commit().await.unwrap();
}

async fn enrol(db: &pointsman_control::db::Db, token: &str, credential: &str, at: u64) -> bool {
    let mut change = db.change(&ann(), at).await.unwrap();
    let name = change.enrol_node(token, credential).await.unwrap();
    change.commit().await.unwrap();
    name.is_some()
}

async fn a_node_enrols_once_with_the_last_token_it_was_given(place: Place) {
    let db = place.open().await;
    invite(&db, Some(labels("fra")), "t1", NOW + 100).await;
    let invited = db.node(&edge()).await.unwrap();
    assert_eq!((invited.enrolled_ms, invited.invited_until_ms), (None, Some(NOW + 100)));
    assert!(!enrol(&db, "t1", "c0", NOW + 100).await, "expired");
    assert!(!enrol(&db, "tx", "c0", NOW).await, "unknown");
    assert!(enrol(&db, "t1", "c1", NOW + 99).await);
    assert!(!enrol(&db, "t1", "c2", NOW + 99).await, "used");
    assert_eq!(db.node_by_credential("c1").await.unwrap(), Some(edge()));

    // Again, by another token; the first one that it was given is void.
    invite(&db, None, "t2", NOW + 900).await;
    invite(&db, None, "t3", NOW + 900).await;
    let again = db.node(&edge()).await.unwrap();
    assert_eq!((again.revision, &again.labels), (invited.revision, &labels("fra")));
    assert_eq!(db.node_by_credential("c1").await.unwrap(), Some(edge()));
    assert!(!enrol(&db, "t2", "c2", NOW + 200).await, "replaced");
    assert!(enrol(&db, "t3", "c3", NOW + 200).await);
    assert_eq!(db.node_by_credential("c1").await.unwrap(), None);
    assert_eq!(db.node_by_credential("c3").await.unwrap(), Some(edge()));
    let trail = db.audit(Some("node edge-1"), None, &page(9, None)).await.unwrap().items;
    let verbs: Vec<_> = trail.iter().map(|entry| entry.verb.as_str()).collect();
    assert_eq!(verbs, ["enrol", "invite", "invite", "enrol", "invite"]);
    let told = serde_json::to_string(&trail).unwrap();
    assert!(["\"t1\"", "\"c1\"", "\"t3\""].iter().all(|secret| !told.contains(secret)), "{told}");
}

async fn labels_are_changed_by_revision(place: Place) {
    let db = place.open().await;
    invite(&db, None, "t1", NOW + 1).await;
    let before = db.node(&edge()).await.unwrap();
    let mut change = db.change(&ann(), NOW).await.unwrap();
    let revision = Precondition::Revision(before.revision);
    let after = change.label_node(&edge(), &labels("ams"), revision).await.unwrap();
    let error = change.label_node(&edge(), &labels("x"), revision).await.unwrap_err();
    assert!(matches!(error, DbError::PreconditionFailed { .. }), "{error}");
    let error = change.label_node(&edge(), &labels("x"), Precondition::Unsaid).await.unwrap_err();
    assert!(matches!(error, DbError::PreconditionRequired { .. }), "{error}");
    change.commit().await.unwrap();
    assert_eq!(db.node(&edge()).await.unwrap(), after);
    assert_eq!(after.labels, labels("ams"));
    assert!(after.revision > before.revision);
}

fn report(credential: &str, at_ms: u64, in_force: Option<u64>, counters: bool) -> Report {
    let status = in_force.map(|generation| {
        let standing = Standing { in_force, ..Standing::default() };
        (standing, format!("{{\"generation\":{generation}}}"))
    });
    Report {
        node: edge(),
        credential_hash: credential.into(),
        at_ms,
        courier_standing: CourierStanding { interval_ms: 1000, ..CourierStanding::default() },
        courier: format!("{{\"at\":{at_ms}}}"),
        status,
        counters: counters.then(|| format!("{{\"at\":{at_ms}}}")),
    }
}

async fn reports_are_of_the_credential_that_holds(place: Place) {
    let db = place.open().await;
    invite(&db, None, "t1", NOW + 9).await;
    assert!(enrol(&db, "t1", "c1", NOW).await);
    let both = vec![report("c0", NOW + 2, Some(2), true), report("c1", NOW + 3, Some(3), true)];
    assert_eq!(db.take_reports(both).await.unwrap(), [Taken::Void, Taken::Kept]);
    let void = vec![report("c0", NOW + 4, Some(4), true), report("c0", NOW + 4, None, false)];
    assert_eq!(db.take_reports(void).await.unwrap(), [Taken::Void, Taken::Void]);
    let node = db.node(&edge()).await.unwrap();
    assert_eq!((node.seen_ms, node.standing.unwrap().in_force), (Some(NOW + 3), Some(3)));
    let row = db.report(&edge()).await.unwrap().unwrap();
    assert_eq!(row.status.as_deref(), Some("{\"generation\":3}"));
}

async fn what_a_report_leaves_out_is_as_before(place: Place) {
    let db = place.open().await;
    invite(&db, None, "t1", NOW + 9).await;
    assert!(enrol(&db, "t1", "c1", NOW).await);
    let take = async |at, in_force, counters| {
        db.take_reports(vec![report("c1", at, in_force, counters)]).await.unwrap()[0]
    };
    assert_eq!(take(NOW + 1, None, true).await, Taken::NeedsAll);
    assert_eq!(db.node(&edge()).await.unwrap().seen_ms, None);
    assert_eq!(take(NOW + 2, Some(7), true).await, Taken::Kept);
    assert_eq!(take(NOW + 3, None, true).await, Taken::Kept);
    assert_eq!(take(NOW + 4, None, false).await, Taken::Kept);
    let node = db.node(&edge()).await.unwrap();
    assert_eq!((node.seen_ms, node.standing.unwrap().in_force), (Some(NOW + 4), Some(7)));
    let row = db.report(&edge()).await.unwrap().unwrap();
    let at = |at: u64| format!("{{\"at\":{at}}}");
    assert_eq!((row.at_ms, row.courier), (NOW + 4, at(NOW + 4)));
    assert_eq!(row.status.as_deref(), Some("{\"generation\":7}"));
    assert_eq!((row.counters, row.counters_ms), (Some(at(NOW + 3)), Some(NOW + 3)));
    assert_eq!(row.counters_before, Some(at(NOW + 2)));
}

async fn a_daemon_that_was_never_up_may_report_that(place: Place) {
    let db = place.open().await;
    invite(&db, None, "t1", NOW + 9).await;
    assert!(enrol(&db, "t1", "c1", NOW).await);
    let mut down = report("c1", NOW + 1, None, false);
    down.courier_standing.daemon_trouble = Some("no socket".into());
    assert_eq!(db.take_reports(vec![down]).await.unwrap(), [Taken::Kept]);
    let node = db.node(&edge()).await.unwrap();
    assert_eq!(node.standing, None);
    assert_eq!(node.courier.unwrap().daemon_trouble.as_deref(), Some("no socket"));
}

async fn a_node_that_left_is_forgotten(place: Place) {
    let db = place.open().await;
    invite(&db, None, "t1", NOW + 9).await;
    assert!(enrol(&db, "t1", "c1", NOW).await);
    db.take_reports(vec![report("c1", NOW + 1, Some(1), true)]).await.unwrap();
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.delete_node(&edge(), Precondition::Present).await.unwrap();
    change.commit().await.unwrap();
    assert!(matches!(db.node(&edge()).await.unwrap_err(), DbError::NotFound(_)));
    assert_eq!(db.node_by_credential("c1").await.unwrap(), None);
    assert_eq!(db.report(&edge()).await.unwrap(), None);
    db.take_reports(vec![report("c1", NOW + 1, Some(1), true)]).await.unwrap();
    assert!(db.all_nodes().await.unwrap().is_empty());
}
