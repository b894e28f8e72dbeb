//! The part of a plan that concerns some of its hooks.

use crate::Plan;
use crate::catalog::Load;
use pointsman_model::HookId;
use pointsman_model::plan::Step;
use std::collections::BTreeSet;

/// What `plan` does to the hooks that `keep` chooses: their own steps, and their programs as far
/// as they are not there yet. What other hooks use stays as it is, and nothing is released.
#[must_use]
pub fn narrow(mut plan: Plan, keep: impl Fn(&HookId) -> bool) -> Plan {
    if plan.hooks.iter().all(|diff| keep(&diff.hook)) {
        return plan;
    }
    let builds = plan.steps.iter().filter_map(|step| match step {
        Step::BuildChain(build) if keep(&build.chain.hook) => Some(&build.spec.members),
        _ => None,
    });
    let members: BTreeSet<Load> =
        builds.flatten().map(|m| (m.program.clone(), m.fingerprint.clone())).collect();
    let prepared: BTreeSet<Load> = (plan.steps.iter())
        .filter_map(|step| match step {
            Step::PrepareProgram(s) => Some((s.program.clone(), s.fingerprint.clone())),
            _ => None,
        })
        .filter(|load| members.contains(load))
        .collect();
    plan.steps.retain(|step| match (step, step.program()) {
        (Step::ReleaseProgram(_), _) => false,
        // Later steps of all hooks speak of the names that follow from it.
        (Step::RenameHook(_), _) => true,
        (_, Some((program, fingerprint))) => {
            prepared.contains(&(program.clone(), fingerprint.clone()))
        }
        (_, None) => step.hook().is_some_and(&keep),
    });
    plan.refusals.retain(|refusal| refusal.hook.as_ref().is_none_or(&keep));
    plan.hooks.retain(|diff| keep(&diff.hook));
    plan
}
