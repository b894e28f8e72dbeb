//! What holds for every document, every host and every interruption.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;
mod world;

use pointsman_model::api::StepOutcome;
use pointsman_model::chain::ChainSpec;
use pointsman_model::observed::{Observed, ObservedProgram};
use pointsman_model::plan::{HookChange, HookDiff, Plan, RenameHook, Step};
use pointsman_model::{HookId, InterfaceId, MapName, Sha256};
use pointsman_plan::simulator::{Contents, Fault, Runs, Simulator};
use pointsman_plan::{Host, carry_out, drain, relevant};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use world::{Event, Wish, bypassing, events, wish};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any history, with crashes and failures in it, then one apply that nothing disturbs: the
    /// host is as the document wants it, and there is nothing left to do.
    #[test]
    fn any_history_converges(history in events(), last in wish()) {
        let mut world = World::default();
        history.iter().for_each(|event| world.happen(event));
        world.apply(&last, None);
        world.check_converged(&last);
        world.drain();
    }

    /// Whatever step of a plan is disturbed, and however, the next applies end in the same state
    /// as if nothing had happened.
    #[test]
    fn no_interruption_changes_where_it_ends(history in events(), last in wish()) {
        let mut world = World::default();
        history.iter().for_each(|event| world.happen(event));
        world.settle_lost_maps();
        // What only the daemon held ends with it, whenever that is.
        world.host.restart();
        let steps = last.plan(&world.host).steps.len();
        let mut undisturbed = world.clone();
        undisturbed.apply(&last, None);
        undisturbed.check_converged(&last);
        for at in 0..steps {
            for fault in [Fault::Fail(at), Fault::Crash(at), Fault::CrashWithin(at)] {
                let mut disturbed = world.clone();
                disturbed.apply(&last, Some(fault));
                disturbed.apply(&last, None);
                disturbed.check_converged(&last);
                let (here, there) = (disturbed.essence(&world), undisturbed.essence(&world));
                prop_assert_eq!(here, there, "{:?}", fault);
            }
        }
    }

    /// What is not relevant to a plan changes nothing about it.
    #[test]
    fn plans_depend_on_nothing_else(history in events(), last in wish()) {
        let mut world = World::default();
        history.iter().for_each(|event| world.happen(event));
        let observed = world.host.observe();
        let whole = last.plan_for(&observed);
        let relevant = relevant(observed, &last.wanted());
        prop_assert_eq!(last.plan_for(&relevant), whole);
    }

    /// A bypass takes every packet past the programs and takes no maps away, whatever is applied
    /// meanwhile; its end is one swap per hook, to where the host would be without it.
    #[test]
    fn a_bypass_ends_where_the_host_would_be_without_it(
        history in events(), last in bypassing(),
    ) {
        let mut world = World::default();
        history.iter().for_each(|event| world.happen(event));
        world.settle_lost_maps();
        let mut without = world.clone();
        without.apply(&last.unbypassed(), None);
        let pinned: Vec<_> = world.host.observe().programs.into_keys().collect();
        let plan = last.plan(&world.host);
        world.apply(&last, None);
        world.check_converged(&last);
        // Where a bypass follows its chain to another interface, the daemon goes on with that one's
        // name, and these wishes with the old.
        let followed = last.bypassed_after(&plan.steps);
        let both = |hook| last.is_bypassed(hook) && followed.contains(hook);
        let bypassed: Vec<_> = plan.hooks.iter().filter(|diff| both(&diff.hook)).collect();
        let after = world.host.observe();
        for diff in bypassed.iter().filter(|diff| diff.after.is_some()) {
            if stays(diff) {
                continue;
            }
            match world.host.runs(&place(&world.host, &diff.hook)) {
                Runs::Chain(spec, _) => prop_assert!(spec.members.is_empty(), "{}", diff.hook),
                other => prop_assert!(false, "{} runs {:?}", diff.hook, other),
            }
            prop_assert!(pinned.iter().all(|load| after.programs.contains_key(load)));
        }
        let off = last.unbypassed();
        let Plan { steps, hooks, .. } = off.plan(&world.host);
        for diff in hooks {
            let visible = steps.iter().filter(|step| step.is_visible());
            let here = visible.filter(|step| step.hook() == Some(&diff.hook)).count();
            prop_assert!(here <= 1 || diff.change == HookChange::Reattach, "{:?}", diff);
        }
        world.apply(&off, None);
        world.check_converged(&off);
        for diff in off.plan(&world.host).hooks {
            // A chain that is refused is as it was before: an empty one stays here.
            if !stays(&diff) {
                let runs = |world: &World| state(&world.host, &place(&world.host, &diff.hook));
                prop_assert_eq!(runs(&world), runs(&without), "{}", diff.hook);
            }
        }
    }

    /// Equal input, equal plan; and a plan survives being stored.
    #[test]
    fn plans_are_deterministic_values(history in events(), last in wish()) {
        let mut world = World::default();
        history.iter().for_each(|event| world.happen(event));
        let plan = last.plan(&world.host);
        prop_assert_eq!(&plan, &last.plan(&world.host));
        let stored = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(&plan, &serde_json::from_str::<Plan>(&stored).unwrap());
        let hooks: Vec<_> = plan.hooks.iter().map(|diff| &diff.hook).collect();
        prop_assert!(hooks.is_sorted());
    }
}

/// A host and what is watched while steps are carried out on it.
#[derive(Clone, Default)]
struct World {
    host: Simulator,
    /// Whether maps of a running program were lost by hand and not yet replaced.
    maps_lost: bool,
}

/// What matters of a host when two ways to it are compared: not sequence numbers, nor ids.
#[derive(Debug, PartialEq)]
struct Essence {
    runs: BTreeMap<InterfaceId, State>,
    hooks: BTreeSet<HookId>,
    /// Entries of maps, and whether the pins are still those from before.
    programs: BTreeMap<common::Load, (BTreeMap<MapName, Sha256>, bool)>,
    /// What each map holds, and whether it is one of those that the program had before.
    maps: BTreeMap<(common::Load, MapName), (Option<Contents>, bool)>,
}

/// What runs on an interface, comparable.
#[derive(Debug, Clone, PartialEq)]
enum State {
    Nothing,
    Foreign(u32),
    Others(BTreeSet<u32>),
    Chain(ChainSpec, String),
}

impl World {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Apply(wish, fault) => self.apply(wish, *fault),
            Event::LoseProgram(name) => {
                self.host.lose_program(name);
                self.maps_lost = true;
            }
            other => other.happen(&mut self.host),
        }
    }

    /// Plans and carries out. Without a fault it goes on until there is nothing to do, as the
    /// daemon does: one round, and a second where a renamed interface becomes free in the first.
    fn apply(&mut self, wish: &Wish, fault: Option<Fault>) {
        wish.hand_over(&mut self.host);
        if let Some(fault) = fault {
            self.settle_lost_maps();
            self.host.plant(fault);
            self.carry_out(&wish.plan(&self.host));
            self.host.restart();
            return;
        }
        let before = self.clone();
        for _ in 0..2 {
            self.carry_out(&wish.plan(&self.host));
        }
        // Maps that are pinned before and after are the same maps.
        for (program, fingerprint) in self.host.observe().programs.keys() {
            let instance = |world: &Self| world.host.instance(program, fingerprint);
            let kept = instance(&before).is_none_or(|was| instance(self) == Some(was));
            assert!(kept, "the maps of {program} lost their contents");
        }
        self.check_upgrades(&before, wish);
        let mut hooks = wish.plan(&self.host).hooks.into_iter();
        if !hooks.any(|diff| stays(&diff)) {
            self.maps_lost = false;
        }
    }

    /// An upgraded program has the same maps as before where their definitions agree, with what
    /// was in them, and maps of its own otherwise.
    fn check_upgrades(&self, before: &Self, wish: &Wish) {
        let running = |world: &Self| -> BTreeSet<common::Load> {
            let observed = world.host.observe();
            let live = observed.hooks.values().filter_map(|hook| hook.live());
            let records = live.filter_map(|(_, chain)| chain.record.clone());
            let members = records.flat_map(|record| record.spec.members);
            members.map(|member| (member.program, member.fingerprint)).collect()
        };
        let (old, new) = (running(before), running(self));
        let (was, is) = (before.host.observe().programs, self.host.observe().programs);
        for load in new.iter().filter(|load| !was.contains_key(load)) {
            let mut others = old.iter().filter(|(name, _)| *name == load.0);
            // With several it takes generations to tell which is meant.
            let (Some(other), None) = (others.next(), others.next()) else { continue };
            let (Some(old), Some(new)) = (was.get(other), is.get(load)) else { continue };
            let (Some(made), Some(now)) = (&old.made, &new.made) else { continue };
            for (name, map) in &now.maps {
                let there = made.maps.get(name).filter(|old| old.id.is_some());
                let agree = there.is_some_and(|old| old.facts == map.facts)
                    && (made.object == now.object || !name.as_str().starts_with('.'))
                    && name.as_str() != ".rodata"
                    && !wish.starts_anew(&load.0);
                let kept = there.is_some_and(|old| old.id == map.id);
                assert_eq!(kept, agree, "{name} of {}", load.0);
                let told = |pinned: &ObservedProgram| pinned.entries.get(name).copied();
                if kept && told(old) == told(new) {
                    let contents = |world: &Self, load| world.host.contents(load, name);
                    assert_eq!(contents(before, other), contents(self, load), "{name}");
                }
            }
        }
    }

    /// What the records say the maps were told to hold is what they were told last.
    fn check_records(&self) {
        for (load, pinned) in self.host.observe().programs {
            for (map, digest) in &pinned.entries {
                if let Some(contents) = self.host.contents(&load, map) {
                    assert_eq!(contents.told, Some(*digest), "{map} of {}", load.0);
                }
            }
        }
    }

    /// An observer cannot tell maps made anew from those that a chain runs with, so an apply that
    /// replaces lost maps must not be interrupted.
    fn settle_lost_maps(&mut self) {
        if self.maps_lost {
            self.carry_out(&drain(&self.host.observe()));
            self.maps_lost = false;
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        let allowed = Allowed::new(plan, &self.host);
        let maps_lost = self.maps_lost;
        let mut watched = Watched { host: &mut self.host, allowed: &allowed, maps_lost };
        let results = carry_out(plan, &mut watched, &mut || Duration::ZERO);
        let done = |step: usize| results[step].outcome == StepOutcome::Done;
        // A hook of which every step was done is where it should be, whatever became of others.
        for diff in &plan.hooks {
            let mut steps =
                (0..results.len()).filter(|&at| plan.steps[at].hook() == Some(&diff.hook));
            let changes = !stays(diff) && diff.change != HookChange::Unchanged;
            if changes && steps.all(done) {
                let expected = diff.after.as_ref();
                let state = state(&self.host, &place(&self.host, &diff.hook));
                match (expected, state) {
                    (Some(spec), State::Chain(found, mode)) => {
                        assert_eq!((spec, &mode), (&found, &diff.mode.unwrap().to_string()));
                    }
                    (Some(_), other) => panic!("{} runs {other:?}", diff.hook),
                    // The interface may run another's chain: one renamed since it was attached.
                    (None, _) => assert!(!self.host.observe().hooks.contains_key(&diff.hook)),
                }
            }
        }
        // Without a fault, no step may fail: a planner asks for nothing that cannot be done.
        let failed = results.iter().find(|r| {
            matches!(&r.outcome, StepOutcome::Failed(why)
            if !why.contains("planted") && !why.contains("crashed"))
        });
        assert_eq!(failed, None);
        assert_eq!(self.host.violations(), [""; 0]);
        self.check_records();
    }

    fn check_converged(&self, wish: &Wish) {
        let plan = wish.plan(&self.host);
        assert_eq!(plan.steps, []);
        let observed = self.host.observe();
        let mut used = BTreeSet::new();
        for diff in &plan.hooks {
            if stays(diff) {
                continue;
            }
            let interface = &place(&self.host, &diff.hook);
            let spec = diff.after.as_ref().expect("a hook that is not wanted is gone");
            let mode = diff.mode.unwrap().to_string();
            assert_eq!(state(&self.host, interface), State::Chain(spec.clone(), mode));
            assert!(self.maps_lost || self.host.uses_pinned_maps(interface));
            self.check_order(interface, spec);
            assert_eq!(observed.hooks[&diff.hook].chains.len(), 1, "leftovers of {interface}");
            used.extend(spec.members.iter().map(|m| (m.program.clone(), m.fingerprint.clone())));
        }
        for (program, digests) in wish.entries() {
            let holds = |observed: &Observed| observed.programs[&program].entries.clone();
            if used.contains(&program) {
                for (map, digest) in digests {
                    assert_eq!(holds(&observed).get(&map), Some(&digest), "{map}");
                }
            }
        }
        if !plan.hooks.iter().any(|diff| stays(diff) || wish.is_bypassed(&diff.hook)) {
            let pinned: BTreeSet<_> = observed.programs.keys().cloned().collect();
            assert_eq!(pinned, used, "nothing is pinned that no chain uses");
        }
    }

    /// Programs of ours and of others run by priority, then by name, as if each had a slot.
    fn check_order(&self, interface: &InterfaceId, spec: &ChainSpec) {
        if spec.slots.is_empty() {
            return;
        }
        let mut keys: Vec<(u32, String)> = Vec::new();
        let mut parts = spec.parts();
        for component in self.host.components(interface) {
            let is_slot = self.host.is_slot(component.id);
            if is_slot {
                let (members, _) = parts.next().expect("a slot of this chain");
                keys.extend(members.iter().map(|m| (m.priority, m.entry.as_str().to_owned())));
            } else {
                keys.push((component.priority, component.name));
            }
        }
        assert!(keys.is_sorted(), "{keys:?}");
    }

    fn drain(&mut self) {
        self.carry_out(&drain(&self.host.observe()));
        let observed = self.host.observe();
        assert_eq!((observed.hooks.len(), observed.programs.len()), (0, 0));
    }

    fn essence(&self, before: &Self) -> Essence {
        let (observed, was) = (self.host.observe(), before.host.observe().programs);
        // With several loads of a program it depends on which of them still run whose maps are
        // taken over, or stay for a hook that is refused.
        let single =
            |load: &common::Load| was.keys().filter(|(name, _)| *name == load.0).nth(1).is_none();
        let programs = observed.programs.iter().filter(|(load, _)| single(load));
        let programs = programs.map(|(load, pinned)| {
            let instance = |host: &Simulator| host.instance(&load.0, &load.1);
            let kept = instance(&before.host) == instance(&self.host);
            (load.clone(), (pinned.entries.clone(), kept))
        });
        let ids: BTreeSet<_> = was.values().flat_map(ids).collect();
        let maps = observed.programs.iter().filter(|(load, _)| single(load));
        let maps = maps.flat_map(|(load, pinned)| {
            pinned.made.iter().flat_map(|made| &made.maps).map(|(name, map)| {
                let contents = self.host.contents(load, name);
                let same = map.id.is_some_and(|id| ids.contains(&id));
                ((load.clone(), name.clone()), (contents, same))
            })
        });
        let interfaces = observed.interfaces.keys();
        Essence {
            maps: maps.collect(),
            runs: interfaces.map(|name| (name.clone(), state(&self.host, name))).collect(),
            hooks: observed.hooks.keys().cloned().collect(),
            programs: programs.collect(),
        }
    }
}

fn ids(pinned: &ObservedProgram) -> Vec<u32> {
    let maps = pinned.made.iter().flat_map(|made| made.maps.values());
    maps.filter_map(|map| map.id).collect()
}

/// Whether the hook is refused or pending, and keeps what it has.
fn stays(diff: &HookDiff) -> bool {
    matches!(diff.change, HookChange::Refused | HookChange::Pending)
}

/// The interface of a hook: the one of its name, or else the one that had its name.
fn place(host: &Simulator, hook: &HookId) -> InterfaceId {
    let observed = host.observe();
    let link = observed.hooks.get(hook).and_then(|hook| hook.link.as_ref());
    match (observed.interfaces.contains_key(&hook.interface), link) {
        (false, Some(link)) => {
            observed.interface_of(link).map_or_else(|| hook.interface.clone(), |(id, _)| id.clone())
        }
        _ => hook.interface.clone(),
    }
}

fn state(host: &Simulator, interface: &InterfaceId) -> State {
    match host.runs(interface) {
        Runs::Nothing => State::Nothing,
        Runs::Foreign(id) => State::Foreign(id),
        Runs::Others(ids) => State::Others(ids),
        Runs::Chain(spec, mode) => State::Chain(spec.clone(), mode.to_string()),
    }
}

/// What may run on each interface while a plan is carried out.
struct Allowed(BTreeMap<InterfaceId, Vec<State>>);

impl Allowed {
    fn new(plan: &Plan, host: &Simulator) -> Self {
        let mut observed = host.observe();
        for step in &plan.steps {
            if let Step::RenameHook(RenameHook { from, to }) = step {
                let (moved, other) = (observed.hooks.remove(from), observed.hooks.remove(to));
                observed.hooks.extend(moved.map(|hook| (to.clone(), hook)));
                observed.hooks.extend(other.map(|hook| (from.clone(), hook)));
            }
        }
        let interfaces = observed.interfaces.iter().map(|(name, interface)| {
            let mut states = vec![state(host, name)];
            for diff in &plan.hooks {
                let link = observed.hooks.get(&diff.hook).and_then(|hook| hook.link.as_ref());
                let on_it = link.is_some_and(|link| link.interface_index == interface.index);
                // Without a chain only where the document does not want one any more, or where
                // the plan says that it opens a gap.
                let opens_gap = plan.steps.iter().any(
                    |step| matches!(step, Step::Detach(d) if d.hook == diff.hook && d.opens_gap),
                );
                // Or where the interface lost the name under which the document speaks of it.
                let left = diff.change == HookChange::Attach && diff.hook.interface != *name;
                if on_it && (diff.change == HookChange::Detach || opens_gap || left) {
                    states.push(State::Nothing);
                    states.push(State::Others(host.others_on(name)));
                }
                let here = diff.hook.interface == *name || on_it;
                if let (true, Some(spec), Some(mode)) = (here, &diff.after, diff.mode) {
                    states.push(State::Chain(spec.clone(), mode.to_string()));
                }
            }
            (name.clone(), states)
        });
        Self(interfaces.collect())
    }
}

/// Looks at the whole host after every step.
struct Watched<'a> {
    host: &'a mut Simulator,
    allowed: &'a Allowed,
    maps_lost: bool,
}

impl Host for Watched<'_> {
    fn execute(&mut self, step: &Step) -> Result<(), String> {
        let others = self.host.others();
        let result = self.host.execute(step);
        assert_eq!(self.host.others(), others, "{step}: what is not ours stays");
        for (interface, allowed) in &self.allowed.0 {
            let now = state(self.host, interface);
            assert!(allowed.contains(&now), "{step}: {interface} runs {now:?}");
            let whole = self.maps_lost || self.host.uses_pinned_maps(interface);
            assert!(whole, "{step}: the chain on {interface} lost maps that it uses");
        }
        result
    }
}
