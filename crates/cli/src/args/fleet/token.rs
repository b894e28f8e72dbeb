//! Arguments of `fleet token`.

use super::SureArgs;
use clap::Subcommand;
use pointsman_model::TokenName;
use pointsman_model::fleet::Role;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// List tokens: what they may do, and when they were used last. Never the secrets.
    #[command(visible_alias = "list")]
    Ls,

    /// Make a token, and print it this once.
    #[command(after_help = "Examples:\n  \
        pointsman fleet token create grafana --role viewer\n  \
        pointsman --json fleet token create deploy --role operator --ttl 90d | jq -r .secret")]
    Create(CreateTokenArgs),

    /// End a token, at once.
    Revoke {
        /// The token.
        #[arg(value_name = "NAME")]
        name: TokenName,
        #[command(flatten)]
        sure: SureArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateTokenArgs {
    /// What it is called, in lists and in the audit.
    #[arg(value_name = "NAME")]
    pub(crate) name: TokenName,

    /// What its holder may do: viewer (look), operator (also change programs, policies and labels,
    /// and publish), or admin (also enrol and remove nodes, make and revoke tokens).
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Role,

    /// For how long it is good, such as 12h or 90d. [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = crate::args::time::parse)]
    pub(crate) ttl: Option<u64>,
}
