//! Random documents, and random things that happen to a host.

use crate::common::{self, Bench, hook, interface, map_name, program};
use pointsman_model::document::OnUpgrade;
use pointsman_model::facts::ProgramProblem;
use pointsman_model::observed::{AttachMode, Observed};
use pointsman_model::plan::{Plan, RenameHook, Step, entries_digest};
use pointsman_model::{Action, ActionSet, Fingerprint, HookId, MapName, ProgramName, Sha256};
use pointsman_plan::simulator::{Fault, Simulator};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PROGRAMS: [&str; 5] = ["plain", "deep", "tail", "frags", "odd"];
/// Programs of others: their names stand among those of ours.
const OTHERS: [&str; 4] = ["mine", "plain_main", "plaid", "theirs"];
const INTERFACES: [&str; 5] = ["eth0", "eth1", "blue/eth0", "eth2", "lo"];

/// A document, with the state of the objects that it names.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    programs: Vec<Version>,
    interfaces: Vec<Option<Xdp>>,
    allow_gap: bool,
    freplace: bool,
    /// The interfaces whose chains are bypassed.
    bypassed: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Version {
    number: u32,
    /// A global variable: 0 as the object has it, 1 a constant, 2 one in `.bss`.
    global: u32,
    fresh: bool,
    broken: bool,
    entries: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Xdp {
    mode: &'static str,
    engine: &'static str,
    /// Per program: priority, actions, enforce, slot of its own; `None`: not in the chain.
    chain: Vec<Option<Entry>>,
    /// What is decided about programs of others: priority, actions.
    others: Vec<Decision>,
}

/// A name, a priority, actions.
type Decision = (&'static str, Option<u32>, Option<Vec<&'static str>>);

type Entry = (u32, Vec<&'static str>, bool, bool);

/// Something that happens to a host.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Apply(Wish, Option<Fault>),
    Create(&'static str, Option<bool>),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Foreign(&'static str, AttachMode),
    Unforeign(&'static str),
    LoseChains(&'static str),
    SpoilRecords(&'static str),
    LoseProgram(ProgramName),
    LoseMap(ProgramName),
    /// An application writes into the maps of a program.
    Write(ProgramName, u64),
    DetachLink(&'static str),
    LoseLink(&'static str),
    ReplaceProgram(&'static str),
    ExchangeNames(&'static str, &'static str),
    /// Somebody adds a program to the dispatcher.
    Other(&'static str, &'static str, u32, ActionSet, AttachMode),
    /// Somebody removes one from it.
    RemoveComponent(&'static str, usize),
    RemoveDispatcher(&'static str),
    /// The dispatcher cannot be changed, or can again.
    Fix(&'static str, bool),
}

impl Event {
    /// Lets it happen; applying is up to the caller.
    pub(crate) fn happen(&self, host: &mut Simulator) {
        match self {
            Self::Create("lo", _) => drop(host.add_loopback(&interface("lo"))),
            Self::Create(name, native) => drop(host.add_interface(&interface(name), *native)),
            Self::Remove(name) => host.remove_interface(&interface(name)),
            Self::Rename(from, to) => host.rename_interface(&interface(from), &interface(to)),
            Self::Foreign(name, mode) => {
                let _taken = host.attach_foreign(&interface(name), "theirs", *mode);
            }
            Self::Unforeign(name) => host.detach_foreign(&interface(name)),
            Self::LoseChains(name) => host.lose_chains(&hook(name)),
            Self::SpoilRecords(name) => host.spoil_records(&hook(name)),
            Self::LoseMap(name) => host.lose_map(name, &map_name("map")),
            Self::Write(name, value) => host.write_maps(name, *value),
            Self::DetachLink(name) => {
                let _detached = host.detach_link(&hook(name));
            }
            Self::LoseLink(name) => host.lose_link(&hook(name)),
            Self::ReplaceProgram(name) => {
                let _id = host.replace_program(&hook(name));
            }
            Self::ExchangeNames(one, other) => {
                host.rename_interface(&interface(one), &interface("aside"));
                host.rename_interface(&interface(other), &interface(one));
                host.rename_interface(&interface("aside"), &interface(other));
            }
            Self::Other(name, program, priority, actions, mode) => {
                let _id = host.add_other(&interface(name), program, *priority, *actions, *mode);
            }
            Self::RemoveComponent(name, at) => {
                let _removed = host.remove_component(&interface(name), *at);
            }
            Self::RemoveDispatcher(name) => host.remove_dispatcher(&interface(name)),
            Self::Fix(name, fixed) => {
                // A dispatcher with our slots is one that we made, and can change.
                if host.components(&interface(name)).iter().all(|it| !host.is_slot(it.id)) {
                    host.fix_dispatcher(&interface(name), fixed.then_some("it is too new"));
                }
            }
            Self::Apply(..) | Self::LoseProgram(_) => unreachable!("the caller does these"),
        }
    }
}

impl Wish {
    pub(crate) fn hand_over(&self, host: &mut Simulator) {
        self.bench().hand_over(host);
    }

    /// Whether the document wants the maps of a program to start anew.
    pub(crate) fn starts_anew(&self, name: &ProgramName) -> bool {
        let versions = PROGRAMS.iter().zip(&self.programs);
        versions.into_iter().any(|(other, version)| *other == name.as_str() && version.fresh)
    }

    /// The same with nothing bypassed.
    pub(crate) fn unbypassed(&self) -> Self {
        Self { bypassed: vec![], ..self.clone() }
    }

    pub(crate) fn is_bypassed(&self, of: &HookId) -> bool {
        self.bypassed.iter().any(|name| hook(name) == *of)
    }

    /// The hooks that are bypassed once the steps are done: a bypass follows its chain, wherever
    /// that goes.
    pub(crate) fn bypassed_after(&self, steps: &[Step]) -> BTreeSet<HookId> {
        let mut hooks: BTreeSet<_> = self.bypassed.iter().map(|name| hook(name)).collect();
        for step in steps {
            if let Step::RenameHook(RenameHook { from, to }) = step {
                let (moved, other) = (hooks.remove(from), hooks.remove(to));
                hooks.extend(moved.then(|| to.clone()));
                hooks.extend(other.then(|| from.clone()));
            }
        }
        hooks
    }

    pub(crate) fn plan(&self, host: &Simulator) -> Plan {
        self.plan_for(&host.observe())
    }

    pub(crate) fn plan_for(&self, observed: &Observed) -> Plan {
        let bench = self.bench();
        let plan = bench.plan_for(&bench.document(1, &self.document()), observed);
        let opens_gap = |step: &Step| matches!(step, Step::Detach(detach) if detach.opens_gap);
        assert!(self.allow_gap || !plan.steps.iter().any(opens_gap), "a gap nobody allowed");
        plan
    }

    pub(crate) fn wanted(&self) -> BTreeSet<HookId> {
        let interfaces = INTERFACES.iter().zip(&self.interfaces);
        interfaces.filter(|(_, xdp)| xdp.is_some()).map(|(name, _)| hook(name)).collect()
    }

    /// Per program, the entries its maps should hold.
    pub(crate) fn entries(
        &self,
    ) -> BTreeMap<(ProgramName, Fingerprint), BTreeMap<MapName, Sha256>> {
        let bench = self.bench();
        let sound = bench.programs.iter().filter_map(|(name, program)| {
            let program = program.as_ref().ok()?;
            let digests = program.maps.iter();
            let digests = digests.map(|(map, entries)| (map.clone(), entries_digest(entries)));
            Some(((name.clone(), program.fingerprint()), digests.collect()))
        });
        sound.collect()
    }

    fn bench(&self) -> Bench {
        let mut bench = Bench::with(&[]);
        bench.options.allow_gap = self.allow_gap;
        if self.freplace {
            bench.caps.freplace = Ok(());
        }
        let bypassed =
            self.bypassed.iter().map(|name| (hook(name), "until it is ended".to_owned()));
        bench.bypassed = bypassed.collect();
        for (name, version) in PROGRAMS.iter().zip(&self.programs) {
            let facts = bench.program(name, version.number);
            match *name {
                "deep" => {
                    facts.main_stack = 300;
                    facts.called_stack = 128 * version.number;
                }
                "tail" => {
                    facts.tail_calls = true;
                    facts.frags = false;
                }
                "frags" => facts.frags = version.number % 2 == 0,
                "odd" => facts.unfusable = (version.number == 3).then(|| "it throws".into()),
                _ => {}
            }
            facts.maps = ["map", "seen", ".bss", ".rodata"].map(common::map).into();
            // Versions 1 and 2 agree on one map, versions 2 and 3 on the other.
            facts.maps[0].definition.max_entries += version.number / 3;
            facts.maps[1].definition.value_size += version.number.min(2);
            let facts = facts.clone();
            bench.global(name, version.global, facts);
            if version.fresh {
                for map in ["map", "seen", ".bss"] {
                    let map = map_name(map);
                    bench.resolved(name).on_upgrade.insert(map, OnUpgrade::Fresh);
                }
            }
            if !version.entries.is_empty() {
                bench.entries(name, "map", &version.entries);
            }
            if version.broken {
                let problem = ProgramProblem { message: "not an ELF".into(), log: None };
                bench.programs.insert(program(name), Err(problem));
            }
        }
        bench
    }

    fn document(&self) -> Value {
        let interfaces = INTERFACES.iter().zip(&self.interfaces).filter_map(|(name, xdp)| {
            let Xdp { mode, engine, chain, others } = xdp.as_ref()?;
            let chain: Vec<_> = PROGRAMS
                .iter()
                .zip(chain)
                .filter_map(|(program, member)| {
                    let (priority, actions, enforce, own) = member.as_ref()?;
                    let slot = if *own && *engine != "fused" { "own" } else { "shared" };
                    Some(json!({"program": program, "priority": priority, "slot": slot,
                        "chain_call_actions": actions, "enforce": enforce}))
                })
                .collect();
            let mut others: Vec<Value> = others
                .iter()
                .filter(|(_, priority, actions)| priority.is_some() || actions.is_some())
                .map(|(name, priority, actions)| {
                    json!({"name": name, "priority": priority, "chain_call_actions": actions})
                })
                .collect();
            if *engine == "fused" {
                others.clear();
            }
            let xdp = json!({"mode": mode, "engine": engine, "chain": chain, "others": others});
            Some(((*name).to_owned(), json!({"xdp": xdp})))
        });
        Value::Object(interfaces.collect())
    }
}

pub(crate) fn wish() -> impl Strategy<Value = Wish> {
    let odd = (prop::bool::weighted(0.05), prop::bool::weighted(0.1));
    let version = (1..=3u32, 0..3u32, odd, vec(0..3u32, 0..3)).prop_map(
        |(number, global, (broken, fresh), entries)| Version {
            number,
            global,
            broken,
            fresh,
            entries,
        },
    );
    let actions = prop::sample::subsequence(vec!["drop", "pass", "tx"], 0..=3);
    let member = (1..4u32, actions.clone(), prop::bool::weighted(0.8), prop::bool::weighted(0.2));
    let engine = prop::sample::select(vec!["auto", "auto", "auto", "fused", "dispatcher"]);
    let other = (prop::option::of(1..4u32), prop::option::of(actions));
    let others = [(other.clone(), Just(OTHERS[0])), (other, Just(OTHERS[1]))];
    let mode = prop::sample::select(vec!["auto", "auto", "native", "skb"]);
    let xdp = (mode, engine, vec(prop::option::of(member), PROGRAMS.len()), others).prop_map(
        |(mode, engine, chain, others)| {
            let others = others.map(|((priority, actions), name)| (name, priority, actions));
            Xdp { mode, engine, chain, others: others.into() }
        },
    );
    let interfaces = vec(prop::option::weighted(0.7, xdp), INTERFACES.len());
    (vec(version, PROGRAMS.len()), interfaces, any::<bool>(), any::<bool>()).prop_map(
        |(programs, interfaces, allow_gap, freplace)| Wish {
            programs,
            interfaces,
            allow_gap,
            freplace,
            bypassed: vec![],
        },
    )
}

fn set() -> impl Strategy<Value = ActionSet> {
    let some = prop::sample::subsequence(Action::ALL.to_vec(), 0..=3);
    some.prop_map(|actions| actions.into_iter().collect())
}

/// A wish with some interfaces bypassed.
pub(crate) fn bypassing() -> impl Strategy<Value = Wish> {
    let some = prop::sample::subsequence(INTERFACES.to_vec(), 0..=INTERFACES.len());
    (wish(), some).prop_map(|(wish, bypassed)| Wish { bypassed, ..wish })
}

/// A history that begins with interfaces and goes on with anything.
pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    let name = || prop::sample::select(INTERFACES.to_vec());
    let native = prop::sample::select(vec![None, Some(true), Some(true), Some(false)]);
    let mode = prop::sample::select(vec![AttachMode::Native, AttachMode::Skb]);
    let fault = (0..3u8, 0..16usize).prop_map(|(kind, at)| match kind {
        0 => Fault::Fail(at),
        1 => Fault::Crash(at),
        _ => Fault::CrashWithin(at),
    });
    let anything = prop_oneof![
        8 => (bypassing(), prop::option::of(fault)).prop_map(|(wish, fault)| Event::Apply(wish, fault)),
        2 => (name(), native.clone()).prop_map(|(name, native)| Event::Create(name, native)),
        1 => name().prop_map(Event::Remove),
        1 => (name(), name()).prop_map(|(from, to)| Event::Rename(from, to)),
        1 => (name(), mode.clone()).prop_map(|(name, mode)| Event::Foreign(name, mode)),
        1 => name().prop_map(Event::Unforeign),
        1 => name().prop_map(Event::LoseChains),
        1 => name().prop_map(Event::DetachLink),
        1 => name().prop_map(Event::LoseLink),
        1 => name().prop_map(Event::ReplaceProgram),
        1 => (name(), name()).prop_map(|(one, other)| Event::ExchangeNames(one, other)),
        1 => name().prop_map(Event::SpoilRecords),
        3 => (name(), prop::sample::select(OTHERS.to_vec()), 0..5u32, set(), mode.clone()).prop_map(
            |(name, program, priority, actions, mode)| {
                Event::Other(name, program, priority, actions, mode)
            },
        ),
        2 => (name(), 0..4usize).prop_map(|(name, at)| Event::RemoveComponent(name, at)),
        1 => name().prop_map(Event::RemoveDispatcher),
        1 => (name(), any::<bool>()).prop_map(|(name, fixed)| Event::Fix(name, fixed)),
        1 => prop::sample::select(PROGRAMS.to_vec())
            .prop_map(|name| Event::LoseProgram(program(name))),
        1 => prop::sample::select(PROGRAMS.to_vec()).prop_map(|name| Event::LoseMap(program(name))),
        3 => (prop::sample::select(PROGRAMS.to_vec()), 1..100u64)
            .prop_map(|(name, value)| Event::Write(program(name), value)),
    ];
    (vec(native, INTERFACES.len()), vec(anything, 0..10)).prop_map(|(natives, rest)| {
        let created =
            INTERFACES.iter().zip(natives).map(|(name, native)| Event::Create(name, native));
        created.chain(rest).collect()
    })
}
