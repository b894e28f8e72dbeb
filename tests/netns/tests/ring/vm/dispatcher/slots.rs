//! Several members in one slot, fused.

use pointsman_bpf::Slot;
use pointsman_bpf::dispatcher::{Actions, Options, Program};
use pointsman_model::{Action, Verdicts};
use pointsman_netns::dispatcher::{Stage, on, path, well};
use pointsman_netns::members::{any_packet, member, rounding, slot, slot_on};

fn fused(slots: &[Slot<'_>]) -> (Program, Actions) {
    let program = Program::fuse(slots, rounding(), true).expect("fused");
    let actions = program.answer().expect("a fused program").into();
    (program, actions)
}

#[test]
fn more_than_ten_of_ours_and_a_peer_live_on_one_interface() {
    let Some(stage) = Stage::set("slots::many") else { return };
    let opaque = member("verdict", "v_opaque");
    let slots: Vec<_> = (0..20).map(|_| slot("opaque", &opaque)).collect();
    let (program, actions) = fused(&slots);
    stage.add(&[(&program, 20, actions)]).expect("twenty in one slot");
    assert_eq!(stage.theirs(), [(20, "pointsman_chain".into(), "XDP_PASS".into())]);
    well(&stage.xdp_loader(&["load", "-P", "30", "-n", "v_drop", "v1", &path("verdict")]));
    assert_eq!(stage.theirs(), stage.ours());
    for _ in 0..3 {
        assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    }
    let exits = program.counters().expect("counted").read().expect("counters");
    assert_eq!(exits.end, 3, "every member of ours said go on, three times");
    assert!(exits.members.iter().all(|verdicts| *verdicts == Verdicts::default()));
}

#[test]
fn a_slot_that_goes_on_after_other_verdicts_is_never_alone() {
    let Some(stage) = Stage::set("slots::company") else { return };
    let (drop, pass) = (member("verdict", "v_drop"), member("verdict", "v_pass"));
    let both = [slot_on("drop", &drop, &[Action::Drop]), slot_on("end", &pass, &[Action::Drop])];
    let (program, actions) = fused(&both);
    stage.add(&[(&program, 20, actions)]).expect("added");
    assert_eq!(stage.ours().len(), 2);
    assert_eq!(stage.verdict(&any_packet()), Action::Pass.code());
    // Theirs comes and goes; what is left is a chain of two.
    well(&stage.xdp_loader(&["load", "-P", "90", "-n", "v_drop", "v1", &path("verdict")]));
    assert_eq!(stage.ours().len(), 3);
    // PASS of the last member is final: it never gets there.
    assert_eq!(stage.verdict(&any_packet()), Action::Pass.code());
    let theirs = stage.chain().components[1].id;
    well(&stage.xdp_loader(&["unload", "v1", "--id", &theirs.to_string()]));
    assert_eq!(stage.ours().len(), 2);
    assert_eq!(stage.verdict(&any_packet()), Action::Pass.code());
    let ours = program.id().expect("loaded");
    stage.here(|d, index| d.remove(index, &Options::default(), &[ours])).expect("removed");
    assert!(stage.theirs().is_empty(), "the filler went with it");
}

fn open(entry: &str) -> Program {
    pointsman_netns::dispatcher::program("verdict", entry)
}

#[test]
fn verdicts_of_no_action_are_final_in_both_dispatchers() {
    let Some(stage) = Stage::set("slots::strange") else { return };
    let load = |priority: &str, entry: &str| {
        let object = path("verdict");
        let all = ["load", "-P", priority, "-n", entry, "v1", &object];
        well(&stage.xdp_loader(&all));
    };
    load("10", "v_negative");
    load("20", "v_drop");
    assert_eq!(stage.verdict(&any_packet()), u32::MAX, "libxdp's");
    let pass = open("v_pass");
    stage.add(&[(&pass, 5, on(&[Action::Pass]))]).expect("added");
    assert_eq!(stage.verdict(&any_packet()), u32::MAX, "ours");
}
