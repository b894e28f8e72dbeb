//! What happens to one hook. Hooks are planned one by one, so none can block another.

use crate::catalog::{Catalog, Load, Usable};
use crate::chain::{Chain, chain, list};
use crate::engine::{self, Chosen, Kind};
use crate::place::{Beside, Hindrance, Place, Way, place};
use crate::slots::{self, Other, host, needs_company, others};
use crate::standing::Standing;
use crate::{Caps, Options};
use pointsman_model::chain::{ChainId, ChainSpec, Sequence, SlotSpec};
use pointsman_model::document::XdpSpec;
use pointsman_model::facts::InitialContents;
use pointsman_model::observed::{Observed, ObservedHook, ObservedLink, ObservedProgram};
use pointsman_model::plan::{
    Attach, BuildChain, Detach, Dispatch, HookChange, HookDiff, Note, PinLink, Refusal,
    ReleaseHook, RetireChain, Step, Swap,
};
use pointsman_model::{HookId, ProgramName};
use std::collections::BTreeSet;

/// The part of a plan that belongs to one hook.
#[derive(Debug)]
pub(crate) struct HookPlan {
    pub(crate) diff: HookDiff,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) notes: Vec<Note>,
    /// Whether the link must be pinned again.
    pub(crate) pin: Option<PinLink>,
    /// The chain to build, before anything becomes visible.
    pub(crate) build: Option<BuildChain>,
    /// What packets can notice.
    pub(crate) visible: Vec<Step>,
    /// What clears away afterwards.
    pub(crate) cleanup: Vec<Step>,
    /// The programs that its chain uses afterwards; `None`: it cannot be known.
    pub(crate) uses: Option<BTreeSet<Load>>,
}

/// What is to be known where a document decides about others, and there can be none.
const NO_OTHERS: &str = "what the document decides about programs of others means nothing here: a \
                         BPF link holds the chain, and nobody can join it";

/// What all hooks of a plan share.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) generation: u64,
    pub(crate) catalog: &'a Catalog<'a>,
    pub(crate) observed: &'a Observed,
    pub(crate) caps: &'a Caps,
    pub(crate) options: Options,
}

/// Plans a hook that the document wants.
pub(crate) fn want(hook: &HookId, xdp: &XdpSpec, context: &Context<'_>) -> HookPlan {
    let Context { catalog, caps, observed, options, .. } = *context;
    let standing = Standing::of(hook, observed);
    let others = others(host(standing, observed), standing.link(), &xdp.others);
    let tail_caller = engine::tail_caller(xdp, catalog);
    let chosen = match engine::choose(xdp.engine, standing, tail_caller, caps) {
        Ok(chosen) => chosen,
        Err(obstacle) => {
            let words = "none: the kernel cannot do what the document says".to_owned();
            let mut plan = keep(hook, xdp, standing, HookChange::Refused, words, context);
            plan.refusals = vec![obstacle.refusal(hook)];
            return plan;
        }
    };
    let place = |chosen: &Chosen| {
        let beside = Beside { kind: chosen.kind, others: others.len(), engine: &chosen.words };
        place(hook, xdp.mode, standing, beside, observed, options)
    };
    let (mut placed, mut chosen) = (place(&chosen), chosen);
    if matches!(&placed, Ok(Place { way: Way::Reattach(..), .. }))
        && let Some(better) = engine::anew(xdp.engine, &chosen, tail_caller, caps)
    {
        placed = place(&better);
        chosen = better;
    }
    let Chosen { kind, words: engine, note: said } = chosen;
    let chain = chain(hook, xdp, kind, &others, catalog, caps.stack_rounding);
    match (chain, placed) {
        (Ok(chain), Ok(place)) => {
            let mut plan = accept(hook, standing, chain, place, &others, engine, context);
            let note = |message| Note { hook: Some(hook.clone()), program: None, message };
            let lost =
                (kind == Kind::Fused && !xdp.others.is_empty()).then(|| NO_OTHERS.to_owned());
            plan.notes.extend(said.into_iter().chain(lost).map(note));
            plan
        }
        (Ok(_), Err(Hindrance::Pending(why))) => {
            let mut plan = keep(hook, xdp, standing, HookChange::Pending, engine, context);
            plan.diff.pending = Some(why);
            plan
        }
        (chain, place) => {
            let mut plan = keep(hook, xdp, standing, HookChange::Refused, engine, context);
            plan.refusals = chain.err().unwrap_or_default();
            if let Err(Hindrance::Obstacle(obstacle)) = place {
                plan.refusals.push(obstacle.refusal(hook));
            }
            plan
        }
    }
}

/// Plans a hook of which we hold pins and that nobody wants any more.
pub(crate) fn remove(hook: &HookId, observed: &Observed) -> HookPlan {
    let standing = Standing::of(hook, observed);
    let pins = &observed.hooks[hook];
    let detach = Detach {
        hook: hook.clone(),
        opens_gap: false,
        dispatcher: dispatch(hook, pins.link.as_ref(), observed, &[], &[]),
    };
    let change = match pins.link {
        Some(_) => HookChange::Detach,
        None => HookChange::Unchanged,
    };
    let away = |link: &&ObservedLink| link.is_dispatcher() && observed.interface_of(link).is_none();
    if pins.link.as_ref().filter(away).is_some() {
        return stays(hook, standing, pins);
    }
    let mut cleanup = retire(hook, pins, None);
    cleanup.push(Step::ReleaseHook(ReleaseHook { hook: hook.clone() }));
    HookPlan {
        diff: HookDiff {
            hook: hook.clone(),
            change,
            before: standing.record().map(|record| record.spec.clone()),
            after: None,
            mode: None,
            engine: String::new(),
            pending: None,
            others: Vec::new(),
        },
        refusals: Vec::new(),
        notes: Vec::new(),
        pin: None,
        build: None,
        visible: pins.link.iter().map(|_| Step::Detach(detach.clone())).collect(),
        cleanup,
        uses: Some(BTreeSet::new()),
    }
}

/// Slots in a dispatcher that cannot be reached: taking them out takes its network namespace.
fn stays(hook: &HookId, standing: Standing<'_>, pins: &ObservedHook) -> HookPlan {
    let before = standing.record().map(|record| record.spec.clone());
    let message = format!(
        "{hook} is not wanted any more, and its slots run on in a network namespace that cannot \
         be looked into: they are taken out when it can, or when it ends"
    );
    let records = pins.chains.values().filter_map(|chain| chain.record.as_ref());
    HookPlan {
        diff: HookDiff {
            hook: hook.clone(),
            change: HookChange::Unchanged,
            after: before.clone(),
            before,
            mode: None,
            engine: String::new(),
            pending: None,
            others: Vec::new(),
        },
        refusals: Vec::new(),
        notes: vec![Note { hook: Some(hook.clone()), program: None, message }],
        pin: None,
        build: None,
        visible: Vec::new(),
        cleanup: Vec::new(),
        uses: Some(records.flat_map(|record| members(&record.spec)).collect()),
    }
}

/// The dispatcher that a hook's chain is in; `None`: a BPF link holds it, or nothing does.
fn dispatch(
    hook: &HookId,
    link: Option<&ObservedLink>,
    observed: &Observed,
    others: &[Other],
    slots: &[SlotSpec],
) -> Option<Dispatch> {
    let link = link.filter(|link| link.is_dispatcher())?;
    let interface = observed.interface_of(link).map_or(&hook.interface, |(id, _)| id);
    Some(Dispatch {
        interface: interface.clone(),
        interface_index: link.interface_index,
        company: needs_company(slots),
        others: slots::changes(others),
    })
}

pub(crate) fn accept(
    hook: &HookId,
    standing: Standing<'_>,
    chain: Chain,
    place: Place,
    others: &[Other],
    engine: String,
    context: &Context<'_>,
) -> HookPlan {
    let Chain { spec, mut notes } = chain;
    let note = |message| Note { hook: Some(hook.clone()), program: None, message };
    notes.extend(place.note.map(note));
    let no_pins = ObservedHook::default();
    let pins = context.observed.hooks.get(hook).unwrap_or(&no_pins);
    let before = standing.record().map(|record| record.spec.clone());
    let link = standing.link();
    let in_order = match (host(standing, context.observed), link, pins.live()) {
        (Some(dispatcher), Some(link), Some((_, live))) if link.is_dispatcher() => {
            slots::in_order(&spec, &live.slots, link, dispatcher, others)
        }
        _ => true,
    };
    let equal = place.way == Way::Swap && before.as_ref() == Some(&spec) && in_order;
    let lost = lost_programs(&spec, context.observed);
    if equal && !lost.is_empty() {
        // Nobody could reach the maps that the running chain uses.
        notes.push(note(format!(
            "the pinned maps of {} are gone; the chain is built anew with fresh maps",
            list(&lost)
        )));
    }
    let uses = members(&spec).collect();
    let mut plan = HookPlan {
        diff: HookDiff {
            hook: hook.clone(),
            change: HookChange::Unchanged,
            before,
            after: Some(spec.clone()),
            mode: place.mode,
            engine,
            pending: None,
            others: Vec::new(),
        },
        refusals: Vec::new(),
        notes,
        pin: None,
        build: None,
        visible: Vec::new(),
        cleanup: Vec::new(),
        uses: Some(uses),
    };
    plan.pin = (place.way == Way::Swap).then(|| unpinned(hook, pins)).flatten();
    if equal && lost.is_empty() {
        plan.cleanup = retire(hook, pins, standing.live());
        return plan;
    }
    let chain = ChainId { hook: hook.clone(), sequence: next_sequence(pins) };
    let attach = |interface_index, mode| {
        let interface = hook.interface.clone();
        let others = slots::changes(others);
        let company = needs_company(&spec.slots);
        let dispatcher = Dispatch { interface, interface_index, company, others };
        let dispatcher = (!spec.slots.is_empty()).then_some(dispatcher);
        Step::Attach(Attach { chain: chain.clone(), interface_index, mode, dispatcher })
    };
    (plan.diff.change, plan.visible) = match place.way {
        Way::Attach(index, mode) => {
            // Slots do not end by being left behind, as a link does.
            let left = dispatch(hook, pins.link.as_ref(), context.observed, &[], &[]);
            let left = left.map(|left| {
                let (hook, dispatcher) = (hook.clone(), Some(left));
                Step::Detach(Detach { hook, opens_gap: false, dispatcher })
            });
            (HookChange::Attach, left.into_iter().chain([attach(index, mode)]).collect())
        }
        Way::Swap => {
            let dispatcher = dispatch(hook, link, context.observed, others, &spec.slots);
            let swap = Swap { chain: chain.clone(), dispatcher };
            (HookChange::Swap, vec![Step::Swap(swap)])
        }
        Way::Reattach(index, mode) => {
            let dispatcher = dispatch(hook, link, context.observed, &[], &[]);
            let detach = Detach { hook: hook.clone(), opens_gap: true, dispatcher };
            (HookChange::Reattach, vec![Step::Detach(detach), attach(index, mode)])
        }
    };
    plan.diff.others = slots::changes(others);
    plan.build = Some(BuildChain { chain, generation: context.generation, spec });
    plan.cleanup = retire(hook, pins, None);
    plan
}

/// A hook that is refused or pending stays exactly as it is, leftovers included.
pub(crate) fn keep(
    hook: &HookId,
    xdp: &XdpSpec,
    standing: Standing<'_>,
    change: HookChange,
    engine: String,
    context: &Context<'_>,
) -> HookPlan {
    let before = standing.record().map(|record| record.spec.clone());
    HookPlan {
        diff: HookDiff {
            hook: hook.clone(),
            change,
            after: before.clone(),
            before,
            mode: standing.mode(),
            engine,
            pending: None,
            others: Vec::new(),
        },
        refusals: Vec::new(),
        notes: Vec::new(),
        pin: context.observed.hooks.get(hook).and_then(|pins| unpinned(hook, pins)),
        build: None,
        visible: Vec::new(),
        cleanup: Vec::new(),
        uses: kept(hook, xdp, context),
    }
}

/// What such a hook must not lose: the programs of the chains that it keeps, and those that
/// the document wants there, so that their maps are still there when the obstacle is gone.
fn kept(hook: &HookId, xdp: &XdpSpec, context: &Context<'_>) -> Option<BTreeSet<Load>> {
    let wanted = xdp.chain.iter().filter_map(|entry| context.catalog.get(&entry.program).ok());
    let mut kept: BTreeSet<_> = wanted.map(Usable::load).collect();
    if let Some(pins) = context.observed.hooks.get(hook) {
        let known = pins.live().is_some_and(|(_, chain)| chain.record.is_some());
        if pins.link.is_some() && !known {
            return None;
        }
        let records = pins.chains.values().filter_map(|chain| chain.record.as_ref());
        kept.extend(records.flat_map(|record| members(&record.spec)));
    }
    Some(kept)
}

pub(crate) fn members(spec: &ChainSpec) -> impl Iterator<Item = Load> {
    spec.members.iter().map(|member| (member.program.clone(), member.fingerprint.clone()))
}

/// Members whose maps are not pinned, or were not, and are of no use any more: the kernel empties a
/// program array that nobody has open (kernel/bpf/arraymap.c, `prog_array_map_clear`).
fn lost_programs<'a>(spec: &'a ChainSpec, observed: &Observed) -> Vec<&'a ProgramName> {
    let lost = spec.members.iter().filter(|member| {
        let load = (member.program.clone(), member.fingerprint.clone());
        let Some(ObservedProgram { made, .. }) = observed.programs.get(&load) else { return true };
        let maps = made.iter().flat_map(|made| made.maps.values());
        let mut unpinned = maps.filter(|map| map.id.is_none());
        unpinned.any(|map| map.facts.initial == InitialContents::Slots)
    });
    lost.map(|member| &member.program).collect()
}

/// The step that pins a link again that runs and is not pinned.
fn unpinned(hook: &HookId, pins: &ObservedHook) -> Option<PinLink> {
    let link = pins.link.as_ref()?;
    (!link.pinned && !link.is_detached()).then(|| PinLink { hook: hook.clone() })
}

/// Later than every chain there ever was, so that counters are folded once and in order.
fn next_sequence(pins: &ObservedHook) -> Sequence {
    let last = pins.chains.keys().next_back().copied().unwrap_or(0);
    last.max(pins.folded).saturating_add(1)
}

/// Retires the pinned chains but `live`, oldest first.
fn retire(hook: &HookId, pins: &ObservedHook, live: Option<Sequence>) -> Vec<Step> {
    let stale = pins.chains.keys().filter(|&&sequence| Some(sequence) != live);
    let chain = |&sequence| ChainId { hook: hook.clone(), sequence };
    stale.map(|sequence| Step::RetireChain(RetireChain { chain: chain(sequence) })).collect()
}
