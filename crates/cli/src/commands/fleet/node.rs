//! `fleet node` and `fleet enroll`.

use super::{Context, now, record};
use crate::args::fleet::{EnrollArgs, LabelArgs, LabelChange, ListNodesArgs, NodeVerb, SureArgs};
use crate::error::{CliError, Exit};
use crate::output::pretty;
use crate::render::fleet::node as render;
use pointsman_model::NodeName;
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::{EnrolmentRequest, Labels, Node, NodeReport};
use serde::Serialize;

/// How often a change of labels is made again when somebody else was faster.
const TRIES: usize = 5;

/// A node and its last report.
#[derive(Debug, Serialize)]
struct NodeAndReport {
    #[serde(flatten)]
    node: Node,
    report: Option<NodeReport>,
}

pub(super) async fn run(context: &Context<'_>, verb: NodeVerb) -> Result<Exit, CliError> {
    match verb {
        NodeVerb::Ls(args) => list(context, &args).await,
        NodeVerb::Show { name } => show(context, &name).await,
        NodeVerb::Label(args) => label(context, &args).await,
        NodeVerb::Rm { name, sure } => remove(context, &name, &sure).await,
        NodeVerb::Document { name } => {
            let document = context.control.document(&name).await?;
            context.output.print(&pretty(&document))?;
            Ok(Exit::Done)
        }
        NodeVerb::Record(args) => record::record(context, &args).await,
    }
}

async fn list(context: &Context<'_>, args: &ListNodesArgs) -> Result<Exit, CliError> {
    let nodes = context.control.nodes(&args.label, args.health).await?;
    context.output.answer(&nodes, |nodes, look| render::nodes(look, &nodes.items, now()))?;
    Ok(Exit::Done)
}

async fn show(context: &Context<'_>, name: &NodeName) -> Result<Exit, CliError> {
    let node = context.control.node(name).await?;
    let report = context.control.report(name).await?;
    let both = NodeAndReport { node, report };
    context
        .output
        .answer(&both, |both, look| render::node(look, &both.node, both.report.as_ref(), now()))?;
    Ok(Exit::Done)
}

/// Reads, changes, and writes only over what was read: another label that somebody else sets
/// meanwhile stays.
async fn label(context: &Context<'_>, args: &LabelArgs) -> Result<Exit, CliError> {
    let LabelArgs { name, changes } = args;
    for _ in 0..TRIES {
        let before = context.control.node(name).await?;
        let labels = changed(&before.labels, changes);
        let after = if labels == before.labels {
            before.clone()
        } else {
            match context.control.label(name, &labels, before.revision).await {
                Err(error) if error.is(ProblemKind::PreconditionFailed) => continue,
                other => other?,
            }
        };
        context.output.answer(&after, |after, _| render::labelled(after, &before.labels))?;
        return Ok(Exit::Done);
    }
    Err(CliError::Contended { what: "node", name: name.to_string() })
}

fn changed(labels: &Labels, changes: &[LabelChange]) -> Labels {
    let mut labels = labels.clone();
    for change in changes {
        match change {
            LabelChange::Set(key, value) => {
                labels.insert(key.clone(), value.clone());
            }
            LabelChange::Remove(key) => {
                labels.remove(key);
            }
        }
    }
    labels
}

async fn remove(context: &Context<'_>, name: &NodeName, sure: &SureArgs) -> Result<Exit, CliError> {
    let node = context.control.node(name).await?;
    context.sure("remove", sure, |_| render::removal(&node))?;
    context.control.remove_node(&node).await?;
    context.removed("node", name.as_str())
}

pub(super) async fn enroll(context: &Context<'_>, args: EnrollArgs) -> Result<Exit, CliError> {
    let EnrollArgs { name, label, ttl } = args;
    let labels = (!label.is_empty()).then(|| label.into_iter().collect());
    let wanted = EnrolmentRequest { node: name, labels, ttl_seconds: Some(ttl) };
    let enrolment = context.control.enrol(&wanted).await?;
    let session = &context.session;
    context
        .output
        .answer(&enrolment, |enrolment, look| render::enrolment(look, session, enrolment, now()))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::labels;
    use pointsman_model::{LabelKey, LabelValue};

    #[test]
    fn changes_apply_in_their_order_and_leave_other_labels() {
        let key = |text| LabelKey::new(text).unwrap();
        let set = |k, v| LabelChange::Set(key(k), LabelValue::new(v).unwrap());
        let before = labels(&[("site", "ams"), ("role", "edge")]);
        let after = changed(
            &before,
            &[set("site", "fra"), LabelChange::Remove(key("none")), set("a", "1"), set("a", "2")],
        );
        assert_eq!(after, labels(&[("site", "fra"), ("role", "edge"), ("a", "2")]));
        let after = changed(&before, &[set("role", "x"), LabelChange::Remove(key("role"))]);
        assert_eq!(after, labels(&[("site", "ams")]));
    }
}
