//! Members of every kind in slots, shared and their own.

use super::super::members::KINDS;
use super::clear;
use pointsman_bpf::dispatcher::{DispatcherError, Program};
use pointsman_bpf::{Member, TestRun};
use pointsman_model::{Action, Verdicts};
use pointsman_netns::dispatcher::{Stage, path, well};
use pointsman_netns::members::{any_packet, fuse, member, rounding, run, slot_on};

/// What else there is: another licence, and verdicts of no action.
const MORE: [(&str, &str); 3] =
    [("proprietary", "proprietary"), ("verdict", "v_invalid"), ("verdict", "v_negative")];

/// A program for a slot around one member.
fn program(it: &Member, name: &str, own: bool) -> Result<Program, DispatcherError> {
    Program::slot(name, &[slot_on(name, it, &[Action::Pass])], own, rounding())
}

/// Runs it alone, in place of the dispatcher, then in a slot into which libxdp moves it: as it does
/// by itself, and counted both times.
#[track_caller]
fn runs(stage: &Stage, program: &Program, wanted: &TestRun, what: &str) {
    for beside in [false, true] {
        if beside {
            let object = path("verdict");
            well(&stage.xdp_loader(&["load", "-P", "90", "-n", "v_pass", "v1", &object]));
        }
        let found = stage.test_run(&any_packet());
        assert_eq!(found.verdict, wanted.verdict, "{what}, beside another: {beside}");
        assert_eq!(found.packet, wanted.packet, "{what}, beside another: {beside}");
    }
    let exits = program.counters().expect("counted").read().expect("counters");
    let counted = exits.end + exits.members.into_iter().map(Verdicts::total).sum::<u64>();
    assert_eq!(counted, 2, "{what}");
    clear(stage);
}

#[test]
fn every_kind_of_member_runs_in_a_slot() {
    let Some(stage) = Stage::set("kinds::every") else { return };
    for (object, entry) in KINDS.into_iter().chain(MORE) {
        let it = member(object, entry);
        let wanted = run(&fuse(&[slot_on(entry, &it, &[])]), &any_packet());
        for own in [true, false] {
            let what = format!("{object}:{entry} in a slot of its own: {own}");
            let program = program(&it, entry, own).expect("fused");
            let actions = program.answer().expect("a fused program").into();
            stage.add(&[(&program, 20, actions)]).unwrap_or_else(|e| panic!("{what}: {e}"));
            runs(&stage, &program, &wanted, &what);
        }
    }
}

/// Kernels since 6.18, and stable ones, take no tail calls from a slot; then the error says so.
#[test]
fn a_member_that_tail_calls_runs_in_a_slot_or_is_named() {
    let Some(stage) = Stage::set("kinds::tail_calls") else { return };
    for entry in ["member", "member_in_sub", "member_empty"] {
        let it = member("tailcall", entry);
        let wanted = run(&fuse(&[slot_on(entry, &it, &[])]), &any_packet());
        for own in [true, false] {
            let program = program(&it, "tail", own).expect("fused");
            let actions = program.answer().expect("a fused program").into();
            match stage.add(&[(&program, 20, actions)]) {
                Ok(_) => runs(&stage, &program, &wanted, entry),
                Err(DispatcherError::Component { name, why }) => {
                    assert_eq!(name, "tail");
                    assert!(why.contains("tail calls") && why.contains("fused"), "{why}");
                    println!("{entry}: {why}");
                }
                Err(e) => panic!("{entry}: {e}"),
            }
        }
    }
}
