//! What would be published: nothing here writes.

use super::before::{before, befores};
use super::error::PublishError;
use super::plan::{GROUPS, Group, Judged, Terms, decide, next, plan};
use super::publisher::Inner;
use super::report::Report;
use super::view::View;
use pointsman_fleet::{Composer, Policies, diff_policies};
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{
    NodeOutcome, PolicyDiff, PolicySpec, PublishReport, PublishRequest, RecordObject,
};
use pointsman_model::{NodeName, PolicyName};
use serde_json::Value;
use std::sync::Arc;

/// What a publish would do.
pub(super) async fn dry_run(
    inner: &Inner,
    request: &PublishRequest,
) -> Result<PublishReport, PublishError> {
    let view = view(inner).await?;
    let mut composer = Composer::new(view.policies(), view.library.clone());
    let key_id = inner.key.public_key().key_id();
    let plan = plan(&view.nodes, &view.states, &mut composer, &key_id);
    let mut report = Report::new();
    report.unchanged = plan.settled;
    judge(inner, &plan.groups, &mut composer, request.allow_empty, &mut report).await?;
    for left in plan.left {
        report.tell(left.node, NodeOutcome::Removed, Some(left.generation), "", &[]);
    }
    Ok(report.finish(None))
}

/// The document that a node would get now, with the generation that it would have; or why there
/// is none.
pub(super) async fn wanted(
    inner: &Inner,
    node: &NodeName,
) -> Result<Result<Value, Vec<DocumentError>>, PublishError> {
    let labels = inner.db.node(node).await?.labels;
    let record = inner.db.record(node).await?;
    let policies = inner.db.all_policies().await?.into_iter();
    let policies = Policies::new(policies.map(|policy| (policy.name, policy.spec)).collect());
    let programs = inner.db.all_programs().await?;
    let library = programs.into_iter().map(|program| {
        (program.name, RecordObject { sha256: program.sha256, bytes: program.bytes })
    });
    let mut composer = Composer::new(Arc::new(policies), Arc::new(library.collect()));
    let selection = composer.select(node, &labels);
    let composed = match composer.compose(&selection) {
        Ok(composed) => composed,
        Err(errors) => return Ok(Err(errors.to_vec())),
    };
    let last = record.as_ref().map_or(0, |record| record.state.generation);
    let published = record.filter(|record| record.state.digest.is_some());
    let published = published.map(|record| before(&record, inner.key.public_key(), &inner.fleet));
    let group = Group {
        selection,
        before: published.as_ref().map(|_| String::new()),
        members: vec![(node.clone(), last)],
    };
    let key_id = inner.key.public_key().key_id();
    let terms = Terms { allow_empty: false, key_id: &key_id, with_diff: false };
    let allow_empty = match (decide(&group, published.as_ref(), &mut composer, terms), published) {
        (Judged::Settled(_), Some(published)) => return Ok(Ok(published.document)),
        (Judged::Change(change), _) => change.mark.allow_empty,
        _ => false,
    };
    Ok(next(last).map(|generation| composed.document(node, generation, allow_empty)))
}

/// What would change if a policy said `spec`, or were not there.
pub(super) async fn policy_diff(
    inner: &Inner,
    name: &PolicyName,
    spec: Option<PolicySpec>,
) -> Result<PolicyDiff, PublishError> {
    let view = view(inner).await?;
    let mut specs = view.specs.clone();
    let policy = diff_policies(specs.get(name), spec.as_ref());
    match spec {
        Some(spec) => specs.insert(name.clone(), spec),
        None => specs.remove(name),
    };
    let mut now = Composer::new(view.policies(), view.library.clone());
    let mut then = Composer::new(Arc::new(Policies::new(specs)), view.library.clone());
    let concerned = |(node, labels): &(NodeName, _)| {
        now.select(node, labels).inputs != then.select(node, labels).inputs
    };
    let mut nodes = view.nodes;
    nodes.retain(concerned);
    let key_id = inner.key.public_key().key_id();
    // Of those that are not concerned nothing is asked, so nothing is said of who left either.
    let plan = plan(&nodes, &view.states, &mut then, &key_id);
    let mut report = Report::new();
    judge(inner, &plan.groups, &mut then, false, &mut report).await?;
    Ok(PolicyDiff { policy, nodes: report.into_nodes() })
}

async fn judge(
    inner: &Inner,
    groups: &[Group],
    composer: &mut Composer,
    allow_empty: bool,
    report: &mut Report,
) -> Result<(), PublishError> {
    let key_id = inner.key.public_key().key_id();
    for groups in groups.chunks(GROUPS) {
        let before = befores(inner, groups).await?;
        for (group, before) in groups.iter().zip(&before) {
            let terms = Terms { allow_empty, key_id: &key_id, with_diff: report.has_room() };
            report.tell_group(group, &decide(group, before.as_ref(), composer, terms));
        }
    }
    Ok(())
}

/// What the database says; nothing is changed.
async fn view(inner: &Inner) -> Result<View, PublishError> {
    Ok(View::at(inner.db.moment().await?).await?)
}
