//! Chains of slots from a store: built aside, swapped as a whole, counted, taken out.

use super::clear;
use pointsman_bpf::Store;
use pointsman_bpf::dispatcher::{Actions, Options};
use pointsman_model::chain::ChainId;
use pointsman_model::observed::{AttachMode, ObservedLink};
use pointsman_model::plan::OtherChange;
use pointsman_model::{Action, ActionSet, HookId, InterfaceName, Verdicts};
use pointsman_netns::dispatcher::{Row, Stage, on, path, program, well};
use pointsman_netns::members::any_packet;
use pointsman_netns::shelf::{In, Part, Shelf, hook};
use pointsman_netns::traffic::{Watch, received};
use serde_json::json;
use std::path::Path;

const NATIVE: Option<AttachMode> = Some(AttachMode::Native);

/// Drops datagrams to port 5001.
fn ports(priority: u32) -> Part {
    Part::with("ports", "verdict", "v_port", priority, json!({"port": 5001}))
}

/// A chain for a sequence number: another each time, and always one that drops what goes to 5001.
fn shape(sequence: u64) -> Vec<In> {
    let count = |priority| Part::new("count", "verdict", "v_pass", priority);
    let would = |priority| Part::new("would", "verdict", "v_drop", priority).observed();
    match sequence % 4 {
        0 => vec![In::Own(ports(10)), In::Shared(vec![count(20), would(30)])],
        1 => vec![In::Shared(vec![would(5), ports(7)]), In::Own(count(40))],
        // Goes on after PASS, and after another verdict that never comes.
        2 => vec![In::Own(ports(10).on(&[Action::Pass, Action::Tx])), In::Own(count(12))],
        _ => vec![In::Shared(vec![ports(20), count(21), would(22)])],
    }
}

/// Somebody else's program at priority 15; its id.
fn foreign(stage: &Stage) -> u32 {
    let object = path("verdict");
    well(&stage.xdp_loader(&["load", "-P", "15", "-n", "v_opaque", "v1", &object]));
    stage.chain().components[0].id
}

fn row(priority: u32, name: &str, actions: &str) -> Row {
    (priority, name.into(), actions.into())
}

fn ids(stage: &Stage) -> Vec<u32> {
    stage.chain().components.iter().map(|component| component.id).collect()
}

#[test]
fn a_chain_comes_counts_is_swapped_and_goes_beside_a_program_of_others() {
    let Some(stage) = Stage::set("chains::life") else { return };
    let theirs = foreign(&stage);
    let shelf = Shelf::open(&stage);
    let first = shelf.build(1, &shape(4)).expect("built");
    assert_eq!(ids(&stage), [theirs], "building is invisible");
    assert!(shelf.look().live().is_none());
    shelf.dispatch(&first, NATIVE).expect("attached");
    let rows = [
        row(10, "v_port", "XDP_PASS"),
        row(15, "v_opaque", "XDP_PASS"),
        row(20, "v_pass", "XDP_PASS"),
    ];
    assert_eq!(stage.theirs(), rows);
    assert_eq!(stage.ours(), rows);
    assert_eq!(stage.chain().components[1].id, theirs);
    let look = shelf.look();
    let (sequence, live) = look.live().expect("live");
    assert_eq!((sequence, live.slots.len(), live.program_id), (1, 2, None));
    assert!(look.link.as_ref().is_some_and(ObservedLink::is_dispatcher));

    assert_eq!(received(&stage.pair, &[5000, 5001], 5999, 4), [4, 0]);
    let pass = |count| Verdicts { pass: count, ..Verdicts::default() };
    let drop = |count| Verdicts { drop: count, ..Verdicts::default() };
    assert_eq!(shelf.counted("ports").0.verdicts, Verdicts { drop: 4, ..pass(5) });
    assert_eq!(shelf.counted("ports").0.finals, drop(4));
    assert_eq!(shelf.counted("count").0.verdicts, pass(5));
    assert_eq!(shelf.counted("would").0.verdicts, drop(5), "counted, and not acted upon");
    assert_eq!(shelf.counted("would").0.finals, Verdicts::default());
    assert_eq!(shelf.counted("would").1, 5);

    let refused = shelf.store.retire_chain(&first).expect_err("the live chain does not retire");
    assert!(refused.to_string().contains("runs"), "{refused}");
    assert!(shelf.store.release_hook(&hook()).is_err(), "nor is its hook released");
    let second = shelf.build(2, &shape(1)).expect("built");
    shelf.dispatch(&second, None).expect("swapped");
    assert_eq!(stage.chain().components[1].id, theirs);
    assert_eq!(received(&stage.pair, &[5000, 5001], 5999, 4), [4, 0]);
    for _ in 0..2 {
        shelf.store.retire_chain(&first).expect("retired, and folded once");
    }
    assert_eq!(shelf.counted("ports").0.verdicts, Verdicts { drop: 8, ..pass(10) });
    // The second chain observes before it drops.
    assert_eq!(shelf.counted("would").0.verdicts, drop(5 + 9));
    assert_eq!(shelf.counted("count"), (shelf.counted("count").0, 10));

    shelf.withdraw().expect("taken out");
    assert_eq!(ids(&stage), [theirs]);
    assert_eq!(received(&stage.pair, &[5001], 5999, 4), [4]);
    shelf.withdraw().expect("nothing is left of ours");
    shelf.store.retire_chain(&second).expect("retired");
    shelf.store.release_hook(&hook()).expect("released");
    assert!(!Shelf::root(&stage).join("hooks").exists());
    clear(&stage);
}

#[test]
fn packets_never_miss_a_program_while_chains_are_swapped() {
    let Some(stage) = Stage::set("chains::swaps") else { return };
    let theirs = foreign(&stage);
    let shelf = Shelf::open(&stage);
    let first = shelf.build(1, &shape(1)).expect("built");
    shelf.dispatch(&first, NATIVE).expect("attached");
    let watch = Watch::start(&stage.pair, 5001, 5000);
    let mut before = first;
    for sequence in 2..14 {
        watch.more(3);
        let next = shelf.build(sequence, &shape(sequence)).expect("built");
        shelf.dispatch(&next, None).expect("swapped");
        shelf.store.retire_chain(&before).expect("retired");
        before = next;
    }
    let pairs = watch.stop();
    // Every packet was counted, in whichever chain.
    let (ports, _) = shelf.counted("ports");
    let wanted = Verdicts { drop: pairs, pass: pairs, ..Verdicts::default() };
    assert_eq!((ports.verdicts, ports.finals.drop), (wanted, pairs));
    assert_eq!(shelf.counted("count"), (shelf.counted("count").0, pairs));
    assert_eq!(shelf.counted("count").0.verdicts.pass, pairs);
    assert!(ids(&stage).contains(&theirs));
    assert_eq!(stage.chain().components.len(), stage.theirs().len());
}

#[test]
fn a_daemon_that_starts_adopts_what_runs_in_another_namespace() {
    let Some(stage) = Stage::set("chains::adopted") else { return };
    let shelf = Shelf::open(&stage);
    let first = shelf.build(1, &shape(0)).expect("built");
    shelf.dispatch(&first, NATIVE).expect("attached");
    let second = shelf.build(2, &shape(1)).expect("built");
    assert_eq!(received(&stage.pair, &[5000], 5999, 4), [4]);
    drop(shelf);
    let shelf = Shelf::open(&stage);
    // Nobody has looked yet: what runs is asked of the kernel.
    assert_eq!(shelf.counted("ports").0.verdicts.pass, 5);
    assert!(shelf.store.retire_chain(&first).is_err(), "it runs");
    let look = shelf.look();
    assert_eq!(look.live().map(|(sequence, _)| sequence), Some(1));
    let link = look.link.expect("a dispatcher");
    assert_eq!(link.interface_index, stage.index());
    assert_eq!(link.program_id, stage.chain().program.id);
    assert_eq!(shelf.look().held, link.slots.expect("slots"));
    // A chain that never ran is garbage and counts nothing.
    shelf.store.retire_chain(&second).expect("retired");
    assert_eq!(shelf.counted("ports").0.verdicts.pass, 5);
    // Pins that somebody removed do not make our slots somebody else's.
    std::fs::remove_dir_all(Shelf::root(&stage).join("hooks/v1/xdp/chains/1/slots"))
        .expect("removed");
    assert_eq!(shelf.look().held.len(), 2);
    let third = shelf.build(3, &shape(3)).expect("built");
    shelf.dispatch(&third, None).expect("swapped");
    assert_eq!(stage.ours().len(), 1, "the slots before are gone");
}

#[test]
fn programs_of_others_get_what_is_decided_and_those_that_left_are_left_out() {
    let Some(stage) = Stage::set("chains::others") else { return };
    let theirs = foreign(&stage);
    let shelf = Shelf::open(&stage);
    let chain = shelf.build(1, &shape(0)).expect("built");
    let change = |id| OtherChange {
        id,
        name: "v_opaque".into(),
        priority: 99,
        chain_call_actions: ActionSet::EMPTY,
    };
    let place = shelf.place(vec![change(theirs), change(u32::MAX)]);
    let right = &stage.pair.right;
    right.run(|| shelf.store.dispatch(&chain, &place, NATIVE)).expect("attached");
    let last = stage.chain().components.pop().expect("three");
    assert_eq!((last.id, last.priority, last.actions), (theirs, 99, Actions::default()));
    // Taking ours out decides nothing about theirs.
    let place = shelf.place(vec![OtherChange { priority: 7, ..change(theirs) }]);
    right.run(|| shelf.store.withdraw(&hook(), &place, false)).expect("taken out");
    assert_eq!(stage.ours(), [row(99, "v_opaque", "")]);
    // A swap is of something that runs: in an empty place it would choose the mode by itself.
    clear(&stage);
    let refused = shelf.dispatch(&chain, None).expect_err("nothing runs");
    assert!(refused.to_string().contains("v1") && refused.to_string().contains("planned again"));
    shelf.dispatch(&chain, Some(AttachMode::Skb)).expect("attached");
    let refused = shelf.dispatch(&chain, NATIVE).expect_err("it runs in another mode");
    assert!(refused.to_string().starts_with("interface v1: "), "{refused}");
    assert_eq!(stage.chain().program.mode, AttachMode::Skb);
}

#[test]
fn a_slot_that_only_a_dispatcher_understands_is_known_by_its_types() {
    let Some(stage) = Stage::set("chains::company") else { return };
    let shelf = Shelf::open(&stage);
    // Goes on after DROP; PASS is final.
    let drop = Part::new("drop", "verdict", "v_drop", 20).on(&[Action::Drop]);
    let chain = shelf.build(1, &[In::Shared(vec![drop])]).expect("built");
    shelf.dispatch(&chain, NATIVE).expect("attached");
    let pass = row(i32::MAX.cast_unsigned(), "pointsman_pass", "XDP_PASS");
    assert_eq!(stage.ours(), [row(20, "v_drop", ""), pass.clone()]);
    assert_eq!(stage.verdict(&any_packet()), Action::Pass.code());
    // Others come and go by ours and by theirs, and the pass program stays.
    let other = program("verdict", "v_pass");
    stage.add(&[(&other, 5, on(&[Action::Pass]))]).expect("added");
    let id = other.id().expect("loaded");
    let options = Options { lone: pointsman_bpf::dispatcher::Lone::AsLibxdp, ..Options::default() };
    stage.here(|d, index| d.remove(index, &options, &[id])).expect("removed");
    assert_eq!(stage.ours(), [row(20, "v_drop", ""), pass]);
    assert_eq!(stage.verdict(&any_packet()), Action::Pass.code());
    shelf.withdraw().expect("taken out");
    assert!(stage.theirs().is_empty());
    // An emptied chain passes everything, and is a chain of its own.
    let empty = shelf.build(2, &[In::Shared(Vec::new())]).expect("built");
    shelf.dispatch(&empty, NATIVE).expect("attached");
    assert_eq!(stage.theirs(), [row(50, "pointsman_empty", "XDP_PASS")]);
    assert_eq!(received(&stage.pair, &[5001], 5999, 4), [4]);
    assert_eq!(shelf.counted("drop"), (Default::default(), 5));
}

#[test]
fn what_does_not_fit_or_was_not_finished_changes_nothing() {
    let Some(stage) = Stage::set("chains::refused") else { return };
    let shelf = Shelf::open(&stage);
    let nine: Vec<_> = (0..9).map(|_| program("verdict", "v_pass")).collect();
    let nine: Vec<_> = nine.iter().map(|program| (program, 50, on(&[Action::Pass]))).collect();
    stage.add(&nine).expect("nine");
    let before = ids(&stage);
    let chain = shelf.build(1, &shape(0)).expect("built");
    let refused = shelf.dispatch(&chain, NATIVE).expect_err("eleven").to_string();
    assert!(refused.starts_with("interface v1: 11 programs") && refused.contains("share a slot"));
    assert_eq!(ids(&stage), before);
    clear(&stage);
    // As a kill leaves it: the record comes last.
    let pins = Shelf::root(&stage).join("hooks/v1/xdp/chains/1");
    std::fs::remove_file(pins.join("record")).expect("a pin");
    let look = shelf.look();
    assert!(look.chains[&1].slots.is_empty() && look.chains[&1].record.is_none());
    assert!(shelf.dispatch(&chain, NATIVE).is_err(), "it was not built");
    shelf.store.retire_chain(&chain).expect("retired");
    // Or one program of a slot is missing.
    let chain = shelf.build(1, &shape(0)).expect("built");
    std::fs::remove_file(pins.join("slots/1/program")).expect("a pin");
    assert!(shelf.look().chains[&1].slots.is_empty());
    let refused = shelf.dispatch(&chain, NATIVE).expect_err("not whole").to_string();
    assert!(refused.contains("slots/1/program"), "{refused}");
    shelf.store.retire_chain(&chain).expect("retired");
    // Slots of one priority and name would run in an order that nobody planned.
    let twin = |name| Part::new(name, "verdict", "v_pass", 9);
    let own = |name| In::Own(twin(name));
    let shared = |name| In::Shared(vec![twin(name)]);
    let both = [[own("a"), shared("b")], [shared("a"), own("b")]];
    let built = both.map(|slots| {
        let built = shelf.build(1, &slots);
        built.map(|chain| shelf.store.retire_chain(&chain).expect("retired"))
    });
    let refused: Vec<_> = built.into_iter().filter_map(Result::err).collect();
    assert!(
        matches!(&refused[..], [error] if error.to_string().contains("priorities")),
        "{refused:?}"
    );
    assert_eq!(shelf.look().chains.len(), 0);
}

#[test]
fn chains_keep_their_counts_when_their_interface_is_renamed() {
    let Some(stage) = Stage::set("chains::renamed") else { return };
    let shelf = Shelf::open(&stage);
    let first = shelf.build(1, &shape(0)).expect("built");
    shelf.dispatch(&first, NATIVE).expect("attached");
    assert_eq!(received(&stage.pair, &[5000], 5999, 4), [4]);
    let renamed = HookId::xdp(InterfaceName::new("v9").expect("a name"));
    shelf.store.rename_hook(&hook(), &renamed).expect("renamed");
    let counts = |store: &Store| {
        let (sequence, record, exits) = store.counts(&renamed).expect("counts").live.expect("live");
        (sequence, record.spec.passed_end(&exits))
    };
    assert_eq!(counts(&shelf.store), (1, 5));
    let first = ChainId { hook: renamed.clone(), sequence: 1 };
    assert!(shelf.store.retire_chain(&first).is_err(), "it runs");
    drop(shelf);
    let shelf = Shelf::open(&stage);
    assert_eq!(counts(&shelf.store), (1, 5));
    shelf.store.rename_hook(&renamed, &hook()).expect("renamed");
    shelf.withdraw().expect("taken out");
    assert!(stage.theirs().is_empty());
}

#[test]
fn a_link_gives_way_to_slots_and_slots_to_a_link() {
    let Some(stage) = Stage::set("chains::links") else { return };
    let shelf = Shelf::open(&stage);
    let right = &stage.pair.right;
    let first = shelf.build_fused(1, &[ports(10)]).expect("built");
    let index = stage.index();
    right.run(|| shelf.store.attach(&first, index, AttachMode::Native)).expect("attached");
    let second = shelf.build(2, &shape(0)).expect("built");
    let refused = shelf.dispatch(&second, NATIVE).expect_err("the link is in the way").to_string();
    assert!(refused.starts_with("interface v1: "), "{refused}");
    assert_eq!(received(&stage.pair, &[5001], 5999, 4), [0], "and what runs, runs on");
    // A link whose interface is gone is in nobody's way, and ends.
    right.ip(&["link", "delete", "v1"]).expect("deleted");
    stage.pair.connect().expect("a new pair");
    shelf.dispatch(&second, NATIVE).expect("attached");
    assert!(!Shelf::root(&stage).join("hooks/v1/xdp/link").exists());
    assert_eq!(received(&stage.pair, &[5001], 5999, 4), [0]);
    let look = shelf.look();
    assert_eq!(look.live().map(|(sequence, _)| sequence), Some(2));
    shelf.store.retire_chain(&first).expect("retired");
    // And back: the slots are taken out first.
    let third = shelf.build_fused(3, &[ports(10)]).expect("built");
    shelf.withdraw().expect("taken out");
    right.run(|| shelf.store.attach(&third, stage.index(), AttachMode::Native)).expect("attached");
    shelf.store.retire_chain(&second).expect("retired");
    assert_eq!(shelf.look().live().map(|(sequence, _)| sequence), Some(3));
    assert_eq!(shelf.counted("ports").0.verdicts.drop, 8, "both chains are in the totals");
    assert_eq!(received(&stage.pair, &[5001], 5999, 4), [0]);
    assert_eq!(shelf.counted("ports").0.verdicts.drop, 12);
    shelf.store.detach(&hook()).expect("detached");
    let left = stage.bpffs.list().expect("a list");
    assert!(!left.iter().any(|path| path.starts_with(Path::new("xdp/dispatch"))), "{left:?}");
}
