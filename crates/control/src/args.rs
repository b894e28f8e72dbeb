//! The command line.

use crate::store::{Store, StoreArgs, StoreUrlError};
use clap::{Parser, Subcommand};
use pointsman_logging::{LogFormat, LogLevel};
use pointsman_model::fleet::Role;
use pointsman_model::{FleetName, NodeName, TokenName};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The control plane of a Pointsman fleet: API, web pages, database, and what is published to the
/// nodes.
///
/// Without options it keeps everything in /var/lib/pointsman-control and listens on this host
/// alone. Its first start prints a token of an administrator, once. It needs no privileges.
#[derive(Debug, Parser)]
#[command(name = "pointsman-control", version)]
pub struct Args {
    /// The directory of the signing key, and of the database and the blob store unless they are
    /// elsewhere.
    #[arg(
        global = true,
        long,
        value_name = "DIR",
        env = "POINTSMAN_CONTROL_STATE_DIR",
        default_value = "/var/lib/pointsman-control"
    )]
    pub state_dir: PathBuf,
    /// The database: sqlite:///ABSOLUTE/FILE or postgres://USER:PASSWORD@HOST/DATABASE. [default:
    /// control.db in the state directory]
    #[arg(
        global = true,
        long,
        value_name = "URL",
        env = "POINTSMAN_DATABASE",
        hide_env_values = true
    )]
    pub database: Option<String>,
    /// How log lines are written to stderr, and what others may read to stdout.
    #[arg(global = true, long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least level that is logged.
    #[arg(global = true, long, value_enum, default_value_t)]
    pub log_level: LogLevel,
    /// What the service is told.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the service is told.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Serving")]
pub struct ServeArgs {
    /// The address to listen on. With port 0 the kernel chooses one; the URL is printed.
    #[arg(
        global = true,
        long,
        value_name = "ADDRESS:PORT",
        env = "POINTSMAN_LISTEN",
        default_value = "127.0.0.1:8600"
    )]
    pub listen: SocketAddr,
    /// The certificate chain to serve TLS with, PEM. Read again on SIGHUP.
    #[arg(global = true, long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM. Read again on SIGHUP.
    #[arg(global = true, long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Says that browsers reach it by TLS although it does not speak TLS itself, behind a proxy that
    /// does: the session's cookie is sent no other way.
    #[arg(global = true, long, env = "POINTSMAN_SECURE_COOKIES")]
    pub secure_cookies: bool,
    /// The address of a proxy that is believed when it says in X-Forwarded-For for whom it asks.
    /// May be given several times.
    #[arg(global = true, long, value_name = "ADDRESS")]
    pub trusted_proxy: Vec<IpAddr>,
    /// What the fleet is called: a part of every record that is signed. [default: what the
    /// database says, or `fleet`]
    #[arg(global = true, long, value_name = "NAME", env = "POINTSMAN_FLEET")]
    pub fleet: Option<FleetName>,
    /// How many connections to the database are held.
    #[arg(global = true, long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
    /// How often what is wanted is published by itself, in seconds from 1 to 86400, or `off`.
    #[arg(global = true, long, value_name = "SECONDS", default_value = "off",
          value_parser = interval)]
    pub publish_interval: Interval,
    /// Publish whatever is changed as soon as it is changed.
    #[arg(global = true, long)]
    pub publish_on_change: bool,
    /// Where what is published goes.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where couriers fetch what is published, if not here under /blobs/: a URL with the scheme
    /// file, http, https or s3.
    #[arg(global = true, long, value_name = "URL", value_parser = source)]
    pub source: Option<String>,
}

/// How often something is done by itself; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

/// Instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the API and the web pages: what is done when nothing else is said.
    Serve,
    /// Makes a token directly in the database, for who has lost all others, and prints it.
    Token {
        /// What it is called. [default: break-glass- and the time]
        name: Option<TokenName>,
        /// What its holder may do: viewer, operator or admin.
        #[arg(long, default_value_t = Role::Admin)]
        role: Role,
        /// For how long it is good, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        ttl: u64,
    },
    /// Writes the record of a node as `NODE.json` and `NODE.json.minisig`, for `minisign -V`.
    ExportRecord {
        /// The node.
        node: NodeName,
        /// The directory to write to.
        #[arg(long, value_name = "DIR", default_value = ".")]
        to: PathBuf,
    },
    /// Makes a new signing key in place of one that is lost, or known to others. Every node has to
    /// enrol again: until then it keeps what it has. The service must not be running.
    ReplaceKey {
        /// Says that this is meant.
        #[arg(long, required = true)]
        every_node_enrols_again: bool,
    },
    /// Prints the OpenAPI description of the API.
    Openapi,
    /// Looks into an object on standard input, without privileges.
    #[command(hide = true)]
    InspectChild,
}

impl Args {
    /// The state directory, wherever this process goes.
    fn state_dir(&self) -> PathBuf {
        // It fails only where there is no working directory any more; then the path says so itself.
        std::path::absolute(&self.state_dir).unwrap_or_else(|_| self.state_dir.clone())
    }

    /// The database's URL.
    #[must_use]
    pub fn database(&self) -> String {
        let file = || format!("sqlite://{}", self.state_dir().join("control.db").display());
        self.database.clone().unwrap_or_else(file)
    }
}

impl Args {
    /// Opens the blob store.
    ///
    /// # Errors
    /// Its URL is not understood, or its directory cannot be used.
    pub fn blob_store(&self) -> Result<Store, StoreUrlError> {
        self.serve.store.open(&self.state_dir().join("blobs"))
    }

    /// The file of the signing key.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.state_dir.join("fleet.key")
    }
}

fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Interval(Some(Duration::from_secs(seconds)))),
        _ => Err("expected 1 to 86400 seconds, or off".into()),
    }
}

fn source(text: &str) -> Result<String, String> {
    let known = ["file://", "http://", "https://", "s3://"];
    if known.iter().any(|scheme| text.starts_with(scheme) && text.len() > scheme.len()) {
        return Ok(text.to_owned());
    }
    Err("expected a URL with the scheme file, http, https or s3".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["pointsman-control"], more].concat())
    }

    #[test]
    fn everything_lies_in_the_state_directory_unless_said_otherwise() {
        Args::command().debug_assert();
        let args = parse(&["--state-dir", "/s"]).unwrap();
        assert_eq!(args.database(), "sqlite:///s/control.db");
        let args = parse(&["--state-dir", "s"]).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(args.database(), format!("sqlite://{}/s/control.db", here.display()));
        let args = parse(&["serve", "--database", "postgres://db/x"]).unwrap();
        assert_eq!(args.database(), "postgres://db/x");
    }

    #[test]
    fn intervals_and_sources_are_checked() {
        assert_eq!(parse(&[]).unwrap().serve.publish_interval, Interval(None));
        let args = parse(&["--publish-interval", "30"]).unwrap();
        assert_eq!(args.serve.publish_interval, Interval(Some(Duration::from_secs(30))));
        for wrong in ["0", "86401", "on", "-1"] {
            parse(&["--publish-interval", wrong]).unwrap_err();
        }
        for wrong in ["ftp://x", "http://", "/var/lib"] {
            parse(&["--source", wrong]).unwrap_err();
        }
        parse(&["--tls-cert", "/c"]).unwrap_err();
    }
}
