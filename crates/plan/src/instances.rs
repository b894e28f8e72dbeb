//! The document that is carried out: the operator's, and what instances need beside it.
//!
//! An instance that registers with an interface wants its packets by AF_XDP. Two programs of ours
//! join the chain there for as long as somebody wants that: the port filter, and the redirect to
//! sockets. What an operator wrote stays as it is, in its order: nothing of it is changed, and where
//! he has placed programs of these names himself, ours stay away.
//!
//! In: a document, who wants what, and which interfaces there are. Out: the document with ours in
//! it. Equal input gives an equal document, whatever order clients came in.

use pointsman_model::chain::MemberSpec;
use pointsman_model::document::{
    ChainEntry, DriftPolicy, Engine, InstanceProgram, MAX_CHAIN, Mode, NamespaceSpec, ObjectSource,
    ProgramSpec, SlotChoice, XdpSpec,
};
use pointsman_model::lease::Place;
use pointsman_model::observed::Observed;
use pointsman_model::{Action, ActionSet, Document, HookId, InterfaceId, ProgramName, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Which interfaces instances want their packets from, and which instances.
pub type Demands = BTreeMap<Place, BTreeSet<u64>>;

/// A document with what instances need.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The document.
    pub document: Document,
    /// The hooks of the interfaces that are wanted.
    pub hooks: BTreeMap<Place, HookId>,
    /// Those that cannot be served, and why.
    pub left_out: BTreeMap<Place, LeftOut>,
}

/// Why an interface that an instance wants is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// It is not there.
    #[error("it is not there any more")]
    Gone,
    /// Nothing more fits into its chain.
    #[error(
        "its chain has {MAX_CHAIN} programs already, and there is no room for those of instances"
    )]
    ChainFull,
}

/// The priorities that the MTL Manager's programs have: between an operator's own, by his choice.
const fn priority(program: InstanceProgram) -> u32 {
    match program {
        InstanceProgram::PortFilter => 19,
        InstanceProgram::Redirect => 20,
    }
}

/// The verdict on which the chain goes on: "drop" of the filter is a listed port.
fn goes_on(program: InstanceProgram) -> ActionSet {
    let action = match program {
        InstanceProgram::PortFilter => Action::Drop,
        InstanceProgram::Redirect => Action::Pass,
    };
    [action].into_iter().collect()
}

/// Adds to `document` what the instances of `demands` need, where `interfaces` has their numbers.
#[must_use]
pub fn effective<'a>(
    mut document: Document,
    demands: impl IntoIterator<Item = &'a Place>,
    interfaces: &BTreeMap<InterfaceId, u32>,
) -> Effective {
    let (mut hooks, mut left_out) = (BTreeMap::new(), BTreeMap::new());
    let places: BTreeSet<&Place> = demands.into_iter().collect();
    for place in places {
        let is_it = |(id, index): &(&InterfaceId, &u32)| {
            id.namespace == place.namespace && **index == place.index
        };
        let Some((interface, _)) = interfaces.iter().find(is_it) else {
            left_out.insert(place.clone(), LeftOut::Gone);
            continue;
        };
        match join(&mut document, interface, place) {
            Ok(()) => drop(hooks.insert(place.clone(), HookId::xdp(interface.clone()))),
            Err(why) => drop(left_out.insert(place.clone(), why)),
        }
    }
    Effective { document, hooks, left_out }
}

fn join(document: &mut Document, interface: &InterfaceId, place: &Place) -> Result<(), LeftOut> {
    let known = document.interfaces.get(interface).and_then(|spec| spec.xdp.as_ref());
    let placed = |program: &InstanceProgram| {
        let chain = known.map(|xdp| xdp.chain.as_slice()).unwrap_or_default();
        chain.iter().any(|entry| entry.program.as_str() == program.entry())
    };
    let wanted: Vec<_> = InstanceProgram::ALL.into_iter().filter(|p| !placed(p)).collect();
    if known.map_or(0, |xdp| xdp.chain.len()) + wanted.len() > MAX_CHAIN {
        return Err(LeftOut::ChainFull);
    }
    let entries: Vec<_> = wanted
        .into_iter()
        .map(|program| {
            let name = name(document, program, place);
            document.programs.insert(name.clone(), spec(program));
            ChainEntry {
                program: name,
                priority: priority(program),
                actions: goes_on(program),
                enforce: true,
                slot: SlotChoice::Own,
            }
        })
        .collect();
    if let Some(namespace) = &interface.namespace {
        let found = || NamespaceSpec::of(namespace);
        document.namespaces.entry(namespace.clone()).or_insert_with(found);
    }
    let spec = document.interfaces.entry(interface.clone());
    let spec = spec.or_default();
    let xdp = spec.xdp.get_or_insert_with(|| XdpSpec {
        engine: Engine::default(),
        mode: Mode::default(),
        drift: DriftPolicy::default(),
        chain: Vec::new(),
        others: Vec::new(),
    });
    xdp.chain.extend(entries);
    Ok(())
}

/// A program of its own for each interface: ports are listed by interface. The name stays when the
/// interface is renamed, and with it the maps.
fn name(document: &Document, program: InstanceProgram, place: &Place) -> ProgramName {
    let Place { namespace, index } = place;
    let base = match namespace {
        None => format!("{}.{index}", program.entry()),
        Some(namespace) => {
            let namespace = Sha256::of(namespace.as_str().as_bytes());
            format!("{}.{index}.{}", program.entry(), namespace.short())
        }
    };
    let mut names = (0_u32..).map(|more| match more {
        0 => base.clone(),
        more => format!("{base}-{more}"),
    });
    let free = names.find_map(|name| {
        let name = ProgramName::new(name).ok()?;
        // An operator may call his own so.
        (!document.programs.contains_key(&name)).then_some(name)
    });
    free.expect("invariant: a document has fewer programs than there are numbers")
}

fn spec(program: InstanceProgram) -> ProgramSpec {
    ProgramSpec {
        object: ObjectSource::Instances(program),
        entry: None,
        globals: BTreeMap::new(),
        maps: BTreeMap::new(),
        on_upgrade: BTreeMap::new(),
    }
}

/// Whether a member of a chain is there for instances.
#[must_use]
pub fn is_for_instances(member: &MemberSpec) -> bool {
    InstanceProgram::of_source(&member.source).is_some()
}

/// What instances wanted when the chains that run were made: for a daemon that cannot know what they
/// want now.
#[must_use]
pub fn demands_of(observed: &Observed) -> Demands {
    let mut demands = Demands::new();
    for (hook, pins) in &observed.hooks {
        let record = pins.live().and_then(|(_, chain)| chain.record.as_ref());
        let served = record.is_some_and(|it| it.spec.members.iter().any(is_for_instances));
        if let (true, Some(link)) = (served, &pins.link) {
            let namespace = hook.interface.namespace.clone();
            let place = Place { namespace, index: link.interface_index };
            demands.insert(place, BTreeSet::new());
        }
    }
    demands
}

/// The hooks on which chains run that have nothing but what instances need.
#[must_use]
pub fn only_for_instances(observed: &Observed) -> BTreeSet<HookId> {
    let only = observed.hooks.iter().filter(|(_, pins)| {
        let record = pins.live().and_then(|(_, chain)| chain.record.as_ref());
        let members = record.map(|record| record.spec.members.as_slice()).unwrap_or_default();
        !members.is_empty() && members.iter().all(is_for_instances)
    });
    only.map(|(hook, _)| hook.clone()).collect()
}

#[cfg(test)]
mod tests;
