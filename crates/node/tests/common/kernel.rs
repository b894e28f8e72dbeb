//! The simulator as the engine sees a kernel.

use super::Shared;
use pointsman_model::api::{Check, Doctor, Health};
use pointsman_model::document::{Builtin, InstanceProgram};
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::observed::Observed;
use pointsman_model::plan::{ResolvedProgram, Step};
use pointsman_model::status::{FusedProgram, HookCounters, ProgramCounters};
use pointsman_model::{
    EntryName, Fingerprint, HookId, InterfaceId, NamespaceName, ProgramName, Verdicts,
};
use pointsman_node::host::{Kernel, KernelError, Objects, OpenMap, RunCount, Scope};
use pointsman_plan::{Caps, Host as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) struct TestKernel {
    pub(super) shared: Arc<Shared>,
    pub(super) caps: Caps,
}

impl Kernel for TestKernel {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        if self.shared.blind.load(Ordering::SeqCst) {
            return Err(KernelError("cannot read the pins".into()));
        }
        self.shared.looks.fetch_add(1, Ordering::SeqCst);
        let mut observed = self.shared.sim().observe();
        let asked = |name: &NamespaceName| scope.namespaces.contains_key(name);
        observed.interfaces.retain(|id, _| id.namespace.as_ref().is_none_or(asked));
        observed.unreachable.retain(|name, _| asked(name));
        Ok(observed)
    }

    fn read_nics(
        &mut self,
        _observed: &mut Observed,
        _names: &BTreeSet<InterfaceId>,
        _scope: &Scope,
    ) {
        // The simulator's interfaces come with what is known of them.
    }

    /// An object is the name of its entry, behind a magic word.
    fn inspect(
        &mut self,
        program: &ResolvedProgram,
        object: &[u8],
    ) -> Result<ProgramFacts, ProgramProblem> {
        self.shared.inspected.fetch_add(1, Ordering::SeqCst);
        assert_eq!(program.object, pointsman_model::Sha256::of(object));
        let problem = |message: &str| ProgramProblem { message: message.into(), log: None };
        let entry = std::str::from_utf8(object).ok().and_then(|text| text.strip_prefix("OBJECT "));
        let entry = entry.ok_or_else(|| problem("the object is not an ELF file"))?;
        assert_ne!(entry, "kills", "killed while looking at a program");
        if program.maps.values().flatten().any(|entry| entry.key.is_null()) {
            return Err(problem("a key of null does not fit"));
        }
        Ok(ProgramFacts {
            entry: EntryName::new(entry.trim()).unwrap(),
            tag: "0".repeat(16),
            main_instructions: 2,
            instructions: 2,
            verified_instructions: 2,
            main_stack: 0,
            called_stack: 0,
            tail_calls: false,
            tail_call_depth: None,
            frags: false,
            redirects: false,
            gpl_compatible: true,
            needs_gpl: false,
            side_effects: vec![],
            maps: vec![],
            used_maps: 0,
            unfusable: None,
        })
    }

    fn execute(&mut self, step: &Step, objects: &Objects<'_>) -> Result<(), String> {
        if let Step::BuildChain(build) = step {
            for member in &build.spec.members {
                let load = (member.program.clone(), member.fingerprint.clone());
                assert!(objects.programs.contains_key(&load), "{load:?} was not handed over");
                (objects.read)(&member.object)?;
            }
        }
        let result = self.shared.sim().execute(step);
        if self.shared.dies.load(Ordering::SeqCst)
            && let Err(why) = &result
        {
            panic!("killed: {why}");
        }
        result
    }

    fn counters(&mut self, hook: &HookId) -> Result<HookCounters, KernelError> {
        let observed = self.shared.sim().observe();
        let (sequence, chain) = observed.hooks[hook].live().unwrap();
        let members = &chain.record.as_ref().unwrap().spec.members;
        let programs = members.iter().map(|member| ProgramCounters {
            program: member.program.clone(),
            running: true,
            enforce: member.enforce,
            runs: sequence,
            verdicts: Verdicts { pass: sequence, ..Verdicts::default() },
            finals: Verdicts::default(),
        });
        let programs = programs.collect();
        Ok(HookCounters { hook: hook.clone(), programs, passed_end: sequence })
    }

    fn fused(&mut self, hook: &HookId) -> Result<Option<FusedProgram>, KernelError> {
        let observed = self.shared.sim().observe();
        Ok(observed.hooks.get(hook).and_then(|hook| hook.live()).map(|(sequence, chain)| {
            FusedProgram {
                id: chain.program_id.unwrap(),
                tag: "1".repeat(16),
                sequence,
                translated_bytes: 16,
                jited_bytes: 32,
                frags: false,
                verified_instructions: 2,
            }
        }))
    }

    fn run_count(&mut self, id: u32) -> Option<RunCount> {
        Some(RunCount { runs: id.into(), nanoseconds: 10 })
    }

    fn run_statistics(&self) -> bool {
        true
    }

    fn clean_dispatchers(&mut self, _interface_index: Option<u32>) {
        // The simulator has no pins of dispatchers.
    }

    fn builtin(&self, builtin: Builtin) -> &'static [u8] {
        match builtin {
            Builtin::UdpPortFilter => b"OBJECT udp_port_filter",
            Builtin::XskmapRedirect => b"OBJECT xskmap_redirect",
            Builtin::CountingPass => b"OBJECT counting_pass",
            Builtin::CidrBlocklist => b"OBJECT cidr_blocklist",
        }
    }

    fn instance_program(&self, program: InstanceProgram) -> &'static [u8] {
        match program {
            InstanceProgram::PortFilter => b"OBJECT mtl_dp_filter",
            InstanceProgram::Redirect => b"OBJECT xsk_def_prog",
        }
    }

    fn open_map(
        &mut self,
        _: &ProgramName,
        _: &Fingerprint,
        _: &str,
    ) -> Result<Option<OpenMap>, KernelError> {
        Ok(None)
    }

    fn map_directory(&self, program: &ProgramName, fingerprint: &Fingerprint) -> PathBuf {
        Path::new("/bpf/programs").join(program.as_str()).join(fingerprint.as_str())
    }

    fn doctor(&mut self) -> Doctor {
        let check = Check {
            name: "simulator".into(),
            health: Health::Ok,
            found: "present".into(),
            consequence: "no packet flows".into(),
        };
        Doctor { kernel: "simulated".into(), checks: vec![check] }
    }
}
