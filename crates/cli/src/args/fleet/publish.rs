//! Arguments of `fleet publish`, `fleet snapshots` and `fleet audit`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Only show what would be published.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,

    /// Also publish documents that take the last program off a node.
    #[arg(long)]
    pub(crate) allow_empty: bool,

    /// Wait until every node that changes has it in force or fails, at most this long.
    #[arg(long, short, value_name = "TIMEOUT", num_args = 0..=1, default_missing_value = "2m",
          value_parser = timeout)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SnapshotsArgs {
    /// Only this one, with its shards.
    #[arg(value_name = "NUMBER")]
    pub(crate) number: Option<u64>,

    /// How many to show: 1 to 1000.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) lines: u16,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    /// Only what was done to this, such as 'policy edge-guard'.
    #[arg(long, value_name = "OBJECT")]
    pub(crate) object: Option<String>,

    /// Only what this token, node or `control` did.
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,

    /// How many to show: 1 to 1000.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) lines: u16,

    /// Show how it was before, and how it is after.
    #[arg(long)]
    pub(crate) changes: bool,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match crate::args::time::parse(text)? {
        0 => Err("expected a time of at least 1s".into()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}
