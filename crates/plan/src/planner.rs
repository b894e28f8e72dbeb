//! A whole plan, put together from its hooks.

use crate::bypass::bypass;
use crate::catalog::{Catalog, Load, used};
use crate::follow::{follow, renamed};
use crate::hook::{Context, HookPlan, remove, want};
use crate::preflight::preflight;
use crate::programs::{prepare, release};
use crate::{Caps, Options, Wanted};
use pointsman_model::document::XdpSpec;
use pointsman_model::observed::Observed;
use pointsman_model::plan::{HookChange, HookDiff, Note, Plan, Step};
use pointsman_model::{HookId, ProgramName};
use std::collections::{BTreeMap, BTreeSet};

/// Plans the way from what is there to what is wanted.
///
/// Total and deterministic: what cannot be done is a refusal, and the hook it belongs to stays as
/// it is while the others go on. All that prepares comes before the first step that packets can
/// notice; what is cleared away comes last.
#[must_use]
pub fn plan(wanted: &Wanted<'_>, observed: &Observed, caps: &Caps, options: Options) -> Plan {
    let document = wanted.document;
    let catalog = Catalog::new(wanted);
    let chains: BTreeMap<HookId, &XdpSpec> = document
        .interfaces
        .iter()
        .filter_map(|(name, interface)| Some((HookId::xdp(name.clone()), interface.xdp.as_ref()?)))
        .collect();
    let (renames, observed) = follow(|hook| chains.contains_key(hook), observed);
    let observed = &*observed;
    let bypassed = renamed(wanted.bypassed, &renames);
    let context =
        Context { generation: document.generation, catalog: &catalog, observed, caps, options };
    let hooks: BTreeSet<&HookId> = chains.keys().chain(observed.hooks.keys()).collect();
    let hooks: Vec<HookPlan> = hooks
        .into_iter()
        .map(|hook| match (chains.get(hook), bypassed.get(hook)) {
            (Some(xdp), None) => want(hook, xdp, &context),
            (Some(xdp), Some(how_long)) => bypass(hook, xdp, how_long, &context),
            (None, _) => remove(hook, observed),
        })
        .collect();
    // What a bypassed hook ran and will run again must find its maps as they were.
    let keeps = chains.keys().any(|hook| bypassed.contains_key(hook));

    // Maps are filled for what runs afterwards; a refused or pending hook gets nothing new.
    let stays = |diff: &HookDiff| matches!(diff.change, HookChange::Refused | HookChange::Pending);
    let running: BTreeSet<&Load> = hooks
        .iter()
        .filter(|hook| !stays(&hook.diff))
        .flat_map(|hook| hook.uses.iter().flatten())
        .collect();
    let mut notes = unused(wanted);
    let (prepared, upgrades) = prepare(&running, &catalog, observed);
    notes.extend(upgrades);
    let mut steps = renames;
    steps.extend(prepared);
    let staying = hooks.iter().filter(|hook| stays(&hook.diff));
    let waiting = staying.filter_map(|hook| chains.get(&hook.diff.hook)).flat_map(|xdp| &xdp.chain);
    // What runs elsewhere is, or will be, pinned for that.
    let runs = |name: &ProgramName| running.iter().any(|(other, _)| other == name);
    let waiting = waiting.map(|entry| &entry.program).filter(|name| !runs(name)).collect();
    let (warnings, budgets) = preflight(&hooks, &catalog, observed, caps);
    let releases = if keeps { (Vec::new(), None) } else { release(&hooks, &waiting, observed) };
    let plan = assemble(document.generation, steps, notes, hooks, releases);
    Plan { warnings, budgets, ..plan }
}

/// Plans the removal of all that is ours. What is not ours is not looked at.
#[must_use]
pub fn drain(observed: &Observed) -> Plan {
    let hooks: Vec<_> = observed.hooks.keys().map(|hook| remove(hook, observed)).collect();
    let releases = release(&hooks, &BTreeSet::new(), observed);
    assemble(0, Vec::new(), Vec::new(), hooks, releases)
}

fn assemble(
    generation: u64,
    steps: Vec<Step>,
    notes: Vec<Note>,
    mut hooks: Vec<HookPlan>,
    (releases, kept): (Vec<Step>, Option<Note>),
) -> Plan {
    let mut plan = Plan { generation, steps, notes, ..Plan::default() };
    for hook in &mut hooks {
        plan.steps.extend(hook.pin.take().map(Step::PinLink));
        plan.steps.extend(hook.build.take().map(Step::BuildChain));
    }
    for hook in &mut hooks {
        plan.steps.append(&mut hook.visible);
    }
    for hook in &mut hooks {
        plan.steps.append(&mut hook.cleanup);
    }
    plan.steps.extend(releases);
    for hook in hooks {
        plan.refusals.extend(hook.refusals);
        plan.notes.extend(hook.notes);
        plan.hooks.push(hook.diff);
    }
    plan.notes.extend(kept);
    plan
}

fn unused(wanted: &Wanted<'_>) -> Vec<Note> {
    let used = used(wanted.document);
    let unused = wanted.document.programs.keys().filter(|name| !used.contains(name));
    unused
        .map(|name| Note {
            hook: None,
            program: Some(name.clone()),
            message: format!("program {name} is in no chain of this document"),
        })
        .collect()
}
