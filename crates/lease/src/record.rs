//! What is written down: each record is one change of the desk.

use crate::client::Tongue;
use crate::{Claim, Holding, Lease, Peer, Why};
use pointsman_model::NamespaceName;
use pointsman_model::cpu::CpuSet;
use pointsman_model::flow::FlowRule;
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
    /// It wants its packets from these interfaces.
    Claimed {
        /// The network namespace that they are of, as the daemon calls it; `None`: the daemon's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<NamespaceName>,
        /// Their numbers there.
        interfaces: Vec<u32>,
    },
    /// It does not get them after all.
    Unclaimed(Vec<u32>),
    /// A destination port goes on to its sockets, once more.
    Port {
        /// The interface.
        index: u32,
        /// The port.
        port: u16,
    },
    /// Once less.
    PortReturned {
        /// The interface.
        index: u32,
        /// The port.
        port: u16,
    },
    /// It holds a receive queue.
    Queue {
        /// The interface.
        index: u32,
        /// The queue.
        queue: u32,
    },
    /// No longer.
    QueueReturned {
        /// The interface.
        index: u32,
        /// The queue.
        queue: u32,
    },
    /// It has a flow rule.
    Flow {
        /// The interface.
        index: u32,
        /// Where the rule is.
        location: u32,
        /// What it says.
        rule: FlowRule,
    },
    /// No longer.
    FlowReturned {
        /// The interface.
        index: u32,
        /// Where the rule is.
        location: u32,
    },
    /// Its map of sockets was handed over.
    Map {
        /// The interface.
        index: u32,
    },
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
            Self::Registered(_)
            | Self::Claimed { .. }
            | Self::Port { .. }
            | Self::Queue { .. }
            | Self::Flow { .. } => true,
            _ => false,
        }
    }
}

impl Change {
    /// Whether it takes something back: for it there is always room.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        matches!(
            self,
            Self::Returned(_)
                | Self::PortReturned { .. }
                | Self::QueueReturned { .. }
                | Self::FlowReturned { .. }
                | Self::Cleared
                | Self::Closed
        )
    }

    /// How many things it gives, each of which is given back by itself.
    #[must_use]
    pub fn given(&self) -> usize {
        match self {
            Self::Leased { leases, .. } => leases.len(),
            change => usize::from(change.gives()),
        }
    }
}

/// What a client has of network cards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cards {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<NamespaceName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) interfaces: Vec<Card>,
}

impl Cards {
    fn is_empty(&self) -> bool {
        self.namespace.is_none() && self.interfaces.is_empty()
    }
}

/// What a client has of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) index: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    queues: Vec<u32>,
    /// Each with how often it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<(u16, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    flows: Vec<(u32, FlowRule)>,
}

impl From<(u32, Holding)> for Card {
    fn from((index, held): (u32, Holding)) -> Self {
        let Holding { queues, ports, flows, .. } = held;
        Self {
            index,
            queues: queues.into_iter().collect(),
            ports: ports.into_iter().collect(),
            flows: flows.into_iter().collect(),
        }
    }
}

impl From<Card> for Holding {
    fn from(card: Card) -> Self {
        let Card { queues, mut ports, flows, .. } = card;
        // One that was asked for not once is not there.
        ports.retain(|(_, times)| *times > 0);
        Self {
            asked: ports.iter().fold(0, |sum, (_, times)| sum.saturating_add(*times)),
            queues: queues.into_iter().collect(),
            ports: ports.into_iter().collect(),
            flows: flows.into_iter().collect(),
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
    #[serde(default, skip_serializing_if = "Cards::is_empty")]
    pub(crate) cards: Cards,
}
