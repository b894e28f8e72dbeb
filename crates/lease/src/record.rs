//! What is written down: each record is one change of the desk.

use crate::client::Tongue;
use crate::{Claim, Lease, Peer, Why};
use pointsman_model::cpu::CpuSet;
use pointsman_model::lease::{Mapping, Protocol};
use serde::{Deserialize, Serialize};

/// One change, with the request that it answers where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The connection it is about.
    pub connection: u64,
    /// The number of the request that this answers; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// What changes.
    pub change: Change,
    /// That the request was refused all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Why>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A client has connected.
    Opened {
        /// What it speaks.
        protocol: Protocol,
        /// Who it is.
        peer: Peer,
        /// When, in milliseconds since the Unix epoch.
        at: u64,
    },
    /// It has told its dialect.
    Dialect(Tongue),
    /// The CPUs it may run on are known, or known not to be readable.
    Cpuset(Option<CpuSet>),
    /// It says who it is.
    Registered(Claim),
    /// It holds these from now on.
    Leased {
        /// What it gets.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        leases: Vec<Lease>,
        /// How its ids are read from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mapping: Option<Mapping>,
        /// What it held before, where those are other CPUs now that its ids are read otherwise.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        moved: Vec<Lease>,
    },
    /// It gives these ids back.
    Returned(Vec<u32>),
    /// An administrator took all of it back.
    Cleared,
    /// Its connection has ended.
    Closed,
    /// Only the answer is kept.
    Answered,
    /// All of a client at once: what a compacted journal starts with.
    Whole(Box<Whole>),
}

impl Change {
    /// Whether it gives a client something, or a right: not without being written down, and not
    /// where it is unknown what the operator has decided.
    #[must_use]
    pub fn gives(&self) -> bool {
        match self {
            Self::Leased { leases, .. } => !leases.is_empty(),
            Self::Registered(_) => true,
            _ => false,
        }
    }
}

/// All that is kept of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    pub(crate) protocol: Protocol,
    pub(crate) peer: Peer,
    pub(crate) at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dialect: Option<Tongue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<Claim>,
    /// A list of none or one, because JSON has one `null` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cpuset: Vec<Option<CpuSet>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mapping: Option<Mapping>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) leases: Vec<Lease>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) kept: Vec<(u64, crate::Kept)>,
}
