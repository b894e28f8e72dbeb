//! The command line as clap reads it. Help texts live here and nowhere else.

pub(crate) mod fleet;
mod glass;
mod time;

use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use glass::{BypassArgs, ConfirmArgs, EventsArgs, RollbackArgs};

/// Where the node listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/pointsman/node.sock";

/// Decides which XDP programs run on this host's interfaces, and in which order.
///
/// The host is described by a node document (see `pointsman schema`). pointsman-node carries it
/// out; this command talks to it over its unix socket. `pointsman fleet` talks to the control
/// plane of many hosts.
#[derive(Debug, Parser)]
#[command(
    name = "pointsman",
    version,
    max_term_width = 100,
    after_help = "Exit codes:\n  \
        0  done, or nothing to do\n  \
        1  error: nothing was changed, unless the message says otherwise\n  \
        2  the command line makes no sense\n  \
        3  something was refused or could not be done, or (doctor) is broken\n  \
        4  plan, fleet policy diff, fleet publish --dry-run: changes are pending\n\n\
        Examples:\n  \
        pointsman plan node.json          what an apply would do\n  \
        pointsman apply node.json         do it\n  \
        pointsman status                  what runs, in which order\n  \
        pointsman counters --watch        what it does to packets\n  \
        pointsman bypass eth0 --for 10m   let every packet past the chain, now\n  \
        pointsman rollback                return to the generation before\n  \
        pointsman fleet status            how all hosts of a fleet stand\n\n\
        `pointsman xdp-loader ...`, or a link of the name xdp-loader to this program, does what\n\
        the packaged xdp-loader does, without a node: see `pointsman xdp-loader help`."
)]
pub(crate) struct Args {
    /// The node's unix socket.
    #[arg(
        long,
        global = true,
        env = "POINTSMAN_NODE",
        value_name = "SOCKET",
        default_value = DEFAULT_SOCKET,
        value_hint = ValueHint::FilePath
    )]
    pub(crate) node: PathBuf,

    /// Print JSON: the API's values on standard output, errors on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make the host run what a node document says.
    ///
    /// Everything is loaded and verified before the first change that packets notice; then every
    /// hook changes in one atomic swap. What is refused is named and stays as it is; the rest is
    /// done. Exit code 3 if anything was refused.
    #[command(after_help = "Examples:\n  \
        pointsman apply node.json\n  \
        pointsman apply --confirm-within 60s node.json && pointsman confirm\n  \
        jq '.generation += 1' node.json | pointsman apply -")]
    Apply(ApplyArgs),

    /// Show what applying a node document would do, and change nothing.
    ///
    /// Exit code 0: nothing to do. 4: changes are pending. 3: something would be refused.
    #[command(after_help = "In the output, per hook and in the order programs run:\n  \
        +  program joins the chain          -  program leaves it\n  \
        ~  program changes or moves         !  refused: stays as it is\n\n\
        Examples:\n  \
        pointsman plan node.json\n  \
        pointsman plan --json node.json | jq '.steps[].step'")]
    Plan(DocumentArgs),

    /// Keep what `apply --confirm-within` brought into force.
    ///
    /// Without it the host returns by itself, when the time is over, to what was in force before:
    /// also if the node was killed or the host rebooted meanwhile.
    #[command(after_help = "Examples:\n  \
        pointsman confirm\n  \
        pointsman confirm 42          only if it is generation 42 that waits")]
    Confirm(ConfirmArgs),

    /// Let every packet past the chain on an interface, or end that.
    ///
    /// One swap to an empty chain: nothing is detached, and maps and counters stay as they are.
    /// It outlives restarts and reboots, until its time is over, `--off` or a drain.
    #[command(after_help = "Examples:\n  \
        pointsman bypass eth0 --for 10m\n  \
        pointsman bypass eth0 --off")]
    Bypass(BypassArgs),

    /// Return to an earlier generation, with the objects it had.
    ///
    /// What was returned from does not come back by itself, only with `pointsman apply`; a document
    /// of a newer generation is taken as ever. Exit code 3 if something was refused.
    #[command(after_help = "Examples:\n  \
        pointsman rollback\n  \
        pointsman rollback --to 41")]
    Rollback(RollbackArgs),

    /// Show the generations that the node can return to, and what they take on disk.
    Generations,

    /// Show what happened: applies, refusals, bypasses, rollbacks, repairs.
    #[command(after_help = "Examples:\n  \
        pointsman events -n 100\n  \
        pointsman events --follow\n  \
        pointsman --json events --follow | jq -c 'select(.kind == \"drifted\")'")]
    Events(EventsArgs),

    /// Show what runs: hooks, engines, modes, programs, verdicts, and what is not as it should be.
    Status,

    /// Show how many packets each program saw and what it answered.
    ///
    /// Counts packets since the host booted or the hook was released; they outlive upgrades and
    /// re-orders of the chain, and the node. `runs`: packets the program saw. `final`: packets
    /// that ended there. `gone`: no longer in the chain.
    #[command(after_help = "Examples:\n  \
        pointsman counters\n  \
        pointsman counters --watch --interval 500ms\n  \
        pointsman --json counters --watch | jq -c '.hooks[].programs[] | [.program, .runs]'")]
    Counters(CountersArgs),

    /// Show the applications that are connected: who they are, whether they live, what they hold.
    ///
    /// PID, USER and PROGRAM are what the kernel says; HOST is what the application claims.
    #[command(after_help = "Examples:\n  \
        pointsman instances\n  \
        pointsman --json instances | jq '.instances[] | select(.liveness != \"alive\")'")]
    Instances,

    /// Show one application with all that is known of it.
    Instance(InstanceArgs),

    /// Take from an application all that it holds.
    ///
    /// It stays connected and may ask again; what it still uses may be given to another. For
    /// administrators.
    Clear(InstanceArgs),

    /// Draw the machine: sockets, NUMA nodes, cores and their threads, and who holds which.
    #[command(after_help = "Examples:\n  \
        pointsman lcores\n  \
        pointsman --json lcores | jq '.held[] | [.lcore.cpu, .owner]'")]
    Lcores,

    /// Show what an ELF object holds: programs, maps, globals. Loads nothing, needs no node.
    ///
    /// The author's suggestion (XDP_RUN_CONFIG) is shown and never applied: order and actions are
    /// what the node document says.
    #[command(after_help = "Examples:\n  \
        pointsman inspect ddos.o\n  \
        pointsman inspect builtin:udp-port-filter\n  \
        pointsman inspect ddos.o --json | jq -r .sha256")]
    Inspect(InspectArgs),

    /// Remove everything of Pointsman from this host's packet path.
    ///
    /// Detaches every chain and removes pins, maps and counters. Packets then meet no program of
    /// ours until a document is applied; a restart of the node does not bring the chains back.
    Drain(DrainArgs),

    /// Say what this host can do, what it cannot, and why.
    ///
    /// Asks the node; where it cannot be reached, says so and makes the checks itself. Exit code 3
    /// if something is broken.
    Doctor(DoctorArgs),

    /// Work with a fleet through its control plane: nodes, programs, policies, publishing.
    ///
    /// `pointsman fleet login` first. HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured.
    /// POINTSMAN_CONTROL and POINTSMAN_TOKEN stand in for a login, as in CI.
    #[command(after_help = "Examples:\n  \
        pointsman fleet login --url https://control.example:8600\n  \
        pointsman fleet program upload ddos ddos.o\n  \
        pointsman fleet policy edit edge-guard\n  \
        pointsman fleet publish --wait\n  \
        pointsman fleet status")]
    Fleet(Box<fleet::FleetArgs>),

    /// Print the JSON Schema of the node document.
    #[command(after_help = "Example:\n  pointsman schema > node.schema.json")]
    Schema,

    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  \
        pointsman completions bash > /etc/bash_completion.d/pointsman")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct InstanceArgs {
    /// Its number, as `pointsman instances` shows it.
    #[arg(value_name = "ID")]
    pub(crate) id: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) document: DocumentArgs,

    /// Return by itself to what is in force now, unless `pointsman confirm` comes within this
    /// time, such as 60s, 10m or 1h30m: from 1s to 24h.
    #[arg(long, value_name = "TIME", value_parser = glass::seconds)]
    pub(crate) confirm_within: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DocumentArgs {
    /// The node document; `-` reads standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    /// Allow steps between which a hook has no chain (needed to change `mode`).
    #[arg(long)]
    pub(crate) allow_gap: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CountersArgs {
    /// Go on until Ctrl-C, with rates per second.
    #[arg(long, short)]
    pub(crate) watch: bool,

    /// Time between two looks, such as 500ms, 1s or 2m; at least 100ms.
    #[arg(long, short, value_name = "TIME", default_value = "1s", requires = "watch",
          value_parser = interval)]
    pub(crate) interval: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The object file; `-` reads standard input, `builtin:NAME` is one that comes with Pointsman.
    #[arg(value_name = "OBJECT", value_hint = ValueHint::FilePath)]
    pub(crate) object: PathBuf,

    /// Only this program of the object.
    #[arg(long, value_name = "NAME")]
    pub(crate) entry: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Where the node would keep its pins; used where the node cannot be asked.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/pointsman",
          value_hint = ValueHint::DirPath)]
    pub(crate) bpffs: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// Do not ask. Required where there is no terminal to ask on.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Reads a time such as `500ms`, `0.5s`, `1s`, `2m`; a bare number means seconds.
fn interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds_per_unit = match &text[number.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        unit => return Err(format!("unknown unit {unit:?}: expected ms, s or m")),
    };
    // Rust would also read "inf", "nan" and exponents: those end in letters or are no times.
    let plain = number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let time = number
        .parse::<f64>()
        .ok()
        .filter(|_| plain)
        .and_then(|number| Duration::try_from_secs_f64(number * seconds_per_unit).ok())
        .ok_or("expected a time such as 500ms, 1s or 2m")?;
    if (SHORTEST..=LONGEST).contains(&time) {
        return Ok(time);
    }
    Err("expected a time from 100ms to 24 hours (1440m)".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn intervals_are_read_with_their_units() {
        for (text, millis) in
            [("500ms", 500), ("1s", 1000), ("0.5s", 500), ("2", 2000), ("1.5m", 90_000)]
        {
            assert_eq!(interval(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1s", "1h", "99ms", "1441m", "inf", "nan", "1e3s", "1..2s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn global_flags_go_before_and_after_the_verb() {
        for line in [
            ["pointsman", "--json", "--node", "/n.sock", "status"],
            ["pointsman", "status", "--json", "--node", "/n.sock"],
        ] {
            let args = Args::try_parse_from(line).unwrap();
            assert!(args.json && args.node == *"/n.sock");
        }
    }

    #[test]
    fn an_interval_needs_watch() {
        assert!(Args::try_parse_from(["pointsman", "counters", "--interval", "2s"]).is_err());
        assert!(Args::try_parse_from(["pointsman", "counters"]).is_ok());
    }
}
