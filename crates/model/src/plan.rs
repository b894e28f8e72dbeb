//! A plan: the steps from what is there to what is wanted, and what is refused and why. A value:
//! it can be printed, stored and compared.

use crate::chain::{ChainId, ChainSpec};
use crate::document::{MapEntry, OnUpgrade};
use crate::observed::AttachMode;
use crate::preflight::{VerifierBudget, Warning};
use crate::{ActionSet, EntryName, Fingerprint, HookId, InterfaceId, MapName, ProgramName, Sha256};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// What an apply would do, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The generation of the document the plan is for.
    pub generation: u64,
    /// The steps. All that prepares comes before the first that packets can notice; per hook at
    /// most one step is visible, or two where the plan says that it opens a gap.
    pub steps: Vec<Step>,
    /// What is wanted and will not be done. Never blocks the rest.
    pub refusals: Vec<Refusal>,
    /// What the operator should know and need not act on.
    pub notes: Vec<Note>,
    /// What will not work, or not as one would think, the worst of each hook first.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// What each wanted chain takes of what the verifier allows.
    #[serde(default)]
    pub budgets: Vec<VerifierBudget>,
    /// Per hook that the document or the host knows: what is there and what will be.
    pub hooks: Vec<HookDiff>,
}

impl Plan {
    /// Whether nothing would be done and nothing is refused.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        self.steps.is_empty() && self.refusals.is_empty()
    }
}

/// One operation. The kernel and the simulator carry out the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Gives the pins of a hook the name that its interface has now. Invisible: the chain runs on.
    RenameHook(RenameHook),
    /// Pins a hook's link again that somebody unpinned. Invisible: the chain runs on.
    PinLink(PinLink),
    /// Opens a program's object, creates its maps or takes them over from an earlier load, and
    /// pins them. Invisible.
    PrepareProgram(PrepareProgram),
    /// Pins maps of a program again that somebody unpinned. Invisible.
    PinMaps(PinMaps),
    /// Makes a program's map hold exactly the document's entries.
    SetMapEntries(SetMapEntries),
    /// Fuses, loads and pins a chain beside the one that runs. Invisible.
    BuildChain(BuildChain),
    /// Attaches a built chain where nothing is attached. Visible; may reset some drivers' rings.
    Attach(Attach),
    /// Replaces the running chain by a built one: one atomic link update. Visible.
    Swap(Swap),
    /// Takes our link off the interface. Visible: no chain runs afterwards.
    Detach(Detach),
    /// Adds a retired chain's counters to its hook's totals and unpins it. Invisible.
    RetireChain(RetireChain),
    /// Unpins what is left of a hook without a link: its totals and its directory. Invisible.
    ReleaseHook(ReleaseHook),
    /// Unpins the maps of a program that no chain uses. Their contents are lost. Invisible.
    ReleaseProgram(ReleaseProgram),
}

/// See [`Step::RenameHook`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenameHook {
    /// The name that the interface had.
    pub from: HookId,
    /// The name that it has. Pins that are there already are exchanged with the others.
    pub to: HookId,
}

/// See [`Step::PinLink`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinLink {
    /// The hook.
    pub hook: HookId,
}

/// See [`Step::PrepareProgram`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrepareProgram {
    /// The program.
    pub program: ProgramName,
    /// Object, entry and globals in one value.
    pub fingerprint: Fingerprint,
    /// The maps that are taken over with their contents, and from which load of the program.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keeps: BTreeMap<MapName, Fingerprint>,
    /// The maps whose contents an upgrade loses, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loses: BTreeMap<MapName, String>,
}

/// See [`Step::PinMaps`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinMaps {
    /// The program.
    pub program: ProgramName,
    /// Which load of it.
    pub fingerprint: Fingerprint,
    /// The maps. One that no loaded program has any more is made anew.
    #[schema(value_type = Vec<String>)]
    pub maps: Vec<MapName>,
}

/// See [`Step::SetMapEntries`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetMapEntries {
    /// The program.
    pub program: ProgramName,
    /// Which load of it.
    pub fingerprint: Fingerprint,
    /// The map.
    pub map: MapName,
    /// How many entries it will hold.
    pub entries: usize,
    /// The hash of the entries.
    pub digest: Sha256,
}

/// See [`Step::BuildChain`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildChain {
    /// The new chain's name.
    pub chain: ChainId,
    /// The generation of the document that asks for it.
    pub generation: u64,
    /// What it is made of.
    pub spec: ChainSpec,
}

/// See [`Step::Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attach {
    /// The built chain.
    pub chain: ChainId,
    /// The interface's number, so that a namesake created meanwhile is not taken for it.
    pub interface_index: u32,
    /// Native or skb.
    pub mode: AttachMode,
    /// What becomes of the others in the dispatcher; `None`: a BPF link is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatcher: Option<Dispatch>,
}

/// Where a chain of slots goes, or is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dispatch {
    /// The interface: another than the hook's where it was renamed.
    #[schema(value_type = String)]
    pub interface: InterfaceId,
    /// Its number.
    pub interface_index: u32,
    /// Whether our program that passes everything must stand behind all others, whoever they are:
    /// they may go at any time, and a chain of one runs where actions mean nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub company: bool,
    /// The programs of others that get another priority or other actions. All others stay as they
    /// are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherChange>,
}

/// What becomes of a program of somebody else's in a dispatcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OtherChange {
    /// The kernel's id of the program.
    pub id: u32,
    /// The whole name of its function.
    pub name: String,
    /// Its priority afterwards.
    pub priority: u32,
    /// The verdicts after which the next program runs, afterwards.
    pub chain_call_actions: ActionSet,
}

/// See [`Step::Swap`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Swap {
    /// The built chain.
    pub chain: ChainId,
    /// The dispatcher that gets new slots; `None`: a BPF link gets a new program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatcher: Option<Dispatch>,
}

/// See [`Step::Detach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detach {
    /// The hook.
    pub hook: HookId,
    /// Whether packets pass without a chain until a later step of this plan attaches one.
    pub opens_gap: bool,
    /// The dispatcher that loses our slots and keeps those of others; `None`: a BPF link goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatcher: Option<Dispatch>,
}

/// See [`Step::RetireChain`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetireChain {
    /// The chain.
    pub chain: ChainId,
}

/// See [`Step::ReleaseHook`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseHook {
    /// The hook.
    pub hook: HookId,
}

/// See [`Step::ReleaseProgram`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseProgram {
    /// The program.
    pub program: ProgramName,
    /// Which load of it.
    pub fingerprint: Fingerprint,
}

impl Step {
    /// The hook the step belongs to; `None` for steps on programs.
    #[must_use]
    pub fn hook(&self) -> Option<&HookId> {
        match self {
            Self::PrepareProgram(_)
            | Self::PinMaps(_)
            | Self::SetMapEntries(_)
            | Self::ReleaseProgram(_) => None,
            Self::RenameHook(step) => Some(&step.to),
            Self::PinLink(step) => Some(&step.hook),
            Self::BuildChain(step) => Some(&step.chain.hook),
            Self::Attach(step) => Some(&step.chain.hook),
            Self::Swap(step) => Some(&step.chain.hook),
            Self::Detach(step) => Some(&step.hook),
            Self::RetireChain(step) => Some(&step.chain.hook),
            Self::ReleaseHook(step) => Some(&step.hook),
        }
    }

    /// The program a step on programs belongs to.
    #[must_use]
    pub fn program(&self) -> Option<(&ProgramName, &Fingerprint)> {
        match self {
            Self::PrepareProgram(step) => Some((&step.program, &step.fingerprint)),
            Self::PinMaps(step) => Some((&step.program, &step.fingerprint)),
            Self::SetMapEntries(step) => Some((&step.program, &step.fingerprint)),
            Self::ReleaseProgram(step) => Some((&step.program, &step.fingerprint)),
            _ => None,
        }
    }

    /// Whether packets can notice the step.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        matches!(self, Self::Attach(_) | Self::Swap(_) | Self::Detach(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RenameHook(s) => write!(f, "rename hook {} to {}", s.from, s.to),
            Self::PinLink(s) => write!(f, "pin the link of {} again", s.hook),
            Self::PrepareProgram(s) => {
                write!(f, "prepare program {} ({})", s.program, s.fingerprint)?;
                let mut kept = s.keeps.keys();
                kept.next().map_or(Ok(()), |first| write!(f, ", keeping {first}"))?;
                kept.try_for_each(|map| write!(f, ", {map}"))
            }
            Self::PinMaps(s) => {
                write!(f, "pin {} maps of program {} again", s.maps.len(), s.program)
            }
            Self::SetMapEntries(s) => {
                write!(f, "set map {} of program {} to {} entries", s.map, s.program, s.entries)
            }
            Self::BuildChain(s) => {
                write!(f, "build chain {} of {} programs", s.chain, s.spec.members.len())?;
                match s.spec.slots.len() {
                    0 => Ok(()),
                    1 => f.write_str(" in one slot"),
                    slots => write!(f, " in {slots} slots"),
                }
            }
            Self::Attach(s) if s.dispatcher.is_some() => {
                write!(f, "put chain {} into the dispatcher ({})", s.chain, s.mode)
            }
            Self::Attach(s) => write!(f, "attach chain {} ({})", s.chain, s.mode),
            Self::Swap(s) => write!(f, "swap to chain {}", s.chain),
            Self::Detach(s) if s.opens_gap => write!(f, "detach {} (opens a gap)", s.hook),
            Self::Detach(s) => write!(f, "detach {}", s.hook),
            Self::RetireChain(s) => write!(f, "retire chain {}", s.chain),
            Self::ReleaseHook(s) => write!(f, "release hook {}", s.hook),
            Self::ReleaseProgram(s) => {
                write!(f, "release program {} ({})", s.program, s.fingerprint)
            }
        }
    }
}

/// Something wanted that will not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// What kind of reason.
    pub reason: RefusalReason,
    /// The JSON pointer of what asked for it, where there is one.
    pub pointer: String,
    /// The hook that stays as it is.
    pub hook: Option<HookId>,
    /// The program to blame, where one is.
    pub program: Option<ProgramName>,
    /// One line that names the thing and says what to do.
    pub message: String,
    /// The verifier's log, where there is one.
    pub log: Option<String>,
}

/// Why something is refused. Stable: scripts may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The object could not be had, opened or loaded, or what is set in it does not fit.
    ProgramUnusable,
    /// The interface cannot do what `mode` asks for.
    ModeUnsupported,
    /// The kernel cannot do what `engine` asks for.
    EngineUnsupported,
    /// A program that is not ours is attached to the interface.
    ForeignProgram,
    /// The members do not go together: stack, frags, licence.
    DoesNotFit,
    /// Doing it would leave the hook without a chain for a moment, and that was not allowed.
    NeedsGap,
    /// A step failed when it was carried out.
    StepFailed,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ProgramUnusable => "program unusable",
            Self::ModeUnsupported => "mode unsupported",
            Self::EngineUnsupported => "engine unsupported",
            Self::ForeignProgram => "foreign program",
            Self::DoesNotFit => "does not fit",
            Self::NeedsGap => "needs a gap",
            Self::StepFailed => "step failed",
        })
    }
}

/// Something the operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// The hook it is about.
    pub hook: Option<HookId>,
    /// The program it is about.
    pub program: Option<ProgramName>,
    /// The text.
    pub message: String,
}

/// What a plan does to one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookDiff {
    /// The hook.
    pub hook: HookId,
    /// What happens to it.
    pub change: HookChange,
    /// The chain that runs now.
    pub before: Option<ChainSpec>,
    /// The chain that will run; equal to `before` where nothing changes or it is refused.
    pub after: Option<ChainSpec>,
    /// Where it is attached afterwards.
    pub mode: Option<AttachMode>,
    /// Which engine, and why; empty when nothing is wanted there.
    pub engine: String,
    /// The programs of others in the same dispatcher that get another priority or other actions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherChange>,
    /// What has to appear before the chain can be attached; `None`: nothing is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
}

/// What happens to a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookChange {
    /// Nothing.
    Unchanged,
    /// A chain is attached where none was.
    Attach,
    /// One chain replaces another.
    Swap,
    /// Detached and attached again, with a gap between.
    Reattach,
    /// Our chain is taken away.
    Detach,
    /// Its interface is not there: the chain is attached when it appears.
    Pending,
    /// Wanted otherwise, and refused.
    Refused,
}

/// The programs of a document with their objects found: what the planner needs beside chains.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedProgram {
    /// The object's hash.
    pub object: Sha256,
    /// Where it came from, for people.
    pub source: String,
    /// The entry the operator named.
    pub entry: Option<EntryName>,
    /// Global variables to set.
    pub globals: BTreeMap<String, Value>,
    /// Map contents to enforce.
    pub maps: BTreeMap<MapName, Vec<MapEntry>>,
    /// What becomes of maps' contents on an upgrade, where the document says.
    pub on_upgrade: BTreeMap<MapName, OnUpgrade>,
}

impl ResolvedProgram {
    /// The only program of an object, as the object has it.
    #[must_use]
    pub fn new(object: Sha256, source: impl Into<String>) -> Self {
        Self {
            object,
            source: source.into(),
            entry: None,
            globals: BTreeMap::new(),
            maps: BTreeMap::new(),
            on_upgrade: BTreeMap::new(),
        }
    }

    /// Object, entry and globals in one value. `serde_json` keeps keys sorted, so equal globals
    /// have equal text.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let globals = Value::Object(self.globals.clone().into_iter().collect());
        Fingerprint::new(&self.object, self.entry.as_ref(), &globals.to_string())
    }
}

/// The hash of a map's wanted entries; the order in the document counts.
#[must_use]
pub fn entries_digest(entries: &[MapEntry]) -> Sha256 {
    let lines: Vec<_> = entries.iter().map(|e| format!("{}\t{}\n", e.key, e.value)).collect();
    Sha256::of(lines.concat().as_bytes())
}
