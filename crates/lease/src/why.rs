//! Why something is refused.

use pointsman_imtl::Refusal;
use serde::{Deserialize, Serialize};

/// Why a request is refused: for the client as far as its protocol can say it, for people in
/// words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Why {
    /// The request makes no sense.
    #[error("{what}")]
    BadRequest {
        /// What is wrong with it.
        what: String,
    },
    /// Somebody has it.
    #[error("lcore {id} is held by instance {holder}")]
    Busy {
        /// The id asked for.
        id: u32,
        /// Who has it.
        holder: u64,
    },
    /// It is not known what the operator has decided, so nothing is given away.
    #[error("nothing is given away: {why}")]
    Document {
        /// What is the matter.
        why: String,
    },
    /// It cannot be kept that it was given away, so it is not.
    #[error("nothing is given away: {why}")]
    Journal {
        /// What is the matter.
        why: String,
    },
    /// Daemons crashed over it, one after the other.
    #[error("daemon after daemon crashed over it")]
    Fatal,
    /// It was carried out, or refused, by a daemon that is gone, and only a refusal is not written
    /// down.
    #[error("it was refused before the daemon was started again")]
    Lost,
    /// No such interface in the client's network namespace.
    #[error("there is no interface {index} in its network namespace")]
    NoInterface {
        /// Its index.
        index: u32,
    },
    /// The client does not hold it.
    #[error("it does not hold lcore {id}")]
    NotHeld {
        /// The id.
        id: u32,
    },
    /// It did not register with this interface.
    #[error("it has not registered with interface number {index}")]
    NotClaimed {
        /// Its index.
        index: u32,
    },
    /// The interface cannot be had.
    #[error("interface number {index} cannot be served: {what}")]
    NotServed {
        /// Its index.
        index: u32,
        /// What is in the way.
        what: String,
    },
    /// The client does not hold it.
    #[error("it does not hold {what}")]
    NotHeldThere {
        /// What.
        what: String,
    },
    /// There is no receive queue for it.
    #[error("there is no receive queue to be had: {what}")]
    NoQueue {
        /// Why.
        what: String,
    },
    /// Another rule is for the same packets.
    #[error("there is a flow rule for these packets already")]
    RuleExists,
    /// The card takes no more rules.
    #[error("the card's table of flow rules is full")]
    TableFull,
    /// The card or its driver could not do it.
    #[error("{what}")]
    CardFailed {
        /// What and why.
        what: String,
    },
    /// It has as many as it may.
    #[error("it has {most} {what}, which is as many as one may have")]
    TooMany {
        /// What.
        what: String,
        /// How many.
        most: u32,
    },
    /// There is nothing of that kind.
    #[error("that is not served here")]
    NotHere,
    /// It has not registered.
    #[error("it has not registered")]
    NotRegistered,
    /// No such id.
    #[error("there is no lcore {id}: ids are below {limit} (`lcores.limit` of the document)")]
    OutOfRange {
        /// The id.
        id: u32,
        /// The limit.
        limit: u32,
    },
    /// The document keeps the CPU from all.
    #[error("CPU {cpu} is reserved (`lcores.reserve` of the document)")]
    Reserved {
        /// The CPU.
        cpu: u32,
    },
    /// It has no right to anything.
    #[error("user {uid} may not hold anything (`access.clients` of the document)")]
    Stranger {
        /// Its user.
        uid: u32,
    },
    /// There are not as many CPUs as asked for.
    #[error("CPUs asked for: {wanted}, that fit and are free: {available}")]
    TooFew {
        /// Asked for.
        wanted: u32,
        /// There.
        available: u32,
    },
}

impl Why {
    /// How a client of the MTL Manager's protocol is told.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::BadRequest { .. }
            | Self::NotHeld { .. }
            | Self::NotHeldThere { .. }
            | Self::OutOfRange { .. } => Refusal::Invalid,
            Self::Busy { .. } | Self::Reserved { .. } | Self::RuleExists => Refusal::Busy,
            Self::Document { .. }
            | Self::Journal { .. }
            | Self::Fatal
            | Self::Lost
            | Self::NotServed { .. }
            | Self::CardFailed { .. } => Refusal::Failed,
            Self::NoInterface { .. } => Refusal::NoInterface,
            Self::NotHere => Refusal::Unsupported,
            Self::NotRegistered | Self::NotClaimed { .. } | Self::Stranger { .. } => {
                Refusal::NotPermitted
            }
            Self::TooFew { .. } | Self::NoQueue { .. } | Self::TableFull | Self::TooMany { .. } => {
                Refusal::Exhausted
            }
        }
    }
}
