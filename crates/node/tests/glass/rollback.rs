//! Rollbacks: earlier generations, with the objects that they had.

use super::*;

#[test]
fn a_rollback_returns_to_the_objects_there_were_and_what_it_left_stays_away() {
    let host = TestHost::new();
    let path = host.path("x.o");
    let with = |generation| {
        let mut wanted = document(generation, &[("a", "x")]);
        wanted["programs"]["x"] = json!({ "object": { "path": path } });
        wanted
    };
    fs::write(&path, "OBJECT first").unwrap();
    let node = host.start();
    node.apply(&with(41)).unwrap();
    fs::write(&path, "OBJECT second").unwrap();
    lay_down(&host, &with(42));
    node.document_changed();
    let entry = |node: &Node| node.status().hooks[0].members[0].entry.to_string();
    assert_eq!((entry(&node), node.status().generation), ("second".into(), Some(42)));
    fs::remove_file(&path).unwrap();
    let report = node.rollback(None).unwrap();
    assert_eq!((report.from, report.to, report.report.outcome), (42, 41, ApplyOutcome::Applied));
    assert_eq!((entry(&node), node.status().generation), ("first".into(), Some(41)));
    let mut node = node;
    for reboot in [false, true, false] {
        assert_eq!((entry(&node), node.status().generation), ("first".into(), Some(41)));
        node.document_changed();
        assert_eq!((entry(&node), node.status().generation), ("first".into(), Some(41)));
        assert_eq!(node.status().refused_document, None);
        let told = |message: &str| message.contains("from which somebody returned");
        assert!(node.status().notes.iter().any(|note| told(&note.message)));
        assert!(node.stop());
        if reboot {
            host.reboot();
        }
        node = host.start();
    }
    // Other contents under a used number are no way back; a new number is, by any way.
    let mut other = with(42);
    other["interfaces"]["a"] = json!({ "xdp": { "chain": [] } });
    let refused = node.apply(&other).unwrap_err();
    assert!(refused.errors[0].message.contains("expected at least 43"), "{refused:?}");
    fs::write(&path, "OBJECT third").unwrap();
    lay_down(&host, &with(43));
    node.document_changed();
    assert_eq!((entry(&node), node.status().generation), ("third".into(), Some(43)));
    // What somebody returned from is not what the next rollback returns to.
    assert_eq!(node.rollback(None).unwrap().to, 41);
    assert_eq!(node.rollback(None).unwrap_err().kind, ProblemKind::Conflict);
    // Asked for by name it is; and an apply that means it takes it too.
    assert_eq!(node.rollback(Some(42)).unwrap().to, 42);
    assert_eq!(entry(&node), "second");
    assert_eq!(node.rollback(Some(41)).unwrap().to, 41);
    node.apply(&with(43)).unwrap();
    assert_eq!(entry(&node), "third");
    let none = node.rollback(Some(7)).unwrap_err();
    assert!(none.title.contains("kept are: 41, 42"), "{}", none.title);
    let listed = node.generations();
    let rows: Vec<_> =
        listed.generations.iter().map(|g| (g.generation, g.current, g.rolled_back)).collect();
    assert_eq!(rows, [(41, false, false), (42, false, true), (43, true, false)]);
    assert!(listed.bytes > 0 && listed.generations.iter().all(|g| g.good && g.bytes > 0));
}

#[test]
fn only_whole_generations_are_good_and_only_so_many_are_kept() {
    let host = TestHost::new();
    let node = host.start_keeping(2);
    for generation in 1..=4 {
        let mut wanted = document(generation, &[("a", "x")]);
        wanted["programs"]["x"] = json!({ "object": inline(&format!("OBJECT o{generation}")) });
        node.apply(&wanted).unwrap();
    }
    let mut bad = document(5, &[("a", "x")]);
    bad["programs"]["x"] = json!({ "object": inline("garbage") });
    node.apply(&bad).unwrap();
    let numbers = |node: &Node| {
        let rows = node.generations().generations;
        rows.iter().map(|g| (g.generation, g.good)).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&node), [(3, true), (4, true), (5, false)]);
    let objects = || fs::read_dir(host.path("state/objects")).unwrap().count();
    // What was no object is not kept.
    assert_eq!((objects(), fs::read_dir(host.path("state/documents")).unwrap().count()), (2, 3));
    assert_eq!(node.rollback(None).unwrap().to, 4);
    assert_eq!(node.rollback(None).unwrap().to, 3);
    assert_eq!(host.running("a"), ["x"]);
    assert_eq!(node.rollback(None).unwrap_err().status, 409);
}

#[test]
fn what_was_rolled_back_does_not_push_out_what_a_rollback_goes_to() {
    let host = TestHost::new();
    let node = host.start_keeping(2);
    let edition = |generation| document(generation, &[("a", "c")]);
    node.apply(&edition(41)).unwrap();
    for generation in 42..=45 {
        node.apply(&edition(generation)).unwrap();
        assert_eq!(node.rollback(None).unwrap().to, 41);
    }
    node.apply(&edition(46)).unwrap();
    assert_eq!(node.rollback(None).unwrap().to, 41);
}

#[test]
fn who_goes_forward_again_can_go_back_again() {
    let host = TestHost::new();
    let node = host.start();
    for generation in 41..=43 {
        node.apply(&document(generation, &[("a", "c")])).unwrap();
    }
    assert_eq!(node.rollback(None).unwrap().to, 42);
    assert_eq!(node.rollback(None).unwrap().to, 41);
    assert_eq!(node.rollback(Some(42)).unwrap().to, 42);
    assert_eq!(node.rollback(None).unwrap().to, 41);
}
