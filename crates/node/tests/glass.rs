//! Breaking the glass: bypass, rollback, confirmation; over time, restarts, reboots and kills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Node, TestHost, document, hook, inline};
use pointsman_model::Sha256;
use pointsman_model::api::{ApplyOutcome, ProblemKind, StepOutcome};
use pointsman_model::event::EventKind;
use pointsman_model::status::HookState;
use pointsman_plan::simulator::Fault;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NONE: [&str; 0] = [];

fn state(node: &Node, name: &str) -> HookState {
    let status = node.status();
    status.hooks.iter().find(|status| status.hook == hook(name)).unwrap().state
}

fn link(host: &TestHost, name: &str) -> Option<u32> {
    let observed = host.shared.sim().observe();
    Some(observed.hooks.get(&hook(name))?.link.as_ref()?.interface_index)
}

/// The document that was applied, for the daemon to find.
fn lay_down(host: &TestHost, document: &serde_json::Value) {
    fs::write(host.document(), document.to_string()).unwrap();
}

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

#[test]
fn a_deadline_holds_over_a_kill_and_a_reboot() {
    for (reboot, passed, back) in
        [(false, 59, false), (false, 60, true), (true, 59, false), (true, 60, true)]
    {
        let host = TestHost::new();
        let node = host.start();
        node.apply(&document(1, &[("a", "c")])).unwrap();
        node.apply_within(&document(2, &[("a", "u")]), 60).unwrap();
        assert!(node.stop());
        host.pass(passed);
        if reboot {
            host.reboot();
        }
        let node = host.start();
        let expected = if back { "c" } else { "u" };
        assert_eq!(host.running("a"), [expected], "{reboot} {passed}");
        host.pass(1);
        assert_eq!(node.status().generation, Some(1), "{reboot} {passed}");
        assert_eq!(host.running("a"), ["c"], "{reboot} {passed}");
    }
}

/// Does something to a daemon that may die of it.
type Action = fn(&Node);

/// Kills the daemon at and within every step of `action`, and looks at what the next start makes
/// of it.
fn killed_everywhere(prepare: Action, pass: u64, action: Action, expected: &[&str]) {
    let mut kills = 0;
    for fault in [Fault::Crash as fn(usize) -> Fault, Fault::CrashWithin] {
        for at in 0.. {
            let host = TestHost::new();
            let node = host.start();
            node.apply(&document(1, &[("a", "c"), ("b", "c")])).unwrap();
            prepare(&node);
            let before = host.running("a");
            host.shared.dies.store(true, Ordering::SeqCst);
            host.shared.sim().plant(fault(at));
            host.pass(pass);
            action(&node);
            let alive = node.stop();
            host.shared.sim().restart();
            let running = host.running("a");
            if alive {
                assert_eq!(running, expected);
                break;
            }
            kills += 1;
            assert!(running == before || running == expected, "killed at {at}: {running:?}");
            let node = host.start();
            assert_eq!(host.running("a"), expected, "killed at {at}");
            let status = node.status();
            assert!(status.unconfirmed.is_none(), "{status:?}");
            assert!(status.refused_document.is_none(), "{status:?}");
            assert_eq!(host.shared.sim().violations(), &[] as &[String]);
        }
    }
    assert!(kills >= 4, "{kills} kills are fewer than the steps of a swap");
}

#[test]
fn a_kill_at_any_step_of_any_of_it_is_made_good_by_the_next_start() {
    let bypass = |node: &Node| drop(node.bypass("a", Some(600)));
    // Any message: what is due is done first.
    let poke = |node: &Node| node.handle.tell(pointsman_node::engine::Message::DocumentChanged);
    killed_everywhere(|_| {}, 0, bypass, &[]);
    killed_everywhere(bypass, 0, |node| drop(node.unbypass("a")), &["c"]);
    killed_everywhere(bypass, 600, poke, &["c"]);
    let second = |node: &Node| drop(node.apply(&document(2, &[("a", "ub")])));
    killed_everywhere(second, 0, |node| drop(node.rollback(None)), &["c"]);
    let trying = |node: &Node| drop(node.apply_within(&document(2, &[("a", "ub")]), 60));
    killed_everywhere(trying, 60, poke, &["c"]);
}

#[test]
fn a_kill_while_an_unconfirmed_document_comes_does_not_lose_its_deadline() {
    let mut kills = 0;
    for fault in [Fault::Crash as fn(usize) -> Fault, Fault::CrashWithin] {
        for at in 0.. {
            let host = TestHost::new();
            let node = host.start();
            node.apply(&document(1, &[("a", "c"), ("b", "c")])).unwrap();
            host.shared.dies.store(true, Ordering::SeqCst);
            host.shared.sim().plant(fault(at));
            let died = node.apply_within(&document(2, &[("a", "ub")]), 60).is_err();
            assert_eq!(node.stop(), !died);
            host.shared.sim().restart();
            if !died {
                break;
            }
            kills += 1;
            host.pass(60);
            let node = host.start();
            assert_eq!(
                (host.running("a"), host.running("b")),
                (vec!["c".into()], vec!["c".to_owned()])
            );
            assert_eq!(node.status().generation, Some(1), "killed at {at}");
        }
    }
    assert!(kills >= 10, "{kills} kills");
}

/// Creates the file and hands out a device that is always full: a real ENOSPC.
fn full(path: &Path) -> io::Result<File> {
    File::create(path)?;
    OpenOptions::new().write(true).open("/dev/full")
}

#[test]
fn a_full_disk_keeps_nobody_from_breaking_the_glass() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    node.apply(&document(2, &[("a", "u")])).unwrap();
    assert!(node.stop());
    let node = host.start_with(full);
    let problem = node.apply_within(&document(3, &[("a", "b")]), 60).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Storage, "the deadline must be on disk first");
    let bypass = node.bypass("a", Some(60)).unwrap();
    assert!(bypass.notes.iter().any(|note| note.contains("could not be recorded")));
    assert_eq!(host.running("a"), NONE);
    host.pass(60);
    assert_eq!(state(&node, "a"), HookState::Running);
    let report = node.rollback(None).unwrap();
    assert_eq!(host.running("a"), ["c"]);
    let noted = |message: &str| message.contains("could not be recorded");
    assert!(report.report.plan.notes.iter().any(|note| noted(&note.message)));
    assert!(node.stop());
    // What was never on disk is not remembered.
    let node = host.start();
    assert_eq!((node.status().generation, host.running("a")), (Some(2), vec!["u".to_owned()]));
}

#[test]
fn a_confirmation_that_is_not_on_disk_is_none() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    node.apply_within(&document(2, &[("a", "u")]), 60).unwrap();
    assert!(node.stop());
    let node = host.start_with(full);
    let problem = node.confirm(None).unwrap_err();
    assert_eq!(problem.status, 507);
    host.pass(60);
    assert_eq!(node.status().generation, Some(1), "the return needs no disk");
    assert_eq!(host.running("a"), ["c"]);
    assert!(node.stop());
    // The disk still says that it has to return, and so it does.
    let node = host.start();
    assert_eq!((node.status().generation, host.running("a")), (Some(1), vec!["c".to_owned()]));
    assert_eq!(node.status().unconfirmed, None);
}

#[test]
fn a_host_that_cannot_be_observed_is_returned_when_it_can() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    node.apply_within(&document(2, &[("a", "u")]), 60).unwrap();
    host.shared.blind.store(true, Ordering::SeqCst);
    host.pass(60);
    assert_eq!(node.generations().generations.last().unwrap().generation, 1);
    assert_eq!(host.running("a"), ["u"], "nothing can be done");
    assert!(node.stop());
    host.shared.blind.store(false, Ordering::SeqCst);
    let node = host.start();
    assert_eq!(host.running("a"), ["c"]);
    assert_eq!(node.status().unconfirmed, None);
}
