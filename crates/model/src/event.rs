//! What happened on a node, for the log that an operator reads afterwards.

use crate::HookId;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Rises by one with every event of a node, also over restarts.
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The hook it happened to; `None`: the node as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
    /// The generation of the document in force when it had happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// One line.
    pub message: String,
}

/// What kind of thing happened. Stable: scripts may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The daemon started and adopted what runs.
    Started,
    /// A document came into force.
    Applied,
    /// A document was refused as a whole.
    DocumentRefused,
    /// The interface of a hook is not there; its chain is attached when it appears.
    Pending,
    /// A chain was attached because its interface appeared.
    Attached,
    /// Something that is ours was changed by somebody else.
    Drifted,
    /// What had drifted was put right.
    Repaired,
    /// All that is ours was removed.
    Drained,
    /// A hook's chain was replaced by an empty one, as an operator asked.
    Bypassed,
    /// An operator ended a bypass.
    BypassEnded,
    /// The time of a bypass was over.
    BypassExpired,
    /// An operator returned to an earlier generation.
    RolledBack,
    /// A document came into force and waits to be confirmed.
    Unconfirmed,
    /// A document was confirmed.
    Confirmed,
    /// Nobody confirmed a document in time: what was in force before is again.
    Returned,
    /// An application registered.
    InstanceRegistered,
    /// An application that had registered, or held something, ended its connection.
    InstanceEnded,
    /// An administrator took from an application all that it held.
    InstanceCleared,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Started => "started",
            Self::Applied => "applied",
            Self::DocumentRefused => "document refused",
            Self::Pending => "pending",
            Self::Attached => "attached",
            Self::Drifted => "drifted",
            Self::Repaired => "repaired",
            Self::Drained => "drained",
            Self::Bypassed => "bypassed",
            Self::BypassEnded => "bypass ended",
            Self::BypassExpired => "bypass expired",
            Self::RolledBack => "rolled back",
            Self::Unconfirmed => "unconfirmed",
            Self::Confirmed => "confirmed",
            Self::Returned => "returned",
            Self::InstanceRegistered => "registered",
            Self::InstanceEnded => "instance ended",
            Self::InstanceCleared => "cleared",
        })
    }
}
