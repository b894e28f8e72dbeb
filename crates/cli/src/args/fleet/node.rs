//! Arguments of `fleet node` and `fleet enroll`.

use super::{SureArgs, label};
use clap::{Subcommand, ValueHint};
use pointsman_model::fleet::NodeHealth;
use pointsman_model::{LabelKey, LabelValue, NodeName};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List nodes.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  \
        pointsman fleet node ls --label site=fra --health failing\n  \
        pointsman --json fleet node ls | jq -r '.items[].name'"
    )]
    Ls(ListNodesArgs),

    /// Show a node: its labels, how it stands, its chains as it reported them last.
    Show {
        /// The node.
        #[arg(value_name = "NAME")]
        name: NodeName,
    },

    /// Set and remove labels. Selectors of policies go by them; publish to make it count.
    #[command(after_help = "Examples:\n  \
        pointsman fleet node label edge-17 site=fra role=edge\n  \
        pointsman fleet node label edge-17 role-         remove a label")]
    Label(LabelArgs),

    /// Take a node out of the fleet.
    ///
    /// Its credential ends, and the next publish has no record of it. It goes on with what it has:
    /// `pointsman drain` on the host ends that.
    Rm {
        /// The node.
        #[arg(value_name = "NAME")]
        name: NodeName,
        #[command(flatten)]
        sure: SureArgs,
    },

    /// Print the node document that would be published now.
    #[command(after_help = "Example:\n  \
        pointsman fleet node document edge-17 | jq .interfaces")]
    Document {
        /// The node.
        #[arg(value_name = "NAME")]
        name: NodeName,
    },

    /// Print the signed record that is published for a node, or check its signature.
    ///
    /// A record is a minisign signature file and, behind its four lines, what is signed.
    #[command(after_help = "Examples:\n  \
        pointsman fleet node record edge-17 --verify fleet.pub\n  \
        pointsman fleet node record edge-17 --output edge-17.json\n  \
        minisign -Vm edge-17.json -p fleet.pub")]
    Record(RecordArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListNodesArgs {
    /// Only nodes with this label; given again: all of them.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(LabelKey, LabelValue)>,

    /// Only nodes that stand so.
    #[arg(long, value_name = "HEALTH", value_parser = health)]
    pub(crate) health: Option<NodeHealth>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LabelArgs {
    /// The node.
    #[arg(value_name = "NAME")]
    pub(crate) name: NodeName,

    /// `KEY=VALUE` sets a label, `KEY-` removes it.
    #[arg(value_name = "CHANGE", required = true, value_parser = label_change)]
    pub(crate) changes: Vec<LabelChange>,
}

/// What becomes of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LabelChange {
    Set(LabelKey, LabelValue),
    Remove(LabelKey),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// The node.
    #[arg(value_name = "NAME")]
    pub(crate) name: NodeName,

    /// Say what minisign would say of it: the public key, or the file it is in.
    #[arg(long, value_name = "KEY")]
    pub(crate) verify: Option<String>,

    /// Write what is signed to this file, and the signature beside it with `.minisig` appended.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EnrollArgs {
    /// The node's name.
    #[arg(value_name = "NAME")]
    pub(crate) name: NodeName,

    /// A label of the node; without any, it keeps those that it has.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(LabelKey, LabelValue)>,

    /// For how long the token is good, such as 10m or 1h.
    #[arg(long, value_name = "TIME", default_value = "1h",
          value_parser = crate::args::time::parse)]
    pub(crate) ttl: u64,
}

fn health(text: &str) -> Result<NodeHealth, String> {
    use NodeHealth::{Behind, Failing, New, Silent, Well};
    let all = [Failing, Silent, Behind, Well, New];
    all.into_iter().find(|health| health.name() == text).ok_or_else(|| {
        let names = all.map(NodeHealth::name).join(", ");
        format!("expected one of {names}")
    })
}

fn label_change(text: &str) -> Result<LabelChange, String> {
    match text.strip_suffix('-').filter(|_| !text.contains('=')) {
        Some(key) => LabelKey::new(key).map(LabelChange::Remove).map_err(|error| error.to_string()),
        None => match label(text) {
            Ok((key, value)) => Ok(LabelChange::Set(key, value)),
            Err(_) if !text.contains('=') => Err("expected KEY=VALUE or KEY-".into()),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        let key = |text: &str| LabelKey::new(text).unwrap();
        let set = |k: &str, v: &str| Ok(LabelChange::Set(key(k), LabelValue::new(v).unwrap()));
        assert_eq!(label_change("site=fra"), set("site", "fra"));
        assert_eq!(label_change("site=fra-"), set("site", "fra-"));
        assert_eq!(label_change("site-"), Ok(LabelChange::Remove(key("site"))));
        assert_eq!(label_change("a-b-"), Ok(LabelChange::Remove(key("a-b"))));
        for (bad, message) in [
            ("site", "expected KEY=VALUE or KEY-"),
            ("site=", "label value"),
            ("=fra", "label key"),
            ("-", "label key"),
            ("a b=c", "label key"),
            ("a=b=c", "label value"),
        ] {
            let error = label_change(bad).unwrap_err();
            assert!(error.contains(message), "{bad}: {error}");
        }
    }

    #[test]
    fn health_is_one_of_five_words() {
        assert_eq!(health("behind"), Ok(NodeHealth::Behind));
        assert_eq!(health("ok").unwrap_err(), "expected one of failing, silent, behind, well, new");
    }
}
