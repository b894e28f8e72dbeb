//! Plans for hosts that changed behind our back: interfaces renamed or created anew, pins damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, chain, hook, host, interface, show, steps};
use insta::assert_snapshot;
use pointsman_model::facts::ProgramProblem;
use pointsman_model::observed::ObservedInterface;
use pointsman_plan::Wanted;
use pointsman_plan::simulator::Runs;
use serde_json::json;

#[test]
fn an_interface_created_anew_gets_its_chain_without_a_gap_or_an_alarm() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    let wanted = chain("eth0", &["10 p"]);
    bench.apply(1, &wanted, &mut host);
    host.remove_interface(&interface("eth0"));
    let missing = bench.plan(&bench.document(1, &wanted), &host);
    assert_snapshot!(show(&missing), @"
    eth0/xdp: Refused none -> none -
    refused eth0/xdp -: interface missing at /interfaces/eth0: interface eth0 does not exist in this network namespace; create it, or take it out of the document
    ");
    host.add_interface(&interface("eth0"), Some(true));
    let anew = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(show(&anew), @"
    eth0/xdp: Attach none -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
    step: detach eth0/xdp
    step: attach chain eth0/xdp#2 (native)
    step: retire chain eth0/xdp#1
    ");
    host.remove_interface(&interface("eth0"));
    let released = bench.apply(2, &json!({}), &mut host);
    assert_snapshot!(steps(&released, &bench), @"
    eth0/xdp: Detach none -> none -
    step: detach eth0/xdp
    step: retire chain eth0/xdp#2
    step: release hook eth0/xdp
    step: release program p
    note - p: program p is in no chain of this document
    ");
}

#[test]
fn a_renamed_interface_is_told_from_a_foreign_program() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    bench.apply(1, &chain("eth0", &["10 p"]), &mut host);
    host.rename_interface(&interface("eth0"), &interface("wan0"));
    let wanted = chain("wan0", &["10 p"]);
    let plan = bench.apply(2, &wanted, &mut host);
    assert_snapshot!(steps(&plan, &bench), @"
    eth0/xdp: Detach none -> none -
    wan0/xdp: Refused none -> none -
    step: detach eth0/xdp
    step: retire chain eth0/xdp#1
    step: release hook eth0/xdp
    refused wan0/xdp -: foreign program at /interfaces/wan0/xdp: wan0 carries the chain of eth0/xdp, attached before the interface was renamed; once eth0 is out of the document and that is applied, apply again
    ");
    bench.apply(2, &wanted, &mut host);
    assert!(bench.plan(&bench.document(2, &wanted), &host).is_converged());
}

#[test]
fn a_chain_that_runs_elsewhere_is_not_taken_off_silently() {
    let (mut bench, mut host) = (Bench::with(&["p"]), host());
    let wanted = chain("eth0", &["10 p"]);
    bench.apply(1, &wanted, &mut host);
    host.rename_interface(&interface("eth0"), &interface("wan0"));
    host.add_interface(&interface("eth0"), Some(true));
    let refused = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(show(&refused), @"
    eth0/xdp: Refused none -> none -
    refused eth0/xdp -: needs a gap at /interfaces/eth0/xdp: the chain of eth0/xdp runs on wan0: that interface was renamed, and eth0 is another one; to attach here takes the chain off wan0; allow that with `apply --allow-gap`
    ");
    assert!(matches!(host.runs(&interface("wan0")), Runs::Chain(..)));
    bench.options.allow_gap = true;
    let moved = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(show(&moved), @"
    eth0/xdp: Attach none -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
    step: detach eth0/xdp (opens a gap)
    step: attach chain eth0/xdp#2 (native)
    step: retire chain eth0/xdp#1
    ");
    assert_eq!(host.runs(&interface("wan0")), Runs::Nothing);
}

#[test]
fn what_link_and_interface_say_must_agree() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    let wanted = chain("eth0", &["10 p"]);
    bench.apply(1, &wanted, &mut host);
    let document = bench.document(1, &wanted);
    let plan_with = |change: fn(&mut ObservedInterface)| {
        let mut observed = host.observe();
        observed.interfaces.values_mut().for_each(change);
        let wanted = Wanted { document: &document, programs: &bench.programs, facts: &bench.facts };
        pointsman_plan::plan(&wanted, &observed, &bench.caps, bench.options)
    };
    // The link's program was replaced behind our back.
    let drift = plan_with(|eth0| eth0.attached.as_mut().unwrap().program_id = 99);
    assert_snapshot!(show(&drift), @"
    eth0/xdp: Refused none -> none -
    refused eth0/xdp -: foreign program at /interfaces/eth0/xdp: eth0 carries XDP program pointsman (id 99, native), which is not ours and stays untouched; to make room, stop what attached it, or remove it with `xdp-loader unload eth0 --all` or `ip link set dev eth0 xdpdrv off`, and apply again
    ");
    let nothing = plan_with(|eth0| eth0.attached = None);
    assert_snapshot!(show(&nothing), @"
    eth0/xdp: Refused none -> none -
    refused eth0/xdp -: needs a gap at /interfaces/eth0/xdp: the pinned link of eth0/xdp says that it runs on eth0, and eth0 says that nothing is attached: the chain may run in another network namespace; to attach here ends it there; allow that with `apply --allow-gap`
    ");
    // An index that no interface here has: deleted, or gone to another namespace.
    let dead = plan_with(|eth0| (eth0.attached, eth0.index) = (None, 77));
    assert_snapshot!(show(&dead), @"
    eth0/xdp: Attach none -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
    step: detach eth0/xdp
    step: attach chain eth0/xdp#2 (native)
    step: retire chain eth0/xdp#1
    ");
}

#[test]
fn damaged_pins_are_replaced_and_unknown_programs_are_kept() {
    let (mut bench, mut host) = (Bench::with(&["p", "q"]), host());
    let wanted = chain("eth0", &["10 p"]);
    bench.apply(1, &wanted, &mut host);
    // The link runs a program that no pinned chain knows.
    host.lose_chains(&hook("eth0"));
    let lost = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(show(&lost), @"
    eth0/xdp: Swap none -> [p] native
    step: build chain eth0/xdp#1 of 1 programs
    step: swap to chain eth0/xdp#1
    note - q: program q is in no chain of this document
    ");
    // The record is unreadable and the hook is refused: nobody knows what it uses.
    host.spoil_records(&hook("eth0"));
    bench.programs.insert(
        common::program("q"),
        Err(ProgramProblem { message: "not an ELF".into(), log: None }),
    );
    let refused = bench.apply(2, &chain("eth0", &["10 q"]), &mut host);
    assert_snapshot!(show(&refused), @"
    eth0/xdp: Refused none -> none native
    refused eth0/xdp q: program unusable at /programs/q: not an ELF
    note - p: program p is in no chain of this document
    note eth0/xdp -: no program is released, because the record of the chain that runs on eth0/xdp cannot be read and any program may be part of it
    ");
    // It can be replaced all the same.
    assert_snapshot!(show(&bench.apply(3, &wanted, &mut host)), @"
    eth0/xdp: Swap none -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
    step: swap to chain eth0/xdp#2
    step: retire chain eth0/xdp#1
    note - q: program q is in no chain of this document
    ");
    // Maps that nobody can reach any more are made anew, and the chain with them.
    host.lose_program(&common::program("p"));
    let anew = bench.apply(3, &wanted, &mut host);
    assert_snapshot!(steps(&anew, &bench), @"
    eth0/xdp: Swap [p] -> [p] native
    step: prepare program p
    step: build chain eth0/xdp#3 of 1 programs
    step: swap to chain eth0/xdp#3
    step: retire chain eth0/xdp#2
    note - q: program q is in no chain of this document
    note eth0/xdp -: the pinned maps of p are gone; the chain is built anew with fresh maps
    ");
    assert!(host.uses_pinned_maps(&interface("eth0")));
}
