//! Chains of separately loaded programs joined by tail calls in the kernel.
//!
//! Each program of the pool is compiled once more with the chain's rule behind it
//! (`objects/chain/step.c`). clang, libbpf and the kernel's own tail calls make the chain: nothing
//! of it comes from what makes fused ones.
//!
//! Every program of the pool can be a step, also those that tail-call themselves. The kernel allows
//! a packet 33 tail calls (`MAX_TAIL_CALL_CNT`): more than the longest random chain has members and
//! its members make.

use super::case::Place;
use super::pool::{Program, same_map};
use libbpf_rs::{
    MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, ProgramHandle,
};
use pointsman_bpf::test_run;
use pointsman_model::Verdicts;
use pointsman_model::chain::ExitCounts;
use pointsman_netns::object;
use pointsman_netns::pool::{JUMPS, Jump, Pooled};
use std::os::fd::{AsFd as _, AsRawFd as _};

/// `BPF_F_XDP_HAS_FRAGS` (linux/bpf.h): the program takes packets of several buffers. A program
/// array holds programs with or without, never both.
const HAS_FRAGS: u32 = 1 << 5;
/// Bytes of a `struct chain_exits`: a count for each kind of verdict.
const EXITS: usize = 8 * Verdicts::LEN;
const NEXT: &str = "chain_next";

/// What all chains share: where packets come in, and the maps.
pub(super) struct TailCalls {
    /// Without frags, and with.
    enters: [Object; 2],
}

impl TailCalls {
    pub(super) fn new() -> Self {
        let enter = |first: Option<&Object>| {
            let bytes = object("enter");
            let mut open = ObjectBuilder::default().open_memory(&bytes).expect("libbpf opens it");
            if let Some(first) = first {
                share(&mut open, |map| (map != NEXT).then_some(first));
                has_frags(&mut open);
            }
            open.load().expect("the kernel takes it")
        };
        let plain = enter(None);
        let frags = enter(Some(&plain));
        Self { enters: [plain, frags] }
    }

    /// Loads a program of the pool as a step: for chains without frags, and for those with if it
    /// can be in one. Both have the same maps. `prepare` sets the globals.
    pub(super) fn steps(
        &self,
        pooled: &Pooled,
        frags: bool,
        prepare: impl Fn(&mut OpenObject),
    ) -> [Option<Object>; 2] {
        let bytes = object(&format!("step-{}", pooled.object));
        let load = |enter: &Object, first: Option<&Object>| {
            let mut open = ObjectBuilder::default().open_memory(&bytes).expect("libbpf opens it");
            let jumps = JUMPS.iter().filter(|jump| jump.object == pooled.object);
            let targets: Vec<_> = jumps.map(|jump| jump.to).collect();
            for mut program in open.progs_mut() {
                let name = program.name().to_string_lossy().into_owned();
                let step = name.strip_prefix("step_");
                // The object's program arrays want the plain targets.
                let wanted =
                    step == Some(pooled.entry) || targets.contains(&step.unwrap_or(name.as_str()));
                program.set_autoload(wanted);
            }
            prepare(&mut open);
            share(&mut open, |map| if is_chains(map) { Some(enter) } else { first });
            if first.is_some() {
                has_frags(&mut open);
            }
            let step = open.load();
            let step = step.unwrap_or_else(|e| panic!("{}: {}: {e}", pooled.object, pooled.entry));
            jump_into_chain(&step, pooled);
            step
        };
        let plain = load(&self.enters[0], None);
        let frags = frags.then(|| load(&self.enters[1], Some(&plain)));
        [Some(plain), frags]
    }

    /// Lays a chain: its programs in the order they run.
    pub(super) fn lay(&self, chain: &[(&Place, &Program)]) -> Chain<'_> {
        let frags = chain.iter().all(|(_, program)| program.frags);
        let laid = Chain { enter: &self.enters[usize::from(frags)], members: chain.len() };
        let next = laid.map(NEXT);
        for (at, (place, program)) in chain.iter().enumerate() {
            let key = (at as u32).to_ne_bytes();
            let step = program.steps[usize::from(frags)].as_ref().expect("a step of this kind");
            let step = program_of(step, &format!("step_{}", program.entry));
            put(&next, at as u32, &step);
            let actions = place.actions.iter().fold(0u32, |bits, action| bits | 1 << action.code());
            let rule = [actions, u32::from(place.enforce)];
            let rule: Vec<u8> = rule.iter().flat_map(|word| word.to_ne_bytes()).collect();
            laid.map("chain_rules").update(&key, &rule, MapFlags::ANY).expect("a rule");
            laid.map("chain_exits").update(&key, &[0; EXITS], MapFlags::ANY).expect("counts");
        }
        let mut at = chain.len() as u32;
        while next.delete(&at.to_ne_bytes()).is_ok() {
            at += 1;
        }
        laid.map("chain_state").update(&[0; 4], &[0; 16], MapFlags::ANY).expect("a state");
        laid
    }
}

/// A chain that is laid; the next one takes its place.
pub(super) struct Chain<'a> {
    enter: &'a Object,
    members: usize,
}

impl Chain<'_> {
    pub(super) fn run(&self, packet: &[u8]) -> Result<(u32, Vec<u8>), String> {
        let enter = self.enter.progs().next().expect("one program");
        let ran = test_run(enter.as_fd(), packet, 1, 0).map_err(|e| e.to_string())?;
        Ok((ran.verdict, ran.packet))
    }

    /// What the chain counted by itself.
    pub(super) fn counts(&self) -> ExitCounts {
        let read = |map: &str, key: u32| {
            let value = self.map(map).lookup(&key.to_ne_bytes(), MapFlags::ANY);
            let value = value.expect("a lookup").expect("a value");
            let words = value.chunks_exact(8).map(|w| w.try_into().expect("eight bytes"));
            words.map(u64::from_ne_bytes).collect::<Vec<u64>>()
        };
        let exits = |at: usize| read("chain_exits", at as u32);
        let verdicts =
            |at| Verdicts::from_array(exits(at).try_into().expect("a count for each kind"));
        ExitCounts {
            members: (0..self.members).map(verdicts).collect(),
            end: read("chain_state", 0)[1],
        }
    }

    fn map(&self, name: &str) -> MapHandle {
        map_of(self.enter, name)
    }
}

fn is_chains(map: &str) -> bool {
    map.starts_with("chain_")
}

fn has_frags(open: &mut OpenObject) {
    for mut program in open.progs_mut() {
        program.set_flags(HAS_FRAGS);
    }
}

/// Gives an object the maps of others: of each map the one that `of` names, if any.
fn share<'a>(open: &mut OpenObject, of: impl Fn(&str) -> Option<&'a Object>) {
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if let Some(other) = of(&name) {
            map.reuse_fd(map_of(other, &name).as_fd()).expect("the same map");
        }
    }
}

/// A program that ends in a tail call of its own leaves the chain with it, so what it jumps to goes
/// on in its place.
fn jump_into_chain(step: &Object, pooled: &Pooled) {
    let own = |jump: &&Jump| (jump.object, jump.entry) == (pooled.object, pooled.entry);
    for jump in JUMPS.iter().filter(own) {
        put(&map_of(step, jump.by), 0, &program_of(step, &format!("step_{}", jump.to)));
    }
}

/// Fills a slot of a program array.
fn put(slots: &MapHandle, at: u32, program: &ProgramHandle) {
    let fd = program.as_fd().as_raw_fd();
    slots.update(&at.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).expect("a slot");
}

fn program_of(object: &Object, name: &str) -> ProgramHandle {
    let program = object.progs_mut().find(|program| program.name() == name);
    let program = program.unwrap_or_else(|| panic!("no program {name}"));
    ProgramHandle::try_from(&program).expect("a loaded program")
}

fn map_of(object: &Object, name: &str) -> MapHandle {
    let map = object.maps().find(|map| same_map(&map.name().to_string_lossy(), name));
    MapHandle::try_from(&map.unwrap_or_else(|| panic!("no map {name}"))).expect("a map")
}
