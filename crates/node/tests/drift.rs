//! What the daemon does about what others do to its hooks, over a simulated host.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Node, TestHost, document, hook, interface};
use pointsman_model::event::EventKind;
use pointsman_model::observed::AttachMode;
use pointsman_model::status::{DriftKind, DriftStatus, HookState, HookStatus};
use pointsman_plan::simulator::Simulator;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A host on which `a` runs a chain and the daemon looks often.
fn steady() -> (TestHost, Node) {
    let host = TestHost::new();
    let node = host.start_checking(Duration::from_millis(5));
    node.apply(&document(1, &[("a", "c")])).unwrap();
    settle(&node);
    (host, node)
}

/// Waits until the daemon knows how it left things.
fn settle(node: &Node) {
    let checks = node.status().checks;
    node.until("a look after the change", |status| status.checks > checks + 1);
}

fn until(node: &Node, what: &str, is: impl Fn(&HookStatus) -> bool) -> HookStatus {
    node.until(what, |status| is(&status.hooks[0])).hooks[0].clone()
}

fn repaired(status: &HookStatus) -> bool {
    status.drift.as_ref().is_some_and(|drift| drift.repaired)
}

#[test]
fn what_was_undone_is_put_right_and_told() {
    type Change = fn(&mut Simulator);
    let cases: [(Change, DriftKind); 4] = [
        (|sim| assert!(sim.detach_link(&hook("a"))), DriftKind::Detached),
        (|sim| assert!(sim.replace_program(&hook("a")).is_some()), DriftKind::Replaced),
        (|sim| sim.lose_link(&hook("a")), DriftKind::Unpinned),
        (|sim| sim.lose_chains(&hook("a")), DriftKind::Unpinned),
    ];
    for (change, kind) in cases {
        let (host, node) = steady();
        change(&mut host.shared.sim());
        let status = until(&node, "the repair", repaired);
        assert_eq!(status.state, HookState::Running);
        let DriftStatus { kind: found, repairs, next_repair_unix_ms, .. } = status.drift.unwrap();
        assert_eq!((found, repairs, next_repair_unix_ms), (kind, 1, None));
        assert_eq!(host.running("a"), ["c"]);
        assert_eq!(host.shared.sim().violations(), [""; 0]);
        assert!(node.stop());
    }
}

#[test]
fn a_second_repair_waits_and_an_apply_does_not() {
    let (host, node) = steady();
    let undo = || assert!(host.shared.sim().detach_link(&hook("a")));
    undo();
    until(&node, "the first repair", repaired);
    settle(&node);
    undo();
    let status = until(&node, "the second drift", |status| status.state == HookState::Drifted);
    assert!(status.drift.as_ref().unwrap().next_repair_unix_ms.is_some(), "{status:?}");
    until(&node, "the second repair", repaired);
    settle(&node);
    undo();
    until(&node, "the third drift", |status| status.state == HookState::Drifted);
    node.apply(&document(1, &[("a", "c")])).unwrap();
    assert_eq!(host.running("a"), ["c"]);
    let status = &node.status().hooks[0];
    assert_eq!((status.state, &status.drift), (HookState::Running, &None));
}

#[test]
fn what_the_document_leaves_is_shown_and_stays_until_an_apply() {
    let host = TestHost::new();
    let node = host.start_checking(Duration::from_millis(5));
    let mut wanted = document(1, &[("a", "c"), ("b", "c")]);
    wanted["interfaces"]["a"]["xdp"]["drift"] = json!("leave");
    node.apply(&wanted).unwrap();
    settle(&node);
    host.shared.sim().detach_link(&hook("a"));
    let drifted = |status: &HookStatus| status.state == HookState::Drifted;
    let status = until(&node, "the drift", drifted);
    assert_eq!(status.drift.unwrap().next_repair_unix_ms, None);
    // Neither more looks nor what an operator does elsewhere put it right.
    node.bypass("b", None).unwrap();
    node.unbypass("b").unwrap();
    settle(&node);
    assert!(host.running("a").is_empty());
    assert_eq!(node.status().hooks[0].state, HookState::Drifted);
    node.apply(&wanted).unwrap();
    assert_eq!(host.running("a"), ["c"]);
}

#[test]
fn a_foreign_program_in_our_place_stays_and_ours_comes_back_after_it() {
    let (host, node) = steady();
    let theirs = {
        let mut sim = host.shared.sim();
        sim.detach_link(&hook("a"));
        sim.attach_foreign(&interface("a"), "theirs", AttachMode::Native).unwrap()
    };
    let displaced = |status: &HookStatus| {
        status.drift.as_ref().is_some_and(|drift| drift.kind == DriftKind::Displaced)
    };
    let status = until(&node, "the displacement", displaced);
    assert_eq!(status.state, HookState::Drifted);
    assert_eq!(host.running("a"), [format!("foreign {theirs}")]);
    host.shared.sim().detach_foreign(&interface("a"));
    until(&node, "our return", |status| status.state == HookState::Running);
    assert_eq!(host.running("a"), ["c"]);
}

#[test]
fn a_chain_is_attached_when_its_interface_appears_and_appears_again() {
    let host = TestHost::new();
    let node = host.start_checking(Duration::from_millis(5));
    node.apply(&document(1, &[("c", "u")])).unwrap();
    let is = |state| move |status: &HookStatus| status.state == state;
    until(&node, "the wait", is(HookState::Pending));
    for _ in 0..3 {
        host.shared.sim().add_interface(&interface("c"), Some(true));
        until(&node, "the interface", is(HookState::Running));
        settle(&node);
        assert_eq!(host.running("c"), ["u"]);
        host.shared.sim().remove_interface(&interface("c"));
        let status = until(&node, "its end", is(HookState::Pending));
        assert_eq!(status.drift, None, "an interface that goes is nobody's doing");
    }
}

/// A document whose chain on `a` is refused, because its object is nowhere.
fn refused(generation: u64, drift: &str) -> Value {
    let mut wanted = document(generation, &[("a", "x")]);
    wanted["programs"]["x"] = json!({"object": {"path": "/nowhere/x.o"}});
    wanted["interfaces"]["a"]["xdp"]["drift"] = json!(drift);
    wanted
}

#[test]
fn what_ran_last_where_the_document_is_refused_is_not_fought_for_at_a_peers_speed() {
    for (drift, most) in [("repair", 3), ("leave", 0)] {
        let (host, node) = steady();
        node.apply(&refused(2, drift)).unwrap();
        settle(&node);
        assert_eq!(host.running("a"), ["c"], "it keeps its chain");
        let (start, mut detached) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(3) {
            if !host.running("a").is_empty() {
                settle(&node);
                detached += u32::from(host.shared.sim().detach_link(&hook("a")));
            }
            node.status();
        }
        // At once, after one second and after two.
        assert!((1..=most + 1).contains(&detached), "{drift}: {detached} times");
        let status = node.status().hooks[0].drift.clone().unwrap();
        assert_eq!(status.kind, DriftKind::Detached);
        assert!(status.repairs <= most, "{drift}: {status:?}");
        assert_eq!(node.events().contains(&EventKind::Repaired), most > 0);
    }
}

#[test]
fn a_document_that_a_look_makes_whole_is_good() {
    let (host, node) = steady();
    host.shared.sim().attach_foreign(&interface("b"), "theirs", AttachMode::Native).unwrap();
    node.apply(&document(2, &[("a", "c"), ("b", "u")])).unwrap();
    let good = |generation| {
        let all = node.generations().generations;
        all.iter().any(|known| known.generation == generation && known.good)
    };
    settle(&node);
    assert!(!good(2), "b is refused");
    host.shared.sim().detach_foreign(&interface("b"));
    node.until("b", |status| status.hooks.iter().all(|hook| hook.state == HookState::Running));
    settle(&node);
    assert!(good(2));
}

#[test]
fn what_is_remembered_follows_an_interface_to_its_new_name() {
    let (host, node) = steady();
    host.shared.sim().rename_interface(&interface("a"), &interface("wan"));
    let mut next = refused(2, "repair");
    next["interfaces"]["wan"] = next["interfaces"]["a"].take();
    next["interfaces"].as_object_mut().unwrap().remove("a");
    node.apply(&next).unwrap();
    assert_eq!(host.running("wan"), ["c"]);
    assert!(node.stop());
    host.reboot();
    host.shared.sim().rename_interface(&interface("a"), &interface("wan"));
    let node = host.start();
    assert_eq!(host.running("wan"), ["c"], "what ran there last, whatever its name was");
    assert!(node.stop());
}

#[test]
fn a_bypass_follows_an_interface_to_its_new_name() {
    let (host, node) = steady();
    node.bypass("a", None).unwrap();
    assert!(host.running("a").is_empty());
    host.shared.sim().rename_interface(&interface("a"), &interface("wan"));
    let report = node.apply(&document(2, &[("wan", "c")])).unwrap();
    assert!(report.refusals.is_empty(), "{report:?}");
    let status = node.status();
    assert_eq!(status.hooks[0].hook, hook("wan"));
    assert_eq!(status.hooks[0].state, HookState::Bypassed);
    assert!(host.running("wan").is_empty());
    node.unbypass("wan").unwrap();
    assert_eq!(host.running("wan"), ["c"]);
}
