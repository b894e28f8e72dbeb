//! A chain in slots of a dispatcher, beside programs of others.

use crate::standing::Standing;
use pointsman_fuse::slot::shared_slot;
use pointsman_model::chain::{ChainSpec, MemberSpec, SlotSpec};
use pointsman_model::document::{OtherSpec, SlotChoice, Which};
use pointsman_model::observed::{Observed, ObservedComponent, ObservedDispatcher, ObservedLink};
use pointsman_model::plan::OtherChange;
use pointsman_model::{ActionSet, EntryName};

/// The slots of a dispatcher (xdp-tools, `lib/libxdp/xdp-dispatcher.c.in`).
pub(crate) const MAX_SLOTS: usize = 10;
/// The name of the program of an empty chain.
const EMPTY_NAME: &str = "pointsman_empty";
/// Its priority: the last that libxdp's tools show as a number.
const EMPTY_PRIORITY: u32 = i32::MAX.cast_unsigned();

/// A program of somebody else's in the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    id: u32,
    name: String,
    now: (u32, ActionSet),
    then: (u32, ActionSet),
}

/// The dispatcher that a hook's chain is in, or can join.
pub(crate) fn host<'a>(
    standing: Standing<'a>,
    observed: &'a Observed,
) -> Option<&'a ObservedDispatcher> {
    match (standing, standing.link()) {
        (Standing::Joinable(_, dispatcher), _) => Some(dispatcher),
        (_, Some(link)) if link.is_dispatcher() => {
            observed.interface_of(link)?.1.dispatcher.as_ref()
        }
        _ => None,
    }
}

/// The programs of others in a dispatcher, as an operator wants them.
pub(crate) fn others(
    dispatcher: Option<&ObservedDispatcher>,
    link: Option<&ObservedLink>,
    policy: &[OtherSpec],
) -> Vec<Other> {
    let ours = |id: u32| {
        link.and_then(|link| link.slots.as_ref()).is_some_and(|slots| slots.contains(&id))
    };
    let components = dispatcher.iter().flat_map(|dispatcher| &dispatcher.components);
    let theirs = components.filter(|component| !component.passes && !ours(component.id));
    theirs
        .map(|component| {
            let ObservedComponent { id, name, tag, priority, actions, .. } = component;
            let is_meant = |which: &Which| match which {
                Which::Name(wanted) => wanted == name,
                Which::Tag(wanted) => wanted == tag,
            };
            let mut then = (*priority, *actions);
            // A tag is one build of a program, a name is all of them: the closer word counts.
            let mut decisions: Vec<_> = policy.iter().filter(|it| is_meant(&it.which)).collect();
            decisions.sort_by_key(|it| matches!(it.which, Which::Tag(_)));
            for OtherSpec { priority, actions, .. } in decisions {
                then = (priority.unwrap_or(then.0), actions.unwrap_or(then.1));
            }
            Other { id: *id, name: name.clone(), now: (*priority, *actions), then }
        })
        .collect()
}

/// What a plan tells others' programs to change.
pub(crate) fn changes(others: &[Other]) -> Vec<OtherChange> {
    let moved = others.iter().filter(|other| other.now != other.then);
    moved
        .map(|other| OtherChange {
            id: other.id,
            name: other.name.clone(),
            priority: other.then.0,
            chain_call_actions: other.then.1,
        })
        .collect()
}

/// Divides ordered members into slots: neighbours share one, as far as no program of somebody
/// else's belongs between them. Per slot how many there are, and whether its member stands alone.
pub(crate) fn divide(
    members: &[(u32, &EntryName, SlotChoice)],
    others: &[Other],
) -> Vec<(usize, SlotChoice)> {
    let mut slots: Vec<(usize, SlotChoice)> = Vec::new();
    for (at, &(priority, entry, choice)) in members.iter().enumerate() {
        // libxdp's rule: by priority, then by name.
        let between = |other: &Other| {
            let (before, name, _) = members[at - 1];
            let key = (other.then.0, other.name.as_str());
            (before, name.as_str()) <= key && key < (priority, entry.as_str())
        };
        match slots.last_mut() {
            Some((count, SlotChoice::Shared))
                if choice == SlotChoice::Shared && !others.iter().any(between) =>
            {
                *count += 1;
            }
            _ => slots.push((1, choice)),
        }
    }
    slots
}

/// What the dispatcher is told of a slot with these members.
pub(crate) fn slot(members: &[MemberSpec], choice: SlotChoice, frags: bool) -> SlotSpec {
    let Some(first) = members.first() else {
        let name = EntryName::new(EMPTY_NAME).expect("invariant: it is a name");
        let (priority, actions) = (EMPTY_PRIORITY, ActionSet::PASS);
        return SlotSpec { members: 0, own: false, name, priority, actions, frags };
    };
    // An observed member always goes on, which no verdict of its own can say.
    let own = choice == SlotChoice::Own && first.enforce;
    let enforced = members.iter().filter(|member| member.enforce);
    let actions = match own {
        true => first.chain_call_actions,
        false => shared_slot(enforced.map(|member| member.chain_call_actions)).actions,
    };
    let (name, priority) = (first.entry.clone(), first.priority);
    SlotSpec { members: members.len(), own, name, priority, actions, frags }
}

/// A program of somebody else's that has the very place of a slot: which of them comes first is
/// decided by their tags.
pub(crate) fn tie<'a>(slots: &[SlotSpec], others: &'a [Other]) -> Option<&'a str> {
    let ties = |other: &&Other| {
        slots.iter().any(|slot| (slot.priority, slot.name.as_str()) == (other.then.0, &*other.name))
    };
    others.iter().find(ties).map(|other| other.name.as_str())
}

/// Whether a program that passes everything must stand beside: one answers what only a dispatcher
/// understands, or a lone program's actions would mean nothing. Others are no company: when they go
/// libxdp moves what is left to where it is alone.
pub(crate) fn needs_company(slots: &[SlotSpec]) -> bool {
    let speaks = |slot: &SlotSpec| !slot.own && slot.actions.is_empty();
    let alone = |slot: &SlotSpec| slots.len() == 1 && slot.actions != ActionSet::PASS;
    slots.iter().any(|slot| speaks(slot) || alone(slot))
}

/// How many programs libxdp's tools will show.
pub(crate) fn visible(slots: &[SlotSpec], others: &[Other]) -> usize {
    slots.len() + others.len() + usize::from(needs_company(slots))
}

/// Whether a dispatcher has a chain's slots as they belong, and the programs of others too. `ids`:
/// the programs of the slots.
pub(crate) fn in_order(
    spec: &ChainSpec,
    ids: &[u32],
    link: &ObservedLink,
    dispatcher: &ObservedDispatcher,
    others: &[Other],
) -> bool {
    let there = |(slot, id): (&SlotSpec, &u32)| {
        let mut components = dispatcher.components.iter();
        components.any(|c| (c.id, c.priority, c.actions) == (*id, slot.priority, slot.actions))
    };
    let passes = dispatcher.components.iter().any(|component| component.passes);
    let ours = link.slots.as_ref().map_or(0, std::collections::BTreeSet::len);
    (spec.slots.len(), ours) == (ids.len(), ids.len())
        && spec.slots.iter().zip(ids).all(there)
        && others.iter().all(|other| other.now == other.then)
        && (passes || !needs_company(&spec.slots))
}
