//! A fleet of its own: a control plane and a few hosts, each with a daemon and a courier, connected
//! by wires that nothing else is on. The control plane and the couriers run as nobody.
//!
//! ```text
//!                    namespace …-c   pointsman-control, 10.77.0.1
//!              10.77.1.1 │      │ 10.77.2.1   …
//!                        │      │
//!              10.77.1.2 │      │ 10.77.2.2
//!   namespace …-1     mgmt0    mgmt0     namespace …-2      courier, daemon
//!                      eth0    eth0
//!            198.18.1.2  │      │ 198.18.2.2
//!                        │      │
//!            198.18.1.1  │      │ 198.18.2.1
//!                    namespace …-a   sends packets
//! ```

use super::service::Service;
use super::{Binaries, Daemon, Namespace, Scratch, Site, quiet};
use crate::interrupt;
use crate::process::capture_long;
use anyhow::{Context, Result, bail};
use pointsman_services::Postgres;
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interface whose chain the fleet decides.
pub(crate) const ETH: &str = "eth0";

/// Where the control plane listens.
pub(crate) const CONTROL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 8600);

/// Whom nothing belongs to: what needs no privileges runs as this user and group.
const NOBODY: u32 = 65_534;

/// What a fleet is made of. Dropped in this order.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
    pub(crate) control: Service,
    /// What may do everything.
    pub(crate) admin: String,
    cli: PathBuf,
    pub(crate) hub: Namespace,
    pub(crate) outside: Namespace,
    _database: Option<Postgres>,
    scratch: Scratch,
}

/// A host. Dropped in this order.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// It ends before the daemon that it asks.
    _courier: Service,
    pub(crate) daemon: Daemon,
    pub(crate) inside: Namespace,
    number: u8,
}

impl Node {
    /// Its address behind the chain.
    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }

    /// The address that packets come from.
    pub(crate) fn sender(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    /// Goes into names, with the process id.
    pub(crate) purpose: &'a str,
    /// How many hosts: 1 to 9.
    pub(crate) nodes: u8,
    /// Whether the database is PostgreSQL, else it is a file of SQLite.
    pub(crate) postgres: bool,
    /// More options for the control plane.
    pub(crate) control: &'a [&'a str],
}

impl Fleet {
    /// Builds it: all of it runs when this returns, and nothing is published.
    pub(crate) fn new(plan: Plan<'_>, binaries: &Binaries) -> Result<Self> {
        let name = format!("pointsman-{}-{}", plan.purpose, std::process::id());
        // Nobody has to pass through it.
        let scratch = Scratch::new(&std::env::temp_dir().join(&name), 0o711)?;
        let database = plan.postgres.then(Postgres::start).transpose();
        let database = database.map_err(|why| anyhow::anyhow!("{why}"))?;
        let outside = Namespace::add(format!("{name}-a"))?;
        let hub = Namespace::add(format!("{name}-c"))?;
        prepare(&outside)?;
        prepare(&hub)?;
        hub.ip(&["addr", "add", &format!("{}/32", CONTROL.ip()), "dev", "lo"])?;
        let url = database.as_ref().map(Postgres::database);
        let control = start_control(&scratch, &hub, binaries, url.as_deref(), plan.control)?;
        let admin = admin_token(&scratch.path("control.out"))?;
        let cli = binaries.cli().clone();
        let nodes = Vec::new();
        let mut fleet =
            Self { nodes, control, admin, cli, hub, outside, _database: database, scratch };
        for number in 1..=plan.nodes {
            if interrupt::pending() {
                bail!("interrupted");
            }
            let inside = Namespace::add(format!("{name}-{number}"))?;
            let node = fleet.add(inside, number, binaries)?;
            fleet.nodes.push(node);
        }
        Ok(fleet)
    }

    /// A path in the fleet's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// Runs `pointsman fleet` with `--json`, where the control plane is, and reads what it prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command();
        command.args(["--json", "fleet"]).args(arguments);
        let text = self.hub.run(move || capture_long(&mut command))?;
        let text = text.with_context(|| {
            format!("the control plane's log ends with:\n{}", self.control.log_tail())
        })?;
        serde_json::from_str(&text).context("pointsman fleet did not print JSON")
    }

    /// The command line, pointed at the control plane, for a process where that can be reached.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.cli);
        command.env("POINTSMAN_CONTROL", format!("http://{CONTROL}"));
        command.env("POINTSMAN_TOKEN", &self.admin).env_remove("POINTSMAN_CA");
        for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        command
    }

    fn add(&mut self, inside: Namespace, number: u8, binaries: &Binaries) -> Result<Node> {
        let name = format!("edge-{number}");
        self.wire(&inside, number)?;
        let directory = self.scratch.path(&name);
        make_directory(&directory, 0o755, None)?;
        self.scratch.mount_bpffs(&directory)?;
        make_directory(&directory.join("drop"), 0o755, Some(NOBODY))?;
        make_directory(&directory.join("courier"), 0o700, Some(NOBODY))?;

        let site = Site { namespace: &inside, directory: &directory };
        self.enrol(site, &name, binaries)?;
        let (fleet, drop) = (site.path("fleet.json"), site.path("drop"));
        let (fleet, drop) = (path(&fleet)?, path(&drop)?);
        let nobody = NOBODY.to_string();
        let options = ["--fleet-config", fleet, "--drop-dir", drop, "--status-group", &nobody];
        let daemon = Daemon::start_with(site, binaries, &options)?;
        let mut courier = as_nobody(binaries.courier()?);
        courier
            .args(["run", "--poll-interval", "1s", "--metrics-listen", "off"])
            .args(["--config".into(), site.path("courier/courier.json")])
            .args(["--cache".into(), site.path("courier/cache")])
            .args(["--node".into(), site.path("run/status.sock")])
            .args(["--drop", drop, "--node-config", fleet]);
        let courier = Service::start("courier", courier, site.namespace, site.directory)?;
        Ok(Node { name, _courier: courier, daemon, inside, number })
    }

    /// Makes the node a member: as root, who alone says to whom the daemon listens.
    fn enrol(&self, site: Site<'_>, name: &str, binaries: &Binaries) -> Result<()> {
        let enrolment = self.ask(&["enroll", name, "--label", "role=edge"])?;
        let token = enrolment["token"].as_str().context("an enrolment has no token")?;
        let file = site.path("token");
        fs::write(&file, token)?;
        let mut command = Command::new(binaries.courier()?);
        command
            // Nothing else is on these wires.
            .args(["enroll", "--insecure", "--control", &format!("http://{CONTROL}")])
            .args(["--user", &NOBODY.to_string()])
            .args(["--token-file".into(), file.clone()])
            .args(["--config".into(), site.path("courier/courier.json")])
            .args(["--node-config".into(), site.path("fleet.json")]);
        site.namespace.run(move || capture_long(&mut command))??;
        fs::remove_file(file)?;
        Ok(())
    }

    /// Connects a host to the control plane and to the sender of packets.
    fn wire(&self, inside: &Namespace, number: u8) -> Result<()> {
        prepare(inside)?;
        let (near, far) = (format!("10.77.{number}.1"), format!("10.77.{number}.2"));
        let port = format!("mgmt{number}");
        connect((&self.hub, &port, &near), (inside, "mgmt0", &far))?;
        inside.ip(&["route", "add", &CONTROL.ip().to_string(), "via", &near])?;
        let (near, far) = (format!("198.18.{number}.1"), format!("198.18.{number}.2"));
        let port = format!("link{number}");
        connect((&self.outside, &port, &near), (inside, ETH, &far))?;
        // A count that ARP adds to is no proof of anything.
        let macs = [self.outside.mac(&port)?, inside.mac(ETH)?];
        let ends = [(&self.outside, &far, &macs[1], port.as_str()), (inside, &near, &macs[0], ETH)];
        for (namespace, address, mac, device) in ends {
            let neighbour = ["neigh", "add", address, "lladdr", mac, "dev", device];
            namespace.ip(&[neighbour.as_slice(), &["nud", "permanent"]].concat())?;
        }
        Ok(())
    }
}

fn prepare(namespace: &Namespace) -> Result<()> {
    namespace.run(quiet).context("cannot prepare a network namespace")??;
    namespace.ip(&["link", "set", "lo", "up"]).map(drop)
}

/// A veth pair between two namespaces: each end with its name and address.
fn connect(a: (&Namespace, &str, &str), b: (&Namespace, &str, &str)) -> Result<()> {
    let peer = ["type", "veth", "peer", "name", b.1, "netns", b.0.name()];
    a.0.ip(&[&["link", "add", a.1], peer.as_slice()].concat())?;
    for (namespace, device, address) in [a, b] {
        namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", device])?;
        namespace.ip(&["link", "set", device, "up"])?;
    }
    Ok(())
}

fn start_control(
    scratch: &Scratch,
    hub: &Namespace,
    binaries: &Binaries,
    database: Option<&str>,
    options: &[&str],
) -> Result<Service> {
    let state = scratch.path("control");
    make_directory(&state, 0o700, Some(NOBODY))?;
    let mut command = as_nobody(binaries.control()?);
    command
        .args(["serve", "--fleet", "demo", "--log-format", "json"])
        .args(["--listen", &CONTROL.to_string()])
        .args(["--state-dir".into(), state])
        .args(options);
    if let Some(database) = database {
        // The URL may hold a password: others see arguments.
        command.env("POINTSMAN_DATABASE", database);
    }
    Service::start("control", command, hub, scratch.directory())
}

/// What the first start printed.
fn admin_token(printed: &Path) -> Result<String> {
    let text = fs::read_to_string(printed)?;
    let token = text.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["admin_token"].as_str().map(str::to_owned)
    });
    match token {
        Some(token) => Ok(token),
        None => bail!("the control plane printed no token:\n{text}"),
    }
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    command
}

fn make_directory(path: &Path, mode: u32, owner: Option<u32>) -> Result<()> {
    let told = || format!("cannot create {}", path.display());
    fs::create_dir(path).with_context(told)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(told)?;
    if owner.is_some() {
        chown(path, owner, owner).with_context(told)?;
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary directory's name is not UTF-8")
}
