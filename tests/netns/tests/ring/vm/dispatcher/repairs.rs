//! What both sides do to each other's chains, checked by packets.

use pointsman_bpf::Slot;
use pointsman_bpf::dispatcher::{
    Actions, Component, DispatcherError, Mode, Options, Pick, Program, Wanted,
};
use pointsman_model::Action;
use pointsman_model::document::Builtin;
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Stage, on, path, program, rows, text, well};
use pointsman_netns::members::{any_packet, member, rounding, slot};
use pointsman_netns::traffic::received;
use serde_json::json;

/// The kernel's ids of the programs, in the order they run.
fn ids(stage: &Stage) -> Vec<u32> {
    stage.chain().components.iter().map(|component| component.id).collect()
}

#[test]
fn what_theirs_removes_of_ours_comes_back_in_its_place() {
    let Some(stage) = Stage::set("repairs::removed") else { return };
    let (first, last) = (program("verdict", "v_opaque"), program("verdict", "v_drop"));
    let ours = [(&first, 10, on(&[Action::Pass])), (&last, 30, on(&[Action::Pass]))];
    let put_back = || {
        let missing = |running: &[Component]| {
            let kept = running.iter().map(Wanted::kept);
            let is_there = |p: &Program| running.iter().any(|c| Some(c.id) == p.id());
            let new = ours.iter().filter(|(program, ..)| !is_there(program));
            Ok(kept.chain(new.map(|&(p, at, on)| Wanted::new(p, at, on))).collect())
        };
        stage.here(|d, index| d.change(index, &Options::default(), missing)).expect("repaired")
    };
    stage.add(&ours).expect("added");
    well(&stage.xdp_loader(&["load", "-P", "20", "-n", "v_pass", "v1", &path("verdict")]));
    let before = (ids(&stage), stage.theirs());
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    for gone in [&[2][..], &[0], &[0, 2]] {
        for &at in gone {
            well(&stage.xdp_loader(&["unload", "v1", "--id", &before.0[at].to_string()]));
        }
        let drops = !gone.contains(&2);
        let verdict = if drops { Action::Drop } else { Action::Pass };
        assert_eq!(stage.verdict(&any_packet()), verdict.code(), "without {gone:?}");
        // Removed and put back, a program is the same: its id, its maps, its place.
        put_back();
        assert_eq!((ids(&stage), stage.theirs()), before, "without {gone:?}");
        assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    }
    // Whoever says "all" removes his own as well.
    well(&stage.xdp_loader(&["unload", "v1", "--all"]));
    put_back();
    assert_eq!(ids(&stage), [before.0[0], before.0[2]]);
    // A chain that needs no repair is not touched by one that finds nothing missing.
    assert_eq!(put_back().programs, ids(&stage));
}

/// A port filter of ours as MTL has it: "drop" for a listed port, on which the chain goes on.
fn port_filter(stage: &Stage, listed: u32) -> Program {
    let globals = [("listed".to_owned(), json!(1)), ("unlisted".to_owned(), json!(2))];
    let bytes = pointsman_bpf::builtin(Builtin::UdpPortFilter);
    let filter = Program::open(bytes, Pick::Only, &globals.into(), None).expect("the filter");
    stage.add(&[(&filter, 19, on(&[Action::Drop]))]).expect("added");
    let chain = stage.chain();
    let filter_row = chain.components.iter().find(|c| c.name == "mtl_dp_filter");
    let maps = &filter_row.expect("the filter").maps;
    let maps = maps.iter().map(|&id| libbpf_rs::MapHandle::from_map_id(id).expect("a map"));
    let ports = maps.into_iter().find(|map| libbpf_rs::MapCore::name(map) == "ports");
    let ports = ports.expect("the ports");
    let flags = libbpf_rs::MapFlags::ANY;
    libbpf_rs::MapCore::update(&ports, &listed.to_ne_bytes(), &[1], flags).expect("listed");
    filter
}

#[test]
fn beside_our_lone_port_filter_packets_go_their_way_whoever_comes() {
    const COUNT: usize = 4;
    let Some(stage) = Stage::set("repairs::ports") else { return };
    let filter = port_filter(&stage, 20_000);
    // What comes of datagrams to the listed port and to another one.
    let through = || received(&stage.pair, &[20_000, 5_000], 5_999, COUNT);
    let load = |priority: &str, entry: &str, actions: &str| {
        let object = path("verdict");
        let all = ["load", "-P", priority, "-n", entry, "-A", actions, "v1", &object];
        well(&stage.xdp_loader(&all));
    };
    let unload = |at: u32| {
        let chain = stage.chain();
        let found = chain.components.iter().find(|c| c.priority == at).expect("theirs");
        well(&stage.xdp_loader(&["unload", "v1", "--id", &found.id.to_string()]));
    };
    assert_eq!(through(), [COUNT, COUNT], "alone it only says who goes on");
    load("30", "v_pass", "XDP_PASS");
    assert_eq!(through(), [COUNT, COUNT], "one of theirs passes what goes on");
    load("25", "v_drop", "XDP_PASS");
    assert_eq!(through(), [0, COUNT], "one of theirs drops what goes on");
    unload(25);
    unload(30);
    assert_eq!(through(), [COUNT, COUNT], "theirs have gone");
    load("5", "v_opaque", "XDP_PASS");
    assert_eq!(through(), [COUNT, COUNT], "theirs stands before it");
    unload(5);
    // Ours rebuilds what theirs left.
    let id = filter.id().expect("loaded");
    let options = Options::default();
    stage.here(|d, index| d.reprioritise(index, &options, id, Some(7), None)).expect("moved");
    assert_eq!(through(), [COUNT, COUNT], "moved");
    load("8", "v_drop", "XDP_PASS");
    assert_eq!(through(), [0, COUNT], "theirs is its neighbour");
}

#[test]
fn a_shared_slot_is_upgraded_beside_theirs_and_survives_their_rebuilds() {
    let Some(stage) = Stage::set("repairs::shared") else { return };
    let (opaque, drop) = (member("verdict", "v_opaque"), member("verdict", "v_drop"));
    let fused = |slots: &[Slot<'_>]| Program::fuse(slots, rounding(), true).expect("fused");
    let first = fused(&[slot("one", &opaque), slot("two", &opaque)]);
    let actions: Actions = first.answer().expect("fused").into();
    stage.add(&[(&first, 20, actions)]).expect("added");
    for priority in ["10", "30"] {
        let load = ["load", "-P", priority, "-n", "v_pass", "v1", &path("verdict")];
        well(&stage.xdp_loader(&load));
    }
    assert_eq!(stage.verdict(&any_packet()), Action::Pass.code());
    let [before, old, behind] = ids(&stage)[..] else { panic!("{:?}", stage.ours()) };
    let second = fused(&[slot("one", &opaque), slot("two", &opaque), slot("three", &drop)]);
    let options = Options::default();
    let replaced = stage.here(|d, index| d.replace(index, &options, old, &second));
    let new = second.id().expect("loaded");
    assert_eq!(replaced.expect("replaced").programs, [before, new, behind]);
    assert_eq!(stage.theirs(), stage.ours());
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    well(&stage.xdp_loader(&["unload", "v1", "--id", &before.to_string()]));
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code(), "libxdp's dispatcher");
    assert_eq!(ids(&stage), [new, behind]);
    let counted = |program: &Program| program.counters().expect("counted").read().expect("read");
    // Each has counted what it saw, in whoever's dispatcher; ties go by entry: "three" is first.
    assert_eq!((counted(&first).end, counted(&second).end), (1, 0));
    assert_eq!(counted(&second).members[0].drop, 2);
}

#[test]
fn a_mode_that_does_not_fit_changes_nothing_for_either_side() {
    let Some(stage) = Stage::set("repairs::mode") else { return };
    let (pass, other) = (program("verdict", "v_pass"), program("verdict", "v_opaque"));
    let object = path("verdict");
    let load = |mode: &'static str| ["load", "-m", mode, "-n", "v_drop", "v1"];
    for (ours, name, theirs) in
        [(AttachMode::Skb, "skb", "native"), (AttachMode::Native, "native", "skb")]
    {
        let options = |mode| Options { mode: Mode::Exactly(mode), ..Options::default() };
        let add = |program: &Program, mode| {
            let wanted = [Wanted::new(program, 50, on(&[Action::Pass]))];
            stage.here(|d, index| d.add(index, &options(mode), &wanted))
        };
        add(&pass, ours).expect("the first");
        let before = stage.everything();
        let refused = stage.xdp_loader(&[&load(theirs)[..], &[&object]].concat());
        assert_eq!(refused.status.code(), Some(240), "{refused:?}");
        assert_eq!(stage.everything(), before, "theirs into {name}");
        let wrong = if ours == AttachMode::Skb { AttachMode::Native } else { AttachMode::Skb };
        let refused = add(&other, wrong).expect_err("another mode");
        assert!(matches!(refused, DispatcherError::Mode { .. }), "{refused}");
        assert_eq!(stage.everything(), before, "ours into {name}");
        let status = text(&stage.xdp_loader(&["status", "v1"]).stdout);
        assert!(rows(&status).len() == 1 && status.contains(name), "{status}");
        well(&stage.xdp_loader(&[&load(name)[..], &[&object]].concat()));
        assert_eq!(stage.verdict(&any_packet()), Action::Drop.code(), "{name}");
        stage.here(|d, index| d.remove_all(index, &Options::default())).expect("removed");
    }
}
