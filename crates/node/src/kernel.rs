//! The kernel adapter: the engine's questions and steps as calls of pointsman-bpf and netlink.

use crate::host::{Kernel, KernelError, Objects, OpenMap, RunCount, Scope};
use crate::look::Look;
use pointsman_bpf::dispatcher::Cleaned;
use pointsman_bpf::{ChainMember, MapHome, Member, Places, Probe, ProgramInfo, Store};
use pointsman_model::api::Doctor;
use pointsman_model::chain::{ChainId, ChainRecord, Counted};
use pointsman_model::document::{Builtin, InstanceProgram};
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::observed::{AttachMode, Observed};
use pointsman_model::plan::{Attach, BuildChain, Dispatch, ResolvedProgram, Step};
use pointsman_model::status::{FusedProgram, HookCounters, ProgramCounters};
use pointsman_model::{Fingerprint, HookId, InterfaceId, ProgramName};
use pointsman_netdev::Namespace;
use pointsman_plan as plan;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where sysfs is: drivers are found in it.
const SYS: &str = "/sys";
/// Whether the kernel keeps statistics of programs.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// When pins that somebody has just made are looked at again, if the host is looked at.
const YOUNG: Duration = Duration::from_secs(2);

/// This host's kernel, with our pins under one directory.
#[derive(Debug)]
pub struct LinuxKernel {
    store: Store,
    bpffs: PathBuf,
    caps: plan::Caps,
    look: Look,
    /// When pins that were too young to be taken for forgotten are looked at again.
    clean_at: Option<Instant>,
}

impl LinuxKernel {
    /// Opens the pins under `bpffs` and finds out what the kernel can do.
    ///
    /// # Errors
    /// No privileges, no BPF filesystem, or another process holds the pins.
    pub fn open(bpffs: &Path) -> Result<Self, pointsman_bpf::Error> {
        let probe = pointsman_bpf::probe()?;
        let store = Store::open(bpffs)?;
        let caps = caps(&probe);
        let look = Look::new(SYS.into(), store.dispatcher().for_looks());
        Ok(Self { store, bpffs: bpffs.to_owned(), caps, look, clean_at: None })
    }

    fn look_at_all(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        let (interfaces, unreachable) = self.look.interfaces(scope)?;
        let mut observed = Observed {
            interfaces,
            unreachable,
            hooks: self.store.hooks().map_err(failed)?,
            programs: self.store.programs().map_err(failed)?,
        };
        observed.find_slots();
        self.store.settle(&mut observed.hooks);
        Ok(observed)
    }

    fn attach(&self, step: &Attach, objects: &Objects<'_>) -> Result<(), String> {
        let Attach { chain, interface_index, mode, dispatcher } = step;
        match dispatcher {
            Some(to) => self.dispatch(chain, to, Some(*mode), objects),
            None => on_interface(&chain.hook.interface, *interface_index, objects, || {
                self.store.attach(chain, *interface_index, *mode)
            }),
        }
    }

    fn dispatch(
        &self,
        chain: &ChainId,
        to: &Dispatch,
        mode: Option<AttachMode>,
        objects: &Objects<'_>,
    ) -> Result<(), String> {
        let dispatch = || self.store.dispatch(chain, to, mode);
        on_interface(&to.interface, to.interface_index, objects, dispatch)
    }

    /// Takes off what is left of a dispatcher of ours whose pins somebody removed: nothing runs in it,
    /// so no chain of ours is known to be there, and it is in the way of all who come.
    fn take_emptied(&self, interface: &InterfaceId, objects: &Objects<'_>) {
        let take = || match pointsman_bpf::interface_index(interface.name.as_str()) {
            Ok(index) => self.store.dispatcher().remove_emptied(index).map_err(|e| e.to_string()),
            // With the interface went what was attached.
            Err(_) => Ok(false),
        };
        let taken = match &interface.namespace {
            None => take(),
            Some(namespace) => match objects.namespaces.get(namespace) {
                Some(spec) => Namespace::open(&spec.path())
                    .and_then(|inside| inside.enter(take))
                    .unwrap_or_else(|error| Err(error.to_string())),
                None => Ok(false),
            },
        };
        match taken {
            Ok(true) => tracing::info!(%interface, "took off a dispatcher that had lost its pins"),
            Ok(false) => {}
            Err(why) => tracing::warn!(%interface, "a dispatcher without pins may stay: {why}"),
        }
    }

    fn build(&self, step: &BuildChain, objects: &Objects<'_>) -> Result<(), String> {
        let mut members = Vec::with_capacity(step.spec.members.len());
        for spec in &step.spec.members {
            let key = (spec.program.clone(), spec.fingerprint.clone());
            let resolved = objects.programs.get(&key).ok_or_else(|| {
                format!("program {} ({}) is not resolved", spec.program, spec.fingerprint)
            })?;
            let known = known(objects, &spec.fingerprint);
            members.push(ChainMember {
                program: resolved,
                object: (objects.read)(&spec.object)?,
                known,
            });
        }
        let record = ChainRecord { generation: step.generation, spec: step.spec.clone() };
        let rounding = self.caps.stack_rounding;
        self.store.build_chain(&step.chain, &record, &members, rounding).map_err(told)
    }
}

/// Works in an interface's own network namespace: the kernel takes its number for one of the
/// calling thread's (net/core/dev.c, `bpf_xdp_link_attach`, and route netlink).
fn on_interface(
    interface: &InterfaceId,
    interface_index: u32,
    objects: &Objects<'_>,
    work: impl Fn() -> Result<(), pointsman_bpf::Error> + Sync,
) -> Result<(), String> {
    let InterfaceId { namespace, name } = interface;
    let check = || match pointsman_bpf::interface_index(name.as_str()) {
        Ok(index) if index == interface_index => work().map_err(told),
        // The number may be another interface's by now.
        _ => Err(format!(
            "interface {interface} went away or changed its name while the chain was built"
        )),
    };
    let Some(namespace) = namespace else { return check() };
    let spec = objects.namespaces.get(namespace);
    let spec = spec.ok_or_else(|| format!("network namespace {namespace} is not resolved"))?;
    let entered = Namespace::open(&spec.path()).and_then(|inside| inside.enter(check));
    entered.map_err(|error| error.to_string())?
}

/// Whether our slots run in a dispatcher that no interface runs, although one of that number was
/// seen.
fn is_torn(observed: &Observed) -> bool {
    let links = observed.hooks.values().filter_map(|hook| hook.link.as_ref());
    let mut lost = links
        .filter(|link| link.is_dispatcher() && observed.interface_of(link).is_none())
        .map(|link| link.interface_index);
    lost.any(|index| observed.interfaces.values().any(|interface| interface.index == index))
}

/// What the planner must know of a kernel.
pub(crate) fn caps(probe: &Probe) -> plan::Caps {
    plan::Caps {
        stack_rounding: probe.stack_rounding,
        freplace: probe.freplace.clone(),
        page_size: probe.page_size,
        cpus: probe.cpus,
    }
}

/// What inspecting a program found out, if it went well.
fn known<'a>(objects: &Objects<'a>, fingerprint: &Fingerprint) -> Option<&'a ProgramFacts> {
    objects.facts.get(fingerprint)?.as_ref().ok()
}

/// `enforce` is `None` for a program that is no longer in the chain.
fn counters_of(program: &ProgramName, enforce: Option<bool>, counted: Counted) -> ProgramCounters {
    ProgramCounters {
        program: program.clone(),
        running: enforce.is_some(),
        enforce: enforce.unwrap_or(true),
        runs: counted.verdicts.total(),
        verdicts: counted.verdicts,
        finals: counted.finals,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn failed(error: pointsman_bpf::Error) -> KernelError {
    KernelError(error.to_string())
}

/// A step's error in one line; a verifier's log follows it, for whoever asks for the step.
#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn told(error: pointsman_bpf::Error) -> String {
    match error.log() {
        Some(log) => format!("{error}\n{log}"),
        None => error.to_string(),
    }
}

impl Kernel for LinuxKernel {
    fn caps(&self) -> &plan::Caps {
        &self.caps
    }

    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        if self.clean_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.clean_dispatchers(None);
        }
        let observed = self.look_at_all(scope)?;
        // Whoever changed a dispatcher between the look at the interfaces and that at the slots made
        // one of two halves.
        match is_torn(&observed) {
            true => self.look_at_all(scope),
            false => Ok(observed),
        }
    }

    fn read_nics(&mut self, observed: &mut Observed, names: &BTreeSet<InterfaceId>, scope: &Scope) {
        self.look.nics(observed, names, scope);
    }

    fn inspect(
        &mut self,
        program: &ResolvedProgram,
        object: &[u8],
    ) -> Result<ProgramFacts, ProgramProblem> {
        let rounding = self.caps.stack_rounding;
        Member::prepare(object, program, &MapHome::Anonymous, rounding, None)
            .map(|member| member.facts().clone())
            .map_err(|e| ProgramProblem { message: e.to_string(), log: e.log().map(str::to_owned) })
    }

    fn execute(&mut self, step: &Step, objects: &Objects<'_>) -> Result<(), String> {
        let find = |program: &ProgramName, fingerprint: &Fingerprint| {
            let key = (program.clone(), fingerprint.clone());
            let resolved = objects.programs.get(&key);
            let resolved = resolved
                .ok_or_else(|| format!("program {program} ({fingerprint}) is not resolved"))?;
            Ok::<_, String>((resolved, (objects.read)(&resolved.object)?))
        };
        let rounding = self.caps.stack_rounding;
        match step {
            Step::RenameHook(step) => self.store.rename_hook(&step.from, &step.to),
            Step::PinLink(step) => self.store.pin_link(&step.hook),
            Step::PrepareProgram(step) => {
                let (program, object) = find(&step.program, &step.fingerprint)?;
                let known = known(objects, &step.fingerprint);
                let (name, keeps) = (&step.program, &step.keeps);
                self.store.prepare_program(name, program, &object, rounding, known, keeps)
            }
            Step::PinMaps(step) => {
                let (program, object) = find(&step.program, &step.fingerprint)?;
                let known = known(objects, &step.fingerprint);
                self.store.pin_maps(&step.program, program, &object, rounding, known)
            }
            Step::SetMapEntries(step) => {
                let (program, object) = find(&step.program, &step.fingerprint)?;
                self.store.set_map_entries(&step.program, program, &step.map, &object)
            }
            Step::BuildChain(step) => return self.build(step, objects),
            Step::Attach(step) => return self.attach(step, objects),
            Step::Swap(step) => match &step.dispatcher {
                Some(to) => return self.dispatch(&step.chain, to, None, objects),
                None => self.store.swap(&step.chain),
            },
            Step::Detach(step) => match &step.dispatcher {
                Some(from) => {
                    let withdraw = || self.store.withdraw(&step.hook, from, step.opens_gap);
                    return on_interface(&from.interface, from.interface_index, objects, withdraw);
                }
                None => self.store.detach(&step.hook),
            },
            Step::RetireChain(step) => self.store.retire_chain(&step.chain),
            Step::ReleaseHook(step) => {
                self.take_emptied(&step.hook.interface, objects);
                self.store.release_hook(&step.hook)
            }
            Step::ReleaseProgram(step) => {
                self.store.release_program(&step.program, &step.fingerprint)
            }
        }
        .map_err(told)
    }

    fn counters(&mut self, hook: &HookId) -> Result<HookCounters, KernelError> {
        let counts = self.store.counts(hook).map_err(failed)?;
        let mut totals = counts.totals;
        let mut programs = Vec::new();
        let mut passed_end = totals.end;
        if let Some((_, record, exits)) = counts.live {
            passed_end = passed_end.wrapping_add(record.spec.passed_end(&exits));
            for (member, counted) in record.spec.members.iter().zip(record.spec.counted(&exits)) {
                let before = totals.programs.remove(&member.program).unwrap_or_default();
                programs.push(counters_of(&member.program, Some(member.enforce), before + counted));
            }
        }
        let gone = totals.programs.iter();
        programs.extend(gone.map(|(program, &counted)| counters_of(program, None, counted)));
        Ok(HookCounters { hook: hook.clone(), programs, passed_end })
    }

    fn fused(&mut self, hook: &HookId) -> Result<Option<FusedProgram>, KernelError> {
        let Some((sequence, info)) = self.store.fused(hook).map_err(failed)? else {
            return Ok(None);
        };
        let live = self.store.counts(hook).map_err(failed)?.live;
        Ok(Some(FusedProgram {
            id: info.id,
            tag: info.tag,
            sequence,
            translated_bytes: info.translated_bytes,
            jited_bytes: info.jited_bytes,
            frags: live.is_some_and(|(_, record, _)| record.spec.frags),
            verified_instructions: info.verified_instructions,
        }))
    }

    fn run_count(&mut self, id: u32) -> Option<RunCount> {
        let program = pointsman_bpf::program_by_id(id).ok()??;
        let ProgramInfo { runs, run_nanoseconds: nanoseconds, .. } = program;
        Some(RunCount { runs, nanoseconds })
    }

    fn run_statistics(&self) -> bool {
        std::fs::read_to_string(STATISTICS).is_ok_and(|text| text.trim() != "0")
    }

    fn clean_dispatchers(&mut self, interface_index: Option<u32>) {
        match self.store.dispatcher().for_looks().clean_now(interface_index) {
            Ok(Cleaned { removed, young, .. }) => {
                if !young.is_empty() {
                    self.clean_at = Some(Instant::now() + YOUNG);
                }
                for name in removed {
                    tracing::info!(%name, "removed the pins of a dispatcher that runs no more");
                }
            }
            Err(error) => tracing::warn!(%error, "pins of dispatchers that run no more may stay"),
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
        let opened = self.store.open_map(program, fingerprint, map).map_err(failed)?;
        Ok(opened.map(|(id, file)| OpenMap { id, file }))
    }

    fn map_directory(&self, program: &ProgramName, fingerprint: &Fingerprint) -> PathBuf {
        self.store.map_directory(program, fingerprint)
    }

    fn doctor(&mut self) -> Doctor {
        let facts = pointsman_bpf::host_facts(&Places::of_host(&self.bpffs));
        let mut checks = plan::examine_host(&facts);
        checks.extend(self.look.examine(self.caps.page_size));
        Doctor { kernel: facts.kernel, checks }
    }
}
