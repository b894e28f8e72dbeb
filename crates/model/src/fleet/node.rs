//! Nodes of a fleet, as the control plane knows them.

use super::RefusedSnapshot;
use crate::{FleetName, LabelKey, LabelValue, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What selectors go by.
pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// Rises with every change of its labels; the resource's entity tag.
    pub revision: u64,
    /// Its labels.
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// When it traded its token for a credential, in milliseconds since the Unix epoch; `None`: it
    /// has not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_unix_ms: Option<u64>,
    /// When it reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_unix_ms: Option<u64>,
    /// The generation that was published for it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<u64>,
    /// The generation that it says is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u64>,
    /// How it stands.
    pub health: NodeHealth,
    /// One line that says why it is not well; empty: it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// How a node stands, the worst first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NodeHealth {
    /// It refuses what was published, or something of it.
    Failing,
    /// It has not reported for several of its intervals.
    Silent,
    /// What was published is not in force there yet.
    Behind,
    /// Everything that was published is in force.
    Well,
    /// It has not enrolled, or not reported, yet.
    New,
}

impl NodeHealth {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Failing, Self::Silent, Self::Behind, Self::Well, Self::New];

    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Silent => "silent",
            Self::Behind => "behind",
            Self::Well => "well",
            Self::New => "new",
        }
    }
}

impl std::fmt::Display for NodeHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for NodeHealth {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|health| health.name() == text).ok_or_else(|| {
            format!("{text:?} is no health; expected failing, silent, behind, well or new")
        })
    }
}

/// Asks for a node to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    /// The node's name. A node that is there already gets another one-time token; the credential
    /// it has stays valid until that is used.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Its labels; left out: those it has, or none. A node that is there already must have the
    /// same: labels are changed on the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub labels: Option<Labels>,
    /// For how long the token is good, in seconds; left out: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// A one-time token with which a node enrols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    /// The node that it is for.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// The token. Shown this once, good once.
    pub token: String,
    /// When it is not good any more, in milliseconds since the Unix epoch.
    pub expires_unix_ms: u64,
    /// The id of the key that the fleet's records are signed with, as minisign shows it. A courier
    /// that is told it believes nobody else.
    pub key_id: String,
    /// When a node of this name enrolled last, in milliseconds since the Unix epoch: its
    /// credential is void as soon as the token is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_unix_ms: Option<u64>,
    /// When a node of this name reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_unix_ms: Option<u64>,
}

/// What a node's own status says of its fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeFleetStatus {
    /// The fleet that it belongs to.
    #[schema(value_type = String)]
    pub fleet: FleetName,
    /// The name under which it takes records.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// The id of the key that records must be signed with, in hexadecimal digits as minisign
    /// shows it.
    pub key_id: String,
    /// The generation of the last record that was verified and handed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The last snapshot that was refused, if none was taken since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedSnapshot>,
}
