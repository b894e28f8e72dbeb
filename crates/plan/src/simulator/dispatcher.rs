//! Dispatchers of libxdp's protocol: several programs on one interface, of ours and of others.

use super::{Chain, Interface, Loaded, Simulator};
use crate::slots::MAX_SLOTS;
use pointsman_model::chain::{ChainId, Sequence};
use pointsman_model::observed::{
    AttachMode, Attachment, ObservedComponent, ObservedDispatcher, ObservedInterface, ObservedLink,
};
use pointsman_model::plan::Dispatch;
use pointsman_model::{ActionSet, HookId, InterfaceId};
use std::collections::BTreeSet;

/// The name of every dispatcher.
const NAME: &str = "xdp_dispatcher";

#[derive(Debug, Clone)]
pub(super) struct Dispatcher {
    pub(super) program_id: u32,
    pub(super) mode: AttachMode,
    components: Vec<Component>,
    fixed: Option<String>,
}

#[derive(Debug, Clone)]
struct Component {
    seen: ObservedComponent,
    /// The chain that it is a slot of; `None`: it is not ours, or passes everything.
    ours: Option<Loaded>,
}

impl Dispatcher {
    fn new(program_id: u32, mode: AttachMode) -> Self {
        Self { program_id, mode, components: Vec::new(), fixed: None }
    }

    pub(super) fn observe(&self) -> (Attachment, ObservedDispatcher) {
        let Self { program_id, mode, components, fixed } = self;
        let name = Some(NAME.to_owned());
        let attached = Attachment { program_id: *program_id, name, mode: *mode };
        let components = components.iter().map(|component| component.seen.clone()).collect();
        (attached, ObservedDispatcher { version: 2, fixed: fixed.clone(), components })
    }

    /// The chains that have slots here.
    pub(super) fn chains(&self) -> impl Iterator<Item = &Loaded> {
        self.components.iter().filter_map(|component| component.ours.as_ref())
    }

    /// The chain of ours that runs here whole.
    pub(super) fn whole(&self) -> Option<&Loaded> {
        let first = self.chains().next()?;
        (self.chains().count() == first.spec.slots.len()).then_some(first)
    }

    /// The programs that are not ours, whatever their order.
    pub(super) fn others(&self) -> BTreeSet<u32> {
        let theirs = self.components.iter().filter(|it| it.ours.is_none() && !it.seen.passes);
        theirs.map(|component| component.seen.id).collect()
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.components.iter().any(|component| component.seen.id == id)
    }

    /// In libxdp's order, with company for one that needs it. `next` gives new ids.
    fn arrange(&mut self, company: bool, next: &mut impl FnMut() -> u32) -> Result<(), String> {
        let passes = |component: &Component| component.seen.passes;
        let speaks = |component: &Component| {
            component.ours.is_some() && component.seen.actions.is_empty() && !component.is_own()
        };
        let others = self.components.iter().filter(|component| !passes(component));
        let (mut count, mut needs) = (0, company);
        let mut lone_is_pass = true;
        for component in others {
            count += 1;
            needs |= speaks(component);
            lone_is_pass = component.seen.actions == ActionSet::PASS;
        }
        needs |= count == 1 && !lone_is_pass;
        match (needs, self.components.iter().any(passes)) {
            (true, false) => self.components.push(Component {
                seen: ObservedComponent {
                    id: next(),
                    name: "pointsman_pass".into(),
                    tag: "0".repeat(16),
                    priority: i32::MAX.cast_unsigned(),
                    actions: ActionSet::PASS,
                    frags: true,
                    passes: true,
                },
                ours: None,
            }),
            (false, true) => self.components.retain(|component| !passes(component)),
            _ => {}
        }
        if self.components.len() > MAX_SLOTS {
            return Err(format!("{} programs (E2BIG)", self.components.len()));
        }
        let key = |component: &Component| (component.seen.priority, component.seen.name.clone());
        self.components.sort_by_key(key);
        self.program_id = next();
        Ok(())
    }
}

impl Component {
    fn is_own(&self) -> bool {
        let Some(Loaded { spec, .. }) = &self.ours else { return false };
        let mut slots = spec.slots.iter();
        slots.any(|slot| slot.own && slot.name.as_str() == self.seen.name)
    }
}

impl Simulator {
    /// Adds a program of somebody else's to the dispatcher of an interface, which is made if
    /// nothing is attached, and gives its id; `None`: it cannot be there.
    pub fn add_other(
        &mut self,
        name: &InterfaceId,
        program: &str,
        priority: u32,
        actions: ActionSet,
        mode: AttachMode,
    ) -> Option<u32> {
        let index = self.interfaces.get(name)?.index;
        if self.link_on(index).is_some() {
            return None;
        }
        let mut last = self.last_program_id;
        let mut next = || {
            last += 1;
            last
        };
        let interface = self.interfaces.get_mut(name)?;
        let native = interface.runs_native();
        if interface.foreign.is_some() || (mode == AttachMode::Native && !native) {
            return None;
        }
        let mut new = interface.dispatcher.clone().unwrap_or_else(|| Dispatcher::new(0, mode));
        if new.mode != mode || new.fixed.is_some() {
            return None;
        }
        let id = next();
        let tag = format!("{id:016x}");
        let name = program.to_owned();
        let seen =
            ObservedComponent { id, name, tag, priority, actions, frags: true, passes: false };
        new.components.push(Component { seen, ours: None });
        // libxdp knows nothing of company: what is there stays.
        if new.components.len() > MAX_SLOTS {
            return None;
        }
        let key = |component: &Component| (component.seen.priority, component.seen.name.clone());
        new.components.sort_by_key(key);
        new.program_id = next();
        interface.dispatcher = Some(new);
        self.last_program_id = last;
        Some(id)
    }

    /// Removes the program in a slot, whoever's it is, as somebody else would, and gives whether
    /// there was one.
    pub fn remove_component(&mut self, name: &InterfaceId, at: usize) -> bool {
        self.last_program_id += 1;
        let id = self.last_program_id;
        let interface = self.interfaces.get_mut(name);
        let Some(dispatcher) = interface.and_then(|interface| interface.dispatcher.as_mut()) else {
            return false;
        };
        if at >= dispatcher.components.len() {
            return false;
        }
        dispatcher.components.remove(at);
        dispatcher.program_id = id;
        let empty = dispatcher.components.is_empty();
        if empty {
            self.remove_dispatcher(name);
        }
        self.free_maps();
        true
    }

    /// Removes a whole dispatcher, as `xdp-loader unload --all` would.
    pub fn remove_dispatcher(&mut self, name: &InterfaceId) {
        if let Some(interface) = self.interfaces.get_mut(name) {
            interface.dispatcher = None;
        }
        self.free_maps();
    }

    /// Makes a dispatcher one that nobody can change, or changeable again.
    pub fn fix_dispatcher(&mut self, name: &InterfaceId, why: Option<&str>) {
        let interface = self.interfaces.get_mut(name);
        if let Some(dispatcher) = interface.and_then(|interface| interface.dispatcher.as_mut()) {
            dispatcher.fixed = why.map(str::to_owned);
        }
    }

    /// What the dispatcher of an interface runs, in order.
    #[must_use]
    pub fn components(&self, name: &InterfaceId) -> Vec<ObservedComponent> {
        let dispatcher = self.interfaces.get(name).and_then(|it| it.dispatcher.as_ref());
        dispatcher.map_or_else(Vec::new, |dispatcher| dispatcher.observe().1.components)
    }

    /// Of the programs that others have in dispatchers, all that are not ours.
    #[must_use]
    pub fn others(&self) -> BTreeSet<u32> {
        let dispatchers = self.interfaces.values().filter_map(|it| it.dispatcher.as_ref());
        dispatchers.flat_map(Dispatcher::others).collect()
    }

    /// The programs on an interface that are not ours.
    #[must_use]
    pub fn others_on(&self, name: &InterfaceId) -> BTreeSet<u32> {
        let dispatcher = self.interfaces.get(name).and_then(|it| it.dispatcher.as_ref());
        dispatcher.into_iter().flat_map(Dispatcher::others).collect()
    }

    /// Whether a program is a slot of a chain of ours.
    #[must_use]
    pub fn is_slot(&self, id: u32) -> bool {
        let dispatchers = self.interfaces.values().filter_map(|it| it.dispatcher.as_ref());
        let mut components = dispatchers.flat_map(|dispatcher| &dispatcher.components);
        components.any(|component| component.seen.id == id && component.ours.is_some())
    }

    /// Puts a chain's slots into a dispatcher, in place of all others of its hook.
    pub(super) fn dispatch(
        &mut self,
        id: &ChainId,
        place: &Dispatch,
        mode: Option<AttachMode>,
    ) -> Result<(), String> {
        let (slots, runs) = self.built_slots(id)?;
        let ours: Vec<u32> = self.slots_of(&id.hook);
        let index = place.interface_index;
        let linked = self.link_on(index).is_some();
        let mut last = self.last_program_id;
        let interface = self.interface_at(place)?;
        if interface.foreign.is_some() || linked {
            return Err(format!("interface {} carries a program already (EBUSY)", place.interface));
        }
        let native = interface.runs_native();
        let mut new = match (&interface.dispatcher, mode) {
            (Some(there), _) if there.fixed.is_some() => return Err("it is fixed".into()),
            (Some(there), Some(mode)) if there.mode != mode => {
                return Err("another mode (EEXIST)".into());
            }
            (Some(there), _) => there.clone(),
            (None, Some(AttachMode::Native)) if !native => {
                return Err("no native XDP (EOPNOTSUPP)".into());
            }
            (None, Some(mode)) => Dispatcher::new(0, mode),
            (None, None) => return Err("there is no dispatcher (ENOENT)".into()),
        };
        new.components.retain(|component| !ours.contains(&component.seen.id));
        for change in &place.others {
            let mut all = new.components.iter_mut();
            if let Some(other) = all.find(|component| component.seen.id == change.id) {
                other.seen.priority = change.priority;
                other.seen.actions = change.chain_call_actions;
            }
        }
        for (slot, &id) in runs.spec.slots.iter().zip(&slots) {
            let seen = ObservedComponent {
                id,
                name: slot.name.as_str().to_owned(),
                tag: format!("{id:016x}"),
                priority: slot.priority,
                actions: slot.actions,
                frags: slot.frags,
                passes: false,
            };
            new.components.push(Component { seen, ours: Some(runs.clone()) });
        }
        new.arrange(place.company, &mut || {
            last += 1;
            last
        })?;
        interface.dispatcher = Some(new);
        let number = interface.index;
        self.last_program_id = last;
        if mode.is_some() {
            // What is pinned as a link is detached or runs elsewhere, and ends.
            self.hook(&id.hook)?.link = None;
        }
        self.hook(&id.hook)?.held = slots.iter().copied().collect();
        self.mark_run(id);
        let own = self.interfaces.get(&id.hook.interface);
        if own.is_some_and(|own| own.index != number) {
            self.violations.push(format!("slots of {id} go to another interface"));
        }
        Ok(())
    }

    /// Takes all slots of a hook out of a dispatcher.
    pub(super) fn withdraw(
        &mut self,
        hook: &HookId,
        place: &Dispatch,
        opens_gap: bool,
    ) -> Result<(), String> {
        let ours = self.slots_of(hook);
        let mut last = self.last_program_id;
        let interface = self.interface_at(place)?;
        let Some(dispatcher) = &interface.dispatcher else {
            return Err(format!("no dispatcher is on {} (ENOENT)", place.interface));
        };
        let mut new = dispatcher.clone();
        new.components.retain(|component| !ours.contains(&component.seen.id));
        // What keeps others' company stays with those to whom it means something.
        let means = |it: &Component| !it.seen.passes && it.seen.actions != ActionSet::PASS;
        if !new.components.iter().any(means) {
            new.components.retain(|component| !component.seen.passes);
        }
        if opens_gap && !new.components.is_empty() {
            return Err("somebody's program joined meanwhile (EBUSY)".into());
        }
        last += 1;
        new.program_id = last;
        interface.dispatcher = (!new.components.is_empty()).then_some(new);
        self.last_program_id = last;
        self.hook(hook)?.held.clear();
        Ok(())
    }

    fn interface_at(&mut self, place: &Dispatch) -> Result<&mut Interface, String> {
        let Dispatch { interface, interface_index, .. } = place;
        let found = self.interfaces.get_mut(interface).filter(|it| it.index == *interface_index);
        found.ok_or_else(|| format!("interface {interface} ({interface_index}) is gone (ENODEV)"))
    }

    fn built_slots(&self, id: &ChainId) -> Result<(Vec<u32>, Loaded), String> {
        let chain = self.hooks.get(&id.hook).and_then(|hook| hook.chains.get(&id.sequence));
        let built = chain.filter(|chain| !chain.slots.is_empty());
        let built = built.and_then(|chain| Some((chain.slots.clone(), chain.loaded.clone()?)));
        built.ok_or_else(|| format!("the slots of chain {id} are not built (ENOENT)"))
    }

    /// The programs of all chains of a hook, pinned or remembered.
    fn slots_of(&self, hook: &HookId) -> Vec<u32> {
        let Some(hook) = self.hooks.get(hook) else { return Vec::new() };
        let pinned = hook.chains.values().flat_map(|chain| &chain.slots);
        pinned.chain(&hook.held).copied().collect()
    }

    /// Slots that are pinned nowhere, and that no daemon remembers, are nobody's.
    pub(super) fn forget_slots(&mut self) {
        let chains = self.hooks.values().flat_map(|hook| hook.chains.values());
        let known: BTreeSet<u32> = chains.flat_map(|chain| &chain.slots).copied().collect();
        let dispatchers = self.interfaces.values_mut().filter_map(|it| it.dispatcher.as_mut());
        for component in dispatchers.flat_map(|dispatcher| &mut dispatcher.components) {
            component.ours.take_if(|_| !known.contains(&component.seen.id));
        }
    }

    /// The dispatcher that has slots of a hook, wherever it is.
    pub(super) fn dispatched(&self, hook: &HookId) -> Option<ObservedLink> {
        let ours = self.slots_of(hook);
        self.interfaces.values().find_map(|interface| {
            let dispatcher = interface.dispatcher.as_ref()?;
            let there = ours.iter().filter(|&&id| dispatcher.has(id));
            let slots: BTreeSet<u32> = there.copied().collect();
            let (program_id, interface_index) = (dispatcher.program_id, interface.index);
            let slots = (!slots.is_empty()).then_some(slots)?;
            Some(ObservedLink { program_id, interface_index, pinned: true, slots: Some(slots) })
        })
    }

    /// The latest chain of a hook of which something runs.
    pub(super) fn live(&self, hook: &HookId) -> Option<Sequence> {
        let pins = self.hooks.get(hook)?;
        let linked = pins.link.as_ref().map(|link| link.program_id);
        let runs = |chain: &Chain| {
            (linked.is_some() && chain.program_id == linked)
                || chain.slots.iter().any(|&id| {
                    let mut all = self.interfaces.values().filter_map(|it| it.dispatcher.as_ref());
                    all.any(|dispatcher| dispatcher.has(id))
                })
        };
        pins.chains.iter().rev().find(|(_, chain)| runs(chain)).map(|(&sequence, _)| sequence)
    }
}

/// Shows an interface with its dispatcher.
pub(super) fn show(seen: &mut ObservedInterface, dispatcher: Option<&Dispatcher>) {
    if let Some((attached, dispatcher)) = dispatcher.map(Dispatcher::observe) {
        seen.attached = Some(attached);
        seen.dispatcher = Some(dispatcher);
    }
}
