//! Every document that is refused leaves the running chain and the daemon as they were.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{TestHost, chain, document, inline};
use pointsman_model::api::{ApplyOutcome, Problem, ProblemKind};
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::RefusalReason;
use pointsman_model::status::HookState;
use serde_json::{Value, json};
use std::fs;

/// Applies bad input over a running chain, gives the problem, and sees that nothing changed.
fn refused(text: &[u8]) -> Problem {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(5, &[("a", "cu")])).unwrap();
    let problem = node.apply_text(text.to_vec()).unwrap_err();
    assert_eq!(host.running("a"), ["c", "u"]);
    let status = node.status();
    assert_eq!(status.generation, Some(5));
    assert_eq!(status.hooks[0].state, HookState::Running);
    assert!(status.refused_document.is_some());
    // The next request is answered, and a good document makes the refused one forgotten.
    node.apply(&document(6, &[("a", "u")])).unwrap();
    assert_eq!(host.running("a"), ["u"]);
    assert_eq!(node.status().refused_document, None);
    assert!(node.stop());
    problem
}

fn invalid(text: &str, pointer: &str, message: &str) {
    let problem = refused(text.as_bytes());
    assert_eq!((problem.kind, problem.status), (ProblemKind::InvalidDocument, 422));
    let errors: Vec<_> = problem.errors.iter().map(ToString::to_string).collect();
    let named = problem.errors.iter().any(|e| e.pointer == pointer && e.message.contains(message));
    assert!(named, "{errors:?}");
}

#[test]
fn text_that_is_no_document_is_refused() {
    invalid("chain: eth0", "", "expected value");
    invalid("", "", "EOF");
    let mut surprise = document(6, &[("a", "c")]);
    surprise["surprise"] = json!(1);
    invalid(&surprise.to_string(), "/surprise", "unknown field");
    let mut wrong = document(6, &[("a", "c")]);
    wrong["generation"] = json!("six");
    invalid(&wrong.to_string(), "/generation", "invalid type");
    let twice = document(6, &[("a", "c")]).to_string().replacen('{', r#"{"node":"edge-1","#, 1);
    invalid(&twice, "", "duplicate field `node`");
    let mut unknown = document(6, &[("a", "c")]);
    unknown["interfaces"]["a"]["xdp"]["chain"] = chain("cx");
    invalid(&unknown.to_string(), "/interfaces/a/xdp/chain/1/program", "\"x\"");
}

#[test]
fn a_document_of_ten_megabytes_is_refused() {
    let problem = refused(&vec![b' '; 10 << 20]);
    assert!(problem.errors[0].message.contains("larger than the limit"), "{problem:?}");
}

#[test]
fn an_older_changed_emptied_or_foreign_document_is_guarded() {
    let mut foreign = document(6, &[("a", "c")]);
    foreign["node"] = json!("edge-2");
    for (document, pointer) in [
        (document(4, &[("a", "c")]), "/generation"),
        (document(5, &[("a", "c")]), "/generation"),
        (document(6, &[]), ""),
        (foreign, "/node"),
    ] {
        let problem = refused(document.to_string().as_bytes());
        assert_eq!((problem.kind, problem.status), (ProblemKind::GuardedDocument, 422));
        assert_eq!(problem.errors[0].pointer, pointer, "{problem:?}");
    }
}

#[test]
fn a_plan_is_guarded_as_an_apply_and_changes_nothing() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(5, &[("a", "c")])).unwrap();
    let files = host.files();
    let mut next = document(6, &[("a", "cx"), ("b", "u")]);
    next["programs"]["x"] = json!({ "object": inline("OBJECT extra") });
    let plan = node.plan(&next).unwrap();
    assert!(plan.steps.iter().any(pointsman_model::plan::Step::is_visible));
    assert_eq!(host.running("a"), ["c"]);
    assert_eq!(host.files(), files);
    assert_eq!(node.status().generation, Some(5));
    let problem = node.plan(&document(4, &[("a", "c")])).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::GuardedDocument);
    assert_eq!(node.status().refused_document, None, "a plan refuses nothing");
    node.apply(&next).unwrap();
    assert_eq!(
        (host.running("a"), host.running("b")),
        (vec!["c".into(), "x".into()], vec!["u".into()])
    );
}

/// Applies generation 6, in which `a` uses a program `x` made so and `b` changes too.
fn bad_program(host: &TestHost, x: Value) -> (RefusalReason, String) {
    let node = host.start();
    node.apply(&document(5, &[("a", "cu"), ("b", "c")])).unwrap();
    let mut next = document(6, &[("a", "cx"), ("b", "u")]);
    next["programs"]["x"] = x;
    let report = node.apply(&next).unwrap();
    assert_eq!(report.outcome, ApplyOutcome::Partly);
    assert_eq!(host.running("a"), ["c", "u"], "it keeps its chain");
    assert_eq!(host.running("b"), ["u"], "nobody else is kept from his");
    let status = node.status();
    assert_eq!(status.generation, Some(6));
    let [a, b] = &status.hooks[..] else { panic!("{:?}", status.hooks) };
    assert_eq!((a.state, b.state), (HookState::Outdated, HookState::Running));
    assert_eq!((a.generation, b.generation), (Some(5), Some(6)));
    let [refusal] = &a.refusals[..] else { panic!("{:?}", a.refusals) };
    assert_eq!(refusal.pointer, "/programs/x");
    assert!(node.stop());
    (refusal.reason, refusal.message.clone())
}

fn unusable(x: Value, expected: &str) {
    let (reason, message) = bad_program(&TestHost::new(), x);
    assert_eq!(reason, RefusalReason::ProgramUnusable);
    assert!(message.contains(expected), "{message}");
}

#[test]
fn an_object_that_cannot_be_had_or_used_is_named() {
    let hash = "ab".repeat(32);
    unusable(json!({ "object": { "path": "/nonexistent/x.o" } }), "/nonexistent/x.o: No such file");
    unusable(json!({ "object": { "path": "/dev/zero" } }), "regular file");
    unusable(json!({ "object": { "path": "/proc/self/maps", "sha256": hash } }), "expects abab");
    unusable(json!({ "object": { "sha256": hash } }), "is not in the store; copy");
    unusable(
        json!({ "object": { "url": "https://objects.example/x.o", "sha256": hash } }),
        "courier has not fetched https://objects.example/x.o",
    );
    unusable(json!({ "object": inline("text") }), "not an ELF");
}

#[test]
fn wrong_entries_of_one_program_do_not_blame_another_with_the_same_object() {
    let entries = json!([{ "key": null, "value": 1 }]);
    unusable(
        json!({ "builtin": "udp-port-filter", "maps": { "ports": { "entries": entries } } }),
        "null does not fit",
    );
}

#[test]
fn a_damaged_object_in_the_store_is_refused() {
    let host = TestHost::new();
    let hash = "cd".repeat(32);
    fs::create_dir_all(host.path("state/objects")).unwrap();
    fs::write(host.path("state/objects").join(&hash), "OBJECT x").unwrap();
    let (reason, message) = bad_program(&host, json!({ "object": { "sha256": hash } }));
    assert_eq!(reason, RefusalReason::ProgramUnusable);
    assert!(message.contains("is damaged"), "{message}");
}

#[test]
fn an_object_that_is_too_large_is_refused() {
    let host = TestHost::new();
    let path = host.path("x.o");
    fs::File::create(&path).unwrap().set_len((16 << 20) + 1).unwrap();
    let (_, message) = bad_program(&host, json!({ "object": { "path": path } }));
    assert!(message.contains("larger than the limit"), "{message}");
}

#[test]
fn a_foreign_program_and_loopback_are_refused_by_name_and_a_missing_interface_is_waited_for() {
    let host = TestHost::new();
    host.shared.sim().attach_foreign(&common::interface("b"), "xdp_dispatcher", AttachMode::Skb);
    host.shared.sim().add_loopback(&common::interface("lo"));
    let node = host.start();
    let mut wanted = document(1, &[("a", "c"), ("b", "c"), ("gone", "c"), ("lo", "c")]);
    wanted["interfaces"]["lo"]["xdp"]["mode"] = json!("native");
    let report = node.apply(&wanted).unwrap();
    let reasons: Vec<_> = report.refusals.iter().map(|r| r.reason).collect();
    use RefusalReason::{ForeignProgram, ModeUnsupported};
    assert_eq!(reasons, [ForeignProgram, ModeUnsupported]);
    let status = node.status();
    assert_eq!(status.foreign[0].owner, "libxdp or bpfman");
    assert_eq!(status.foreign[0].interface, common::interface("b"));
    let states: Vec<_> = status.hooks.iter().map(|h| h.state).collect();
    use HookState::{Absent, Pending, Running};
    assert_eq!(states, [Running, Absent, Pending, Absent]);
    wanted["generation"] = json!(2);
    wanted["interfaces"]["lo"]["xdp"]["mode"] = json!("skb");
    node.apply(&wanted).unwrap();
    assert_eq!(host.running("lo"), ["c"]);
    assert!(host.running("b")[0].starts_with("foreign"));
}

#[test]
fn where_every_hook_is_refused_the_document_is_still_in_force() {
    let host = TestHost::new();
    let node = host.start();
    host.shared.sim().attach_foreign(&common::interface("b"), "theirs", AttachMode::Skb);
    let report = node.apply(&document(3, &[("b", "c")])).unwrap();
    assert_eq!(report.outcome, ApplyOutcome::Refused);
    assert_eq!(node.status().generation, Some(3));
    assert_eq!(
        node.apply(&document(2, &[("a", "c")])).unwrap_err().kind,
        ProblemKind::GuardedDocument
    );
}

#[test]
fn a_host_that_cannot_be_observed_is_left_alone() {
    let host = TestHost::new();
    let node = host.start();
    node.apply(&document(1, &[("a", "c")])).unwrap();
    host.shared.blind.store(true, std::sync::atomic::Ordering::SeqCst);
    let problem = node.apply(&document(2, &[("a", "u")])).unwrap_err();
    assert_eq!((problem.kind, problem.status), (ProblemKind::Internal, 500));
    assert!(problem.title.contains("cannot read the pins"), "{problem:?}");
    host.shared.blind.store(false, std::sync::atomic::Ordering::SeqCst);
    node.apply(&document(2, &[("a", "u")])).unwrap();
    assert_eq!(host.running("a"), ["u"]);
}
