//! The command line.

use clap::{Parser, Subcommand};
use pointsman_logging::{LogFormat, LogLevel};
use pointsman_snapshot::keys::KeyId;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// What the node got when it enrolled.
const CONFIG: &str = "/var/lib/pointsman-courier/courier.json";

/// What is remembered.
const CACHE: &str = "/var/lib/pointsman-courier/cache";

/// To whom the daemon listens.
const NODE_CONFIG: &str = "/etc/pointsman/fleet.json";

/// The courier of a Pointsman host: it fetches what the control plane published for this node, lays
/// it down for the daemon, and reports how the node stands. It needs no privileges.
#[derive(Debug, Parser)]
#[command(name = "pointsman-courier", version)]
pub struct Args {
    /// How log lines are written to stderr.
    #[arg(global = true, long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least level that is logged.
    #[arg(global = true, long, value_enum, default_value_t)]
    pub log_level: LogLevel,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch, hand over and report until SIGTERM.
    Run(Box<RunArgs>),
    /// Trade a one-time token for this node's credential. Run it as root: it writes the key that
    /// the daemon trusts.
    Enroll(Box<EnrollArgs>),
    /// Let the next record be of an older generation than the last one: after the control plane was
    /// restored from a backup. The courier must not be running.
    Forget(ForgetArgs),
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// What the node got when it enrolled.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// The directory that the daemon watches for snapshots.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/pointsman/drop")]
    pub drop: PathBuf,
    /// The directory of what must survive a restart of the courier.
    #[arg(long, value_name = "DIR", default_value = CACHE)]
    pub cache: PathBuf,
    /// The daemon's socket for those who only look.
    #[arg(long, value_name = "SOCKET", default_value = "/run/pointsman/status.sock")]
    pub node: PathBuf,
    /// To whom the daemon listens. With it the courier verifies what it fetches; the daemon does in
    /// any case.
    #[arg(long, value_name = "FILE", default_value = NODE_CONFIG)]
    pub node_config: PathBuf,
    /// How often to ask for news, and to report: 100ms to 1h. A quarter more or less is drawn each
    /// time.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub poll_interval: Duration,
    /// Where /metrics and /healthz are served: an address, or `off`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9600")]
    pub metrics_listen: Listen,
    /// Where snapshots are, if not where the control plane says: a URL with the scheme file, http,
    /// https or s3.
    #[arg(long, value_name = "URL")]
    pub source: Option<Url>,
    /// How servers are reached.
    #[command(flatten)]
    pub way: WayArgs,
    /// Poll once, report, say what happened, and end.
    #[arg(long)]
    pub once: bool,
}

/// How servers are reached.
#[derive(Debug, clap::Args)]
pub struct WayArgs {
    /// Certificates in PEM that are trusted beside the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The proxy for everything but NO_PROXY. [default: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY]
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
}

/// Options of `enroll`.
#[derive(Debug, clap::Args)]
pub struct EnrollArgs {
    /// The control plane.
    #[arg(long, value_name = "URL")]
    pub control: Url,
    /// The file with the one-time token. [default: standard input]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where to keep what the courier works with.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// Where the daemon reads to whom it listens.
    #[arg(long, value_name = "FILE", default_value = NODE_CONFIG)]
    pub node_config: PathBuf,
    /// The user that the courier runs as: a name in /etc/passwd, or a number. [default:
    /// pointsman-courier if there is one, else who runs this]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// The id of the key that records are signed with, in hexadecimal digits, as `pointsman fleet
    /// enroll` and `pointsman fleet status` print it. Whoever answers with another key is not
    /// believed.
    #[arg(long, value_name = "ID")]
    pub key_id: Option<KeyId>,
    /// Believe whoever answers at a URL that is plain http and not on this host.
    #[arg(long)]
    pub insecure: bool,
    /// Leave the fleet, or the name, that this node has now.
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// How servers are reached. Kept for `run`.
    #[command(flatten)]
    pub way: WayArgs,
}

/// Options of `forget`.
#[derive(Debug, clap::Args)]
pub struct ForgetArgs {
    /// The directory of what must survive a restart of the courier.
    #[arg(long, value_name = "DIR", default_value = CACHE)]
    pub cache: PathBuf,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// On this address.
    On(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::On).map_err(|_| "expected ADDRESS:PORT, or off".to_owned())
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3600);
    let expected = || "expected a time from 100ms to 1h, such as 10s".to_owned();
    let time = humantime::parse_duration(text).map_err(|_| expected())?;
    if (SHORTEST..=LONGEST).contains(&time) { Ok(time) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn options_are_checked() {
        Args::command().debug_assert();
        let parse = |more: &[&str]| {
            Args::try_parse_from([&["pointsman-courier"], more].concat())
                .map(|args| args.command)
                .map_err(|error| error.to_string())
        };
        let Ok(Command::Run(run)) = parse(&["run", "--poll-interval", "250ms"]) else { panic!() };
        assert_eq!(run.poll_interval, Duration::from_millis(250));
        assert_eq!(run.metrics_listen, Listen::On(([127, 0, 0, 1], 9600).into()));
        let Ok(Command::Run(run)) = parse(&["run", "--metrics-listen", "off"]) else { panic!() };
        assert_eq!(run.metrics_listen, Listen::Off);
        for wrong in [
            &["run", "--poll-interval", "99ms"][..],
            &["run", "--poll-interval", "2h"],
            &["run", "--poll-interval", "10"],
            &["run", "--metrics-listen", "9600"],
            &["run", "--source", "/srv/blobs"],
            &["enroll"],
            &["enroll", "--control", "https://x", "--token", "pme_x"],
            &["enroll", "--control", "https://x", "--key-id", ""],
            &["enroll", "--control", "https://x", "--key-id", "E7620F1842B4E81F0"],
            &["enroll", "--control", "https://x", "--key-id", "edge"],
        ] {
            parse(wrong).unwrap_err();
        }
        // As it is shown, which for one key in sixteen is with fewer digits.
        for id in ["E7620F1842B4E81F", "e7620f1842b4e81f", "6728EC63EE35463", "7"] {
            let Ok(Command::Enroll(enroll)) =
                parse(&["enroll", "--control", "https://x", "--key-id", id])
            else {
                panic!("{id}")
            };
            let given = enroll.key_id.map(|id| id.to_string());
            assert_eq!(given, Some(id.to_ascii_uppercase()));
        }
    }
}
