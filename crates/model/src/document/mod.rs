//! The node document: what an operator writes down.
//!
//! [`Document::parse`] is the only way in. It takes the bytes of a file or of a request and gives
//! a value in which every name is valid and every reference resolves, or errors that each name
//! the JSON pointer of the offending place and what was expected there.

mod check;
mod host;
mod namespace;
mod queues;
mod raw;
mod schema;
mod strict;

use crate::flow::FlowRule;
use crate::{
    ActionSet, EntryName, InterfaceId, MapName, NamespaceName, NodeName, ProgramName, Sha256,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use strict::Fields;
use utoipa::ToSchema;

pub use host::{AccessSpec, LcoresSpec, People};
pub use queues::{CountsSpec, InterruptsSpec, MAX_FLOWS, MAX_QUEUES, QueuesSpec, TuningSpec};
pub use schema::json_schema;

/// Reads any JSON, strictly: a key given twice anywhere in it is an error, as is what follows it.
///
/// # Errors
/// What is wrong, and in which line and column.
pub fn strict_value(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text).map(|strict::StrictValue(value)| value)
}

/// The largest document, in bytes. Objects given inline count; larger ones belong in the store.
pub const MAX_BYTES: usize = 8 << 20;

/// The highest generation: the largest number that every JSON reader keeps exact (RFC 8259, 6).
pub const MAX_GENERATION: u64 = (1 << 53) - 1;

/// The longest chain. Set by the counter's 32-bit arithmetic and by what a person can follow,
/// far below what the verifier takes.
pub const MAX_CHAIN: usize = 128;

/// A whole node document, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The host this document is for.
    pub node: NodeName,
    /// Which edition of the host's document this is.
    pub generation: u64,
    /// Whether the document may leave the host empty.
    pub allow_empty: bool,
    /// The programs by name.
    pub programs: BTreeMap<ProgramName, ProgramSpec>,
    /// Where the network namespaces of [`Self::interfaces`] are found.
    pub namespaces: Namespaces,
    /// The interfaces by name.
    pub interfaces: BTreeMap<InterfaceId, InterfaceSpec>,
    /// The lcores that instances lease.
    pub lcores: LcoresSpec,
    /// Who may have them.
    pub access: AccessSpec,
}

/// Network namespaces and where they are found.
pub type Namespaces = BTreeMap<NamespaceName, NamespaceSpec>;

/// Where a network namespace is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSpec {
    /// Under `/run/netns`, as `ip netns` makes them.
    Name(NamespaceName),
    /// At a path.
    Path(PathBuf),
    /// Where a process is.
    Pid(u32),
    /// The one with this inode, for as long as a process is in it.
    Inode(u64),
}

/// One program as the operator wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramSpec {
    /// Where the object comes from.
    pub object: ObjectSource,
    /// The function to start at; `None`: the object's only XDP program.
    pub entry: Option<EntryName>,
    /// Global variables to set.
    pub globals: BTreeMap<String, Value>,
    /// Map contents to enforce.
    pub maps: BTreeMap<MapName, Vec<MapEntry>>,
    /// What becomes of maps' contents on an upgrade, where the operator says.
    pub on_upgrade: BTreeMap<MapName, OnUpgrade>,
}

/// Where an object's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectSource {
    /// A file on the host, with its hash where the operator gave one.
    Path(PathBuf, Option<Sha256>),
    /// The local store.
    Stored(Sha256),
    /// The document itself.
    Inline(Vec<u8>),
    /// Fetched by the courier into the local store.
    Url(String, Sha256),
    /// One of ours.
    Builtin(Builtin),
    /// One of ours that instances bring with them: no document can name it.
    Instances(InstanceProgram),
}

/// A program that joins a chain for instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceProgram {
    /// The UDP port filter, with the verdicts of the MTL Manager's chain.
    PortFilter,
    /// The redirect to AF_XDP sockets.
    Redirect,
}

impl InstanceProgram {
    /// Both, in the order in which they stand.
    pub const ALL: [Self; 2] = [Self::PortFilter, Self::Redirect];

    /// Its entry function, by which libmtl's users know it.
    #[must_use]
    pub const fn entry(self) -> &'static str {
        match self {
            Self::PortFilter => "mtl_dp_filter",
            Self::Redirect => "xsk_def_prog",
        }
    }

    /// Where it comes from, as chains and their status record it: no object of a document reads so.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::PortFilter => "instances:port-filter",
            Self::Redirect => "instances:redirect",
        }
    }

    /// The one that has this source; `None`: a document brought the program.
    #[must_use]
    pub fn of_source(source: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.source() == source)
    }
}

impl fmt::Display for ObjectSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path, _) => write!(f, "{}", path.display()),
            Self::Stored(hash) => write!(f, "sha256:{}", hash.short()),
            Self::Inline(_) => f.write_str("inline"),
            Self::Url(url, _) => f.write_str(url),
            Self::Builtin(builtin) => write!(f, "builtin:{builtin}"),
            Self::Instances(program) => f.write_str(program.source()),
        }
    }
}

/// A program that comes with Pointsman.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    /// Drops UDP datagrams to ports that are not listed; `maps.ports` lists them.
    UdpPortFilter,
    /// Redirects packets of a queue to the AF_XDP socket registered for it; passes the others.
    XskmapRedirect,
    /// Counts packets and bytes, and passes them.
    CountingPass,
    /// Drops packets from listed networks; `maps.blocklist_v4` and `maps.blocklist_v6`.
    CidrBlocklist,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::UdpPortFilter, Self::XskmapRedirect, Self::CountingPass, Self::CidrBlocklist];

    /// The name used in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UdpPortFilter => "udp-port-filter",
            Self::XskmapRedirect => "xskmap-redirect",
            Self::CountingPass => "counting-pass",
            Self::CidrBlocklist => "cidr-blocklist",
        }
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct MapEntry {
    /// The key, typed by BTF when it is written.
    pub key: Value,
    /// The value, likewise.
    pub value: Value,
}

/// What an upgrade of a program does with one of its maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUpgrade {
    /// The new program takes the map over, with its contents, if its definition is the same.
    #[default]
    Keep,
    /// The new program gets a map of its own.
    Fresh,
}

/// What runs on one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// The XDP chain.
    pub xdp: Option<XdpSpec>,
    /// Its queues; `None`: they are as they are.
    pub queues: Option<QueuesSpec>,
    /// The operator's flow rules, no two about the same packets. That their queues are there is not
    /// known.
    pub flows: Vec<FlowRule>,
}

/// An XDP chain and how it is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpSpec {
    /// How several programs become one.
    pub engine: Engine,
    /// Where in the receive path.
    pub mode: Mode,
    /// What happens when somebody else changes what is ours.
    pub drift: DriftPolicy,
    /// The programs, in document order.
    pub chain: Vec<ChainEntry>,
    /// What is decided about programs of others in the same dispatcher.
    pub others: Vec<OtherSpec>,
}

/// What an operator decides about programs that others put into the dispatcher of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherSpec {
    /// Which programs.
    pub which: Which,
    /// Their priority; `None`: the one they were given.
    pub priority: Option<u32>,
    /// The verdicts after which the next program runs; `None`: those they were given.
    pub actions: Option<ActionSet>,
}

/// Names programs that are not ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The whole name of its function.
    Name(String),
    /// The kernel's tag: 16 hexadecimal digits.
    Tag(String),
}

/// One program's place in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEntry {
    /// The program.
    pub program: ProgramName,
    /// Ascending.
    pub priority: u32,
    /// The verdicts after which the next program runs.
    pub actions: ActionSet,
    /// Whether the verdict is acted upon.
    pub enforce: bool,
    /// Whether it shares a slot of a dispatcher with its neighbours.
    pub slot: SlotChoice,
}

/// How a program stands in a dispatcher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlotChoice {
    /// Fused with its neighbours into one slot.
    #[default]
    Shared,
    /// In a slot of its own: tools that speak libxdp's protocol see it by name.
    Own,
}

/// How several programs on one hook become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The best this host can do; the plan says which one that is, and why.
    #[default]
    Auto,
    /// One program made of all members, attached by a BPF link.
    Fused,
    /// A dispatcher as libxdp makes them, with a slot for each program.
    Dispatcher,
}

/// Where in the receive path a chain is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Native where the driver has it, else skb; plan and status say which.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// After the socket buffer is made: any interface, slower.
    Skb,
}

/// What happens when somebody else detaches, replaces or unpins what is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DriftPolicy {
    /// It is put right, at once and then ever more slowly if somebody keeps at it.
    #[default]
    Repair,
    /// It is shown, and left until the next apply or start.
    Leave,
}

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{}: {message}", if pointer.is_empty() { "document" } else { pointer.as_str() })]
pub struct DocumentError {
    /// Where: an RFC 6901 JSON pointer; empty for the document as a whole.
    pub pointer: String,
    /// What is wrong there and what was expected.
    pub message: String,
}

impl Document {
    /// Parses and checks a document.
    ///
    /// # Errors
    /// Everything found wrong: one error where the text is not a document at all, all of them
    /// where its parts do not fit together.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<DocumentError>> {
        if text.len() > MAX_BYTES {
            return Err(vec![error(
                "",
                format!(
                    "{} bytes is larger than the limit of {MAX_BYTES}; put objects into the store \
                     and name them by sha256",
                    text.len()
                ),
            )]);
        }
        let mut json = serde_json::Deserializer::from_slice(text);
        let parsed = serde_path_to_error::deserialize::<_, Fields<raw::RawDocument>>(&mut json);
        let Fields(raw) = parsed.map_err(|e| {
            let place = pointer(e.path());
            vec![error(&place, e.into_inner().to_string())]
        })?;
        json.end().map_err(|e| vec![error("", e.to_string())])?;
        check::check(raw)
    }

    /// Whether no chain of the document has a program.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.interfaces.values().filter_map(|i| i.xdp.as_ref()).all(|xdp| xdp.chain.is_empty())
    }
}

fn error(pointer: &str, message: impl Into<String>) -> DocumentError {
    DocumentError { pointer: pointer.to_owned(), message: message.into() }
}

/// Writes a deserializer's path as an RFC 6901 pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(format!("/{}", escape(key))),
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Escapes one token of a JSON pointer.
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
