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
    /// This version has nothing to give for an interface.
    #[error("interfaces are not served yet")]
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
            Self::BadRequest { .. } | Self::NotHeld { .. } | Self::OutOfRange { .. } => {
                Refusal::Invalid
            }
            Self::Busy { .. } | Self::Reserved { .. } => Refusal::Busy,
            Self::Document { .. } | Self::Journal { .. } | Self::Lost => Refusal::Failed,
            Self::NoInterface { .. } => Refusal::NoInterface,
            Self::NotHere => Refusal::Unsupported,
            Self::NotRegistered | Self::Stranger { .. } => Refusal::NotPermitted,
            Self::TooFew { .. } => Refusal::Exhausted,
        }
    }
}
