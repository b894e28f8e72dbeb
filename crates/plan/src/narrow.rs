//! The part of a plan that concerns some of its hooks.

use crate::Plan;
use crate::catalog::Load;
use pointsman_model::HookId;
use pointsman_model::plan::Step;
use std::collections::BTreeSet;

/// What `plan` does to the hooks that `keep` chooses: the whole plan if these are all it has, else
/// as [`narrow_to`] for each of them.
#[must_use]
pub fn narrow(plan: Plan, keep: impl Fn(&HookId) -> bool) -> Plan {
    if plan.hooks.iter().all(|diff| keep(&diff.hook)) {
        return plan;
    }
    cut(plan, keep)
}

/// What `plan` does to `hook` and no more: its own steps, and the programs of the chain that is
/// built for it, as far as they are not there yet. What other hooks use stays as it is, and nothing
/// is prepared for later or released.
#[must_use]
pub fn narrow_to(plan: Plan, hook: &HookId) -> Plan {
    cut(plan, |other| other == hook)
}

fn cut(mut plan: Plan, keep: impl Fn(&HookId) -> bool) -> Plan {
    let builds = plan.steps.iter().filter_map(|step| match step {
        Step::BuildChain(build) if keep(&build.chain.hook) => Some(&build.spec.members),
        _ => None,
    });
    let members: BTreeSet<Load> =
        builds.flatten().map(|m| (m.program.clone(), m.fingerprint.clone())).collect();
    // What is there may be changed where no other hook uses it.
    let alone = plan.hooks.iter().all(|diff| keep(&diff.hook));
    let prepared: BTreeSet<Load> = (plan.steps.iter())
        .filter_map(|step| match step {
            Step::PrepareProgram(s) => Some((s.program.clone(), s.fingerprint.clone())),
            _ => None,
        })
        .collect();
    plan.steps.retain(|step| match (step, step.program()) {
        (Step::ReleaseProgram(_), _) => false,
        // Later steps of all hooks speak of the names that follow from it.
        (Step::RenameHook(_), _) => true,
        (_, Some((program, fingerprint))) => {
            let load = (program.clone(), fingerprint.clone());
            let touchable = alone || matches!(step, Step::PinMaps(_)) || prepared.contains(&load);
            members.contains(&load) && touchable
        }
        (_, None) => step.hook().is_some_and(&keep),
    });
    plan.refusals.retain(|refusal| refusal.hook.as_ref().is_none_or(&keep));
    plan.hooks.retain(|diff| keep(&diff.hook));
    plan
}
