//! Arguments of `pointsman fleet`.

mod node;
mod policy;
mod program;
mod publish;
mod token;

use clap::{Subcommand, ValueHint};
use pointsman_model::{LabelKey, LabelValue};
use std::path::PathBuf;

pub(crate) use node::{EnrollArgs, LabelArgs, LabelChange, ListNodesArgs, NodeVerb, RecordArgs};
pub(crate) use policy::{EditArgs, PolicyDiffArgs, PolicyVerb, PutPolicyArgs};
pub(crate) use program::{GetProgramArgs, ProgramVerb, UploadArgs};
pub(crate) use publish::{AuditArgs, PublishArgs, SnapshotsArgs};
pub(crate) use token::{CreateTokenArgs, TokenVerb};

/// The environment variable that holds the token. There is no flag: other users of the host see
/// the arguments of every process.
pub(crate) const TOKEN: &str = "POINTSMAN_TOKEN";

#[derive(Debug, clap::Args)]
pub(crate) struct FleetArgs {
    #[command(flatten)]
    pub(crate) access: AccessArgs,

    #[command(subcommand)]
    pub(crate) verb: FleetVerb,
}

/// How the control plane is reached. The token comes from `POINTSMAN_TOKEN` or from the login.
#[derive(Debug, clap::Args)]
pub(crate) struct AccessArgs {
    /// The control plane, such as `https://control.example:8600`. [default: the one logged in to]
    #[arg(long, global = true, env = "POINTSMAN_CONTROL", value_name = "URL",
          value_hint = ValueHint::Url)]
    pub(crate) url: Option<String>,

    /// Certificates (PEM) to trust beside the system's. [default: what the login used]
    #[arg(long, global = true, env = "POINTSMAN_CA", value_name = "FILE",
          value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FleetVerb {
    /// Log in to a control plane, and remember it.
    ///
    /// The token is read from a file, from standard input, or asked for where that is a terminal.
    /// It is tried, and kept in $XDG_CONFIG_HOME/pointsman/fleet.json (or ~/.config), which nobody
    /// else can read.
    #[command(after_help = "Examples:\n  \
        pointsman fleet login --url https://control.example:8600\n  \
        pointsman fleet login --url https://control.example:8600 --ca ca.pem < token")]
    Login(LoginArgs),

    /// Forget the control plane and its token. The token itself stays good until it is revoked.
    Logout,

    /// Show who one is to the control plane, and what one may do.
    Whoami,

    /// Show the fleet at a glance: how many nodes are well, which are not, and why.
    #[command(after_help = "Examples:\n  \
        pointsman fleet status\n  \
        pointsman --json fleet status | jq '.not_well[] | [.name, .trouble]'")]
    Status,

    /// Look at nodes, label and remove them.
    #[command(subcommand)]
    Node(NodeVerb),

    /// Let a node in: print a one-time token, and the command that uses it on the node.
    ///
    /// For administrators. A node that is in the fleet already gets another token; the credential
    /// it has stays good until that is used.
    #[command(after_help = "Examples:\n  \
        pointsman fleet enroll edge-17 --label site=fra --label role=edge\n  \
        pointsman --json fleet enroll edge-17 | jq -r .token | ssh edge-17 ...")]
    Enroll(EnrollArgs),

    /// Upload programs and look at them.
    #[command(subcommand)]
    Program(ProgramVerb),

    /// Say which programs run where, and in which order.
    ///
    /// Nothing reaches a node before it is published.
    #[command(subcommand)]
    Policy(PolicyVerb),

    /// Publish what the policies say now: nodes fetch it.
    ///
    /// Exit code 0: done, or nothing to do. 3: a node keeps what it has, because its document
    /// cannot be made or would be empty; or, with --wait, some do not have it in force. 4: with
    /// --dry-run, there is something to publish.
    #[command(after_help = "Examples:\n  \
        pointsman fleet publish --dry-run      what would change, where\n  \
        pointsman fleet publish --wait         do it, and wait until it is in force\n  \
        pointsman fleet publish --wait 30s\n  \
        pointsman --json fleet publish --dry-run | jq -r '.nodes[].node'")]
    Publish(PublishArgs),

    /// Show what was published, when and by whom, the newest first.
    #[command(after_help = "Examples:\n  \
        pointsman fleet snapshots\n  \
        pointsman fleet snapshots 41")]
    Snapshots(SnapshotsArgs),

    /// Show who changed what, the newest first.
    #[command(after_help = "Examples:\n  \
        pointsman fleet audit --object 'policy edge-guard' --changes\n  \
        pointsman fleet audit --who deploy -n 100\n  \
        pointsman --json fleet audit | jq -c '.items[] | [.who, .verb, .object]'")]
    Audit(AuditArgs),

    /// Make, list and revoke API tokens. For administrators.
    #[command(subcommand)]
    Token(TokenVerb),
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// Read the token from this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
}

/// Asks before something is taken away.
#[derive(Debug, clap::Args)]
pub(crate) struct SureArgs {
    /// Do not ask. Required where there is no terminal to ask on.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Reads `KEY=VALUE`.
fn label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let key = LabelKey::new(key).map_err(|error| error.to_string())?;
    Ok((key, LabelValue::new(value).map_err(|error| error.to_string())?))
}
