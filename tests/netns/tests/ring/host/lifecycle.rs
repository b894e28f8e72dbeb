//! What survives: signals, kills, restarts, draining, several daemons side by side.

use super::{document, passing, program, scene};
use pointsman_netns::daemon::Host;
use pointsman_netns::traffic::received;
use rustix::process::Signal;
use serde_json::json;

#[test]
fn signals_and_kills_leave_the_chain_running_and_a_restart_adopts_it() {
    let (host, pair) = scene();
    let programs = json!({"ports": {"builtin": "udp-port-filter",
        "maps": {"ports": {"entries": [{"key": 5999, "value": 1}]}}}});
    let document = document(1, &programs, &json!([{"program": "ports"}]));
    let mut daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&document);
    let before = daemon.hook();
    for (round, signal) in [Signal::TERM, Signal::INT, Signal::KILL].into_iter().enumerate() {
        let status = daemon.stop(signal).unwrap();
        assert_eq!(status.success(), signal != Signal::KILL, "{status}");
        assert_eq!(received(&pair, &[5001], 5999, 5), [0], "without a daemon");
        daemon = host.start(&pair.right).unwrap();
        let hook = daemon.hook();
        assert_eq!(hook["fused"], before["fused"], "adopted, not replaced");
        let runs = hook["members"][0]["runs"].as_u64();
        assert_eq!(runs, Some(6 * (round as u64 + 1)), "counted without a daemon");
    }
    assert_eq!(daemon.apply_whole(&document)["outcome"], "unchanged");
}

#[test]
fn drain_removes_all_that_is_ours_and_a_restart_stays_drained() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&passing(1));
    assert!(!daemon.hook()["fused"].is_null());
    let refused = daemon.ask(&["drain"], b"");
    assert_ne!(refused.code, 0, "a drain wants to be meant: {refused:?}");
    let drained = daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    assert_eq!(host.bpffs.list().unwrap(), [std::path::PathBuf::from("pointsman")]);
    drop(daemon);
    let daemon = host.start(&pair.right).unwrap();
    let status = daemon.status();
    assert_eq!((&status["drained"], &status["generation"]), (&json!(true), &json!(1)));
    assert_eq!(host.bpffs.list().unwrap().len(), 1);
    // Meaning it again works with the same generation.
    daemon.apply_whole(&passing(1));
    assert_eq!(daemon.status()["drained"], false);
}

#[test]
fn an_empty_chain_stays_attached_and_a_section_left_out_releases() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&passing(1));
    let mut empty = document(2, &json!({}), &json!([]));
    let refused = daemon.apply(&empty);
    assert_eq!(refused.code, 1, "suddenly empty: {refused:#?}");
    assert!(refused.stderr.contains("allow_empty"), "{}", refused.stderr);
    empty["allow_empty"] = json!(true);
    daemon.apply_whole(&empty);
    let hook = daemon.hook();
    assert!(!hook["fused"].is_null() && hook["members"] == json!([]), "{hook:#}");
    assert_eq!(received(&pair, &[5001], 5999, 3), [3]);
    let mut gone = empty.clone();
    gone["generation"] = json!(3);
    gone["interfaces"] = json!({});
    daemon.apply_whole(&gone);
    assert_eq!(daemon.status()["hooks"], json!([]));
    assert_eq!(host.bpffs.list().unwrap().len(), 1);
}

#[test]
fn several_daemons_run_side_by_side() {
    let (first, pair) = scene();
    let second = Host::new().unwrap();
    let (left, right) = (first.start(&pair.left).unwrap(), second.start(&pair.right).unwrap());
    right.apply_whole(&passing(1));
    let mut other = passing(7);
    other["interfaces"] = json!({"v0": other["interfaces"]["v1"]});
    left.apply_whole(&other);
    assert_eq!(
        (&left.status()["generation"], &right.status()["generation"]),
        (&json!(7), &json!(1))
    );
    assert_eq!(received(&pair, &[5001], 5999, 3), [3]);
}

#[test]
fn a_recompiled_object_is_an_upgrade_under_the_same_generation() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let path = host.path("object.o");
    std::fs::copy(pointsman_netns::object_path("verdict"), &path).unwrap();
    let mut programs = json!({"p": program("verdict", "v_pass")});
    programs["p"]["object"] = json!({ "path": path });
    let document = document(1, &programs, &json!([{"program": "p"}]));
    daemon.apply_whole(&document);
    let before = daemon.hook()["members"][0].clone();
    // Bytes behind the end of an ELF object change its hash and nothing else.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(daemon.apply_whole(&document)["outcome"], "applied");
    let after = daemon.hook()["members"][0].clone();
    assert_eq!(before["tag"], after["tag"]);
    assert_ne!(before["object"], after["object"]);
    // The store has it: the file may go, and a restart needs it no more.
    std::fs::remove_file(&path).unwrap();
    daemon.stop(Signal::KILL).unwrap();
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.hook()["state"], "running");
}
