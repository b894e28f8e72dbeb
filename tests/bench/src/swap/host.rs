//! The daemon's way from a document to packets, without its socket and its disk: look at new
//! programs, observe, plan, carry out. Each part's time by itself.

use super::edition::Edition;
use anyhow::{Context as _, Result, anyhow, ensure};
use pointsman_model::document::{Document, Namespaces};
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::plan::{Plan, ResolvedProgram, Step};
use pointsman_model::status::HookCounters;
use pointsman_model::{Fingerprint, HookId, ProgramName, Sha256};
use pointsman_netns::bpffs::Bpffs;
use pointsman_node::host::{Kernel as _, Objects, Scope};
use pointsman_node::kernel::LinuxKernel;
use pointsman_plan::{Options, Wanted, plan};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A host whose pins lie in a BPF filesystem of their own.
pub(super) struct Host {
    kernel: LinuxKernel,
    /// Objects by their hash.
    objects: BTreeMap<Sha256, Vec<u8>>,
    facts: BTreeMap<Fingerprint, Result<ProgramFacts, ProgramProblem>>,
    generation: u64,
    // Unmounted last.
    _bpffs: Bpffs,
}

/// How long the parts of one swap took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// Verifying programs alone that were not seen before.
    pub(super) inspect: Duration,
    /// Reading pins and interfaces.
    pub(super) observe: Duration,
    /// Planning.
    pub(super) plan: Duration,
    /// Creating maps, fusing, verifying and pinning the chain.
    pub(super) build: Duration,
    /// The link's update: the kernel's share.
    pub(super) update: Duration,
    /// Adding up what the chain before counted, and unpinning it. Packets wait for none of it.
    pub(super) retire: Duration,
}

impl Times {
    /// From the document to the update: our share.
    pub(super) fn ours(&self) -> Duration {
        self.inspect + self.observe + self.plan + self.build
    }
}

impl Host {
    pub(super) fn new(objects: Vec<Vec<u8>>) -> Result<Self> {
        let bpffs = Bpffs::mount()?;
        let kernel = LinuxKernel::open(&bpffs.path().join("pointsman"))?;
        let objects = objects.into_iter().map(|bytes| (Sha256::of(&bytes), bytes)).collect();
        Ok(Self { kernel, objects, facts: BTreeMap::new(), generation: 0, _bpffs: bpffs })
    }

    /// Makes `edition` the chain that runs. All of it must be done.
    pub(super) fn apply(&mut self, edition: &Edition) -> Result<Times> {
        self.generation += 1;
        let text = edition.document(self.generation).to_string();
        let document = Document::parse(text.as_bytes())
            .map_err(|errors| anyhow!("the benchmark's own document: {errors:?}"))?;
        let programs = edition.programs.clone();
        let mut times = Times::default();

        let start = Instant::now();
        for program in programs.values().filter_map(|program| program.as_ref().ok()) {
            let fingerprint = program.fingerprint();
            if !self.facts.contains_key(&fingerprint) {
                let facts = self.kernel.inspect(program, &self.objects[&program.object]);
                self.facts.insert(fingerprint, facts);
            }
        }
        times.inspect = start.elapsed();

        let start = Instant::now();
        let observed = self.kernel.observe(&Scope::default())?;
        times.observe = start.elapsed();

        let start = Instant::now();
        let wanted = Wanted {
            document: &document,
            programs: &programs,
            facts: &self.facts,
            bypassed: &BTreeMap::new(),
        };
        let plan = plan(&wanted, &observed, self.kernel.caps(), Options::default());
        times.plan = start.elapsed();
        ensure!(plan.refusals.is_empty(), "refused: {:?}", plan.refusals);
        self.carry_out(&plan, &programs, &mut times)?;
        Ok(times)
    }

    fn carry_out(
        &mut self,
        plan: &Plan,
        programs: &BTreeMap<ProgramName, Result<ResolvedProgram, ProgramProblem>>,
        times: &mut Times,
    ) -> Result<()> {
        let resolved = programs.iter().filter_map(|(name, program)| {
            let program = program.as_ref().ok()?;
            Some(((name.clone(), program.fingerprint()), program.clone()))
        });
        let resolved = resolved.collect();
        let known = &self.objects;
        let read = |hash: &Sha256| known.get(hash).cloned().ok_or_else(|| "unknown".to_owned());
        let objects = Objects {
            programs: &resolved,
            facts: &self.facts,
            namespaces: &Namespaces::new(),
            read: &read,
        };
        for step in &plan.steps {
            let start = Instant::now();
            self.kernel
                .execute(step, &objects)
                .map_err(|why| anyhow!("{step}: {why}"))
                .with_context(|| format!("generation {}", plan.generation))?;
            let part = match step {
                Step::PrepareProgram(_) | Step::SetMapEntries(_) | Step::BuildChain(_) => {
                    &mut times.build
                }
                step if step.is_visible() => &mut times.update,
                _ => &mut times.retire,
            };
            *part += start.elapsed();
        }
        Ok(())
    }

    /// What all chains of the hook counted, those that are gone included.
    pub(super) fn counters(&mut self, hook: &HookId) -> Result<HookCounters> {
        Ok(self.kernel.counters(hook)?)
    }

    /// Where a program's maps are pinned.
    pub(super) fn maps(&self, name: &ProgramName, program: &ResolvedProgram) -> PathBuf {
        self.kernel.map_directory(name, &program.fingerprint())
    }
}
