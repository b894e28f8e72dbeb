//! A dispatcher that runs and whose pins somebody removed, and pins that nobody can read.

use pointsman_bpf::dispatcher::{Attached, Dispatcher, Legacy};
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Stage, on, path, program, well};
use pointsman_netns::members::any_packet;
use pointsman_netns::shelf::{In, Part, Shelf};
use std::fs;
use std::path::PathBuf;

const NATIVE: Option<AttachMode> = Some(AttachMode::Native);

/// The pins of the dispatcher that runs.
fn directory(stage: &Stage, id: u32) -> PathBuf {
    stage.bpffs.path().join(format!("xdp/dispatch-{}-{id}", stage.index()))
}

#[test]
fn a_slot_whose_link_is_gone_does_not_run_and_comes_back() {
    let Some(stage) = Stage::set("lost::links") else { return };
    let shelf = Shelf::open(&stage);
    let filter = || vec![In::Own(Part::new("drop", "verdict", "v_drop", 20))];
    let chain = shelf.build(1, &filter()).expect("built");
    shelf.dispatch(&chain, NATIVE).expect("attached");
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    assert!(shelf.look().link.is_some());
    let id = stage.chain().program.id;
    fs::remove_file(directory(&stage, id).join("prog0-link")).expect("a link");
    // The program is pinned, and runs no more.
    assert_eq!(stage.verdict(&any_packet()), Action::Pass.code());
    assert!(!stage.dispatcher.is_pinned(stage.index(), id, 1));
    assert!(shelf.look().link.is_none(), "it is not taken for running");
    let told = stage.here(|d, index| d.observe(index, id, AttachMode::Native));
    let told = told.expect("a dispatcher");
    assert_eq!((told.fixed, told.components.len()), (None, 0), "it can be replaced");
    let next = shelf.build(2, &filter()).expect("built");
    shelf.dispatch(&next, NATIVE).expect("put back");
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    assert!(!directory(&stage, id).exists(), "nothing of the one before is left");
    assert!(shelf.look().link.is_some());
}

#[test]
fn an_emptied_dispatcher_is_taken_off_and_one_that_runs_is_not() {
    let Some(stage) = Stage::set("lost::emptied") else { return };
    let take = || stage.here(Dispatcher::remove_emptied).expect("looked at");
    assert!(!take(), "there is none");
    let (one, two) = (program("verdict", "v_drop"), program("verdict", "v_pass"));
    let both = [(&one, 20, on(&[Action::Pass])), (&two, 30, on(&[Action::Pass]))];
    stage.add(&both).expect("added");
    assert!(!take(), "it runs");
    let id = stage.chain().program.id;
    let pins = directory(&stage, id);
    fs::remove_file(pins.join("prog1-link")).expect("a link");
    assert!(!take(), "the first runs on");
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    let attached = stage.here(Dispatcher::read).expect("read");
    let Attached::Legacy { why: Legacy::Pins { partly: true, .. }, .. } = attached else {
        panic!("{attached:?}")
    };
    let told = stage.here(|d, index| d.observe(index, id, AttachMode::Native));
    let why = told.and_then(|told| told.fixed).expect("nobody can change it");
    assert!(why.contains("prog1-link") && why.contains("unload --all"), "{why}");
    fs::remove_file(pins.join("prog0-link")).expect("a link");
    assert!(take(), "nothing runs in it");
    assert!(!pins.exists());
    well(&stage.xdp_loader(&["load", "-n", "v_pass", "v1", &path("verdict")]));
    assert!(!take(), "theirs runs");
}

#[test]
fn one_pin_of_a_stranger_that_cannot_be_read_hides_nothing() {
    let Some(stage) = Stage::set("lost::unreadable") else { return };
    let shelf = Shelf::open(&stage);
    let own = In::Own(Part::new("drop", "verdict", "v_drop", 20));
    let chain = shelf.build(1, &[own]).expect("built");
    shelf.dispatch(&chain, NATIVE).expect("attached");
    // Maps where a program and its link should be, in what looks like pins of an interface that is gone.
    let stale = stage.bpffs.path().join("xdp/dispatch-4242-4242");
    fs::create_dir(&stale).expect("a directory");
    let map = stage.chain().components[0].maps[0];
    for name in ["prog0-prog", "prog0-link"] {
        let mut opened = libbpf_rs::MapHandle::from_map_id(map).expect("a map");
        opened.pin(stale.join(name)).expect("pinned");
    }
    let slots = shelf.look().link.and_then(|link| link.slots);
    assert_eq!(slots.map(|slots| slots.len()), Some(1));
}
