//! What the daemon tells about itself and its hooks.

use crate::chain::{Form, Sequence};
use crate::document::DocumentError;
use crate::fleet::NodeFleetStatus;
use crate::glass::{BypassStatus, UnconfirmedStatus};
use crate::observed::{AttachMode, Attachment};
use crate::plan::{Note, Refusal};
use crate::preflight::Warning;
use crate::{
    ActionSet, EntryName, Fingerprint, HookId, InterfaceId, NodeName, ProgramName, Sha256, Verdicts,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// The whole status of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The node's name from the document in force.
    pub node: Option<NodeName>,
    /// The generation of the document in force.
    pub generation: Option<u64>,
    /// Whether the node was drained and waits for a new document.
    pub drained: bool,
    /// How often the daemon has looked, since it started, whether all is as it left it.
    #[serde(default)]
    pub checks: u64,
    /// The document in force as long as nobody has confirmed it, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<UnconfirmedStatus>,
    /// The document that is watched.
    pub document: String,
    /// The fleet that the node belongs to; `None`: it takes documents of this host only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<NodeFleetStatus>,
    /// The last document that was refused as a whole, if none was accepted since.
    pub refused_document: Option<RefusedDocument>,
    /// Our hooks, and those the document wants.
    pub hooks: Vec<HookStatus>,
    /// XDP programs on interfaces that are not ours. We never touch them.
    pub foreign: Vec<ForeignProgram>,
    /// What the document in force says of queues and flow rules, and cards do not do. It is tried
    /// again every minute, and whenever an interface comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<CardProblem>,
    /// Refusals that belong to no hook.
    pub refusals: Vec<Refusal>,
    /// What the operator should know.
    pub notes: Vec<Note>,
    /// What the last plan warned of and still holds.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// A document that did not become the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedDocument {
    /// Where it came from.
    pub source: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// What is wrong with it.
    pub errors: Vec<DocumentError>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookStatus {
    /// The hook.
    pub hook: HookId,
    /// The number of the interface that the chain runs on, wherever it is now, or else of the one
    /// it is wanted on; `None`: there is neither.
    pub interface_index: Option<u32>,
    /// Whether that interface is set up; `None`: it cannot be seen. A chain stays on one that is
    /// down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// How it stands.
    pub state: HookState,
    /// The engine in use, and why that one.
    pub engine: String,
    /// Where the chain is attached.
    pub mode: Option<AttachMode>,
    /// The generation of the document that the running chain comes from.
    pub generation: Option<u64>,
    /// The fused program that runs.
    pub fused: Option<FusedProgram>,
    /// The dispatcher that has the chain's slots in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatcher: Option<DispatcherStatus>,
    /// Its members in the order they run.
    pub members: Vec<MemberStatus>,
    /// Packets for which every member said "continue": passed to the stack.
    pub passed_end: u64,
    /// Why the hook is not as the document wants it.
    pub refusals: Vec<Refusal>,
    /// What has to appear before the chain can be attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// What somebody else changed here since the last apply, repaired or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,
    /// That every packet passes because an operator bypassed the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypass: Option<BypassStatus>,
}

/// A dispatcher of libxdp's protocol, and all that it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DispatcherStatus {
    /// The kernel's id of the dispatcher.
    pub program_id: u32,
    /// The version of the protocol.
    pub version: u32,
    /// Why it cannot be changed; `None`: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// How often it ran while the kernel counted (`kernel.bpf_stats_enabled`); `None`: it does not
    /// count now. It never counts the programs in slots: they are jumped to from patched code
    /// (kernel/bpf/trampoline.c, `bpf_trampoline_link_prog`), past what keeps statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// For how many nanoseconds in all, with all that it called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_nanoseconds: Option<u64>,
    /// Its programs in the order they run.
    pub programs: Vec<DispatchedProgram>,
}

/// A program in a slot of a dispatcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DispatchedProgram {
    /// The kernel's id.
    pub id: u32,
    /// The whole name of its function.
    pub name: String,
    /// The kernel's tag: 16 hexadecimal digits.
    pub tag: String,
    /// Its priority.
    pub priority: u32,
    /// The verdicts after which the next program runs.
    pub chain_call_actions: ActionSet,
    /// The members of our chain that it is made of, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub members: Vec<ProgramName>,
    /// Whose it is: `this node`, or a guess by its name.
    pub owner: String,
}

/// What somebody else changed on a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriftStatus {
    /// What it was, the last time.
    pub kind: DriftKind,
    /// One line: what was found, and what is or was done about it.
    pub message: String,
    /// When it was found, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Whether the hook is as the document wants it again.
    pub repaired: bool,
    /// How often it was repaired since the last apply.
    pub repairs: u32,
    /// When it is repaired next, in milliseconds since the Unix epoch; `None`: it is repaired
    /// already, or left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_repair_unix_ms: Option<u64>,
}

/// What somebody else did to a hook. Stable: scripts may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// The link was detached; nothing runs on the interface.
    Detached,
    /// The link runs another program.
    Replaced,
    /// A program that is not ours is attached where ours was.
    Displaced,
    /// The link or the chain was unpinned.
    Unpinned,
    /// The maps of a program of the chain were unpinned.
    MapsUnpinned,
    /// Slots of ours were taken out of the dispatcher, or programs in it are not where the
    /// document wants them any more.
    Rearranged,
}

impl fmt::Display for DriftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Detached => "detached",
            Self::Replaced => "replaced",
            Self::Displaced => "displaced",
            Self::Unpinned => "unpinned",
            Self::MapsUnpinned => "maps unpinned",
            Self::Rearranged => "rearranged",
        })
    }
}

/// How a hook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// The chain that the document wants is running.
    Running,
    /// An older chain is running: the document's was refused.
    Outdated,
    /// Nothing of ours runs there.
    Absent,
    /// Its interface is not there: the chain is attached when it appears.
    Pending,
    /// Somebody else changed what runs there; `drift` says what.
    Drifted,
    /// An empty chain runs, because an operator bypassed the wanted one; `bypass` says until when.
    Bypassed,
}

/// The one program that the kernel sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FusedProgram {
    /// The kernel's id of it.
    pub id: u32,
    /// The kernel's tag of it.
    pub tag: String,
    /// The chain's number on its hook.
    pub sequence: Sequence,
    /// Translated size in bytes.
    pub translated_bytes: u32,
    /// Machine code in bytes.
    pub jited_bytes: u32,
    /// Whether it takes packets of several buffers.
    pub frags: bool,
    /// Instructions that the verifier walked for it, of one million at most. 0: a daemon of an
    /// earlier version, which does not say.
    #[serde(default)]
    pub verified_instructions: u32,
}

/// One program of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
    /// The operator's name for it.
    pub program: ProgramName,
    /// The function it starts at.
    pub entry: EntryName,
    /// Its priority.
    pub priority: u32,
    /// The verdicts after which the chain goes on.
    pub chain_call_actions: ActionSet,
    /// `false`: observed only.
    pub enforce: bool,
    /// It is there for instances, as long as one has registered with the interface: no document
    /// names it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_instances: bool,
    /// How it is built in.
    pub form: Form,
    /// The kernel's tag of the program alone.
    pub tag: String,
    /// The object's hash.
    pub object: Sha256,
    /// Where the object came from.
    pub source: String,
    /// Object, entry and globals in one value; names the directory of its pinned maps.
    pub fingerprint: Fingerprint,
    /// The directory of its pinned maps.
    pub maps: String,
    /// How many packets it saw.
    pub runs: u64,
    /// What it answered.
    pub verdicts: Verdicts,
}

/// A program on an interface that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForeignProgram {
    /// The interface: `NAME`, or `NAMESPACE/NAME`.
    #[schema(value_type = String)]
    pub interface: InterfaceId,
    /// The program.
    pub attachment: Attachment,
    /// A guess at whose it is.
    pub owner: String,
    /// What it runs, where it is a dispatcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatcher: Option<DispatcherStatus>,
}

/// Something that the document says of a card, and the card does not do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct CardProblem {
    /// The interface, or where one is gone from the document, what is known of it.
    pub interface: String,
    /// The place in the document as an RFC 6901 JSON pointer; empty: the document has no word on it
    /// any more, and what an earlier one changed cannot be taken back.
    pub pointer: String,
    /// Why.
    pub message: String,
}

impl fmt::Display for CardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, pointer, message } = self;
        match pointer.as_str() {
            "" => write!(f, "{interface}: cannot be as it was before: {message}"),
            pointer => write!(f, "{pointer}: {message}"),
        }
    }
}

/// The counters of all hooks at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Per hook.
    pub hooks: Vec<HookCounters>,
}

/// The counters of one hook since the host booted or the hook was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookCounters {
    /// The hook.
    pub hook: HookId,
    /// Per program in the order they run, then programs that are no longer in the chain.
    pub programs: Vec<ProgramCounters>,
    /// Packets for which every member said "continue".
    pub passed_end: u64,
}

/// The counters of one program on one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramCounters {
    /// The program.
    pub program: ProgramName,
    /// Whether it is in the chain now.
    pub running: bool,
    /// Whether its verdicts are acted upon.
    pub enforce: bool,
    /// How many packets it saw.
    pub runs: u64,
    /// What it answered.
    pub verdicts: Verdicts,
    /// Packets that it ended: its verdict was final.
    pub finals: Verdicts,
}
