//! What survives: restarts, reboots, kills, drains, full disks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{TestHost, document, hook, inline};
use pointsman_model::api::{ApplyOutcome, ProblemKind};
use pointsman_model::status::HookState;
use pointsman_plan::simulator::Fault;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

#[test]
fn an_apply_of_what_runs_does_nothing_and_loads_nothing() {
    let host = TestHost::new();
    let node = host.start();
    let wanted = document(1, &[("a", "cub"), ("b", "c")]);
    assert_eq!(node.apply(&wanted).unwrap().outcome, ApplyOutcome::Applied);
    let (inspected, files) = (host.inspected(), host.files());
    let state = fs::metadata(host.path("state/accepted.json")).unwrap();
    let again = node.apply(&wanted).unwrap();
    assert_eq!((again.outcome, again.results.len()), (ApplyOutcome::Unchanged, 0));
    assert_eq!((host.inspected(), host.files()), (inspected, files));
    let written = |m: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(m);
    let now = fs::metadata(host.path("state/accepted.json")).unwrap();
    assert_eq!(written(&now), written(&state), "nothing was written either");
}

#[test]
fn a_recompiled_object_is_an_upgrade_when_it_is_applied_again_and_not_at_a_start() {
    let host = TestHost::new();
    let path = host.path("x.o");
    fs::write(&path, "OBJECT first").unwrap();
    let mut wanted = document(1, &[("a", "x")]);
    wanted["programs"]["x"] = json!({ "object": { "path": path } });
    fs::write(host.document(), wanted.to_string()).unwrap();
    let node = host.start();
    let entry = |node: &common::Node| node.status().hooks[0].members[0].entry.to_string();
    assert_eq!(entry(&node), "first");
    fs::write(&path, "OBJECT second").unwrap();
    assert!(node.stop());
    let node = host.start();
    assert_eq!(entry(&node), "first");
    assert_eq!(node.apply(&wanted).unwrap().outcome, ApplyOutcome::Applied);
    assert_eq!(entry(&node), "second");
    // The first object is kept for a rollback.
    let objects = fs::read_dir(host.path("state/objects")).unwrap().count();
    assert_eq!(objects, 2);
    // A file that became unusable keeps what runs.
    fs::write(&path, "garbage").unwrap();
    assert_eq!(node.apply(&wanted).unwrap().outcome, ApplyOutcome::Refused);
    assert_eq!(entry(&node), "second");
    assert!(node.stop());
    host.reboot();
    let node = host.start();
    assert_eq!(entry(&node), "second", "even over a reboot");
    assert_eq!(node.status().hooks[0].state, HookState::Outdated);
}

#[test]
fn a_restart_changes_nothing_and_a_reboot_attaches_what_ran() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(7, &[("a", "cu")])).unwrap();
    let before = host.shared.sim().observe();
    assert!(node.stop());
    let node = host.start();
    assert_eq!(host.shared.sim().observe(), before);
    let status = node.status();
    assert_eq!((status.generation, status.hooks[0].state), (Some(7), HookState::Running));
    assert!(node.stop());
    host.reboot();
    assert_eq!(host.running("a"), [] as [&str; 0]);
    let node = host.start();
    assert_eq!(host.running("a"), ["c", "u"]);
    assert_eq!(node.apply(&document(7, &[("a", "cu")])).unwrap().outcome, ApplyOutcome::Unchanged);
}

#[test]
fn after_a_reboot_a_refused_hook_gets_the_chain_that_ran_there_last() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "cu"), ("b", "c")])).unwrap();
    for generation in [2, 3] {
        let mut bad = document(generation, &[("a", "x"), ("b", "u")]);
        bad["programs"]["x"] = json!({ "object": inline("garbage") });
        // The name is the same, what it means is not: `a` must get the old one back.
        bad["programs"]["c"] = json!({ "builtin": "cidr-blocklist" });
        assert_eq!(node.apply(&bad).unwrap().outcome, ApplyOutcome::Partly);
    }
    let before = host.running("a");
    assert!(node.stop());
    host.reboot();
    let node = host.start();
    assert_eq!(host.running("a"), before);
    assert_eq!(host.running("b"), ["u"]);
    let status = node.status();
    assert_eq!(status.generation, Some(3));
    assert_eq!(status.hooks[0].state, HookState::Outdated);
    assert_eq!(status.hooks[0].generation, Some(1));
    assert_eq!(status.hooks[0].members[0].source, "builtin:counting-pass");
    assert!(status.notes.iter().any(|note| {
        note.hook == Some(hook("a")) && note.message.contains("generation 1 runs on a/xdp again")
    }));
    assert_eq!(host.shared.sim().violations(), &[] as &[String]);
}

#[test]
fn a_drained_node_stays_empty_until_a_document_is_applied() {
    let host = TestHost::new();
    let wanted = document(4, &[("a", "cu")]);
    fs::write(host.document(), wanted.to_string()).unwrap();
    let node = host.start();
    assert_eq!(host.running("a"), ["c", "u"]);
    let report = node.drain();
    assert!(report.failures.is_empty() && !report.results.is_empty());
    assert_eq!(host.running("a"), [] as [&str; 0]);
    assert!(host.shared.sim().observe().hooks.is_empty());
    assert!(host.shared.sim().observe().programs.is_empty());
    node.document_changed();
    assert_eq!(host.running("a"), [] as [&str; 0], "the same file put there again");
    assert!(node.stop());
    let node = host.start();
    assert_eq!(host.running("a"), [] as [&str; 0], "a restart");
    let status = node.status();
    assert!(status.drained && status.hooks.is_empty());
    assert_eq!(
        node.apply(&document(3, &[("a", "c")])).unwrap_err().kind,
        ProblemKind::GuardedDocument
    );
    node.apply(&wanted).unwrap();
    assert_eq!(host.running("a"), ["c", "u"]);
    assert!(!node.status().drained);
    node.drain();
    let newer = document(5, &[("b", "c")]);
    fs::write(host.document(), newer.to_string()).unwrap();
    node.document_changed();
    assert_eq!(host.running("b"), ["c"], "a new document is a new wish");
}

#[test]
fn of_state_and_watched_document_the_newer_one_wins() {
    let host = TestHost::new();
    let node = host.start();
    assert_eq!(node.status().generation, None);
    node.apply(&document(5, &[("a", "c")])).unwrap();
    assert!(node.stop());
    fs::write(host.document(), document(4, &[("a", "u")]).to_string()).unwrap();
    let node = host.start();
    assert_eq!(host.running("a"), ["c"]);
    let refused = node.status().refused_document.unwrap();
    assert_eq!(refused.source, host.document().display().to_string());
    assert_eq!(refused.errors[0].pointer, "/generation");
    assert!(node.stop());
    fs::write(host.document(), document(6, &[("a", "u")]).to_string()).unwrap();
    let node = host.start();
    assert_eq!(host.running("a"), ["u"]);
    assert_eq!(node.status().refused_document, None);
}

#[test]
fn a_kill_before_or_within_any_step_is_made_good_by_the_next_start() {
    let first = document(1, &[("a", "cu"), ("b", "c")]);
    let second = document(2, &[("a", "buc")]);
    let mut kills = 0;
    for fault in [Fault::Crash as fn(usize) -> Fault, Fault::CrashWithin] {
        for at in 0.. {
            let host = TestHost::new();
            let node = host.start();
            node.apply(&first).unwrap();
            host.shared.dies.store(true, Ordering::SeqCst);
            host.shared.sim().plant(fault(at));
            let died = node.apply(&second);
            host.shared.sim().restart();
            if died.is_ok() {
                break;
            }
            assert!(!node.stop(), "the daemon was killed");
            kills += 1;
            let running = host.running("a");
            assert!(running == ["c", "u"] || running == ["b", "u", "c"], "{running:?}");
            let node = host.start();
            assert_eq!(host.running("a"), ["b", "u", "c"], "killed at {at}");
            assert_eq!(host.running("b"), [] as [&str; 0]);
            assert_eq!(node.apply(&second).unwrap().outcome, ApplyOutcome::Unchanged);
            assert_eq!(host.shared.sim().violations(), &[] as &[String]);
        }
    }
    assert!(kills >= 10, "{kills} kills are fewer than the steps of such a plan");
}

#[test]
fn a_kill_before_a_document_is_accepted_leaves_nothing_on_disk() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    let by_hand = host.path("state/objects").join("0".repeat(64));
    fs::write(&by_hand, "put there by an operator").unwrap();
    let before = host.files();
    let mut deadly = document(2, &[("a", "x")]);
    deadly["programs"]["x"] = json!({ "object": inline("OBJECT kills") });
    assert!(node.apply(&deadly).is_err());
    assert!(!node.stop(), "the daemon was killed");
    assert_ne!(host.files(), before, "the object had been stored");
    let node = host.start();
    assert_eq!(host.files(), before);
    assert_eq!(node.status().generation, Some(1));
    assert_eq!(host.running("a"), ["c"]);
}

#[test]
fn a_step_that_fails_is_a_refusal_of_its_hook_and_applying_again_makes_it_good() {
    let host = TestHost::new();
    let node = host.start_still();
    node.apply(&document(1, &[("a", "c"), ("b", "c")])).unwrap();
    let next = document(2, &[("a", "cu"), ("b", "cu")]);
    let plan = node.plan(&next).unwrap();
    let build = |step: &pointsman_model::plan::Step| matches!(step, pointsman_model::plan::Step::BuildChain(b) if b.chain.hook == hook("a"));
    let at = plan.steps.iter().position(build).unwrap();
    host.shared.sim().plant(Fault::Fail(at));
    let report = node.apply(&next).unwrap();
    assert_eq!(report.outcome, ApplyOutcome::Partly);
    let [refusal] = &report.refusals[..] else { panic!("{:?}", report.refusals) };
    assert_eq!(refusal.hook, Some(hook("a")));
    assert_eq!(refusal.pointer, "/interfaces/a/xdp");
    assert!(refusal.message.contains("fault was planted"), "{}", refusal.message);
    assert_eq!(
        (host.running("a"), host.running("b")),
        (vec!["c".into()], vec!["c".into(), "u".into()])
    );
    assert_eq!(node.status().hooks[0].state, HookState::Outdated);
    assert_eq!(node.apply(&next).unwrap().outcome, ApplyOutcome::Applied);
    assert_eq!(host.running("a"), ["c", "u"]);
}

#[test]
fn a_program_that_cannot_be_prepared_is_named_on_each_hook_that_needs_it() {
    let host = TestHost::new();
    let node = host.start_still();
    let wanted = document(1, &[("a", "c"), ("b", "c")]);
    host.shared.sim().plant(Fault::Fail(0));
    let report = node.apply(&wanted).unwrap();
    assert_eq!(report.outcome, ApplyOutcome::Refused);
    for name in ["a", "b"] {
        let refusal = report.refusals.iter().find(|r| r.hook == Some(hook(name))).unwrap();
        assert!(refusal.message.contains("prepare program c"), "{}", refusal.message);
    }
}

/// Creates the file and hands out a device that is always full: a real ENOSPC.
fn full(path: &Path) -> io::Result<File> {
    File::create(path)?;
    OpenOptions::new().write(true).open("/dev/full")
}

#[test]
fn a_full_disk_refuses_the_document_and_changes_nothing() {
    let host = TestHost::new();
    let node = host.start();
    let first = document(1, &[("a", "c")]);
    node.apply(&first).unwrap();
    assert!(node.stop());
    let files = host.files();
    let node = host.start_with(full);
    for next in [document(2, &[("a", "c")]), document(2, &[("a", "u")])] {
        let problem = node.apply(&next).unwrap_err();
        assert_eq!((problem.kind, problem.status), (ProblemKind::Storage, 507));
        assert!(problem.title.contains("free space"), "{problem:?}");
        assert_eq!(host.running("a"), ["c"]);
        assert_eq!(host.files(), files);
        assert_eq!(node.status().generation, Some(1));
    }
    // What runs can be applied again, and the glass can be broken.
    assert_eq!(node.apply(&first).unwrap().outcome, ApplyOutcome::Unchanged);
    let report = node.drain();
    assert_eq!(host.running("a"), [] as [&str; 0]);
    assert!(report.failures[0].contains("free space"), "{:?}", report.failures);
}

#[test]
fn counters_and_status_show_what_runs() {
    let host = TestHost::new();
    let node = host.start();
    assert!(node.counters().hooks.is_empty());
    node.apply(&document(1, &[("b", "cu")])).unwrap();
    let counters = node.counters();
    assert_eq!(counters.hooks.len(), 1);
    assert_eq!(counters.hooks[0].programs.len(), 2);
    let status = node.status();
    let hook = &status.hooks[0];
    assert_eq!(hook.passed_end, counters.hooks[0].passed_end);
    assert_eq!(hook.members[1].runs, counters.hooks[0].programs[1].runs);
    assert_eq!(hook.fused.as_ref().unwrap().sequence, 1);
    assert!(hook.engine.starts_with("fused"), "{}", hook.engine);
    assert_eq!(status.foreign, []);
    // Somebody takes the interface away behind our back.
    host.shared.sim().remove_interface(&common::interface("b"));
    let status = node.status();
    assert_eq!(status.hooks[0].state, HookState::Absent);
    assert!(status.notes.iter().any(|note| note.message.contains("does not run any more")));
}
