//! Order, actions, observing, final verdicts and counters of chains of many lengths.

use pointsman_bpf::{Chain, Slot};
use pointsman_model::document::MAX_CHAIN;
use pointsman_model::{Action, ActionSet, Verdicts};
use pointsman_netns::members::{any_packet, fuse, member, member_with, run, slot, slot_on};
use serde_json::json;

/// The lengths that the documentation speaks of.
const LENGTHS: [usize; 4] = [1, 2, 5, 10];

fn final_verdict(slots: &[Slot<'_>]) -> u32 {
    run(&fuse(slots), &any_packet()).verdict
}

#[test]
fn after_the_last_continue_comes_pass() {
    // Every verdict, as the last word of a chain that goes on after it.
    let entries = ["v_aborted", "v_drop", "v_pass", "v_tx", "v_redirect"];
    let members: Vec<_> = entries.iter().map(|entry| member("verdict", entry)).collect();
    for (member, action) in members.iter().zip(Action::ALL) {
        for length in LENGTHS {
            let slots: Vec<_> = (0..length).map(|_| slot_on("m", member, &[action])).collect();
            assert_eq!(final_verdict(&slots), Action::Pass.code(), "{length} x {action}");
        }
    }
    assert_eq!(final_verdict(&[]), Action::Pass.code(), "an empty chain");
}

#[test]
fn any_other_verdict_is_final_wherever_it_comes() {
    let pass = member("verdict", "v_pass");
    for (entry, verdict) in [
        ("v_aborted", 0),
        ("v_drop", 1),
        ("v_tx", 3),
        ("v_redirect", 4),
        ("v_invalid", 7),
        ("v_negative", u32::MAX),
    ] {
        let other = member("verdict", entry);
        for length in LENGTHS {
            for at in 0..length {
                let slots: Vec<_> =
                    (0..length).map(|m| slot("m", if m == at { &other } else { &pass })).collect();
                assert_eq!(final_verdict(&slots), verdict, "{entry} at {at} of {length}");
            }
        }
    }
}

#[test]
fn members_run_in_the_order_given() {
    let marks: Vec<_> =
        (0..10).map(|id| member_with("order", "mark", json!({"id": id + 1}))).collect();
    for length in LENGTHS {
        for turn in 0..length {
            let order: Vec<_> = (0..length).map(|at| (at + turn) % length).collect();
            let slots: Vec<_> = order.iter().map(|&at| slot("mark", &marks[at])).collect();
            let after = run(&fuse(&slots), &any_packet()).packet;
            let wanted: Vec<u8> = order.iter().map(|&at| at as u8 + 1).collect();
            let found = after.windows(length).any(|window| window == wanted);
            assert!(found, "{wanted:?} is not in {after:?}");
        }
    }
}

#[test]
fn an_observed_member_is_counted_and_never_obeyed() {
    let (pass, drop) = (member("verdict", "v_pass"), member("verdict", "v_drop"));
    for length in LENGTHS {
        for at in 0..length {
            let slots: Vec<_> = (0..length)
                .map(|m| match m == at {
                    true => Slot { enforce: false, ..slot("drop", &drop) },
                    false => slot("pass", &pass),
                })
                .collect();
            let chain = fuse(&slots);
            assert_eq!(run(&chain, &any_packet()).verdict, Action::Pass.code());
            let exits = counts(&chain);
            assert_eq!((exits.members[at].drop, exits.end), (1, 1), "at {at} of {length}");
        }
    }
}

#[test]
fn every_packet_is_counted_once_where_it_leaves() {
    let queue = member("verdict", "v_opaque");
    let live = member_with("verdict", "v_global", json!({"verdict": 3}));
    let several = [Action::Pass, Action::Tx];
    let slots = [
        slot("first", &queue),
        slot_on("several", &live, &several),
        slot_on("last", &live, &[Action::Drop]),
        slot("never", &queue),
    ];
    let chain = fuse(&slots);
    for _ in 0..5 {
        assert_eq!(run(&chain, &any_packet()).verdict, Action::Tx.code());
    }
    let exits = counts(&chain);
    let tx = Verdicts { tx: 5, ..Verdicts::default() };
    assert_eq!(exits.members, [Verdicts::default(), tx, tx, Verdicts::default()]);
    assert_eq!(exits.end, 0);
}

#[test]
fn verdicts_outside_the_actions_are_counted_as_invalid() {
    for entry in ["v_invalid", "v_negative"] {
        let odd = member("verdict", entry);
        let chain = fuse(&[slot("odd", &odd)]);
        let _ = run(&chain, &any_packet());
        assert_eq!(counts(&chain).members[0], Verdicts { invalid: 1, ..Verdicts::default() });
    }
}

#[test]
fn a_member_without_actions_ends_the_chain() {
    let (pass, drop) = (member("verdict", "v_pass"), member("verdict", "v_drop"));
    let slots = [
        slot("pass", &pass),
        Slot { actions: ActionSet::EMPTY, ..slot("end", &pass) },
        slot("unreached", &drop),
    ];
    let chain = fuse(&slots);
    assert_eq!(run(&chain, &any_packet()).verdict, Action::Pass.code());
    let exits = counts(&chain);
    assert_eq!((exits.members[1].pass, exits.members[2].total(), exits.end), (1, 0, 0));
}

#[test]
fn sixty_four_members_load_and_run() {
    let marks: Vec<_> = (0..64).map(|_| member("verdict", "v_opaque")).collect();
    let slots: Vec<_> = marks.iter().map(|member| slot("opaque", member)).collect();
    let chain = fuse(&slots);
    assert_eq!(run(&chain, &any_packet()).verdict, Action::Pass.code());
    assert_eq!(counts(&chain).end, 1);
}

#[test]
fn the_longest_chain_loads_whatever_its_members_are() {
    // Nothing about the verdicts can be proven, and every member counts by itself.
    let opaque = member("verdict", "v_opaque");
    let several = ActionSet::PASS.with(Action::Tx).with(Action::Drop);
    let slots: Vec<_> = (0..MAX_CHAIN)
        .map(|at| Slot {
            enforce: at % 3 != 0,
            actions: if at % 2 == 0 { several } else { ActionSet::PASS },
            ..slot("opaque", &opaque)
        })
        .collect();
    let chain = fuse(&slots);
    assert_eq!(run(&chain, &any_packet()).verdict, Action::Pass.code());
    let exits = counts(&chain);
    let counted: u64 = exits.members.iter().map(|verdicts| verdicts.total()).sum();
    let own = |slot: &&Slot<'_>| !slot.enforce || slot.actions.len() > 1;
    assert_eq!((counted, exits.end), (slots.iter().filter(own).count() as u64, 1));
}

fn counts(chain: &Chain) -> pointsman_model::chain::ExitCounts {
    chain.counters().expect("counted").read().expect("counters")
}
