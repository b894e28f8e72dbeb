//! Plans for hosts that changed behind our back: interfaces renamed or created anew, pins damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, chain, hook, host, interface, show, steps};
use insta::assert_snapshot;
use pointsman_model::NamespaceName;
use pointsman_model::facts::ProgramProblem;
use pointsman_model::observed::{AttachMode, ObservedInterface};
use pointsman_plan::simulator::{Runs, Simulator};
use pointsman_plan::{Settled, Wanted, drift};
use serde_json::json;

#[test]
fn an_interface_created_anew_gets_its_chain_without_a_gap_or_an_alarm() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    let wanted = chain("eth0", &["10 p"]);
    bench.apply(1, &wanted, &mut host);
    host.remove_interface(&interface("eth0"));
    let missing = bench.plan(&bench.document(1, &wanted), &host);
    assert_snapshot!(show(&missing), @"
    eth0/xdp: Pending none -> none -
      waits: interface eth0 does not exist in the daemon's network namespace
    ");
    host.add_interface(&interface("eth0"), Some(true));
    let anew = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(show(&anew), @"
    eth0/xdp: Attach none -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
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
fn pins_follow_an_interface_to_its_new_name() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    bench.apply(1, &chain("eth0", &["10 p"]), &mut host);
    host.rename_interface(&interface("eth0"), &interface("wan0"));
    let wanted = chain("wan0", &["10 p"]);
    let plan = bench.apply(2, &wanted, &mut host);
    assert_snapshot!(steps(&plan, &bench), @"
    wan0/xdp: Unchanged [p] -> [p] native
    step: rename hook eth0/xdp to wan0/xdp
    ");
    bench.apply(2, &wanted, &mut host);
    assert!(bench.plan(&bench.document(2, &wanted), &host).is_converged());
}

#[test]
fn a_chain_stays_with_a_renamed_interface_until_its_name_is_taken() {
    let (mut bench, mut host) = (Bench::with(&["p"]), host());
    let wanted = chain("eth0", &["10 p"]);
    bench.apply(1, &wanted, &mut host);
    host.rename_interface(&interface("eth0"), &interface("wan0"));
    let away = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(show(&away), @"
    eth0/xdp: Unchanged [p] -> [p] native
    note eth0/xdp -: eth0 is called wan0 now, and its chain runs on there; it stays until an interface eth0 appears, or the document names wan0
    ");
    bench.program("p", 2);
    let upgraded = bench.apply(2, &wanted, &mut host);
    assert_snapshot!(steps(&upgraded, &bench), @"
    eth0/xdp: Swap [p] -> [p] native
    step: prepare program p
    step: build chain eth0/xdp#2 of 1 programs
    step: swap to chain eth0/xdp#2
    step: retire chain eth0/xdp#1
    step: release program p (5baddaabcc6e9f08)
    note - p: program p is upgraded; no map contents are lost
    note eth0/xdp -: eth0 is called wan0 now, and its chain runs on there; it stays until an interface eth0 appears, or the document names wan0
    ");
    assert!(matches!(host.runs(&interface("wan0")), Runs::Chain(..)));
    host.add_interface(&interface("eth0"), Some(true));
    let moved = bench.apply(2, &wanted, &mut host);
    assert_snapshot!(show(&moved), @"
    eth0/xdp: Attach none -> [p] native
    step: build chain eth0/xdp#3 of 1 programs
    step: attach chain eth0/xdp#3 (native)
    step: retire chain eth0/xdp#2
    note eth0/xdp -: the interface that was eth0 is called wan0 now, which the document does not name; its chain ends there and is attached to the eth0 of today
    ");
    assert_eq!(host.runs(&interface("wan0")), Runs::Nothing);
}

#[test]
fn interfaces_that_exchange_their_names_keep_a_chain_all_along() {
    let (bench, mut host) = (Bench::with(&["p", "q"]), host());
    host.add_interface(&interface("eth1"), Some(true));
    let wanted = json!({"eth0": {"xdp": {"chain": [{"program": "p"}]}},
        "eth1": {"xdp": {"chain": [{"program": "q"}]}}});
    bench.apply(1, &wanted, &mut host);
    for (from, to) in [("eth0", "aside"), ("eth1", "eth0"), ("aside", "eth1")] {
        host.rename_interface(&interface(from), &interface(to));
    }
    let plan = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(show(&plan), @"
    eth0/xdp: Swap [q] -> [p] native
    eth1/xdp: Swap [p] -> [q] native
    step: rename hook eth0/xdp to eth1/xdp
    step: build chain eth0/xdp#2 of 1 programs
    step: build chain eth1/xdp#2 of 1 programs
    step: swap to chain eth0/xdp#2
    step: swap to chain eth1/xdp#2
    step: retire chain eth0/xdp#1
    step: retire chain eth1/xdp#1
    ");
    assert!(bench.plan(&bench.document(1, &wanted), &host).is_converged());
}

#[test]
fn an_interface_in_another_namespace_is_waited_for_and_followed() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    let blue = NamespaceName::new("blue").unwrap();
    host.hide(&blue, true);
    let wanted = chain("blue/eth0", &["10 p"]);
    assert_snapshot!(show(&bench.apply(1, &wanted, &mut host)), @"
    blue/eth0/xdp: Pending none -> none -
      waits: network namespace blue cannot be looked into: it is hidden
    ");
    host.hide(&blue, false);
    assert_snapshot!(show(&bench.apply(1, &wanted, &mut host)), @"
    blue/eth0/xdp: Pending none -> none -
      waits: interface eth0 does not exist in network namespace blue
    ");
    host.rename_interface(&interface("eth0"), &interface("blue/eth0"));
    assert_snapshot!(show(&bench.apply(1, &wanted, &mut host)), @"
    blue/eth0/xdp: Attach none -> [p] native
    step: prepare program p (5baddaabcc6e9f08)
    step: build chain blue/eth0/xdp#1 of 1 programs
    step: attach chain blue/eth0/xdp#1 (native)
    ");
    // Its pins stay what they are while nobody can see where it is.
    host.hide(&blue, true);
    assert_snapshot!(show(&bench.apply(1, &wanted, &mut host)), @"
    blue/eth0/xdp: Unchanged [p] -> [p] -
    note blue/eth0/xdp -: the chain of blue/eth0 runs on, and its network namespace cannot be looked into: it is hidden
    ");
    host.rename_interface(&interface("blue/eth0"), &interface("eth0"));
    assert_snapshot!(show(&bench.apply(2, &chain("eth0", &["10 p"]), &mut host)), @"
    eth0/xdp: Unchanged [p] -> [p] native
    step: rename hook blue/eth0/xdp to eth0/xdp
    ");
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
        let wanted = Wanted {
            document: &document,
            programs: &bench.programs,
            facts: &bench.facts,
            bypassed: &bench.bypassed,
        };
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
    eth0/xdp: Attach none -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
    step: attach chain eth0/xdp#2 (native)
    step: retire chain eth0/xdp#1
    note eth0/xdp -: the interface that was eth0 is in another network namespace now; its chain ends there and is attached to the eth0 of today
    ");
    // An index that no interface here has: deleted, or gone to another namespace.
    let dead = plan_with(|eth0| (eth0.attached, eth0.index) = (None, 77));
    assert_snapshot!(show(&dead), @"
    eth0/xdp: Attach none -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
    step: attach chain eth0/xdp#2 (native)
    step: retire chain eth0/xdp#1
    note eth0/xdp -: the interface that was eth0 is in another network namespace now; its chain ends there and is attached to the eth0 of today
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

#[test]
fn what_somebody_else_did_is_named() {
    use pointsman_model::status::DriftKind::*;
    let (bench, mut host) = (Bench::with(&["p"]), host());
    let wanted = chain("eth0", &["10 p"]);
    bench.apply(1, &wanted, &mut host);
    let (eth0, name) = (hook("eth0"), interface("eth0"));
    let settled = Settled::of(&eth0, &host.observe()).unwrap();
    let found = |host: &Simulator| drift(&eth0, settled, &host.observe());
    assert_eq!(found(&host), None);
    let after = |change: &dyn Fn(&mut Simulator)| {
        let mut host = host.clone();
        change(&mut host);
        let kind = found(&host);
        // And a plan puts it right, if nothing of others is in the way.
        if kind != Some(Displaced) {
            bench.apply(1, &wanted, &mut host);
            assert!(bench.plan(&bench.document(1, &wanted), &host).is_converged());
            assert!(matches!(host.runs(&name), Runs::Chain(spec, _) if spec.members.len() == 1));
        }
        kind
    };
    assert_eq!(after(&|host| assert!(host.detach_link(&eth0))), Some(Detached));
    assert_eq!(after(&|host| host.lose_link(&eth0)), Some(Unpinned));
    assert_eq!(after(&|host| host.lose_chains(&eth0)), Some(Unpinned));
    assert_eq!(after(&|host| host.spoil_records(&eth0)), Some(Unpinned));
    assert_eq!(after(&|host| host.lose_program(&common::program("p"))), Some(MapsUnpinned));
    assert_eq!(after(&|host| assert!(host.replace_program(&eth0).is_some())), Some(Replaced));
    let displace = |host: &mut Simulator| {
        host.detach_link(&eth0);
        host.attach_foreign(&name, "theirs", AttachMode::Native).unwrap();
    };
    assert_eq!(after(&displace), Some(Displaced));
    // What interfaces do by themselves is nobody's doing.
    assert_eq!(after(&|host| host.set_up(&name, false)), None);
    let anew = |host: &mut Simulator| {
        host.remove_interface(&name);
        assert_eq!(drift(&eth0, settled, &host.observe()), None);
        host.add_interface(&name, Some(true));
    };
    assert_eq!(after(&anew), None);
}

#[test]
fn an_exchange_of_names_is_nobodys_drift() {
    let (bench, mut host) = (Bench::with(&["p", "q"]), host());
    host.add_interface(&interface("eth1"), Some(true));
    let wanted = json!({"eth0": {"xdp": {"chain": [{"program": "p"}]}},
        "eth1": {"xdp": {"chain": [{"program": "q"}]}}});
    bench.apply(1, &wanted, &mut host);
    let hooks = [hook("eth0"), hook("eth1")];
    let settled = hooks.clone().map(|hook| Settled::of(&hook, &host.observe()).unwrap());
    let exchange = |host: &mut Simulator| {
        for (from, to) in [("eth0", "aside"), ("eth1", "eth0"), ("aside", "eth1")] {
            host.rename_interface(&interface(from), &interface(to));
        }
    };
    // The pins followed the first exchange; then the names are exchanged again.
    exchange(&mut host);
    bench.apply(1, &wanted, &mut host);
    exchange(&mut host);
    for (hook, settled) in hooks.iter().zip(settled) {
        assert_eq!(drift(hook, settled, &host.observe()), None, "{hook}");
    }
}
