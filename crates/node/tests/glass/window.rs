//! Documents that wait to be confirmed.

use super::*;

#[test]
fn what_nobody_confirms_goes_and_what_somebody_confirms_stays() {
    let host = TestHost::new();
    let node = host.start();
    let (first, second) = (document(41, &[("a", "c")]), document(42, &[("a", "u"), ("b", "u")]));
    node.apply(&first).unwrap();
    let report = node.apply_within(&second, 60).unwrap();
    let waiting = report.unconfirmed.unwrap();
    assert_eq!((waiting.generation, waiting.back_to, waiting.remaining_ms), (42, Some(41), 60_000));
    assert_eq!(host.running("a"), ["u"]);
    // The same bytes again are no confirmation.
    let again = node.apply(&second).unwrap();
    assert!(again.plan.notes.iter().any(|n| n.message.contains("still waits")));
    host.pass(59);
    assert_eq!(node.status().unconfirmed.unwrap().remaining_ms, 1_000);
    assert_eq!(node.confirm(Some(41)).unwrap_err().kind, ProblemKind::Conflict);
    host.pass(1);
    // Too late, by a hair.
    assert!(node.confirm(None).unwrap_err().title.contains("generation 41 is in force"));
    assert_eq!((host.running("a"), host.running("b")), (vec!["c".to_owned()], vec![]));
    assert_eq!(node.events().last(), Some(&EventKind::Returned));
    lay_down(&host, &second);
    node.document_changed();
    assert_eq!(node.status().generation, Some(41), "it does not come back by itself");
    node.apply_within(&second, 60).unwrap();
    assert_eq!(node.confirm(None).unwrap().remaining_ms, Some(60_000));
    host.pass(1_000);
    assert_eq!(node.status().generation, Some(42));
    assert_eq!(node.confirm(Some(42)).unwrap().remaining_ms, None, "asked again");
    assert_eq!(node.rollback(None).unwrap().to, 41);
}

#[test]
fn a_return_goes_to_the_last_state_that_needed_no_confirmation() {
    let host = TestHost::new();
    let node = host.start();
    let edition = |generation, chain| document(generation, &[("a", chain)]);
    // There was nothing: there is nothing again, and a reboot does not change that.
    lay_down(&host, &edition(1, "c"));
    node.apply_within(&edition(1, "c"), 10).unwrap();
    assert_eq!(host.running("a"), ["c"]);
    host.pass(10);
    assert!(node.status().drained);
    assert!(host.shared.sim().observe().hooks.is_empty());
    assert!(node.stop());
    host.reboot();
    let node = host.start();
    assert!(node.status().drained && host.running("a").is_empty());
    node.apply(&edition(1, "c")).unwrap();
    // One unconfirmed after another: back to before the first.
    node.apply_within(&edition(2, "u"), 10).unwrap();
    host.pass(8);
    node.apply_within(&edition(3, "b"), 10).unwrap();
    host.pass(8);
    assert_eq!(node.status().generation, Some(3));
    host.pass(2);
    assert_eq!(node.status().generation, Some(1));
    assert_eq!(host.running("a"), ["c"]);
    // One without takes over, and says so.
    node.apply_within(&edition(4, "u"), 10).unwrap();
    let report = node.apply(&edition(5, "b")).unwrap();
    assert!(report.plan.notes.iter().any(|n| n.message.contains("takes its place for good")));
    host.pass(100);
    assert_eq!(node.status().generation, Some(5));
    // A document that was laid down waits until it is clear what is in force.
    node.apply_within(&edition(6, "u"), 10).unwrap();
    lay_down(&host, &edition(7, "c"));
    node.document_changed();
    assert_eq!(node.status().generation, Some(6));
    host.pass(10);
    assert_eq!(node.status().generation, Some(7));
    assert_eq!(host.running("a"), ["c"]);
    // A rollback returns at once.
    node.apply_within(&edition(8, "u"), 10).unwrap();
    assert_eq!(node.rollback(None).unwrap().to, 7);
    assert_eq!(node.status().unconfirmed, None);
}

#[test]
fn a_return_leaves_nothing_unconfirmed_where_the_document_before_is_refused() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "cu")])).unwrap();
    let mut bad = document(2, &[("a", "x"), ("b", "x")]);
    bad["programs"]["x"] = json!({ "object": inline("garbage") });
    node.apply(&bad).unwrap();
    node.apply_within(&document(3, &[("a", "b"), ("b", "b")]), 10).unwrap();
    assert_eq!(
        (host.running("a"), host.running("b")),
        (vec!["b".to_owned()], vec!["b".to_owned()])
    );
    host.pass(10);
    assert_eq!(node.status().generation, Some(2));
    assert_eq!(host.running("a"), ["c", "u"], "what ran there before");
    assert_eq!(host.running("b"), NONE, "nothing did");
    assert_eq!(link(&host, "b"), None);
    assert_eq!(host.shared.sim().violations(), &[] as &[String]);
}

#[test]
fn a_return_never_goes_on_with_what_nobody_confirmed_whatever_fails() {
    let mut failed = 0;
    for at in 0.. {
        let host = TestHost::new();
        let node = host.start_checking(Duration::from_secs(3_600));
        node.apply(&document(1, &[("a", "c")])).unwrap();
        node.apply_within(&document(2, &[("a", "u")]), 10).unwrap();
        host.shared.sim().plant(Fault::Fail(at));
        host.pass(10);
        let back = node.until("return", |status| status.unconfirmed.is_none());
        assert_ne!(host.running("a"), ["u"], "{at}");
        assert_eq!(back.generation, Some(1));
        // What ran before is attached as soon as it can be.
        node.until("chain", |_| host.running("a") == ["c"]);
        let disturbed = back.hooks.iter().any(|hook| !hook.refusals.is_empty());
        failed += usize::from(disturbed);
        if !disturbed && at > 8 {
            break;
        }
    }
    assert!(failed >= 3, "{failed} faults");
}

#[test]
fn a_return_that_cannot_be_carried_out_is_tried_until_it_is() {
    let host = TestHost::new();
    let node = host.start_checking(Duration::from_millis(20));
    node.apply(&document(1, &[("a", "c")])).unwrap();
    node.apply_within(&document(2, &[("a", "u")]), 10).unwrap();
    host.shared.sim().plant(Fault::FailFrom(0));
    host.pass(10);
    let stuck = node.status();
    assert_eq!(stuck.unconfirmed.map(|waiting| waiting.remaining_ms), Some(0));
    let told = |message: &str| message.contains("still runs what nobody confirmed");
    assert!(stuck.notes.iter().any(|note| told(&note.message)), "{:?}", stuck.notes);
    assert_eq!(host.running("a"), ["u"], "nothing can be done");
    assert_eq!(node.confirm(None).unwrap_err().status, 409);
    assert!(!node.events().contains(&EventKind::Returned));
    host.shared.sim().restart();
    let back = node.until("return", |status| status.unconfirmed.is_none());
    assert_eq!(host.running("a"), ["c"]);
    assert!(!back.notes.iter().any(|note| told(&note.message)), "{:?}", back.notes);
    assert!(node.events().contains(&EventKind::Returned));
}

#[test]
fn a_return_to_a_document_that_is_damaged_leaves_nothing_unconfirmed() {
    let host = TestHost::new();
    let node = host.start();
    let first = document(1, &[("a", "c")]);
    node.apply(&first).unwrap();
    node.apply_within(&document(2, &[("a", "u")]), 10).unwrap();
    let hash = Sha256::of(first.to_string().as_bytes());
    fs::remove_file(host.path("state/documents").join(hash.to_string())).unwrap();
    host.pass(10);
    assert_eq!(node.status().unconfirmed, None);
    assert_eq!(host.running("a"), NONE);
}

#[test]
fn what_was_laid_down_is_looked_at_however_the_window_ends() {
    let edition = |generation, chain| document(generation, &[("a", chain)]);
    let noted = |node: &Node, text: &str| {
        node.status().notes.iter().any(|note| note.message.contains(text))
    };
    let waiting = || {
        let host = TestHost::new();
        let node = host.start();
        node.apply(&edition(1, "c")).unwrap();
        node.apply_within(&edition(2, "u"), 10).unwrap();
        lay_down(&host, &edition(7, "b"));
        node.document_changed();
        assert!(noted(&node, "is looked at when generation 2"));
        (host, node)
    };
    let (host, node) = waiting();
    node.rollback(None).unwrap();
    assert_eq!((node.status().generation, host.running("a")), (Some(7), vec!["b".to_owned()]));
    assert!(!noted(&node, "is looked at when"));
    let (host, node) = waiting();
    node.apply(&edition(3, "u")).unwrap();
    assert_eq!((node.status().generation, host.running("a")), (Some(7), vec!["b".to_owned()]));
    let (_host, node) = waiting();
    node.apply(&edition(8, "u")).unwrap();
    assert_eq!(node.status().generation, Some(8));
    assert!(node.status().refused_document.is_some(), "it is older than what is in force");
    // Nothing ends a drain but an operator and what is laid down after it.
    let (host, node) = waiting();
    node.drain();
    assert!(noted(&node, "when the node was drained") && !noted(&node, "is looked at when"));
    node.document_changed();
    assert!(node.stop());
    let node = host.start();
    assert!(node.status().drained && noted(&node, "when the node was drained"));
    // Also where somebody tried something meanwhile.
    node.apply_within(&edition(3, "u"), 10).unwrap();
    host.pass(10);
    assert!(node.status().drained);
    lay_down(&host, &edition(9, "b"));
    node.document_changed();
    assert_eq!((node.status().generation, host.running("a")), (Some(9), vec!["b".to_owned()]));
}

#[test]
fn what_is_refused_everywhere_ends_no_window() {
    let host = TestHost::new();
    let node = host.start_checking(Duration::from_millis(5));
    node.apply(&document(1, &[("a", "c")])).unwrap();
    let mut bad = document(3, &[("a", "x")]);
    bad["programs"]["x"] = json!({ "object": inline("garbage") });
    // Refused before anything is tried, and when it is.
    for (fails, from) in [(false, 1), (true, 11)] {
        node.apply_within(&document(from + 1, &[("a", "u")]), 10).unwrap();
        assert_eq!(host.running("a"), ["u"]);
        let mut wanted = if fails { document(0, &[("a", "b")]) } else { bad.clone() };
        wanted["generation"] = json!(from + 2);
        if fails {
            // Also for the next look, which would try again.
            host.shared.sim().plant(Fault::FailFrom(0));
        }
        let report = node.apply(&wanted).unwrap();
        assert_eq!(report.outcome, ApplyOutcome::Refused);
        let noted = |text: &str| report.plan.notes.iter().any(|note| note.message.contains(text));
        assert!(noted("nothing runs this document") && !noted("for good"));
        assert_eq!(report.unconfirmed.unwrap().remaining_ms, 10_000);
        assert_eq!(host.running("a"), ["u"]);
        host.pass(10);
        assert_eq!(node.status().generation, Some(1));
        host.shared.sim().restart();
        node.until("the return", |_| host.running("a") == ["c"]);
    }
}

#[test]
fn a_return_to_nothing_ends_bypasses() {
    let host = TestHost::new();
    let node = host.start();
    node.apply_within(&document(1, &[("a", "c")]), 10).unwrap();
    node.bypass("a", None).unwrap();
    host.pass(10);
    assert!(node.status().drained);
    node.apply(&document(1, &[("a", "c")])).unwrap();
    assert_eq!(host.running("a"), ["c"]);
}

#[test]
fn what_could_not_be_adopted_is_confirmed_and_not_good() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    node.apply_within(&document(2, &[("a", "u")]), 60).unwrap();
    assert!(node.stop());
    host.shared.blind.store(true, Ordering::SeqCst);
    let node = host.start();
    assert_eq!(node.confirm(None).unwrap().generation, 2);
    let rows = node.generations().generations;
    assert_eq!(
        rows.iter().map(|g| (g.generation, g.good)).collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
}

#[test]
fn a_start_without_the_text_of_its_document_goes_on_with_what_ran_last() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    let mut bad = document(2, &[("a", "x")]);
    bad["programs"]["x"] = json!({ "object": inline("garbage") });
    node.apply(&bad).unwrap();
    assert!(node.stop());
    let hash = Sha256::of(bad.to_string().as_bytes());
    fs::remove_file(host.path("state/documents").join(hash.to_string())).unwrap();
    host.reboot();
    let node = host.start();
    assert_eq!(host.running("a"), ["c"]);
    let status = node.status();
    assert!(status.refused_document.is_some());
    assert!(status.notes.iter().any(|note| note.message.contains("generation 1 runs on a/xdp")));
}

#[test]
fn who_followed_a_log_that_is_gone_is_told_at_once() {
    let host = TestHost::new();
    let node = host.start();
    let page = node.wait_for_events(1_000);
    assert!(page.events.is_empty() && page.last < 1_000);
}

#[test]
fn what_came_through_a_gap_goes_through_one() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    let mut skb = document(2, &[("a", "u")]);
    skb["interfaces"]["a"]["xdp"]["mode"] = json!("skb");
    assert_eq!(node.apply_within(&skb, 10).unwrap().outcome, ApplyOutcome::Applied);
    let mut native = document(3, &[("a", "b")]);
    native["interfaces"]["a"]["xdp"]["mode"] = json!("native");
    assert_eq!(node.confirm(None).unwrap().generation, 2);
    assert_eq!(node.apply_within(&native, 10).unwrap().outcome, ApplyOutcome::Applied);
    host.pass(10);
    assert_eq!(node.status().generation, Some(2));
    assert_eq!(host.running("a"), ["u"]);
    // A bypass leaves the mode alone.
    node.bypass("a", None).unwrap();
    assert_eq!(node.status().hooks[0].mode, Some(pointsman_model::observed::AttachMode::Skb));
}

#[test]
fn what_was_never_seen_to_run_is_not_good() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    node.bypass("a", None).unwrap();
    node.apply(&document(2, &[("a", "u")])).unwrap();
    let good = |node: &Node| {
        let rows = node.generations().generations;
        rows.iter().filter(|row| row.good).map(|row| row.generation).collect::<Vec<_>>()
    };
    assert_eq!(good(&node), [1]);
    node.unbypass("a").unwrap();
    assert_eq!(good(&node), [1, 2]);
}
