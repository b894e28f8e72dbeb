//! Arguments of `fleet policy`.

use super::SureArgs;
use clap::{Subcommand, ValueHint};
use pointsman_model::PolicyName;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Make a policy that is not there yet.
    #[command(after_help = "Example:\n  pointsman fleet policy create edge-guard - <<'END'\n  \
        {\"selector\": {\"labels\": {\"role\": \"edge\"}}, \"interface\": \"eth0\",\n   \
        \"chain\": [{\"program\": \"ddos\", \"priority\": 10},\n             \
        {\"program\": \"builtin:counting-pass\", \"priority\": 20}]}\n  END")]
    Create(PutPolicyArgs),

    /// Make a policy, or replace it.
    ///
    /// For files that are kept elsewhere, as in a repository: what is there is replaced, whoever
    /// changed it last. `policy edit` and `--if-revision` notice other people's changes.
    #[command(after_help = "Examples:\n  \
        pointsman fleet policy put edge-guard edge-guard.json\n  \
        pointsman fleet policy put --if-revision 7 edge-guard edge-guard.json")]
    Put(PutPolicyArgs),

    /// Edit a policy with $VISUAL or $EDITOR; show what it changes, ask, and save it.
    ///
    /// If somebody else changed it meanwhile, both changes are put together where they do not
    /// touch the same; otherwise the editor comes back. What was written is never lost: after an
    /// error the message says where it is.
    Edit(EditArgs),

    /// Show what a file would change, in the policy and on every node. Saves nothing.
    ///
    /// Exit code 0: nothing. 4: something. 3: something that would be refused.
    #[command(after_help = "Examples:\n  \
        pointsman fleet policy diff edge-guard edge-guard.json\n  \
        pointsman fleet policy diff edge-guard --rm      were it removed")]
    Diff(PolicyDiffArgs),

    /// List policies.
    #[command(visible_alias = "list")]
    Ls,

    /// Show a policy.
    #[command(after_help = "Examples:\n  \
        pointsman fleet policy show edge-guard\n  \
        pointsman --json fleet policy show edge-guard | jq .spec > edge-guard.json")]
    Show {
        /// The policy.
        #[arg(value_name = "NAME")]
        name: PolicyName,
    },

    /// Remove a policy: shows what that changes, and asks.
    ///
    /// Nodes keep what they run until the next publish; one that takes the last program off a
    /// node needs `publish --allow-empty`.
    Rm {
        /// The policy.
        #[arg(value_name = "NAME")]
        name: PolicyName,
        #[command(flatten)]
        sure: SureArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct PutPolicyArgs {
    /// The policy.
    #[arg(value_name = "NAME")]
    pub(crate) name: PolicyName,

    /// What it says, as JSON; `-` reads standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    /// Only if this is the revision that is there (put only).
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EditArgs {
    /// The policy.
    #[arg(value_name = "NAME")]
    pub(crate) name: PolicyName,

    /// Save without asking.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PolicyDiffArgs {
    /// The policy.
    #[arg(value_name = "NAME")]
    pub(crate) name: PolicyName,

    /// What it would say; `-` reads standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "rm",
          conflicts_with = "rm")]
    pub(crate) file: Option<PathBuf>,

    /// Were it removed.
    #[arg(long)]
    pub(crate) rm: bool,
}
