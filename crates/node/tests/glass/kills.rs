//! Kills, full disks and blindness in the middle of all of it.

use super::*;

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
