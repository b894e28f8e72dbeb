//! Members of every kind, inlined, called and mixed.

use pointsman_bpf::{Error, inspect_object};
use pointsman_fuse::layout::{DoesNotFit, StackRounding};
use pointsman_model::chain::Form;
use pointsman_model::{Action, ActionSet};
use pointsman_netns::members::{
    any_packet, fuse, member, member_with, prepare, rounding, run, slot, slot_on,
};
use pointsman_netns::object;
use serde_json::{Value, json};

/// An object and a program in it of every kind that does not tail-call.
pub(super) const KINDS: [(&str, &str); 17] = [
    ("subprogs", "s_static"),
    ("subprogs", "s_global"),
    ("subprogs", "s_callback"),
    ("subprogs", "s_bounded"),
    ("subprogs", "s_mixed"),
    ("timer", "arm"),
    ("spinlock", "locked"),
    ("percpu", "percpu"),
    ("mapinmap", "nested"),
    ("globals", "globals"),
    ("adjust", "a_head"),
    ("adjust", "a_head_back"),
    ("adjust", "a_tail"),
    ("adjust", "a_meta"),
    ("nobtf", "nobtf"),
    ("frags", "f_frags"),
    ("gpl", "gpl"),
];

/// The trap: the constant behind a tail call is known to the verifier, the target's answer is not.
/// Inlined, or called as a static function, Linux 6.1 deletes the rest of the chain.
#[test]
fn a_tail_call_returns_to_the_chain() {
    let drop = member("verdict", "v_drop");
    let pass = member("verdict", "v_pass");
    for entry in ["member", "member_in_sub"] {
        let tail = member("tailcall", entry);
        // The target answers PASS, so the chain goes on to what drops.
        for before in [false, true] {
            let mut slots = vec![slot("tail", &tail), slot("drop", &drop)];
            if before {
                slots.insert(0, slot("pass", &pass));
            }
            let chain = fuse(&slots);
            let at = usize::from(before);
            assert_eq!(chain.layout().forms[at], Form::Called);
            assert_eq!(run(&chain, &any_packet()).verdict, Action::Drop.code(), "{entry}");
        }
        // And when the target's answer is final, it is the target's.
        let slots = [slot_on("tail", &tail, &[Action::Drop]), slot("drop", &drop)];
        assert_eq!(run(&fuse(&slots), &any_packet()).verdict, Action::Pass.code(), "{entry}");
    }
}

#[test]
fn a_tail_call_that_fails_falls_through() {
    let (empty, pass) = (member("tailcall", "member_empty"), member("verdict", "v_pass"));
    let chain = fuse(&[slot("empty", &empty), slot("pass", &pass)]);
    assert_eq!(run(&chain, &any_packet()).verdict, Action::Drop.code());
}

#[test]
fn every_kind_of_member_runs_alone_and_between_others() {
    let (pass, tail) = (member("verdict", "v_pass"), member("tailcall", "member"));
    for (name, entry) in KINDS {
        // A live socket or pin must hold a timer's map: the member does.
        let it = member(name, entry);
        let alone = run(&fuse(&[slot(entry, &it)]), &any_packet());
        for others in [&pass, &tail] {
            let chain = fuse(&[slot("before", others), slot(entry, &it), slot("after", others)]);
            let fused = run(&chain, &any_packet());
            assert_eq!(fused.verdict, alone.verdict, "{name}:{entry}");
            assert_eq!(fused.packet, alone.packet, "{name}:{entry}");
        }
        // The same program three times: one object's types merged once, its calls moved thrice.
        let thrice = [slot("1", &it), slot("2", &it), slot("3", &it)];
        let _ = run(&fuse(&thrice), &any_packet());
    }
}

#[test]
fn all_members_of_all_kinds_share_one_chain() {
    let members: Vec<_> = [
        ("subprogs", "s_mixed"),
        ("timer", "arm"),
        ("tailcall", "member"),
        ("spinlock", "locked"),
        ("percpu", "percpu"),
        ("mapinmap", "nested"),
        ("nobtf", "nobtf"),
        ("globals", "globals"),
        ("tailcall", "member_in_sub"),
        ("verdict", "v_opaque"),
    ]
    .map(|(name, entry)| (entry, member(name, entry)))
    .into();
    // s_mixed answers by the packet's bytes: PASS or DROP.
    let goes_on = [Action::Pass, Action::Drop];
    let slots: Vec<_> =
        members.iter().map(|(name, member)| slot_on(name, member, &goes_on)).collect();
    let chain = fuse(&slots);
    assert_eq!(run(&chain, &any_packet()).verdict, Action::Pass.code());
    assert_eq!(chain.counters().unwrap().read().unwrap().end, 1);
}

#[test]
fn stacks_that_fit_share_a_frame_and_others_are_called() {
    let (s256, s400) = (member("stack", "stack_256"), member("stack", "stack_400"));
    let chain = fuse(&[slot("a", &s256), slot("b", &s400)]);
    assert_eq!(chain.layout().forms, [Form::Inlined; 2]);
    let _ = run(&chain, &any_packet());
    let (deep, sub) = (member("stack", "stack_480"), member("stack", "stack_104_sub_256"));
    let chain = fuse(&[slot("deep", &deep), slot("sub", &sub), slot("a", &s256)]);
    assert!(chain.layout().forms.contains(&Form::Called), "{:?}", chain.layout());
    let _ = run(&chain, &any_packet());
}

#[test]
fn a_stack_that_does_not_fit_is_refused_with_the_figures() {
    let (full, pass) = (member("stack", "stack_512"), member("verdict", "v_pass"));
    assert_eq!(fuse(&[slot("full", &full)]).layout().forms, [Form::Inlined]);
    let both = [slot("full", &full), slot("pass", &pass)];
    match (pointsman_bpf::Chain::fuse(&both, rounding(), true), rounding()) {
        (Ok(chain), StackRounding::To16) => {
            assert_eq!(chain.layout().forms, [Form::Called; 2]);
        }
        (Err(Error::DoesNotFit(DoesNotFit::Stack { member, needed, available })), _) => {
            assert_eq!((member.as_str(), needed, available), ("full", 512, 480));
        }
        (other, rounding) => panic!("{rounding:?}: {other:?}"),
    }
}

#[test]
fn a_refused_program_is_named_with_its_source_line() {
    let error = prepare(&object("verifier"), "unchecked", Value::Null).unwrap_err();
    let Error::Verifier { program, summary, log } = &error else { panic!("{error}") };
    assert_eq!(program, "unchecked");
    assert!(summary.contains("packet"), "{summary}");
    assert!(log.lines().any(|line| line.starts_with("; ")), "no source line in:\n{log}");
    assert!(prepare(&object("verifier"), "fine", Value::Null).is_ok());
}

#[test]
fn section_names_of_all_kinds_open() {
    for entry in ["in_xdp", "in_optional_xdp", "in_xdp_named", "in_xdp_prog", "in_prog"] {
        let it = member("sections", entry);
        let _ = run(&fuse(&[slot(entry, &it)]), &any_packet());
    }
    let error = prepare(&object("sections"), "in_classifier", Value::Null).unwrap_err();
    assert!(matches!(error, Error::NotXdp { .. }), "{error}");
    let error = prepare(&object("sections"), "", Value::Null).unwrap_err();
    assert!(matches!(error, Error::AmbiguousEntry { .. }), "{error}");
    let error = prepare(&object("sections"), "nowhere", Value::Null).unwrap_err();
    assert!(error.to_string().contains("in_xdp_named"), "{error}");
    let error = prepare(&object("notxdp"), "", Value::Null).unwrap_err();
    assert!(matches!(error, Error::NoSuchEntry { .. }), "{error}");
}

#[test]
fn an_authors_suggestion_is_shown_and_not_applied() {
    let bytes = object("runconfig");
    let report = inspect_object(&bytes).unwrap();
    let suggests = report.programs.iter().find(|program| program.name == "suggests").unwrap();
    let suggestion = suggests.suggestion.as_ref().expect("a suggestion");
    assert_eq!(suggestion.priority, 10);
    let drop: ActionSet = [Action::Drop].into_iter().collect();
    assert_eq!(suggestion.chain_call_actions, drop);
    let silent = report.programs.iter().find(|program| program.name == "silent").unwrap();
    assert_eq!(silent.suggestion, None);
    // The author would stop at PASS; the chain goes on as the operator's default says.
    let (suggests, dropper) = (member("runconfig", "suggests"), member("verdict", "v_drop"));
    let alone = run(&fuse(&[slot_on("alone", &suggests, &[])]), &any_packet()).verdict;
    let chain = fuse(&[slot("suggests", &suggests), slot("drop", &dropper)]);
    let wanted = if alone == Action::Pass.code() { Action::Drop.code() } else { alone };
    assert_eq!(run(&chain, &any_packet()).verdict, wanted);
}

#[test]
fn frags_are_taken_only_if_every_member_takes_them() {
    let (frags, plain) = (member("frags", "f_frags"), member("frags", "f_plain"));
    assert!(fuse(&[slot("frags", &frags), slot("frags too", &frags)]).layout().frags);
    let mixed = fuse(&[slot("frags", &frags), slot("plain", &plain)]);
    assert!(!mixed.layout().frags);
    let _ = run(&mixed, &any_packet());
}

#[test]
fn licences_are_not_laundered() {
    let (gpl, free) = (member("gpl", "gpl"), member("proprietary", "proprietary"));
    assert!(gpl.facts().needs_gpl && !free.facts().gpl_compatible);
    let both = [slot("gpl", &gpl), slot("free", &free)];
    let error = pointsman_bpf::Chain::fuse(&both, rounding(), true).unwrap_err();
    assert!(matches!(error, Error::DoesNotFit(DoesNotFit::Licence { .. })), "{error}");
    let pass = member("verdict", "v_pass");
    assert!(!fuse(&[slot("free", &free), slot("pass", &pass)]).layout().gpl);
}

#[test]
fn globals_are_typed_by_btf() {
    let report = inspect_object(&object("globals")).unwrap();
    assert!(report.globals.len() > 8, "{:?}", report.globals);
    let error = prepare(&object("verdict"), "v_global", json!({"verdict": "seven"})).unwrap_err();
    assert!(error.to_string().starts_with("global \"verdict\""), "{error}");
    let error = prepare(&object("verdict"), "v_global", json!({"nowhere": 1})).unwrap_err();
    assert!(error.to_string().contains("verdict"), "{error}");
    for verdict in 0..5 {
        let it = member_with("verdict", "v_global", json!({ "verdict": verdict }));
        let chain = fuse(&[slot_on("global", &it, &[])]);
        assert_eq!(run(&chain, &any_packet()).verdict, verdict);
    }
}

#[test]
fn what_is_no_object_is_named() {
    let good = object("verdict");
    let refused = |bytes: &[u8]| prepare(bytes, "v_pass", Value::Null).unwrap_err().to_string();
    assert!(refused(b"").contains("empty"));
    assert!(refused(b"#!/bin/sh\n").contains("not an ELF"));
    assert!(refused(&good[..40]).contains("truncated"));
    let host = std::fs::read("/proc/self/exe").unwrap();
    assert!(refused(&host).contains("expected BPF"), "{}", refused(&host));
    // Cut anywhere: an error or a program, never a crash.
    for length in (0..good.len()).step_by(97) {
        let _ = prepare(&good[..length], "v_pass", Value::Null);
    }
}

#[test]
fn packaged_objects_of_xdp_tools_are_fused() {
    let folder = format!("/usr/lib/{}-linux-gnu/bpf", std::env::consts::ARCH);
    let (pass, drop) = (member("verdict", "v_pass"), member("verdict", "v_drop"));
    for name in ["xdpfilt_alw_all", "xdpfilt_dny_all", "xdpfilt_dny_udp", "xsk_def_xdp_prog"] {
        let path = format!("{folder}/{name}.o");
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|e| panic!("{path}: {e}: apt-get install xdp-tools libxdp1"));
        let it = prepare(&bytes, "", Value::Null).unwrap_or_else(|e| panic!("{path}: {e}"));
        let alone = run(&fuse(&[slot_on(name, &it, &[])]), &any_packet()).verdict;
        for length in [1, 2, 5, 10] {
            let mut slots: Vec<_> = (1..length).map(|_| slot("pass", &pass)).collect();
            slots.insert(length / 2, slot(name, &it));
            slots.push(slot("drop", &drop));
            let wanted = if alone == Action::Pass.code() { Action::Drop.code() } else { alone };
            assert_eq!(run(&fuse(&slots), &any_packet()).verdict, wanted, "{name} in {length}");
        }
    }
}
