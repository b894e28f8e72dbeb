//! Interfaces that come, go, change their names and live in other network namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Node, TestHost, document, hook, interface};
use pointsman_model::api::ApplyOutcome;
use pointsman_model::observed::AttachMode;
use pointsman_model::status::{HookState, HookStatus, Status};
use pointsman_plan::simulator::Fault;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Tells that interfaces changed, and waits until the daemon has made of it what is expected.
#[track_caller]
fn changed(node: &Node, mut expected: impl FnMut(&Status) -> bool) -> Status {
    node.interfaces_changed();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status = node.status();
        if expected(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:#?}");
    }
}

fn of<'a>(status: &'a Status, name: &str) -> &'a HookStatus {
    status.hooks.iter().find(|status| status.hook == hook(name)).unwrap()
}

fn is(name: &str, state: HookState) -> impl Fn(&Status) -> bool {
    move |status| of(status, name).state == state
}

fn says(status: &Status, part: &str) -> bool {
    status.notes.iter().any(|note| note.message.contains(part))
}

#[test]
fn a_chain_waits_for_its_interface_and_is_attached_when_it_appears() {
    let host = TestHost::new();
    let node = host.start();
    let report = node.apply(&document(1, &[("late", "cu")])).unwrap();
    assert_eq!(report.outcome, ApplyOutcome::Pending);
    let waits = node.status();
    assert_eq!(of(&waits, "late").state, HookState::Pending);
    assert!(of(&waits, "late").pending.as_ref().unwrap().contains("does not exist"));
    // Another one comes first.
    host.shared.sim().add_interface(&interface("other"), Some(true));
    assert_eq!(of(&changed(&node, |_| true), "late").state, HookState::Pending);
    let index = host.shared.sim().add_interface(&interface("late"), Some(true));
    let status = changed(&node, is("late", HookState::Running));
    let late = of(&status, "late");
    assert_eq!((late.interface_index, late.up, &late.pending), (Some(index), Some(true), &None));
    assert_eq!(host.running("late"), ["c", "u"]);
    assert_eq!(host.running("other"), [] as [&str; 0]);
}

#[test]
fn it_waits_over_restarts_and_is_attached_by_a_start_too() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("late", "c"), ("a", "c")])).unwrap();
    assert!(node.stop());
    let node = host.start();
    assert_eq!(of(&node.status(), "late").state, HookState::Pending);
    host.shared.sim().add_interface(&interface("late"), None);
    changed(&node, is("late", HookState::Running));
    host.shared.sim().remove_interface(&interface("late"));
    changed(&node, is("late", HookState::Pending));
    assert!(node.stop());
    host.shared.sim().add_interface(&interface("late"), None);
    let node = host.start();
    assert_eq!(of(&node.status(), "late").state, HookState::Running);
}

#[test]
fn an_interface_that_is_created_anew_gets_its_chain_again() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "cu"), ("b", "c")])).unwrap();
    for _ in 0..5 {
        // At once, so that only its number tells.
        let index = host.shared.sim().add_interface(&interface("a"), Some(true));
        let status = changed(&node, |status| {
            let a = of(status, "a");
            a.state == HookState::Running && a.interface_index == Some(index)
        });
        assert_eq!(of(&status, "b").state, HookState::Running);
        assert_eq!(host.running("a"), ["c", "u"]);
    }
    assert_eq!(host.shared.sim().violations(), &[] as &[String]);
}

#[test]
fn a_renamed_interface_keeps_its_chain_and_says_what_it_is_called() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "cu")])).unwrap();
    let index = of(&node.status(), "a").interface_index;
    host.shared.sim().rename_interface(&interface("a"), &interface("wan"));
    let status = changed(&node, |status| says(status, "is called wan now"));
    let a = of(&status, "a");
    assert_eq!((a.state, a.interface_index), (HookState::Running, index));
    assert_eq!((host.running("wan").len(), status.foreign.len()), (2, 0));
    host.shared.sim().rename_interface(&interface("wan"), &interface("a"));
    changed(&node, |status| !says(status, "is called wan now"));
    // The document follows: nothing is built or attached.
    host.shared.sim().rename_interface(&interface("a"), &interface("wan"));
    let before = of(&node.status(), "a").fused.clone();
    node.apply(&document(2, &[("wan", "cu")])).unwrap();
    let status = node.status();
    assert_eq!(status.hooks.len(), 1);
    assert_eq!(of(&status, "wan").fused, before);
}

#[test]
fn a_chain_goes_down_and_up_with_its_interface_and_stays() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    let before = of(&node.status(), "a").fused.clone();
    for up in [false, true] {
        host.shared.sim().set_up(&interface("a"), up);
        let status = changed(&node, |status| of(status, "a").up == Some(up));
        assert_eq!(of(&status, "a").state, HookState::Running);
        assert_eq!(of(&status, "a").fused, before);
    }
}

#[test]
fn interfaces_of_other_namespaces_are_found_lost_and_found_again() {
    let host = TestHost::new();
    for name in ["blue/eth0", "red/eth0"] {
        host.shared.sim().add_interface(&interface(name), Some(true));
    }
    let node = host.start();
    let wanted = document(1, &[("blue/eth0", "c"), ("red/eth0", "u")]);
    assert_eq!(node.apply(&wanted).unwrap().outcome, ApplyOutcome::Applied);
    let blue = interface("blue/eth0").namespace.unwrap();
    // While it cannot be seen its chain runs on.
    host.shared.sim().hide(&blue, true);
    let status = changed(&node, |status| says(status, "cannot be looked into"));
    assert_eq!(of(&status, "blue/eth0").state, HookState::Running);
    assert_eq!(of(&status, "blue/eth0").up, None);
    // It ends, and all that is in it.
    host.shared.sim().remove_interface(&interface("blue/eth0"));
    let status = changed(&node, is("blue/eth0", HookState::Pending));
    assert!(of(&status, "blue/eth0").pending.as_ref().unwrap().contains("it is hidden"));
    host.shared.sim().add_interface(&interface("blue/eth0"), Some(true));
    host.shared.sim().hide(&blue, false);
    changed(&node, is("blue/eth0", HookState::Running));
    assert_eq!(
        (host.running("blue/eth0"), host.running("red/eth0")),
        (vec!["c".into()], vec!["u".into()])
    );
}

#[test]
fn a_refused_hook_is_tried_again_when_its_interface_changes() {
    let host = TestHost::new();
    host.shared.sim().attach_foreign(&interface("a"), "theirs", AttachMode::Native);
    let node = host.start();
    let wanted = document(1, &[("a", "c"), ("b", "c")]);
    assert_eq!(node.apply(&wanted).unwrap().outcome, ApplyOutcome::Partly);
    changed(&node, is("a", HookState::Absent));
    host.shared.sim().detach_foreign(&interface("a"));
    let status = changed(&node, is("a", HookState::Running));
    assert_eq!(of(&status, "a").refusals, []);
}

#[test]
fn a_step_that_fails_is_not_tried_over_and_over() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("late", "c")])).unwrap();
    host.shared.sim().add_interface(&interface("late"), Some(true));
    // The program's maps, the chain, and then attaching it.
    host.shared.sim().plant(Fault::Fail(2));
    let status = changed(&node, |status| !of(status, "late").refusals.is_empty());
    assert_eq!(of(&status, "late").state, HookState::Absent);
    host.shared.sim().restart();
    // Nothing about it changes, so nothing is tried, however much happens elsewhere.
    let start = host.shared.looks.load(Ordering::SeqCst);
    // Each status is one look; the others are the daemon's.
    for asked in 1.. {
        host.shared.sim().add_interface(&interface("other"), None);
        node.interfaces_changed();
        assert_eq!(of(&node.status(), "late").state, HookState::Absent);
        if host.shared.looks.load(Ordering::SeqCst) - start >= asked + 3 {
            break;
        }
    }
    host.shared.sim().set_up(&interface("late"), false);
    changed(&node, is("late", HookState::Running));
}

#[test]
fn a_drained_node_attaches_nothing() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("late", "c")])).unwrap();
    node.drain();
    host.shared.sim().add_interface(&interface("late"), Some(true));
    let looks = host.shared.looks.load(Ordering::SeqCst);
    node.interfaces_changed();
    assert_eq!(node.status().hooks, []);
    assert_eq!(host.running("late"), [] as [&str; 0]);
    // One look is the status itself.
    assert_eq!(host.shared.looks.load(Ordering::SeqCst), looks + 1);
}

#[test]
fn after_a_reboot_what_ran_last_waits_for_its_interface_too() {
    let host = TestHost::new();
    let path = host.path("x.o");
    std::fs::write(&path, "OBJECT first").unwrap();
    let mut good = document(1, &[("late", "x")]);
    good["programs"]["x"] = json!({ "object": { "path": path } });
    host.shared.sim().add_interface(&interface("late"), None);
    let node = host.start();
    node.apply(&good).unwrap();
    std::fs::write(&path, "garbage").unwrap();
    good["generation"] = json!(2);
    assert_eq!(node.apply(&good).unwrap().outcome, ApplyOutcome::Refused);
    assert!(node.stop());
    host.reboot();
    let node = host.start();
    assert_eq!(of(&node.status(), "late").state, HookState::Absent);
    assert!(!says(&node.status(), "runs on late/xdp again"));
    host.shared.sim().add_interface(&interface("late"), None);
    let status = changed(&node, is("late", HookState::Outdated));
    assert_eq!(of(&status, "late").generation, Some(1));
    assert!(says(&status, "runs on late/xdp again"), "{:?}", status.notes);
    // And it stays said, whatever else changes.
    host.shared.sim().set_up(&interface("late"), false);
    assert!(says(&changed(&node, |s| of(s, "late").up == Some(false)), "runs on late/xdp again"));
}

#[test]
fn what_is_wrong_with_a_program_stays_said_after_later_looks() {
    let host = TestHost::new();
    let path = host.path("x.o");
    std::fs::write(&path, "garbage").unwrap();
    let mut bad = document(1, &[("a", "x")]);
    bad["programs"]["x"] = json!({ "object": { "path": path } });
    let node = host.start();
    node.apply(&bad).unwrap();
    let checks = node.status().checks;
    let status = changed(&node, |status| status.checks >= checks + 2);
    let message = &of(&status, "a").refusals[0].message;
    assert!(message.contains("not an ELF file"), "{message}");
}
