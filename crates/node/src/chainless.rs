//! A host on which no chain can run: leases need neither BPF nor a filesystem for pins, so they are
//! served all the same, and chains are refused with what to do.

use crate::host::{Kernel, KernelError, Objects, OpenMap, RunCount, Scope};
use crate::kernel::{LinuxKernel, caps};
use crate::look;
use pointsman_bpf::{Places, pins};
use pointsman_fuse::layout::StackRounding;
use pointsman_model::api::Doctor;
use pointsman_model::document::{Builtin, InstanceProgram};
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::observed::Observed;
use pointsman_model::plan::{ResolvedProgram, Step};
use pointsman_model::status::{FusedProgram, HookCounters};
use pointsman_model::{Fingerprint, HookId, InterfaceId, ProgramName};
use pointsman_plan as plan;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Opens this host's kernel, with pins under `bpffs`. Where it takes no programs from us, or there is
/// no BPF filesystem, what is given refuses chains and has everything else; as soon as one is mounted
/// there, it takes them.
///
/// # Errors
/// Another process holds the pins, or they cannot be read: then it is not known what runs.
pub fn open(bpffs: &Path) -> Result<Box<dyn Kernel>, KernelError> {
    match why_no_chains(bpffs) {
        None => Ok(Box::new(open_kernel(bpffs)?)),
        Some(why) => {
            tracing::warn!("no chain can run here: {why}; instances and lcores are served");
            Ok(Box::new(Chainless::new(bpffs, why)))
        }
    }
}

fn open_kernel(bpffs: &Path) -> Result<LinuxKernel, KernelError> {
    LinuxKernel::open(bpffs).map_err(|error| KernelError(error.to_string()))
}

/// Why no chain can run on this host; `None`: nothing speaks against it.
fn why_no_chains(bpffs: &Path) -> Option<String> {
    if let Err(error) = pointsman_bpf::probe() {
        return Some(format!("{error}; start it with these rights, on a kernel that has BPF"));
    }
    (!is_mounted(bpffs)).then(|| {
        format!(
            "{} is not in a BPF filesystem: mount one with `mount -t bpf bpf /sys/fs/bpf`, or name \
             one with --bpffs",
            bpffs.display()
        )
    })
}

/// Whether the directory of pins is, or would be, in a BPF filesystem.
fn is_mounted(bpffs: &Path) -> bool {
    let there = bpffs.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    pins::is_bpffs(there).unwrap_or(false)
}

/// Such a host, until a BPF filesystem is mounted.
#[derive(Debug)]
struct Chainless {
    bpffs: PathBuf,
    why: String,
    /// Why programs do not load is known by trying, and does not change under a process.
    programs_load: bool,
    caps: plan::Caps,
    /// What was opened meanwhile.
    kernel: Option<LinuxKernel>,
}

impl Chainless {
    fn new(bpffs: &Path, why: String) -> Self {
        let probe = pointsman_bpf::probe();
        let programs_load = probe.is_ok();
        let nothing = |why: &String| plan::Caps {
            stack_rounding: StackRounding::To32,
            freplace: Err(why.clone()),
            page_size: u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX),
            cpus: 1,
        };
        let caps = probe.map_or_else(|_| nothing(&why), |probe| caps(&probe));
        Self { bpffs: bpffs.to_owned(), why, programs_load, caps, kernel: None }
    }

    /// Looks whether there is a BPF filesystem by now.
    fn look_again(&mut self) {
        if self.kernel.is_some() || !self.programs_load || !is_mounted(&self.bpffs) {
            return;
        }
        match open_kernel(&self.bpffs) {
            Ok(kernel) => {
                tracing::info!("{} can hold pins now: chains are taken", self.bpffs.display());
                self.kernel = Some(kernel);
            }
            Err(KernelError(why)) if why != self.why => {
                tracing::error!("no chain can run here: {why}");
                self.why = why;
            }
            Err(_) => {}
        }
    }

    fn refusal(&self) -> String {
        format!("no chain can run on this host: {}", self.why)
    }
}

impl Kernel for Chainless {
    fn caps(&self) -> &plan::Caps {
        self.kernel.as_ref().map_or(&self.caps, Kernel::caps)
    }

    fn no_chains(&self) -> Option<String> {
        self.kernel.is_none().then(|| self.refusal())
    }

    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        self.look_again();
        match &mut self.kernel {
            Some(kernel) => kernel.observe(scope),
            None => Ok(Observed {
                interfaces: look::own_interfaces()?,
                unreachable: scope.namespaces.keys().map(|n| (n.clone(), self.refusal())).collect(),
                ..Observed::default()
            }),
        }
    }

    fn read_nics(&mut self, observed: &mut Observed, names: &BTreeSet<InterfaceId>, scope: &Scope) {
        if let Some(kernel) = &mut self.kernel {
            kernel.read_nics(observed, names, scope);
        }
    }

    fn inspect(
        &mut self,
        program: &ResolvedProgram,
        object: &[u8],
    ) -> Result<ProgramFacts, ProgramProblem> {
        let refusal = self.refusal();
        match &mut self.kernel {
            Some(kernel) => kernel.inspect(program, object),
            None => Err(ProgramProblem { message: refusal, log: None }),
        }
    }

    fn execute(&mut self, step: &Step, objects: &Objects<'_>) -> Result<(), String> {
        let refusal = self.refusal();
        self.kernel.as_mut().map_or(Err(refusal), |kernel| kernel.execute(step, objects))
    }

    fn counters(&mut self, hook: &HookId) -> Result<HookCounters, KernelError> {
        let refusal = KernelError(self.refusal());
        self.kernel.as_mut().map_or(Err(refusal), |kernel| kernel.counters(hook))
    }

    fn fused(&mut self, hook: &HookId) -> Result<Option<FusedProgram>, KernelError> {
        self.kernel.as_mut().map_or(Ok(None), |kernel| kernel.fused(hook))
    }

    fn run_count(&mut self, id: u32) -> Option<RunCount> {
        self.kernel.as_mut()?.run_count(id)
    }

    fn run_statistics(&self) -> bool {
        self.kernel.as_ref().is_some_and(Kernel::run_statistics)
    }

    fn clean_dispatchers(&mut self, interface_index: Option<u32>) {
        if let Some(kernel) = &mut self.kernel {
            kernel.clean_dispatchers(interface_index);
        }
    }

    fn builtin(&self, builtin: Builtin) -> &'static [u8] {
        pointsman_bpf::builtin(builtin)
    }

    fn instance_program(&self, program: InstanceProgram) -> &'static [u8] {
        pointsman_bpf::instance_program(program)
    }

    fn open_map(
        &mut self,
        program: &ProgramName,
        fingerprint: &Fingerprint,
        map: &str,
    ) -> Result<Option<OpenMap>, KernelError> {
        let kernel = self.kernel.as_mut();
        kernel.map_or(Ok(None), |kernel| kernel.open_map(program, fingerprint, map))
    }

    fn map_directory(&self, program: &ProgramName, fingerprint: &Fingerprint) -> PathBuf {
        match &self.kernel {
            Some(kernel) => kernel.map_directory(program, fingerprint),
            // There is nothing in it.
            None => self.bpffs.join("programs"),
        }
    }

    fn doctor(&mut self) -> Doctor {
        self.look_again();
        match &mut self.kernel {
            Some(kernel) => kernel.doctor(),
            None => {
                let facts = pointsman_bpf::host_facts(&Places::of_host(&self.bpffs));
                Doctor { kernel: facts.kernel.clone(), checks: plan::examine_host(&facts) }
            }
        }
    }
}
