//! Instances, the lcores they hold, and what is told of both.

use crate::NamespaceName;
use crate::cpu::{CpuSet, Topology};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// How many lcore ids there are unless the document says otherwise: 0 to 1023.
pub const DEFAULT_LCORE_LIMIT: u32 = 1024;

/// The most lcore ids there can be: the protocol's field has 16 bits.
pub const MAX_LCORE_LIMIT: u32 = 1 << 16;

/// What lcore ids of clients mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LcoreIds {
    /// Found out for each client: one that asks for an id that is no CPU of its cpuset re-maps its
    /// ids.
    #[default]
    Auto,
    /// An id is the number of a CPU.
    Physical,
    /// Id n is the n-th CPU of the client's cpuset, from 0: DPDK's `--remap-lcore-ids`.
    Remapped,
}

/// How the ids of one client are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// As numbers of CPUs.
    #[default]
    Physical,
    /// As places in the client's cpuset.
    Remapped,
    /// As numbers of CPUs, because its cpuset cannot be read.
    PhysicalAssumed,
}

/// What an instance speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The MTL Manager's protocol.
    Imtl,
    /// Pointsman's own.
    Native,
}

/// Whether the process that connected lives. A lease ends with the connection, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It does not run and is not gone: stopped, or waiting for a disk that does not answer.
    Stuck,
    /// It has ended, and somebody it left behind holds the connection.
    Gone,
    /// It cannot be told from here.
    Unknown,
}

/// One connected application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its number: that of its connection.
    pub id: u64,
    /// What it speaks.
    pub protocol: Protocol,
    /// The dialect, as far as it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// Who it is, as the kernel tells.
    pub peer: PeerView,
    /// What it says of itself; `None`: it has not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Claimed>,
    /// Whether its process lives.
    pub liveness: Liveness,
    /// When it connected, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// For how long it has asked nothing, in milliseconds.
    pub idle_ms: u64,
    /// Requests since the daemon started.
    pub requests: u64,
    /// Those that were refused.
    pub refused: u64,
    /// The CPUs it may run on, as they were when it first asked for a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<CpuSet>,
    /// The same as they are now, where that differs. Told of one instance alone: a list of all does
    /// not look at their processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset_now: Option<CpuSet>,
    /// How its lcore ids are read; `None`: it has asked for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Mapping>,
    /// What it holds.
    pub lcores: Vec<LcoreLease>,
    /// The interfaces that it gets its packets from, and what it holds of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceLease>,
}

/// What an instance holds of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceLease {
    /// The interface.
    #[serde(flatten)]
    pub place: Place,
    /// Receive queues.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<u32>,
    /// Destination ports that go on to its sockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Flow rules, each as text that begins with its location in the card's table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<String>,
}

/// A peer as the kernel tells (`SO_PEERCRED`), seen from the daemon's namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerView {
    /// The process that connected; `None`: it is in a pid namespace that the daemon does not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The name of its program, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The inode of its network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<u64>,
}

/// What an instance says of itself. Nothing of it is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claimed {
    /// Its host, escaped.
    pub hostname: String,
    /// Its process, as its pid namespace numbers it.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Indexes of its interfaces.
    pub interfaces: Vec<u32>,
    /// Whether the pid is another one than the kernel tells, where both can be compared.
    pub pid_differs: bool,
}

/// An interface as instances name it: by number, in a network namespace. It keeps its number when it
/// is renamed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// The network namespace; `None`: the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub namespace: Option<NamespaceName>,
    /// The kernel's number there.
    pub index: u32,
}

/// An lcore that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LcoreLease {
    /// The id under which the instance has it.
    pub id: u32,
    /// The CPU that this is; `None`: none, the id is a token alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Not to be run on: it is kept idle for another core of the same instance.
    #[serde(default, skip_serializing_if = "is_false")]
    pub idle: bool,
    /// What is odd about it, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// All instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instances {
    /// By number.
    pub instances: Vec<Instance>,
    /// Why nothing is given away at present; `None`: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusing: Option<String>,
}

/// The machine with who holds what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lcores {
    /// The processors.
    pub topology: Topology,
    /// CPUs that the document keeps from all.
    pub reserved: CpuSet,
    /// Lcore ids are below this.
    pub limit: u32,
    /// What ids of clients mean.
    pub lcore_ids: LcoreIds,
    /// Who holds what.
    pub held: Vec<Held>,
    /// Why nothing is given away at present; `None`: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusing: Option<String>,
}

/// An lcore with its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// The instance.
    pub instance: u64,
    /// Its program or host, escaped, and process, for people.
    pub owner: String,
    /// What it holds.
    pub lcore: LcoreLease,
}

/// What an administrator took back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClearReport {
    /// From whom.
    pub instance: u64,
    /// What.
    pub lcores: Vec<LcoreLease>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => write!(f, "interface number {}", self.index),
            Some(namespace) => write!(f, "interface number {} of {namespace}", self.index),
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Physical => "physical",
            Self::Remapped => "re-mapped",
            Self::PhysicalAssumed => "physical (cpuset unreadable)",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Imtl => "imtl",
            Self::Native => "native",
        })
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Stuck => "stuck",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        })
    }
}
