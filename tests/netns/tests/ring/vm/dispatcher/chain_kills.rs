//! `kill -9` of whoever builds, swaps and retires a chain of slots, between any two steps.

use super::kills::{killed_before, steps, traced};
use pointsman_model::Action;
use pointsman_model::chain::{ChainId, Sequence};
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Stage, path, well};
use pointsman_netns::packets::Frame;
use pointsman_netns::random::{Random, full};
use pointsman_netns::shelf::{In, Part, Shelf, hook};
use serde_json::json;
use std::path::Path;

/// Tells the child where the pins are and which chain comes next, and that it is the child.
const CHILD: &str = "POINTSMAN_TEST_CHAIN_KILLS";

/// Drops what goes to port 5001, and counts the rest once more.
fn slots(sequence: Sequence) -> Vec<In> {
    let globals = json!({"port": 5001});
    let ports = |at| Part::with("ports", "verdict", "v_port", at, globals.clone());
    let count = |at| Part::new("count", "verdict", "v_pass", at);
    match sequence % 2 {
        0 => vec![In::Own(ports(10)), In::Own(count(30))],
        _ => vec![In::Shared(vec![count(5), ports(10)])],
    }
}

fn chain(sequence: Sequence) -> ChainId {
    ChainId { hook: hook(), sequence }
}

/// Builds a chain, swaps to it, and retires the one before.
fn child(told: &str) {
    let (sequence, root) = told.split_once(' ').expect("a number and a path");
    let sequence: Sequence = sequence.parse().expect("a number");
    let index = pointsman_bpf::interface_index("v1").expect("an interface");
    let shelf = Shelf::inside(Path::new(root), index);
    let next = shelf.build(sequence, &slots(sequence)).expect("built");
    shelf.dispatch(&next, None).expect("swapped");
    shelf.store.retire_chain(&chain(sequence - 1)).expect("retired");
}

/// Datagrams to a port, sent through the dispatcher; the verdict of all of them.
fn send(stage: &Stage, port: u16, count: u64) -> u32 {
    let to = std::net::SocketAddr::from(([10, 77, 0, 2], port));
    let from = std::net::SocketAddr::from(([10, 77, 0, 1], 4000));
    let packet = Frame::udp(from, to).build();
    let mut verdicts: Vec<_> = (0..count).map(|_| stage.verdict(&packet)).collect();
    verdicts.dedup();
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    verdicts[0]
}

#[test]
fn whenever_it_is_killed_a_whole_chain_runs_and_counts_are_kept() {
    if let Ok(told) = std::env::var(CHILD) {
        return child(&told);
    }
    let Some(stage) = Stage::set("chain_kills") else { return };
    let object = path("verdict");
    well(&stage.xdp_loader(&["load", "-P", "20", "-n", "v_opaque", "v1", &object]));
    let theirs = stage.chain().components[0].id;
    let shelf = Shelf::open(&stage);
    let first = shelf.build(1, &slots(1)).expect("built");
    shelf.dispatch(&first, Some(AttachMode::Native)).expect("attached");
    drop(shelf);
    let this = std::env::current_exe().expect("this test");
    let name = "vm::dispatcher::chain_kills::\
                whenever_it_is_killed_a_whole_chain_runs_and_counts_are_kept";
    let run = |sequence: Sequence, options: &[&str]| {
        let told = format!("{CHILD}={sequence} {}", Shelf::root(&stage).display());
        let this = this.to_str().expect("UTF-8");
        // On one thread: strace counts the calls of each by itself.
        let only = ["--exact", name, "--nocapture", "--test-threads=1"];
        traced(&stage, options, &[&["env", &told, this][..], &only].concat())
    };
    let steps = steps(&|options| run(2, options));
    let names: Vec<_> = steps.iter().map(|(call, _)| call.as_str()).collect();
    println!("{} steps: {}", steps.len(), names.join(" "));
    let mut random = Random::new("chain_kills");
    let (mut sent, mut kills, mut live) = (0, 0, 2);
    let every = if full() { 1 } else { 10 };
    for step in steps.iter().skip(random.below(every)).step_by(every) {
        let next = live + 1;
        kills += u32::from(killed_before(&|options| run(next, options), step));
        // A daemon starts: one chain runs whole, beside what others have there.
        let shelf = Shelf::open(&stage);
        let look = shelf.look();
        let (sequence, found) = look.live().expect("a chain runs");
        assert!(sequence == live || sequence == next, "killed before {step:?}");
        let running = look.link.clone().and_then(|link| link.slots).expect("slots");
        assert_eq!(running, found.slots.iter().copied().collect(), "killed before {step:?}");
        assert!(stage.chain().components.iter().any(|component| component.id == theirs));
        assert_eq!(send(&stage, 5001, 2), Action::Drop.code(), "killed before {step:?}");
        assert_eq!(send(&stage, 5000, 3), Action::Pass.code(), "killed before {step:?}");
        sent += 5;
        // It retires what does not run: garbage, or the chain before with its counts.
        for &other in look.chains.keys().filter(|&&other| other != sequence) {
            shelf.store.retire_chain(&chain(other)).expect("retired");
        }
        assert_eq!(shelf.counted("ports").0.verdicts.total(), sent, "killed before {step:?}");
        live = sequence;
        if live == next {
            continue;
        }
        let next = shelf.build(next, &slots(next)).expect("built");
        shelf.dispatch(&next, None).expect("swapped");
        shelf.store.retire_chain(&chain(live)).expect("retired");
        live = next.sequence;
        assert_eq!(shelf.counted("ports").0.verdicts.total(), sent, "killed before {step:?}");
    }
    assert!(kills > 0, "nothing was killed");
    println!("{kills} kills");
    let cleaned = stage.here(|dispatcher, _| dispatcher.clean(None)).expect("cleaned");
    println!("left over: {:?}", cleaned.removed);
    let left = stage.bpffs.list().expect("a list");
    let is_dispatcher =
        |path: &&std::path::PathBuf| path.starts_with("xdp") && path.components().count() == 2;
    assert_eq!(left.iter().filter(is_dispatcher).count(), 1, "{left:?}");
}
