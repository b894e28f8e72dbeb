//! A connected client: who it is, what it says it is, and what it holds.

use crate::{Holding, Kept};
use pointsman_imtl::{Dialect, Hostname, Learned, Registration};
use pointsman_model::NamespaceName;
use pointsman_model::cpu::CpuSet;
use pointsman_model::lease::{Mapping, Place, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// What is kept of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// What it speaks.
    pub protocol: Protocol,
    /// Who it is.
    pub peer: Peer,
    /// When it connected, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// The dialect that it has told.
    pub dialect: Option<Tongue>,
    /// What it says of itself; `None`: it has not registered.
    pub claim: Option<Claim>,
    /// The CPUs it may run on when it first asked for one; the inner `None`: they cannot be read.
    pub cpuset: Option<Option<CpuSet>>,
    /// How its lcore ids are read.
    pub mapping: Option<Mapping>,
    /// What it holds, by id.
    pub leases: BTreeMap<u32, Lease>,
    /// The network namespace of its interfaces, as the daemon calls it; `None`: the daemon's.
    pub namespace: Option<NamespaceName>,
    /// The interfaces that it has claimed, by number, and what it holds of each.
    pub interfaces: BTreeMap<u32, Holding>,
    /// Answers that may be asked for again, by the requests' numbers, ascending.
    pub(crate) kept: VecDeque<(u64, Kept)>,
    /// Whether it is there: its keeper has named it.
    pub(crate) present: bool,
}

/// Who is at the other end, as the kernel tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The process that connected; `None`: the daemon does not see its pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that process was started, in clock ticks since the host was: with its number, the
    /// process itself. Only where the kernel does not tell it by the socket (before Linux 6.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups, as many as are kept. Never written down: a process may have 65,536, and
    /// the kernel tells every daemon anew, always the same.
    #[serde(skip)]
    pub groups: Vec<u32>,
    /// The name of its program, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The inode of its network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<u64>,
}

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its host: printable ASCII, all else escaped.
    pub hostname: String,
    /// Its process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<u32>,
}

/// A dialect, and which request told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tongue {
    /// Whether it is 1.1.
    pub newer: bool,
    /// The request's number.
    pub by: u64,
}

/// One lcore that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The id by which its owner calls it.
    pub id: u32,
    /// The CPU that it is; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Kept idle for another core of the owner.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
}

impl Client {
    /// One that has just connected.
    #[must_use]
    pub fn new(protocol: Protocol, peer: Peer, since_unix_ms: u64) -> Self {
        Self {
            protocol,
            peer,
            since_unix_ms,
            dialect: None,
            claim: None,
            cpuset: None,
            mapping: None,
            leases: BTreeMap::new(),
            namespace: None,
            interfaces: BTreeMap::new(),
            kept: VecDeque::new(),
            present: false,
        }
    }

    /// An interface of its network namespace.
    #[must_use]
    pub fn place(&self, index: u32) -> Place {
        Place { namespace: self.namespace.clone(), index }
    }

    /// The CPUs it may run on, as far as they are known.
    #[must_use]
    pub fn cpus(&self) -> Option<&CpuSet> {
        self.cpuset.as_ref().and_then(Option::as_ref)
    }

    /// The number of its newest request whose answer is kept; 0: none is.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.kept.back().map_or(0, |(number, _)| *number)
    }

    /// The answer to one of its requests, if it is kept.
    #[must_use]
    pub fn answered(&self, sequence: u64) -> Option<&Kept> {
        let at = self.kept.binary_search_by_key(&sequence, |(number, _)| *number).ok()?;
        self.kept.get(at).map(|(_, kept)| kept)
    }

    /// All its groups.
    #[must_use]
    pub fn groups(&self) -> Vec<u32> {
        [self.peer.gid].into_iter().chain(self.peer.groups.iter().copied()).collect()
    }

    /// What to call it in a line for people.
    #[must_use]
    pub fn name(&self) -> String {
        let said = self.claim.as_ref().map(|claim| claim.hostname.as_str());
        let name = self.peer.command.as_deref().or(said).filter(|name| !name.is_empty());
        let name = name.unwrap_or("unnamed");
        match (self.peer.pid, &self.claim) {
            (Some(pid), _) => format!("{name} pid {pid}"),
            (None, Some(claim)) => format!("{name} claimed pid {}", claim.pid),
            (None, None) => name.to_owned(),
        }
    }
}

impl From<&Registration> for Claim {
    fn from(registration: &Registration) -> Self {
        let Registration { pid, uid, hostname, interfaces } = registration;
        Self { hostname: shown(hostname), pid: *pid, uid: *uid, interfaces: interfaces.to_vec() }
    }
}

fn shown(hostname: &Hostname) -> String {
    hostname.to_string()
}

impl From<Learned> for Tongue {
    fn from(Learned { dialect, by }: Learned) -> Self {
        Self { newer: dialect == Dialect::V1_1, by }
    }
}

impl From<Tongue> for Learned {
    fn from(Tongue { newer, by }: Tongue) -> Self {
        Self { dialect: if newer { Dialect::V1_1 } else { Dialect::V1_0 }, by }
    }
}
