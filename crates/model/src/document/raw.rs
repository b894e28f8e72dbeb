//! The document as it is written. The published JSON Schema is made from these types, and so is
//! the refusal of unknown fields; what one field says about another is checked in the parent.

use super::host::{RawAccess, RawLcores};
use super::queues::RawQueues;
use super::strict::{Fields, StrictValue, UniqueMap};
use super::{Builtin, DriftPolicy, Engine, Mode, OnUpgrade, SlotChoice};
use crate::flow::FlowRequest;
use crate::{
    ActionSet, EntryName, InterfaceId, MapName, NamespaceName, NodeName, ProgramName, Sha256,
};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

/// What one host should run: the programs it needs, and the chains made of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NodeDocument)]
pub(super) struct RawDocument {
    /// The form of this document.
    pub(super) schema: SchemaVersion,
    /// The host this document is for.
    pub(super) node: NodeName,
    /// Rises with every change. An older generation than the one in force is refused, and so is
    /// a different document with the same generation.
    #[schema(minimum = 1, maximum = 9007199254740991_i64)]
    pub(super) generation: u64,
    /// Allows this document to leave the host without any program of ours. Without it such a
    /// document is refused: an emptied document is more often an accident than a decision.
    #[serde(default)]
    #[schema(default = false)]
    pub(super) allow_empty: bool,
    /// The programs, by a name of the operator's choice.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, RawProgram>)]
    pub(super) programs: UniqueMap<ProgramName, Fields<RawProgram>>,
    /// Where other network namespaces are found. One that is not listed is the one of its name
    /// under `/run/netns`, as `ip netns` makes them.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, RawNamespace>)]
    pub(super) namespaces: UniqueMap<NamespaceName, Fields<RawNamespace>>,
    /// The interfaces and what runs on them: `NAME` in the daemon's own network namespace,
    /// `NAMESPACE/NAME` in another. An interface that is not listed carries nothing of ours.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, RawInterface>)]
    pub(super) interfaces: UniqueMap<InterfaceId, Fields<RawInterface>>,
    /// The lcores that instances lease.
    #[serde(default)]
    #[schema(value_type = Option<RawLcores>)]
    pub(super) lcores: Option<Fields<RawLcores>>,
    /// Who may have them.
    #[serde(default)]
    #[schema(value_type = Option<RawAccess>)]
    pub(super) access: Option<Fields<RawAccess>>,
    #[serde(default, deserialize_with = "not_yet", rename = "companions")]
    #[schema(ignore)]
    _companions: (),
}

/// The form of a node document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub(super) enum SchemaVersion {
    /// Version 1.
    #[serde(rename = "pointsman.node/v1")]
    V1,
}

/// One program: where its object is, where it starts, and what it is told.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Program)]
pub(super) struct RawProgram {
    /// The ELF object. Exactly one of `object` and `builtin` must be given.
    #[schema(value_type = Option<RawObject>)]
    pub(super) object: Option<Fields<RawObject>>,
    /// A program that comes with Pointsman.
    pub(super) builtin: Option<Builtin>,
    /// The function where the program starts. May be left out when the object has one XDP
    /// program only.
    pub(super) entry: Option<EntryName>,
    /// Values of global variables, set before the program is loaded. Typed by the object's BTF:
    /// integers, booleans, enumerators by name, strings for character arrays, arrays, structs.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    pub(super) globals: UniqueMap<String, StrictValue>,
    /// Contents of maps, and what an upgrade does with them. A map whose entries are listed holds
    /// exactly these after an apply.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, RawMap>)]
    pub(super) maps: UniqueMap<MapName, Fields<RawMap>>,
}

/// Where an object's bytes come from. Exactly one of `path`, `inline`, `url` and `sha256`;
/// `sha256` also goes with each of the others, and is then checked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Object)]
pub(super) struct RawObject {
    /// An absolute path on the host.
    #[schema(pattern = "^/")]
    pub(super) path: Option<String>,
    /// The SHA-256 of the object. Alone: the object lies in the node's local store.
    pub(super) sha256: Option<Sha256>,
    /// The object itself, in base64.
    #[schema(content_encoding = "base64")]
    pub(super) inline: Option<String>,
    /// Where the courier fetches the object. Needs `sha256`.
    pub(super) url: Option<String>,
}

/// The contents of one map, and what becomes of them. At least one of the two must be given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MapContents)]
pub(super) struct RawMap {
    /// All entries of the map. Left out: its contents are left alone.
    #[schema(value_type = Option<Vec<RawEntry>>)]
    pub(super) entries: Option<Vec<Fields<RawEntry>>>,
    /// What an upgrade of the program does with the map. Left out: `keep`.
    pub(super) on_upgrade: Option<OnUpgrade>,
}

/// One entry of a map, typed by the map's BTF.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MapEntry)]
pub(super) struct RawEntry {
    /// The key. A network such as `192.0.2.0/24` or `2001:db8::/32` for a prefix trie.
    #[schema(value_type = serde_json::Value)]
    pub(super) key: StrictValue,
    /// The value. For a per-CPU map every CPU gets it.
    #[schema(value_type = serde_json::Value)]
    pub(super) value: StrictValue,
}

/// Where a network namespace is found. Exactly one of `name`, `path` and `pid`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Namespace)]
pub(super) struct RawNamespace {
    /// Its name under `/run/netns`.
    pub(super) name: Option<NamespaceName>,
    /// An absolute path of a namespace file, such as `/proc/4711/ns/net` or a bind mount.
    #[schema(pattern = "^/")]
    pub(super) path: Option<String>,
    /// The number of a process in it, as the daemon sees processes.
    #[schema(minimum = 1, maximum = 4194304)]
    pub(super) pid: Option<u32>,
}

/// What runs on one interface.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Interface)]
pub(super) struct RawInterface {
    /// The XDP chain. Left out: no XDP program of ours is attached there.
    #[schema(value_type = Option<RawXdp>)]
    pub(super) xdp: Option<Fields<RawXdp>>,
    #[serde(default, deserialize_with = "not_yet", rename = "tc")]
    #[schema(ignore)]
    _tc: (),
    /// Its queues. Left out: they are as they are, and get back what an earlier document changed.
    #[schema(value_type = Option<RawQueues>)]
    pub(super) queues: Option<Fields<RawQueues>>,
    /// Flow rules of the operator's: which packets the card sends to which receive queue, or drops.
    /// Rules of others on the card stay.
    #[serde(default)]
    #[schema(value_type = Vec<FlowRequest>)]
    pub(super) flows: Vec<Fields<FlowRequest>>,
}

/// An XDP chain and how it is attached.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = XdpHook)]
pub(super) struct RawXdp {
    /// How several programs become one.
    #[serde(default)]
    #[schema(default = "auto")]
    pub(super) engine: Engine,
    /// Where in the receive path the chain is attached.
    #[serde(default)]
    #[schema(default = "auto")]
    pub(super) mode: Mode,
    /// What happens when somebody else detaches, replaces or unpins what is ours here.
    #[serde(default)]
    #[schema(default = "repair")]
    pub(super) drift: DriftPolicy,
    /// The chain's programs. Their order in this list does not matter: `priority` orders them.
    /// An empty list keeps an empty program attached, so that filling it again is one swap.
    #[schema(value_type = Vec<RawChainEntry>)]
    pub(super) chain: Vec<Fields<RawChainEntry>>,
    /// What is decided about programs that others put beside ours, whatever their authors and
    /// loaders say. A program of theirs that is not listed keeps what it was given.
    #[serde(default)]
    #[schema(value_type = Vec<RawOther>)]
    pub(super) others: Vec<Fields<RawOther>>,
}

/// A decision about programs of others in the dispatcher. Exactly one of `name` and `tag`, and at
/// least one of `priority` and `chain_call_actions`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OtherProgram)]
pub(super) struct RawOther {
    /// The name of the program's function, as `xdp-loader status` shows it.
    pub(super) name: Option<String>,
    /// The kernel's tag of the program, as `xdp-loader status` shows it.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pub(super) tag: Option<String>,
    /// Its priority: the lowest runs first.
    pub(super) priority: Option<u32>,
    /// The verdicts after which the next program runs.
    pub(super) chain_call_actions: Option<ActionSet>,
}

/// One program's place in a chain.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChainEntry)]
pub(super) struct RawChainEntry {
    /// A name from `programs`.
    pub(super) program: ProgramName,
    /// Ascending: the lowest runs first. Equal priorities go by entry function name, then by
    /// program name.
    #[serde(default = "default_priority")]
    #[schema(default = 50)]
    pub(super) priority: u32,
    /// The verdicts after which the next program runs. Any other verdict is final.
    #[serde(default)]
    #[schema(default = json!(["pass"]))]
    pub(super) chain_call_actions: ActionSet,
    /// `false` observes: the verdict is counted and the chain always goes on.
    #[serde(default = "default_enforce")]
    #[schema(default = true)]
    pub(super) enforce: bool,
    /// Whether it shares a slot of a dispatcher with its neighbours. Where there is no dispatcher
    /// it makes no difference.
    #[serde(default)]
    #[schema(default = "shared")]
    pub(super) slot: SlotChoice,
}

/// The orchestrator's default, whatever the object suggests (libxdp's is the same number).
fn default_priority() -> u32 {
    50
}

fn default_enforce() -> bool {
    true
}

/// Refuses a section that the document's form knows and this version does not act on.
fn not_yet<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(serde::de::Error::custom(
        "this version does not act on this section: remove it (nothing is ignored silently)",
    ))
}
