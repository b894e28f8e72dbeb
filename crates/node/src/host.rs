//! The kernel as the engine sees it.

use pointsman_model::api::Doctor;
use pointsman_model::document::{Builtin, Document, InstanceProgram, Namespaces};
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::observed::Observed;
use pointsman_model::plan::{ResolvedProgram, Step};
use pointsman_model::status::{FusedProgram, HookCounters};
use pointsman_model::{Fingerprint, HookId, InterfaceId, ProgramName, Sha256};
use pointsman_plan as plan;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The host's kernel as the engine sees it. Implemented over pointsman-bpf, and over the
/// simulator in tests.
pub trait Kernel: Send {
    /// What this kernel can do, probed once.
    fn caps(&self) -> &plan::Caps;

    /// Why no chain can run on this host, and what to do; `None`: they can.
    fn no_chains(&self) -> Option<String> {
        None
    }

    /// What is there: our pins, and the interfaces of the daemon's network namespace and of those
    /// in `scope`.
    ///
    /// # Errors
    /// [`KernelError`] naming what could not be read. Another network namespace that cannot be
    /// looked into is no error, and is said in [`Observed::unreachable`].
    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError>;

    /// Reads how the cards and drivers of the interfaces in `names` are now, as far as there are
    /// such interfaces. What cannot be read stays unknown.
    fn read_nics(&mut self, observed: &mut Observed, names: &BTreeSet<InterfaceId>, scope: &Scope);

    /// Opens a program, sets its globals, checks its map entries, loads it alone and discards it.
    ///
    /// # Errors
    /// [`ProgramProblem`]: what is wrong with the program, with the verifier's log.
    fn inspect(
        &mut self,
        program: &ResolvedProgram,
        object: &[u8],
    ) -> Result<ProgramFacts, ProgramProblem>;

    /// Carries out one step.
    ///
    /// # Errors
    /// One line that names the thing; what the step was to change is as before.
    fn execute(&mut self, step: &Step, objects: &Objects<'_>) -> Result<(), String>;

    /// The counters of a hook with a live chain.
    ///
    /// # Errors
    /// [`KernelError`] naming the hook.
    fn counters(&mut self, hook: &HookId) -> Result<HookCounters, KernelError>;

    /// The program that a BPF link runs on a hook; `None`: no chain of ours is live there, or one of
    /// slots of a dispatcher.
    ///
    /// # Errors
    /// [`KernelError`] naming the hook.
    fn fused(&mut self, hook: &HookId) -> Result<Option<FusedProgram>, KernelError>;

    /// How often the program of the kernel's id `id` ran: the kernel's own statistics, which it keeps
    /// while [`run_statistics`](Self::run_statistics) says so; `None`: it is gone.
    fn run_count(&mut self, id: u32) -> Option<RunCount>;

    /// Whether the kernel keeps statistics of programs (`kernel.bpf_stats_enabled`).
    fn run_statistics(&self) -> bool;

    /// Removes the pins of dispatchers that run nowhere any more: those of one interface, by its
    /// number, or all. What cannot be looked at or removed stays, and is logged, as is what went.
    fn clean_dispatchers(&mut self, interface_index: Option<u32>);

    /// The object of a program that comes with Pointsman.
    fn builtin(&self, builtin: Builtin) -> &'static [u8];

    /// The object of a program that instances bring.
    fn instance_program(&self, program: InstanceProgram) -> &'static [u8];

    /// A pinned map of a program; `None`: there is none of that name.
    ///
    /// # Errors
    /// [`KernelError`] naming the pin.
    fn open_map(
        &mut self,
        program: &ProgramName,
        fingerprint: &Fingerprint,
        map: &str,
    ) -> Result<Option<OpenMap>, KernelError>;

    /// The directory of a program's pinned maps.
    fn map_directory(&self, program: &ProgramName, fingerprint: &Fingerprint) -> PathBuf;

    /// What this host can do and why not.
    fn doctor(&mut self) -> Doctor;
}

/// A map, and the kernel's number for it: two with the same are one.
#[derive(Debug)]
pub struct OpenMap {
    /// The number.
    pub id: u32,
    /// The map.
    pub file: OwnedFd,
}

/// What the kernel counted of a program while it kept statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCount {
    /// How often it ran.
    pub runs: u64,
    /// For how long in all.
    pub nanoseconds: u64,
}

/// Where to look, beyond the daemon's own network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The other network namespaces.
    pub namespaces: Namespaces,
}

impl Scope {
    /// What must be seen to plan for `document`.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        Self { namespaces: document.namespaces.clone() }
    }
}

/// What steps refer to by name: programs as resolved for this plan, and their objects' bytes.
pub struct Objects<'a> {
    /// The programs.
    pub programs: &'a BTreeMap<(ProgramName, Fingerprint), ResolvedProgram>,
    /// What [`Kernel::inspect`] found out about them: their steps need not verify them again.
    pub facts: &'a BTreeMap<Fingerprint, Result<ProgramFacts, ProgramProblem>>,
    /// Where the network namespaces of interfaces are found.
    pub namespaces: &'a Namespaces,
    /// Reads an object; its bytes have the hash that was asked for.
    pub read: &'a dyn Fn(&Sha256) -> Result<Vec<u8>, String>,
}

impl fmt::Debug for Objects<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("programs", &self.programs.keys()).finish_non_exhaustive()
    }
}

/// The kernel did not tell or do what it should. The message names the thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KernelError(pub String);
