//! Arguments of the verbs that break the glass.

use pointsman_model::InterfaceId;
use pointsman_model::glass::{LONGEST_SECONDS, SHORTEST_SECONDS};

#[derive(Debug, clap::Args)]
pub(crate) struct BypassArgs {
    /// The interface: `eth0`, or `NAMESPACE/eth0`.
    #[arg(value_name = "IFACE")]
    pub(crate) interface: InterfaceId,

    /// End by itself after this time, such as 90s, 10m or 1h30m: from 1s to 24h.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, conflicts_with = "off")]
    pub(crate) length: Option<u64>,

    /// End the bypass: the chain runs again.
    #[arg(long)]
    pub(crate) off: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// Return to this generation, which may also be a newer one. [default: the newest good one
    /// before the one in force]
    #[arg(long, value_name = "GENERATION")]
    pub(crate) to: Option<u64>,

    /// Allow steps between which a hook has no chain (needed to change `mode`).
    #[arg(long)]
    pub(crate) allow_gap: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfirmArgs {
    /// Confirm only if this generation waits.
    #[arg(value_name = "GENERATION")]
    pub(crate) generation: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// How many of the last events to show: 1 to 1000.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) lines: u16,

    /// Go on until Ctrl-C, and show each event when it happens.
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// Reads a time such as `90s`, `10m`, `1h30m` within what the node allows.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let seconds = super::time::parse(text)?;
    if (SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds) {
        return Ok(seconds);
    }
    Err("expected a time from 1s to 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_within_what_the_node_allows() {
        assert_eq!([seconds("1"), seconds("24h")], [Ok(1), Ok(86_400)]);
        for bad in ["", "0", "0s", "24h1s", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
