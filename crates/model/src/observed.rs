//! What is there: interfaces, and our own pins.

use crate::chain::{ChainRecord, Sequence};
use crate::facts::MapFacts;
use crate::nic::NicFacts;
use crate::{
    ActionSet, Fingerprint, HookId, InterfaceId, MapName, NamespaceName, ProgramName, Sha256,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use utoipa::ToSchema;

/// The host as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The interfaces of the daemon's network namespace, and of those that were asked for.
    pub interfaces: BTreeMap<InterfaceId, ObservedInterface>,
    /// The network namespaces that were asked for and cannot be looked into, and why: one line
    /// that names what is missing.
    pub unreachable: BTreeMap<NamespaceName, String>,
    /// Hooks of which we hold pins.
    pub hooks: BTreeMap<HookId, ObservedHook>,
    /// Programs whose maps are pinned.
    pub programs: BTreeMap<(ProgramName, Fingerprint), ObservedProgram>,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedInterface {
    /// The kernel's number for it.
    pub index: u32,
    /// Whether its driver runs XDP natively, which can change with its queues; `None`: the kernel
    /// does not say (before 6.3), or it was not asked. Read where a plan needs it.
    pub native_xdp: Option<bool>,
    /// Whether it is the loopback interface, which has no native XDP.
    pub loopback: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`). Programs stay attached while it is down.
    pub up: bool,
    /// The XDP program attached to it, whoever did it.
    pub attached: Option<Attachment>,
    /// What that program runs, where it is a dispatcher of libxdp's protocol.
    pub dispatcher: Option<ObservedDispatcher>,
    /// Its card and driver. Read where a plan needs them.
    pub nic: NicFacts,
}

/// An XDP program on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// The kernel's id of the program.
    pub program_id: u32,
    /// Its name, where the kernel tells.
    pub name: Option<String>,
    /// Where it is attached.
    pub mode: AttachMode,
}

/// Where in the receive path a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// After the socket buffer is made.
    Skb,
    /// On the network card.
    Offload,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Skb => "skb",
            Self::Offload => "offload",
        })
    }
}

/// A dispatcher: one attached program that runs up to ten others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDispatcher {
    /// The version of the protocol.
    pub version: u32,
    /// Why no program can be put beside those that run, nor be taken away: one line; `None`: it
    /// can be changed.
    pub fixed: Option<String>,
    /// Its programs, in the order they run.
    pub components: Vec<ObservedComponent>,
}

/// A program in a slot of a dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedComponent {
    /// The kernel's id of the program.
    pub id: u32,
    /// The whole name of its function.
    pub name: String,
    /// The kernel's tag: 16 hexadecimal digits.
    pub tag: String,
    /// Its priority.
    pub priority: u32,
    /// The verdicts after which the next program runs.
    pub actions: ActionSet,
    /// Whether it takes packets of several buffers.
    pub frags: bool,
    /// Whether it is our program that passes everything, which keeps others company.
    pub passes: bool,
}

/// A hook of which we hold pins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedHook {
    /// What holds our chain on an interface.
    pub link: Option<ObservedLink>,
    /// The pinned chains by sequence number, live or not.
    pub chains: BTreeMap<Sequence, ObservedChain>,
    /// Chains up to this number are in the hook's totals.
    pub folded: Sequence,
    /// Programs that the daemon put into slots, pinned or not: what it remembers as long as it
    /// runs.
    pub held: BTreeSet<u32>,
}

/// What holds a hook's chain on an interface: a BPF link, or a dispatcher with our slots in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLink {
    /// The attached program that it runs: the chain, or the dispatcher.
    pub program_id: u32,
    /// The interface it is on, as its network namespace counts; 0: detached, or the interface is
    /// gone.
    pub interface_index: u32,
    /// Whether it is pinned. The daemon holds its links open, so that one that somebody unpins
    /// runs on until it is pinned again. A dispatcher's pins are there as long as it is known.
    pub pinned: bool,
    /// The ids of our programs in the dispatcher; `None`: this is a BPF link.
    pub slots: Option<BTreeSet<u32>>,
}

/// A pinned chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedChain {
    /// The fused program; `None`: the chain is one of slots, or building it was interrupted.
    pub program_id: Option<u32>,
    /// The programs of its slots in a dispatcher, in their order; none of another chain.
    pub slots: Vec<u32>,
    /// What it is made of; `None`: unreadable or interrupted.
    pub record: Option<ChainRecord>,
}

/// A program whose maps are pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedProgram {
    /// Per map the hash of the entries it was told to hold.
    pub entries: BTreeMap<MapName, Sha256>,
    /// What was made for it; `None`: that is not known, as of what an earlier version prepared.
    pub made: Option<Made>,
}

/// What was made for a program when it was prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Rises with every preparation of the program: which load is the latest.
    pub order: u64,
    /// Its object.
    pub object: Sha256,
    /// Its maps.
    pub maps: BTreeMap<MapName, MadeMap>,
}

/// A map that was made or taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeMap {
    /// As the object defines it.
    pub facts: MapFacts,
    /// The kernel's id of it; `None`: it is not what is pinned under its name now.
    pub id: Option<u32>,
}

impl ObservedProgram {
    /// The maps that somebody unpinned, or pinned something else in their place.
    pub fn unpinned(&self) -> impl Iterator<Item = &MapName> {
        let maps = self.made.iter().flat_map(|made| &made.maps);
        maps.filter(|(_, map)| map.id.is_none()).map(|(name, _)| name)
    }
}

impl Observed {
    /// Finds the dispatchers that have our slots in them: what holds a chain of slots is known by
    /// nothing but its programs. A BPF link that runs wins.
    pub fn find_slots(&mut self) {
        for hook in self.hooks.values_mut() {
            let pinned = hook.chains.values().flat_map(|chain| &chain.slots);
            let ours: BTreeSet<u32> = pinned.chain(&hook.held).copied().collect();
            if ours.is_empty() || hook.link.as_ref().is_some_and(|link| !link.is_detached()) {
                continue;
            }
            let found = self.interfaces.values().find_map(|interface| {
                let dispatcher = interface.dispatcher.as_ref()?;
                let ids = dispatcher.components.iter().map(|component| component.id);
                let slots: BTreeSet<u32> = ids.filter(|id| ours.contains(id)).collect();
                let program_id = interface.attached.as_ref()?.program_id;
                let interface_index = interface.index;
                (!slots.is_empty()).then_some(ObservedLink {
                    program_id,
                    interface_index,
                    pinned: true,
                    slots: Some(slots),
                })
            });
            if found.is_some() {
                hook.link = found;
            }
        }
    }

    /// The interface that a link runs on; `None`: its interface is gone, or in a network namespace
    /// that was not looked into.
    #[must_use]
    pub fn interface_of(&self, link: &ObservedLink) -> Option<(&InterfaceId, &ObservedInterface)> {
        self.interfaces.iter().find(|(_, interface)| link.runs_on(interface))
    }
}

impl ObservedLink {
    /// Whether it is a dispatcher with our slots in it.
    #[must_use]
    pub fn is_dispatcher(&self) -> bool {
        self.slots.is_some()
    }

    /// Whether the link runs nothing any more: its interface is gone, or it was detached.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.interface_index == 0
    }

    /// Whether it is this link's program that runs on `interface`. Each network namespace numbers
    /// its interfaces for itself, so the number alone does not tell.
    #[must_use]
    pub fn runs_on(&self, interface: &ObservedInterface) -> bool {
        let program = interface.attached.as_ref().map(|attached| attached.program_id);
        self.interface_index == interface.index && program == Some(self.program_id)
    }
}

impl ObservedHook {
    /// The chain that packets run through now. Of one of slots some may be missing.
    #[must_use]
    pub fn live(&self) -> Option<(Sequence, &ObservedChain)> {
        let link = self.link.as_ref()?;
        let runs = |chain: &ObservedChain| match &link.slots {
            None => chain.program_id == Some(link.program_id),
            Some(slots) => chain.slots.iter().any(|id| slots.contains(id)),
        };
        let live = self.chains.iter().rev().find(|(_, chain)| runs(chain));
        live.map(|(&sequence, chain)| (sequence, chain))
    }
}
