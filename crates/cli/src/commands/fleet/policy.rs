//! `fleet policy`.

use super::{Context, absent, edit};
use crate::args::fleet::{PolicyDiffArgs, PolicyVerb, PutPolicyArgs, SureArgs};
use crate::control::Revision;
use crate::error::{CliError, Exit};
use crate::input;
use crate::render::fleet::policy as render;
use pointsman_model::PolicyName;
use pointsman_model::api::ProblemKind;
use pointsman_model::document::MAX_BYTES;
use pointsman_model::fleet::{NodeChange, NodeOutcome, Policy, PolicyDiff};
use std::path::Path;

/// How often a policy is put again when somebody else was faster.
const TRIES: usize = 5;

pub(super) async fn run(context: &Context<'_>, verb: PolicyVerb) -> Result<Exit, CliError> {
    match verb {
        PolicyVerb::Create(args) => create(context, &args).await,
        PolicyVerb::Put(args) => put(context, &args).await,
        PolicyVerb::Edit(args) => edit::edit(context, &args).await,
        PolicyVerb::Diff(args) => diff(context, &args).await,
        PolicyVerb::Ls => {
            let all = context.control.policies().await?;
            context.output.answer(&all, |all, look| render::policies(look, &all.items))?;
            Ok(Exit::Done)
        }
        PolicyVerb::Show { name } => {
            let policy = find(context, &name).await?;
            context.output.answer(&policy, |policy, look| render::policy(look, policy))?;
            Ok(Exit::Done)
        }
        PolicyVerb::Rm { name, sure } => remove(context, &name, &sure).await,
    }
}

pub(super) async fn find(context: &Context<'_>, name: &PolicyName) -> Result<Policy, CliError> {
    context.control.policy(name).await?.ok_or_else(|| absent("policy", name))
}

/// Sent as it is: the control plane judges it.
fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    input::read(file, "a policy", MAX_BYTES)
}

async fn create(context: &Context<'_>, args: &PutPolicyArgs) -> Result<Exit, CliError> {
    let PutPolicyArgs { name, file, if_revision } = args;
    if if_revision.is_some() {
        return Err(CliError::Usage("--if-revision is for `policy put`: a new policy has none"));
    }
    let spec = read(file)?;
    match context.control.put_policy(name, Revision::Absent, spec).await {
        Err(error) if error.is(ProblemKind::PreconditionFailed) => Err(CliError::Present {
            what: "policy",
            name: name.to_string(),
            instead: "`pointsman fleet policy put` replaces it, `policy edit` changes it",
        }),
        other => saved(context, &other?, None),
    }
}

async fn put(context: &Context<'_>, args: &PutPolicyArgs) -> Result<Exit, CliError> {
    let PutPolicyArgs { name, file, if_revision } = args;
    let spec = read(file)?;
    if let Some(revision) = *if_revision {
        let policy = context.control.put_policy(name, Revision::At(revision), spec).await?;
        return saved(context, &policy, Some(revision));
    }
    for _ in 0..TRIES {
        let before = context.control.policy(name).await?.map(|policy| policy.revision);
        let only = before.map_or(Revision::Absent, Revision::At);
        match context.control.put_policy(name, only, spec.clone()).await {
            Err(error) if error.is(ProblemKind::PreconditionFailed) => {}
            other => return saved(context, &other?, before),
        }
    }
    Err(CliError::Contended { what: "policy", name: name.to_string() })
}

pub(super) fn saved(
    context: &Context<'_>,
    policy: &Policy,
    before: Option<u64>,
) -> Result<Exit, CliError> {
    context.output.answer(policy, |policy, _| render::saved(policy, before))?;
    Ok(Exit::Done)
}

async fn diff(context: &Context<'_>, args: &PolicyDiffArgs) -> Result<Exit, CliError> {
    let PolicyDiffArgs { name, file, rm: _ } = args;
    let spec = file.as_deref().map(read).transpose()?;
    let would = context.control.diff_policy(name, spec).await?;
    context.output.answer(&would, |would, look| render::diff(look, name, would))?;
    Ok(pending(&would))
}

fn pending(would: &PolicyDiff) -> Exit {
    match outcome(&would.nodes) {
        Exit::Done if !would.policy.is_empty() => Exit::Pending,
        exit => exit,
    }
}

/// How it ends where these nodes would change.
pub(super) fn outcome(nodes: &[NodeChange]) -> Exit {
    let refused = |change: &NodeChange| {
        matches!(change.outcome, NodeOutcome::Refused | NodeOutcome::WouldEmpty)
    };
    match nodes {
        [] => Exit::Done,
        nodes if nodes.iter().any(refused) => Exit::Refused,
        _ => Exit::Pending,
    }
}

async fn remove(
    context: &Context<'_>,
    name: &PolicyName,
    sure: &SureArgs,
) -> Result<Exit, CliError> {
    let policy = find(context, name).await?;
    if !sure.yes {
        super::ask::needs_terminal("remove")?;
        let would = context.control.diff_policy(name, None).await?;
        context.sure("remove", sure, |look| render::removal(look, name, &would))?;
    }
    context.control.remove_policy(&policy).await?;
    context.removed("policy", name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::change;

    #[test]
    fn a_difference_is_pending_and_one_that_would_be_refused_is_refused() {
        let would = |policy: &str, outcomes: &[NodeOutcome]| PolicyDiff {
            policy: policy.into(),
            nodes: outcomes.iter().map(|outcome| change("a", *outcome, "")).collect(),
        };
        assert_eq!(pending(&would("", &[])), Exit::Done);
        assert_eq!(pending(&would("+x\n", &[])), Exit::Pending);
        assert_eq!(pending(&would("", &[NodeOutcome::Changed])), Exit::Pending);
        for bad in [NodeOutcome::Refused, NodeOutcome::WouldEmpty] {
            assert_eq!(pending(&would("+x\n", &[NodeOutcome::Changed, bad])), Exit::Refused);
        }
    }
}
