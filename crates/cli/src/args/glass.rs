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

/// Reads a time such as `90s`, `10m`, `1h30m`; a bare number means seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let expected = || "expected a time such as 90s, 10m or 1h30m".to_owned();
    let mut total = 0u64;
    let mut rest = text;
    // Hours come before minutes and these before seconds, each at most once.
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| expected())?;
        let mut letters = rest[digits..].chars();
        let unit = match letters.next() {
            Some('h') => 60 * 60,
            Some('m') => 60,
            Some('s') => 1,
            None if digits == text.len() => 1,
            _ => return Err(expected()),
        };
        if unit >= smallest {
            return Err(expected());
        }
        smallest = unit;
        let part = number.checked_mul(unit).ok_or_else(expected)?;
        total = total.checked_add(part).ok_or_else(expected)?;
        rest = letters.as_str();
    }
    if (SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&total) {
        return Ok(total);
    }
    Err(if text.is_empty() { expected() } else { "expected a time from 1s to 24h".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, expected) in [
            ("1", 1),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5_400),
            ("1h1m1s", 3_661),
            ("24h", 86_400),
            ("0h90s", 90),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "0",
            "0s",
            "s",
            "-1s",
            "1d",
            "24h1s",
            "1m1h",
            "1s1s",
            "1.5m",
            "1 m",
            "10ms",
            "é",
            "1é",
            "1m5",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
