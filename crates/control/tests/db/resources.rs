use crate::{NOW, Place, ann, on_both, page};
use pointsman_control::db::{DbError, NewProgram, Precondition};
use pointsman_model::fleet::{ObjectSummary, PolicySpec};
use pointsman_model::{PolicyName, ProgramName, Sha256};
use serde_json::json;

on_both!(
    a_policy_is_made_changed_and_removed_by_revision,
    what_is_not_committed_was_never_there,
    pages_follow_each_other,
    a_page_of_large_items_ends_early,
    a_program_that_is_used_stays,
    revisions_are_never_used_twice,
    text_is_kept_as_it_is,
    objects_are_kept_by_their_hash,
);

fn name(text: &str) -> PolicyName {
    PolicyName::new(text).unwrap()
}

fn spec(description: &str) -> PolicySpec {
    let spec = json!({"description": description, "selector": {"all": true}, "interface": "eth0",
                      "chain": [{"program": "ddos"}]});
    serde_json::from_value(spec).unwrap()
}

fn object(text: &str) -> NewProgram {
    let summary =
        json!({"licence": "GPL", "has_btf": true, "programs": [], "maps": [], "globals": []});
    let summary: ObjectSummary = serde_json::from_value(summary).unwrap();
    NewProgram { sha256: Sha256::of(text.as_bytes()), bytes: text.len() as u64, summary }
}

async fn a_policy_is_made_changed_and_removed_by_revision(place: Place) {
    let db = place.open().await;
    let edge = name("edge");
    let mut change = db.change(&ann(), NOW).await.unwrap();
    let (made, created) =
        change.put_policy(&edge, spec("one"), Precondition::Absent).await.unwrap();
    change.commit().await.unwrap();
    assert!(created);
    assert_eq!(db.policy(&edge).await.unwrap(), made);
    assert_eq!((made.updated_by.as_str(), made.updated_unix_ms), ("ann", NOW));

    for (wrong, kind) in [
        (Precondition::Unsaid, "required"),
        (Precondition::Absent, "failed"),
        (Precondition::Revision(made.revision + 1), "failed"),
    ] {
        let mut change = db.change(&ann(), NOW).await.unwrap();
        let error = change.put_policy(&edge, spec("two"), wrong).await.unwrap_err();
        let is = match error {
            DbError::PreconditionRequired { revision, .. } if revision == made.revision => {
                "required"
            }
            DbError::PreconditionFailed { .. } => "failed",
            _ => panic!("{error}"),
        };
        assert_eq!(is, kind);
        let error = change.delete_policy(&edge, wrong).await.unwrap_err();
        assert!(!matches!(error, DbError::NotFound(_)), "{error}");
    }
    let mut change = db.change(&ann(), NOW + 1).await.unwrap();
    let revision = Precondition::Revision(made.revision);
    let (changed, again) = change.put_policy(&edge, spec("two"), revision).await.unwrap();
    change.commit().await.unwrap();
    assert!(!again && changed.revision > made.revision);
    assert_eq!(db.policy(&edge).await.unwrap().spec.description, "two");

    let mut change = db.change(&ann(), NOW + 2).await.unwrap();
    change.delete_policy(&edge, Precondition::Revision(changed.revision)).await.unwrap();
    change.commit().await.unwrap();
    let error = db.policy(&edge).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no policy edge");

    let trail = db.audit(Some("policy edge"), None, &page(10, None)).await.unwrap().items;
    let told: Vec<_> = trail.iter().map(|entry| (entry.verb.as_str(), entry.number)).collect();
    assert_eq!(told[1..], [("update", changed.revision), ("create", made.revision)]);
    assert_eq!(told[0].0, "delete");
    let [deleted, updated, created] = &trail[..] else { panic!("{trail:?}") };
    assert_eq!(created.before, None);
    assert_eq!(created.after, updated.before);
    assert_eq!(deleted.after, None);
    assert_eq!(deleted.before.as_ref().unwrap()["description"], "two");
    assert_eq!(created.from.as_deref(), Some("192.0.2.1"));
}

async fn what_is_not_committed_was_never_there(place: Place) {
    let db = place.open().await;
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.put_policy(&name("gone"), spec(""), Precondition::Absent).await.unwrap();
    drop(change);
    db.policy(&name("gone")).await.unwrap_err();
    assert!(db.audit(None, None, &page(10, None)).await.unwrap().items.is_empty());
    // The next one has its turn.
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.put_policy(&name("kept"), spec(""), Precondition::Unsaid).await.unwrap();
    change.commit().await.unwrap();
    // And all of it is there for a process that starts later.
    db.close().await;
    let db = place.open().await;
    assert_eq!(db.all_policies().await.unwrap().len(), 1);
}

async fn pages_follow_each_other(place: Place) {
    let db = place.open().await;
    // In the order of bytes, whatever the server's language is.
    let names = ["B", "Z-1", "a", "a.1", "a_1", "b"];
    let mut change = db.change(&ann(), NOW).await.unwrap();
    for text in names.iter().rev() {
        change.put_policy(&name(text), spec(""), Precondition::Absent).await.unwrap();
    }
    change.commit().await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let found = db.policies(&page(2, after.as_deref())).await.unwrap();
        assert!(found.items.len() <= 2);
        seen.extend(found.items.into_iter().map(|policy| policy.name.to_string()));
        match found.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, names);
    let all: Vec<_> = db.all_policies().await.unwrap();
    assert_eq!(all.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(), names);
}

async fn a_page_of_large_items_ends_early(place: Place) {
    let db = place.open().await;
    let mut change = db.change(&ann(), NOW).await.unwrap();
    for text in ["a", "b", "c"] {
        let large = spec(&"x".repeat(5 << 20));
        change.put_policy(&name(text), large, Precondition::Absent).await.unwrap();
    }
    change.commit().await.unwrap();
    let first = db.policies(&page(1000, None)).await.unwrap();
    assert_eq!((first.items.len(), first.next.as_deref()), (2, Some("b")));
    let rest = db.policies(&page(1000, first.next.as_deref())).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let trail = db.audit(None, None, &page(1000, None)).await.unwrap();
    assert_eq!((trail.items.len(), trail.next.as_deref()), (2, Some("2")));
    // The connection that was not read to its end is as good as any.
    assert_eq!(db.all_policies().await.unwrap().len(), 3);
}

async fn a_program_that_is_used_stays(place: Place) {
    let db = place.open().await;
    let ddos = ProgramName::new("ddos").unwrap();
    let mut change = db.change(&ann(), NOW).await.unwrap();
    let (program, _) =
        change.put_program(&ddos, object("elf"), Precondition::Absent).await.unwrap();
    change.put_policy(&name("edge"), spec(""), Precondition::Absent).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(db.program(&ddos).await.unwrap(), program);
    assert_eq!(db.programs(&page(1, None)).await.unwrap().items, db.all_programs().await.unwrap());

    let mut change = db.change(&ann(), NOW).await.unwrap();
    let error = change.delete_program(&ddos, Precondition::Revision(program.revision)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("used by policies: edge"), "{error}");
    change.delete_policy(&name("edge"), Precondition::Present).await.unwrap();
    change.delete_program(&ddos, Precondition::Revision(program.revision)).await.unwrap();
    change.commit().await.unwrap();
    let error = db.program(&ddos).await.unwrap_err().to_string();
    assert_eq!(error, "there is no program ddos");
}

async fn revisions_are_never_used_twice(place: Place) {
    let db = place.open().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let mut change = db.change(&ann(), NOW).await.unwrap();
        let (made, _) =
            change.put_policy(&name("p"), spec(""), Precondition::Absent).await.unwrap();
        assert!(seen.insert(made.revision));
        change.delete_policy(&name("p"), Precondition::Revision(made.revision)).await.unwrap();
        change.commit().await.unwrap();
    }
}

async fn text_is_kept_as_it_is(place: Place) {
    let db = place.open().await;
    // Quotes of both kinds, markup, a statement, NUL, what is beyond UCS-2.
    let wild = "'; drop table policies; -- \"<script>alert(1)</script>\\ \u{0} \u{1f4a3} \n%_";
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.put_policy(&name("wild"), spec(wild), Precondition::Absent).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(db.policy(&name("wild")).await.unwrap().spec.description, wild);
    let none = db.audit(Some("'; drop table audit; --"), Some("%"), &page(5, None)).await.unwrap();
    assert!(none.items.is_empty());
    assert_eq!(db.audit(None, Some("ann"), &page(5, None)).await.unwrap().items.len(), 1);
}

async fn objects_are_kept_by_their_hash(place: Place) {
    let db = place.open().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let hash = Sha256::of(&bytes);
    let mut change = db.change(&ann(), NOW).await.unwrap();
    change.put_object(&hash, &bytes).await.unwrap();
    change.put_object(&hash, &bytes).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(db.object(&hash).await.unwrap(), Some(bytes));
    assert_eq!(db.object(&Sha256::of(b"no")).await.unwrap(), None);
}
