//! What an upgrade of a program keeps, loses, and says of it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, chain, host, interface, map_name, program};
use pointsman_model::document::OnUpgrade;
use pointsman_model::facts::MapFacts;
use pointsman_model::plan::{Plan, PrepareProgram, Step};
use pointsman_plan::simulator::Simulator;
use pointsman_plan::{Host, drain};
use serde_json::{Value, json};

/// A program with these maps in `eth0`'s chain, and something written into them.
fn running(maps: &[MapFacts]) -> (Bench, Simulator) {
    let (mut bench, mut host) = (Bench::with(&["p"]), host());
    bench.program("p", 1).maps = maps.to_vec();
    bench.apply(1, &wanted(), &mut host);
    host.write_maps(&program("p"), 7);
    (bench, host)
}

fn wanted() -> Value {
    chain("eth0", &["10 p"])
}

fn prepared(plan: &Plan) -> &PrepareProgram {
    let mut steps = plan.steps.iter().filter_map(|step| match step {
        Step::PrepareProgram(step) => Some(step),
        _ => None,
    });
    steps.next().unwrap()
}

fn notes(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|note| note.message.as_str()).collect()
}

fn ids(bench: &Bench, host: &Simulator, maps: &[&str]) -> Vec<u32> {
    maps.iter().map(|map| host.map_id(&bench.load("p"), &map_name(map)).unwrap()).collect()
}

#[test]
fn there_and_back_again_keeps_the_same_maps_with_their_contents() {
    let maps = ["seen", "limits"].map(common::map);
    let (mut bench, mut host) = running(&maps);
    let first = ids(&bench, &host, &["seen", "limits"]);
    for (generation, version) in [(2, 2), (3, 1)] {
        bench.program("p", version).maps = maps.to_vec();
        let plan = bench.apply(generation, &wanted(), &mut host);
        assert_eq!(notes(&plan), ["program p is upgraded; no map contents are lost"]);
        assert_eq!(ids(&bench, &host, &["seen", "limits"]), first);
        let contents = host.contents(&bench.load("p"), &map_name("seen")).unwrap();
        assert_eq!(contents.written, Some(7));
        assert_eq!(host.observe().programs.len(), 1, "the old load is released");
    }
}

#[test]
fn variables_are_kept_in_the_same_object_where_no_global_of_theirs_changed() {
    let maps = [".bss", ".rodata"].map(common::map);
    let (mut bench, mut host) = running(&maps);
    let first = ids(&bench, &host, &[".bss"]);
    let facts = bench.program("p", 1);
    facts.maps = maps.into();
    let facts = facts.clone();
    bench.global("p", 1, facts.clone());
    let constant = bench.apply(2, &wanted(), &mut host);
    assert_eq!(notes(&constant), ["program p is upgraded; no map contents are lost"]);
    assert_eq!(ids(&bench, &host, &[".bss"]), first);
    bench.global("p", 2, facts);
    let variable = bench.apply(3, &wanted(), &mut host);
    let why = "a global variable in it has another value now";
    assert_eq!(prepared(&variable).loses[&map_name(".bss")], why);
    assert_ne!(ids(&bench, &host, &[".bss"]), first);
}

#[test]
fn the_document_can_want_a_map_to_start_anew() {
    let maps = ["seen", "limits"].map(common::map);
    let (mut bench, mut host) = running(&maps);
    let first = ids(&bench, &host, &["seen", "limits"]);
    bench.program("p", 2).maps = maps.to_vec();
    bench.resolved("p").on_upgrade.insert(map_name("seen"), OnUpgrade::Fresh);
    bench.resolved("p").on_upgrade.insert(map_name("limits"), OnUpgrade::Keep);
    let plan = bench.apply(2, &wanted(), &mut host);
    assert_eq!(notes(&plan), ["map seen of program p starts anew, as the document says"]);
    let second = ids(&bench, &host, &["seen", "limits"]);
    assert_ne!(second[0], first[0]);
    assert_eq!(second[1], first[1]);
    // The word alone is no upgrade.
    bench.resolved("p").on_upgrade.clear();
    assert_eq!(bench.apply(3, &wanted(), &mut host).steps, []);
}

#[test]
fn a_kept_map_is_written_only_if_it_shall_hold_something_else() {
    let maps = [common::map("seen")];
    let (mut bench, mut host) = running(&maps);
    bench.entries("p", "seen", &[1]);
    bench.apply(2, &wanted(), &mut host);
    host.write_maps(&program("p"), 8);
    bench.program("p", 2).maps = maps.to_vec();
    bench.entries("p", "seen", &[1]);
    let fills = |plan: &Plan| plan.steps.iter().any(|s| matches!(s, Step::SetMapEntries(_)));
    assert!(!fills(&bench.apply(3, &wanted(), &mut host)));
    let contents = host.contents(&bench.load("p"), &map_name("seen")).unwrap();
    assert_eq!(contents.written, Some(8));
    bench.program("p", 3).maps = maps.to_vec();
    bench.entries("p", "seen", &[1, 2]);
    assert!(fills(&bench.apply(4, &wanted(), &mut host)));
    let contents = host.contents(&bench.load("p"), &map_name("seen")).unwrap();
    assert_eq!(contents.written, None);
}

#[test]
fn entries_of_a_shared_map_are_written_again_on_the_way_back() {
    let maps = [common::map("seen")];
    let (mut bench, mut host) = (Bench::with(&["p"]), host());
    host.add_interface(&interface("eth1"), Some(true));
    let both = |eth1: &str| {
        json!({"eth0": {"xdp": {"chain": [{"program": "p"}]}},
            "eth1": {"xdp": {"mode": eth1, "chain": [{"program": "p"}]}}})
    };
    bench.program("p", 1).maps = maps.to_vec();
    bench.entries("p", "seen", &[1]);
    bench.apply(1, &both("native"), &mut host);
    // eth1 keeps the old load, because its mode cannot be changed without a gap.
    bench.program("p", 2).maps = maps.to_vec();
    bench.entries("p", "seen", &[2]);
    bench.apply(2, &both("skb"), &mut host);
    assert_eq!(host.observe().programs.len(), 2);
    bench.program("p", 1).maps = maps.to_vec();
    bench.entries("p", "seen", &[1]);
    bench.apply(3, &both("native"), &mut host);
    let (load, seen) = (bench.load("p"), map_name("seen"));
    let told = host.observe().programs[&load].entries[&seen];
    assert_eq!(host.contents(&load, &seen).unwrap().told, Some(told));
}

#[test]
fn the_load_of_the_newest_live_chain_is_the_one_before() {
    let maps = [common::map("seen")];
    let (mut bench, mut host) = running(&maps);
    host.add_interface(&interface("eth1"), Some(true));
    let first = ids(&bench, &host, &["seen"]);
    // A second load with a map of its own on eth1; eth0 is refused and stays.
    bench.program("p", 2).maps = vec![common::map("seen")];
    bench.resolved("p").on_upgrade.insert(map_name("seen"), OnUpgrade::Fresh);
    let chain_of = |mode: &str| json!({"mode": mode, "chain": [{"program": "p"}]});
    let refused = json!({"eth0": {"xdp": chain_of("skb")}, "eth1": {"xdp": chain_of("native")}});
    bench.apply(2, &refused, &mut host);
    let second = ids(&bench, &host, &["seen"]);
    assert_ne!(first, second);
    bench.program("p", 3).maps = maps.to_vec();
    let all = json!({"eth0": {"xdp": chain_of("native")}, "eth1": {"xdp": chain_of("native")}});
    bench.apply(3, &all, &mut host);
    assert_eq!(ids(&bench, &host, &["seen"]), second);
}

#[test]
fn what_cannot_be_known_is_lost_and_said() {
    let maps = ["seen", ".rodata"].map(common::map);
    let upgrade = |bench: &mut Bench, host: &mut Simulator| {
        bench.program("p", 2).maps = maps.to_vec();
        let plan = bench.apply(2, &wanted(), host);
        assert_eq!(plan.notes.len(), 1);
        prepared(&plan).loses.iter().map(|(map, why)| format!("{map}: {why}")).collect::<Vec<_>>()
    };
    // An earlier version prepared it: no definitions are told.
    let (mut bench, mut old) = (Bench::with(&["p"]), host());
    bench.program("p", 1).maps = maps.to_vec();
    let plan = bench.plan(&bench.document(1, &wanted()), &old);
    for step in &plan.steps {
        old.execute(step).unwrap();
    }
    let lost = upgrade(&mut bench, &mut old);
    assert_eq!(lost, ["seen: an earlier version prepared it and recorded no definitions"]);

    let (mut bench, mut host) = running(&maps);
    host.lose_map(&program("p"), &map_name("seen"));
    let lost = upgrade(&mut bench, &mut host);
    assert_eq!(lost, ["seen: it is not what is pinned under its name"]);

    let (mut bench, mut host) = running(&maps);
    host.lose_program(&program("p"));
    let lost = upgrade(&mut bench, &mut host);
    assert_eq!(lost, ["seen: the pins of the program that runs are gone"]);
}

#[test]
fn what_a_refused_hook_will_take_over_stays_and_nothing_more() {
    let maps = [common::map("seen")];
    let (mut bench, mut host) = running(&maps);
    let first = ids(&bench, &host, &["seen"]);
    // The new version is wanted where it cannot be yet; nobody wants the old one.
    bench.program("p", 2).maps = maps.to_vec();
    let missing = chain("eth1", &["10 p"]);
    bench.apply(2, &missing, &mut host);
    assert_eq!(host.observe().programs.len(), 1);
    host.add_interface(&interface("eth1"), Some(true));
    bench.apply(3, &missing, &mut host);
    assert_eq!(ids(&bench, &host, &["seen"]), first);
    // Where another hook runs it, old loads go.
    let mut both = missing;
    both["eth2"] = both["eth1"].clone();
    for version in 3..6 {
        bench.program("p", version).maps = maps.to_vec();
        bench.apply(u64::from(version) + 1, &both, &mut host);
        assert_eq!(host.observe().programs.len(), 1);
    }
}

#[test]
fn maps_that_the_new_object_lacks_and_new_ones_are_told_apart() {
    let (mut bench, mut host) = running(&["seen", ".rodata"].map(common::map));
    bench.program("p", 2).maps = vec![common::map("other")];
    let plan = bench.apply(2, &wanted(), &mut host);
    let lost = &prepared(&plan).loses;
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[&map_name("seen")], "the new object has no such map");
}

#[test]
fn a_kept_timer_is_said_to_call_the_old_program() {
    let mut clocks = common::map("clocks");
    clocks.definition.callbacks = true;
    let (mut bench, mut host) = running(&[clocks.clone()]);
    bench.program("p", 2).maps = vec![clocks];
    let plan = bench.apply(2, &wanted(), &mut host);
    assert!(notes(&plan)[1].starts_with("map clocks of program p is kept with its timers"));
}

#[test]
fn a_first_load_and_one_after_a_drain_lose_nothing() {
    let maps = [common::map("seen")];
    let (mut bench, mut host) = running(&maps);
    common::run(&drain(&host.observe()), &mut host);
    bench.program("p", 2).maps = maps.to_vec();
    let plan = bench.apply(2, &wanted(), &mut host);
    assert!(notes(&plan).is_empty() && prepared(&plan).keeps.is_empty(), "{plan:?}");
    assert_eq!(host.violations(), [""; 0]);
}
