//! Bypasses: one swap each way, for a time or until they are ended.

use super::*;

#[test]
fn a_bypass_is_one_swap_each_way_and_keeps_programs_and_link() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "cu"), ("b", "c")])).unwrap();
    let programs = host.shared.sim().observe().programs;
    let on = node.bypass("a", Some(600)).unwrap();
    assert!(!on.was_bypassed && on.refusals.is_empty());
    assert_eq!(on.bypass.as_ref().unwrap().remaining_ms, Some(600_000));
    let visible =
        on.results.iter().filter(|r| r.step.starts_with("swap") || r.step.starts_with("detach"));
    assert_eq!(visible.count(), 1, "{:?}", on.results);
    assert_eq!((host.running("a"), host.running("b")), (vec![], vec!["c".to_owned()]));
    assert!(link(&host, "a").is_some(), "our link stays");
    assert_eq!(host.shared.sim().observe().programs, programs);
    assert_eq!((state(&node, "a"), state(&node, "b")), (HookState::Bypassed, HookState::Running));
    // Again: another end, and no step.
    let again = node.bypass("a", None).unwrap();
    assert!(again.was_bypassed && again.results.is_empty());
    assert_eq!(again.bypass.unwrap().until_unix_ms, None);
    let off = node.unbypass("a").unwrap();
    assert_eq!((off.bypass, off.refusals.len()), (None, 0));
    assert_eq!(host.running("a"), ["c", "u"]);
    assert_eq!(host.shared.sim().observe().programs, programs);
    assert_eq!(state(&node, "a"), HookState::Running);
    assert!(node.unbypass("a").unwrap().notes[0].contains("was not bypassed"));
    assert_eq!(host.shared.sim().violations(), &[] as &[String]);
    let events = node.events();
    assert!(events.ends_with(&[EventKind::Bypassed, EventKind::Bypassed, EventKind::BypassEnded]));
}

#[test]
fn a_bypass_that_took_effect_stays_whatever_else_fails() {
    let mut took_effect = 0;
    for at in 0.. {
        let host = TestHost::new();
        let node = host.start_still();
        node.apply(&document(1, &[("a", "c")])).unwrap();
        // Its programs could not be prepared, and are still to be.
        host.shared.sim().plant(Fault::Fail(0));
        assert_eq!(
            node.apply(&document(2, &[("a", "ub")])).unwrap().outcome,
            ApplyOutcome::Refused
        );
        host.shared.sim().plant(Fault::Fail(at));
        let report = node.bypass("a", None).unwrap();
        let passes = host.running("a").is_empty();
        assert_eq!(report.bypass.is_some(), passes, "{at}: {report:#?}");
        assert_eq!(report.refusals.is_empty(), passes, "{at}: {report:#?}");
        assert_eq!(node.events().last() == Some(&EventKind::Bypassed), passes, "{at}");
        let failed =
            report.results.iter().any(|result| matches!(result.outcome, StepOutcome::Failed(_)));
        took_effect += usize::from(passes && failed);
        assert_eq!(report.notes.iter().any(|note| note.contains("tried again")), passes && failed);
        if !failed {
            break;
        }
    }
    assert!(took_effect > 0, "tidying up can fail");
}

#[test]
fn what_cannot_be_bypassed_is_named() {
    let host = TestHost::new();
    let node = host.start();
    assert_eq!(node.bypass("a", None).unwrap_err().kind, ProblemKind::Conflict);
    node.apply(&document(1, &[("a", "c"), ("c", "u")])).unwrap();
    let unknown = node.bypass("b", None).unwrap_err();
    assert_eq!(unknown.status, 404);
    assert!(unknown.title.contains("it wants one on: a, c"), "{}", unknown.title);
    assert_eq!(node.unbypass("b").unwrap_err().status, 404);
    // One that waits for its interface gets an empty chain when that comes.
    let pending = node.bypass("c", None).unwrap();
    assert!(pending.notes.iter().any(|note| note.contains("an empty chain is attached")));
    host.shared.sim().add_interface(&common::interface("c"), Some(true));
    assert!(node.stop());
    let node = host.start();
    assert_eq!(state(&node, "c"), HookState::Bypassed);
    // Somebody else's program is not ours to bypass.
    host.shared.sim().remove_interface(&common::interface("a"));
    host.shared.sim().add_interface(&common::interface("a"), Some(true));
    let native = pointsman_model::observed::AttachMode::Native;
    host.shared.sim().attach_foreign(&common::interface("a"), "theirs", native).unwrap();
    let foreign = node.bypass("a", None).unwrap_err();
    assert!(foreign.title.contains("not ours"), "{}", foreign.title);
    assert!(
        node.status()
            .hooks
            .iter()
            .all(|status| status.hook != hook("a") || status.bypass.is_none())
    );
    node.drain();
    assert_eq!(node.bypass("c", None).unwrap_err().kind, ProblemKind::Conflict);
}

#[test]
fn a_bypass_ends_by_itself_at_its_time_also_without_a_daemon() {
    let host = TestHost::new();
    let wanted = document(1, &[("a", "cu")]);
    let node = host.start();
    node.apply(&wanted).unwrap();
    node.bypass("a", Some(600)).unwrap();
    host.pass(599);
    assert_eq!(state(&node, "a"), HookState::Bypassed);
    // Setting the wall clock ends nothing and prolongs nothing.
    host.set_wall_clock(4_000_000_000_000);
    assert_eq!(state(&node, "a"), HookState::Bypassed);
    host.set_wall_clock(0);
    host.pass(1);
    assert_eq!(state(&node, "a"), HookState::Running);
    assert_eq!(host.running("a"), ["c", "u"]);
    assert_eq!(node.events().last(), Some(&EventKind::BypassExpired));
    node.bypass("a", Some(600)).unwrap();
    assert!(node.stop());
    host.pass(300);
    let node = host.start();
    assert_eq!(host.running("a"), NONE, "a restart");
    assert!(node.stop());
    host.reboot();
    let node = host.start();
    assert_eq!(state(&node, "a"), HookState::Bypassed, "a reboot");
    assert!(link(&host, "a").is_some(), "the end is one swap here too");
    assert!(node.stop());
    host.pass(300);
    let node = host.start();
    assert_eq!(
        (host.running("a"), state(&node, "a")),
        (vec!["c".into(), "u".into()], HookState::Running)
    );
    assert!(node.events().contains(&EventKind::BypassExpired));
}

#[test]
fn an_apply_during_a_bypass_is_taken_and_stays_bypassed() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c"), ("b", "c")])).unwrap();
    node.bypass("a", None).unwrap();
    let next = document(2, &[("a", "ub"), ("b", "u")]);
    let plan = node.plan(&next).unwrap();
    assert!(plan.notes.iter().any(|n| n.message.starts_with("bypassed until it is ended")));
    assert_eq!(node.apply(&next).unwrap().outcome, ApplyOutcome::Applied);
    assert_eq!((host.running("a"), host.running("b")), (vec![], vec!["u".to_owned()]));
    node.unbypass("a").unwrap();
    assert_eq!(host.running("a"), ["u", "b"]);
    // A document that wants nothing there does not end the bypass of what comes back.
    node.bypass("a", None).unwrap();
    node.apply(&document(3, &[("b", "c")])).unwrap();
    assert_eq!(link(&host, "a"), None);
    assert!(node.status().notes.iter().any(|n| n.message.contains("wants no chain there")));
    node.apply(&document(4, &[("a", "c")])).unwrap();
    assert_eq!(state(&node, "a"), HookState::Bypassed);
    node.drain();
    node.apply(&document(4, &[("a", "c")])).unwrap();
    assert_eq!(host.running("a"), ["c"], "a drain ends it");
}

#[test]
fn the_end_of_a_bypass_brings_back_what_ran_where_the_document_is_refused() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "cu")])).unwrap();
    node.bypass("a", Some(60)).unwrap();
    let mut bad = document(2, &[("a", "x")]);
    bad["programs"]["x"] = json!({ "object": inline("garbage") });
    node.apply(&bad).unwrap();
    assert_eq!(host.running("a"), NONE);
    host.pass(60);
    assert_eq!(state(&node, "a"), HookState::Outdated);
    assert_eq!(host.running("a"), ["c", "u"]);
    assert_eq!(host.shared.sim().violations(), &[] as &[String]);
}
