//! What the planner is told.

use pointsman_fuse::layout::StackRounding;
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{Document, Fingerprint, HookId, ProgramName};
use std::collections::BTreeMap;

/// What an operator wants, with objects found and programs inspected.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The document.
    pub document: &'a Document,
    /// Every program that some chain of the document uses, or why its object cannot be had.
    pub programs: &'a BTreeMap<ProgramName, Result<ResolvedProgram, ProgramProblem>>,
    /// What inspecting each resolved program found, by [`ResolvedProgram::fingerprint`].
    pub facts: &'a BTreeMap<Fingerprint, Result<ProgramFacts, ProgramProblem>>,
    /// The hooks that an operator bypassed, and for how long, in words: they run an empty chain.
    /// Those that the document does not want count for nothing.
    pub bypassed: &'a BTreeMap<HookId, String>,
}

/// What this host's kernel can do, probed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// How its verifier counts a frame.
    pub stack_rounding: StackRounding,
    /// Whether a program can replace a function of another (`BPF_PROG_TYPE_EXT`); else why not.
    pub freplace: Result<(), String>,
    /// Bytes of a memory page, which is what most drivers have for a packet's buffer.
    pub page_size: u32,
    /// CPUs that there can be: many drivers want a transmit queue for each.
    pub cpus: u32,
}

/// What the operator allows for one apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether a hook may be without a chain for a moment where there is no other way.
    pub allow_gap: bool,
}
