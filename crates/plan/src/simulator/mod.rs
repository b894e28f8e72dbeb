//! A host in memory: bpffs pins, interfaces and links, with the kernel's own refusals.
//!
//! It takes the same steps as the kernel side and shows the same [`Observed`], so that planner,
//! daemon and tests run without privileges. It can fail a step or crash in the middle of one, and
//! it writes down as [`Simulator::violations`] what a correct planner never asks for.

mod dispatcher;
mod execute;
mod maps;

pub use self::maps::Contents;

use self::dispatcher::Dispatcher;
use crate::catalog::Load;
use pointsman_model::chain::{ChainRecord, ChainSpec, Sequence};
use pointsman_model::nic::NicFacts;
use pointsman_model::observed::{
    AttachMode, Attachment, Observed, ObservedChain, ObservedHook, ObservedInterface, ObservedLink,
    ObservedProgram,
};
use pointsman_model::{
    Fingerprint, HookId, InterfaceId, MapName, NamespaceName, ProgramName, Sha256,
};
use std::collections::{BTreeMap, BTreeSet};

/// The host.
#[derive(Debug, Clone, Default)]
pub struct Simulator {
    interfaces: BTreeMap<InterfaceId, Interface>,
    hooks: BTreeMap<HookId, Hook>,
    programs: BTreeMap<(ProgramName, Fingerprint), Program>,
    /// Network namespaces that the daemon cannot look into.
    hidden: BTreeSet<NamespaceName>,
    last_program_id: u32,
    last_index: u32,
    last_instance: u64,
    last_map_id: u32,
    /// What the objects at hand define.
    objects: BTreeMap<Fingerprint, maps::Object>,
    /// What maps hold, by the kernel's id.
    contents: BTreeMap<u32, Contents>,
    operations: usize,
    fault: Option<Fault>,
    crashed: bool,
    violations: Vec<String>,
}

/// What goes wrong. Operations are counted from 0, from when the fault was planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails and changes nothing. Later ones work.
    Fail(usize),
    /// The operation and all after it fail and change nothing.
    FailFrom(usize),
    /// Everything stops before the operation.
    Crash(usize),
    /// Everything stops in the middle of the operation, where it has a middle.
    CrashWithin(usize),
}

/// What runs on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs<'a> {
    /// Nothing.
    Nothing,
    /// A program that is not ours.
    Foreign(u32),
    /// A dispatcher without a whole chain of ours: the programs of others in it.
    Others(BTreeSet<u32>),
    /// A chain of ours, and where it is attached. Programs of others may run beside its slots.
    Chain(&'a ChainSpec, AttachMode),
}

#[derive(Debug, Clone)]
struct Interface {
    index: u32,
    native_xdp: Option<bool>,
    loopback: bool,
    up: bool,
    mtu: u32,
    nic: NicFacts,
    foreign: Option<Attachment>,
    dispatcher: Option<Dispatcher>,
}

#[derive(Debug, Clone, Default)]
struct Hook {
    link: Option<Link>,
    chains: BTreeMap<Sequence, Chain>,
    folded: Sequence,
    /// Programs that the daemon remembers it put into slots.
    held: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
struct Link {
    program_id: u32,
    interface_index: u32,
    mode: AttachMode,
    pinned: bool,
    /// What the running program is made of. The kernel holds it whatever becomes of the pins.
    runs: Loaded,
}

/// A loaded chain: its spec and, per member, which maps it uses.
#[derive(Debug, Clone)]
struct Loaded {
    spec: ChainSpec,
    maps: Vec<u64>,
    map_ids: Vec<u32>,
}

#[derive(Debug, Clone, Default)]
struct Chain {
    program_id: Option<u32>,
    slots: Vec<u32>,
    record: Option<ChainRecord>,
    loaded: Option<Loaded>,
    /// Whether packets ever ran through it, so that it has counters worth keeping.
    ran: bool,
}

#[derive(Debug, Clone, Default)]
struct Program {
    /// Tells one set of pins from another.
    instance: u64,
    entries: BTreeMap<MapName, Sha256>,
    /// Its object, where that was handed over.
    object: Option<Sha256>,
    maps: BTreeMap<MapName, maps::Pinned>,
}

impl Simulator {
    /// A host without interfaces and without anything of ours.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an interface and gives its number. `native_xdp` is what the kernel says of the
    /// driver.
    pub fn add_interface(&mut self, name: &InterfaceId, native_xdp: Option<bool>) -> u32 {
        self.insert_interface(name, native_xdp, false)
    }

    /// Creates a loopback interface and gives its number.
    pub fn add_loopback(&mut self, name: &InterfaceId) -> u32 {
        self.insert_interface(name, Some(false), true)
    }

    fn insert_interface(
        &mut self,
        name: &InterfaceId,
        native_xdp: Option<bool>,
        loopback: bool,
    ) -> u32 {
        self.remove_interface(name);
        self.last_index += 1;
        let index = self.last_index;
        let interface = Interface {
            index,
            native_xdp,
            loopback,
            up: true,
            mtu: 1500,
            nic: NicFacts::default(),
            foreign: None,
            dispatcher: None,
        };
        self.interfaces.insert(name.clone(), interface);
        index
    }

    /// Says what an interface's card and driver are like, and its MTU in bytes.
    pub fn set_nic(&mut self, name: &InterfaceId, mtu: u32, nic: NicFacts) {
        if let Some(interface) = self.interfaces.get_mut(name) {
            (interface.mtu, interface.nic) = (mtu, nic);
        }
    }

    /// Deletes an interface. A link on it stays pinned and is dead.
    pub fn remove_interface(&mut self, name: &InterfaceId) {
        let Some(Interface { index, .. }) = self.interfaces.remove(name) else { return };
        let links = self.hooks.values_mut().filter_map(|hook| hook.link.as_mut());
        links
            .filter(|link| link.interface_index == index)
            .for_each(|link| link.interface_index = 0);
    }

    /// Renames an interface, or moves it to another network namespace. A link on it goes on
    /// running.
    pub fn rename_interface(&mut self, from: &InterfaceId, to: &InterfaceId) {
        self.remove_interface(to);
        if let Some(interface) = self.interfaces.remove(from) {
            self.interfaces.insert(to.clone(), interface);
        }
    }

    /// Sets an interface up or down. A link on it stays.
    pub fn set_up(&mut self, name: &InterfaceId, up: bool) {
        if let Some(interface) = self.interfaces.get_mut(name) {
            interface.up = up;
        }
    }

    /// Hides a network namespace from the daemon, or shows it.
    pub fn hide(&mut self, namespace: &NamespaceName, hidden: bool) {
        if hidden {
            self.hidden.insert(namespace.clone());
        } else {
            self.hidden.remove(namespace);
        }
    }

    /// Detaches the link of a hook, which stays pinned, and gives whether there was one.
    pub fn detach_link(&mut self, hook: &HookId) -> bool {
        let link = self.hooks.get_mut(hook).and_then(|hook| hook.link.as_mut());
        link.map(|link| link.interface_index = 0).is_some()
    }

    /// Unpins the link of a hook: somebody removed it by hand. It runs on as long as the daemon
    /// holds it.
    pub fn lose_link(&mut self, hook: &HookId) {
        if let Some(link) = self.hooks.get_mut(hook).and_then(|hook| hook.link.as_mut()) {
            link.pinned = false;
        }
    }

    /// Makes the link of a hook run a program that is not ours, and gives its id.
    pub fn replace_program(&mut self, hook: &HookId) -> Option<u32> {
        let link = self.hooks.get_mut(hook)?.link.as_mut()?;
        self.last_program_id += 1;
        link.program_id = self.last_program_id;
        link.runs = Loaded {
            spec: ChainSpec { members: Vec::new(), frags: false, slots: Vec::new() },
            maps: vec![],
            map_ids: vec![],
        };
        Some(link.program_id)
    }

    /// Attaches a program that is not ours and gives its id; `None` where there is no such
    /// interface or something is attached already.
    pub fn attach_foreign(
        &mut self,
        name: &InterfaceId,
        program: &str,
        mode: AttachMode,
    ) -> Option<u32> {
        if self.link_on(self.interfaces.get(name)?.index).is_some() {
            return None;
        }
        let program_id = self.last_program_id + 1;
        let vacant = |i: &&mut Interface| i.foreign.is_none() && i.dispatcher.is_none();
        let interface = self.interfaces.get_mut(name).filter(vacant)?;
        interface.foreign = Some(Attachment { program_id, name: Some(program.to_owned()), mode });
        self.last_program_id = program_id;
        Some(program_id)
    }

    /// Takes a foreign program away, as its owner would.
    pub fn detach_foreign(&mut self, name: &InterfaceId) {
        if let Some(interface) = self.interfaces.get_mut(name) {
            interface.foreign = None;
        }
    }

    /// Loses the pinned chains of a hook, not its link: somebody removed them by hand.
    pub fn lose_chains(&mut self, hook: &HookId) {
        if let Some(hook) = self.hooks.get_mut(hook) {
            hook.chains.clear();
        }
        self.free_maps();
    }

    /// Makes the records of a hook's chains unreadable.
    pub fn spoil_records(&mut self, hook: &HookId) {
        let chains = self.hooks.get_mut(hook).into_iter().flat_map(|hook| hook.chains.values_mut());
        chains.for_each(|chain| chain.record = None);
    }

    /// Loses the pinned maps of a program: somebody removed them by hand.
    pub fn lose_program(&mut self, program: &ProgramName) {
        self.programs.retain(|(name, _), _| name != program);
        self.free_maps();
    }

    /// Plants a fault.
    pub fn plant(&mut self, fault: Fault) {
        self.operations = 0;
        self.fault = Some(fault);
    }

    /// Ends a crash and forgets a fault: the daemon starts anew. The kernel is as it was, but for
    /// links that only the daemon held.
    pub fn restart(&mut self) {
        self.fault = None;
        self.crashed = false;
        for hook in self.hooks.values_mut() {
            hook.link.take_if(|link| !link.pinned);
            // Its first look finds what is pinned.
            hook.held = hook.chains.values().flat_map(|chain| &chain.slots).copied().collect();
        }
        self.forget_slots();
    }

    /// What was asked for that a correct planner never asks for.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What packets on an interface run through.
    #[must_use]
    pub fn runs(&self, name: &InterfaceId) -> Runs<'_> {
        let Some(interface) = self.interfaces.get(name) else { return Runs::Nothing };
        if let Some(foreign) = &interface.foreign {
            return Runs::Foreign(foreign.program_id);
        }
        if let Some(dispatcher) = &interface.dispatcher {
            return match dispatcher.whole() {
                Some(runs) => Runs::Chain(&runs.spec, dispatcher.mode),
                None => Runs::Others(dispatcher.others()),
            };
        }
        match self.link_on(interface.index) {
            Some(link) => Runs::Chain(&link.runs.spec, link.mode),
            None => Runs::Nothing,
        }
    }

    /// Whether every member of the chain on an interface uses the maps that are pinned for it.
    #[must_use]
    pub fn uses_pinned_maps(&self, name: &InterfaceId) -> bool {
        let Some(interface) = self.interfaces.get(name) else { return true };
        let linked = self.link_on(interface.index).map(|link| &link.runs);
        let mut runs = interface.dispatcher.iter().flat_map(Dispatcher::chains).chain(linked);
        runs.all(|Loaded { spec, maps, .. }| {
            spec.members.iter().zip(maps).all(|(member, maps)| {
                let load = (member.program.clone(), member.fingerprint.clone());
                self.programs.get(&load).is_some_and(|program| program.instance == *maps)
            })
        })
    }

    /// A number that stays the same exactly as long as a program's pins do.
    #[must_use]
    pub fn instance(&self, program: &ProgramName, fingerprint: &Fingerprint) -> Option<u64> {
        let load = (program.clone(), fingerprint.clone());
        self.programs.get(&load).map(|program| program.instance)
    }

    /// The host as the daemon sees it.
    #[must_use]
    pub fn observe(&self) -> Observed {
        let plain = |interface: &Interface| ObservedInterface {
            index: interface.index,
            native_xdp: interface.native_xdp,
            loopback: interface.loopback,
            mtu: interface.mtu,
            up: interface.up,
            attached: interface.foreign.clone().or_else(|| {
                self.link_on(interface.index).map(|link| Attachment {
                    program_id: link.program_id,
                    name: Some("pointsman".to_owned()),
                    mode: link.mode,
                })
            }),
            nic: interface.nic.clone(),
            dispatcher: None,
        };
        let interface = |interface: &Interface| {
            let mut seen = plain(interface);
            dispatcher::show(&mut seen, interface.dispatcher.as_ref());
            seen
        };
        let hook = |hook: &Hook| ObservedHook {
            link: hook.link.as_ref().map(|link| ObservedLink {
                program_id: link.program_id,
                interface_index: link.interface_index,
                pinned: link.pinned,
                slots: None,
            }),
            chains: hook.chains.iter().map(|(&sequence, chain)| (sequence, chain.into())).collect(),
            folded: hook.folded,
            held: hook.held.clone(),
        };
        let program = |(load, program): (&Load, &Program)| {
            let observed =
                ObservedProgram { entries: program.entries.clone(), made: self.made(load) };
            (load.clone(), observed)
        };
        let seen = |id: &InterfaceId| !id.namespace.iter().any(|name| self.hidden.contains(name));
        let interfaces = self.interfaces.iter().filter(|(id, _)| seen(id));
        let why = "it is hidden".to_owned();
        let mut observed = Observed {
            interfaces: interfaces.map(|(id, found)| (id.clone(), interface(found))).collect(),
            unreachable: self.hidden.iter().map(|name| (name.clone(), why.clone())).collect(),
            hooks: map_values(&self.hooks, hook),
            programs: self.programs.iter().map(program).collect(),
        };
        observed.find_slots();
        // A dispatcher's pins are there wherever it runs.
        for (hook, pins) in &mut observed.hooks {
            if pins.link.as_ref().is_none_or(ObservedLink::is_detached) {
                let elsewhere = self.dispatched(hook);
                pins.link = elsewhere.or(pins.link.take());
            }
        }
        observed
    }

    /// The chains that packets run through, on whatever interface.
    fn running(&self) -> impl Iterator<Item = &Loaded> {
        let links = self.hooks.values().filter_map(|hook| hook.link.as_ref());
        let dispatchers = self.interfaces.values().filter_map(|it| it.dispatcher.as_ref());
        links.map(|link| &link.runs).chain(dispatchers.flat_map(Dispatcher::chains))
    }

    fn link_on(&self, index: u32) -> Option<&Link> {
        let mut links = self.hooks.values().filter_map(|hook| hook.link.as_ref());
        links.find(|link| link.interface_index == index)
    }
}

impl From<&Chain> for ObservedChain {
    fn from(chain: &Chain) -> Self {
        let Chain { program_id, slots, record, .. } = chain.clone();
        Self { program_id, slots, record }
    }
}

fn map_values<K: Ord + Clone, V, T>(map: &BTreeMap<K, V>, to: impl Fn(&V) -> T) -> BTreeMap<K, T> {
    map.iter().map(|(key, value)| (key.clone(), to(value))).collect()
}
