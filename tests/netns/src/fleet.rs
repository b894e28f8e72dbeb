//! A fleet as operators run it: a control plane and hosts with daemons and couriers, each in a
//! network namespace of its own. The control plane and the couriers run as nobody.
//!
//! ```text
//!   left v0 ---- v1 right m0 ------- hub ------- m0 right v1 ---- v0 left
//!                     10.78.1.2   10.78.100.1   10.78.2.2
//!                   daemon, courier  control    daemon, courier
//! ```

mod api;
mod node;

pub use api::Api;
pub use node::Node;

use crate::daemon::{Host, binary, run};
use crate::netns::{Netns, Pair};
use crate::service::Service;
use anyhow::{Context as _, Result, bail};
use pointsman_services::{Postgres, S3, Unavailable};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// Where the control plane listens.
pub const CONTROL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 78, 100, 1), 8600);

/// Where a store's server listens, beside the control plane.
const STORE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 78, 100, 1), 9000);

/// Whom nothing belongs to: what needs no privileges runs as this user and group.
pub const NOBODY: u32 = 65_534;

/// A fleet. Its parts come and go.
#[derive(Debug)]
pub struct Fleet {
    /// The hosts.
    pub nodes: Vec<Node>,
    /// The control plane, while it runs.
    pub control: Option<Service>,
    /// Who asks it.
    pub api: Arc<Api>,
    /// Where its database is, if that is no file.
    pub database: Option<Arc<Postgres>>,
    /// Where it publishes to, if that is no directory.
    pub bucket: Option<S3>,
    options: Vec<String>,
    url: Option<String>,
    directory: tempfile::TempDir,
}

impl Deref for Fleet {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Fleet {
    /// Makes one that keeps what it knows in a file of SQLite. Everything runs, and nothing is
    /// published.
    ///
    /// # Errors
    /// The kernel's answer, or what a process says; it takes root.
    pub fn new(nodes: u8) -> Result<Self> {
        Self::with(nodes, None, &[])
    }

    /// Makes one with a database server, or with more options for the control plane.
    ///
    /// # Errors
    /// As [`Fleet::new`].
    ///
    /// # Panics
    /// The server makes no database.
    pub fn with(nodes: u8, database: Option<Arc<Postgres>>, options: &[&str]) -> Result<Self> {
        Self::make(hub()?, nodes, database, None, options)
    }

    /// Makes one that publishes to an S3 server. In vain where there is none: why.
    ///
    /// # Errors
    /// As [`Fleet::new`].
    pub fn with_bucket(nodes: u8) -> Result<Result<Self, Unavailable>> {
        let hub = hub()?;
        match hub.run(|| S3::start(STORE.into())) {
            Ok(bucket) => Self::make(hub, nodes, None, Some(bucket), &[]).map(Ok),
            Err(why) => Ok(Err(why)),
        }
    }

    fn make(
        hub: Netns,
        nodes: u8,
        database: Option<Arc<Postgres>>,
        bucket: Option<S3>,
        options: &[&str],
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pointsman-fleet-").tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711))?;
        make_directory(&directory.path().join("control"), 0o700, Some(NOBODY))?;
        let mut fleet = Self {
            nodes: Vec::new(),
            control: None,
            api: Arc::new(Api { hub, token: OnceLock::new() }),
            url: database.as_ref().map(|server| server.database()),
            database,
            bucket,
            options: options.iter().map(ToString::to_string).collect(),
            directory,
        };
        fleet.start_control()?;
        let token = fleet.first_token()?;
        let _ = fleet.api.token.set(token);
        for number in 1..=nodes {
            let node = fleet.add(number)?;
            fleet.nodes.push(node);
        }
        Ok(fleet)
    }

    /// A path below the control plane's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the control plane publishes to.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path("control/blobs")
    }

    /// Starts the control plane, and waits until it is ready.
    ///
    /// # Errors
    /// It ends instead.
    pub fn start_control(&mut self) -> Result<()> {
        let mut command = as_nobody("pointsman-control");
        command
            .args(["serve", "--fleet", "lab", "--log-format", "json"])
            .args(["--listen", &CONTROL.to_string()])
            .args(["--state-dir".into(), self.path("control")])
            .args(&self.options);
        if let Some(url) = &self.url {
            command.env("POINTSMAN_DATABASE", url);
        }
        if let Some(bucket) = &self.bucket {
            command.args(["--store", &bucket.url("lab")]);
            command.args(["--s3-endpoint", &bucket.endpoint()]).envs(S3::CREDENTIALS);
        }
        let mut control = Service::start("control", command, &self.api.hub, self.directory.path())?;
        control.ready()?;
        self.control = Some(control);
        Ok(())
    }

    /// Ends the store's server as a power cut would.
    ///
    /// # Panics
    /// There is none.
    pub fn cut_bucket(&self) {
        self.bucket.as_ref().expect("there is a bucket").cut();
    }

    /// Starts the store's server again.
    ///
    /// # Panics
    /// There is none, or it does not start.
    pub fn resume_bucket(&self) {
        let bucket = self.bucket.as_ref().expect("there is a bucket");
        self.api.hub.run(|| bucket.resume());
    }

    fn first_token(&self) -> Result<String> {
        let printed = fs::read_to_string(self.path("control.out"))?;
        let token = printed.lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["admin_token"].as_str().map(str::to_owned)
        });
        token.with_context(|| format!("the first start prints a token: {printed}"))
    }

    fn add(&self, number: u8) -> Result<Node> {
        let name = format!("edge-{number}");
        let pair = Pair::new()?;
        let (near, far) = (format!("10.78.{number}.1"), format!("10.78.{number}.2"));
        let port = format!("m{number}");
        let peer = ["type", "veth", "peer", "name", "m0", "netns", pair.right.name()];
        self.hub.ip(&[&["link", "add", &port], peer.as_slice()].concat())?;
        for (netns, device, address) in [(&self.hub, &*port, &near), (&pair.right, "m0", &far)] {
            netns.ip(&["address", "add", &format!("{address}/24"), "dev", device])?;
            netns.ip(&["link", "set", device, "up"])?;
        }
        pair.right.ip(&["route", "add", &CONTROL.ip().to_string(), "via", &near])?;

        let host = Host::new()?;
        let options = ["fleet.json", "drop"].map(|name| host.path(name));
        let options = options.each_ref().map(|path| path.to_str().expect("UTF-8"));
        let (config, drop) = (options[0].to_owned(), options[1].to_owned());
        let host = host.with(&["--fleet-config", &config, "--drop-dir", &drop]);
        let host = host.with(&["--keep-generations", "100"]);
        let host = host.with(&["--status-group", &NOBODY.to_string()]);
        fs::set_permissions(host.path("."), fs::Permissions::from_mode(0o711))?;
        make_directory(&host.path("drop"), 0o755, Some(NOBODY))?;
        make_directory(&host.path("courier"), 0o700, Some(NOBODY))?;
        let mut node = Node { name, daemon: None, courier: None, host, pair };
        self.enrol(&node)?;
        node.start_daemon()?;
        node.start_courier()?;
        Ok(node)
    }

    /// Enrols a host, as its administrator does.
    ///
    /// # Errors
    /// What the command says.
    pub fn enrol(&self, node: &Node) -> Result<()> {
        let label = format!("name={}", node.name);
        let answer =
            self.cli(&["enroll", &node.name, "--label", "role=edge", "--label", &label], b"");
        let token = answer.value["token"].as_str().with_context(|| format!("{answer:?}"))?;
        let mut command = Command::new(binary("pointsman-courier"));
        command
            .args(["enroll", "--force", "--insecure", "--control"])
            .arg(format!("http://{CONTROL}"))
            .args(["--user", &NOBODY.to_string()])
            .args(["--config".into(), node.host.path("courier/courier.json")])
            .args(["--node-config".into(), node.host.path("fleet.json")]);
        let answer = node.pair.right.run(|| run(&mut command, token.as_bytes()));
        if answer.code != 0 {
            bail!("pointsman-courier enroll: {answer:?}");
        }
        Ok(())
    }
}

/// The network that everything else is reached by.
fn hub() -> Result<Netns> {
    let hub = Netns::new()?;
    hub.ip(&["address", "add", &format!("{}/32", CONTROL.ip()), "dev", "lo"])?;
    Ok(hub)
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new(binary(program));
    command.uid(NOBODY).gid(NOBODY).current_dir("/").env_remove("NOTIFY_SOCKET");
    command
}

fn make_directory(path: &Path, mode: u32, owner: Option<u32>) -> Result<()> {
    fs::create_dir(path).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if owner.is_some() {
        chown(path, owner, owner)?;
    }
    Ok(())
}

/// A policy for one host, or for all: a port filter that lists `ports`.
#[must_use]
pub fn filter(selector: &Value, ports: &[u16]) -> Value {
    let entries: Vec<_> = ports.iter().map(|port| json!({"key": port, "value": 1})).collect();
    json!({"selector": selector, "interface": "v1", "chain": [
        {"program": "builtin:udp-port-filter", "name": "ports", "priority": 20,
         "maps": {"ports": {"entries": entries}}}]})
}
