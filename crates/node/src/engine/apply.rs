//! One way through for every document: parse, guard, find and keep objects, look at programs,
//! observe, plan, carry out, remember, report.

use super::outcome;
use super::{Engine, LastPlan, Request};
use crate::host::{Kernel, Objects, Scope};
use crate::problem;
use crate::renamed::renames;
use crate::resolve::{Origin, Resolved, Resolver};
use crate::state::{Edition, State};
use pointsman_model::api::{
    ApplyOutcome, ApplyReport, DrainReport, Problem, StepOutcome, StepResult,
};
use pointsman_model::chain::MemberSpec;
use pointsman_model::document::InstanceProgram;
use pointsman_model::event::EventKind;
use pointsman_model::observed::Observed;
use pointsman_model::plan::{HookChange, Note, Plan, Refusal, RenameHook, Step};
use pointsman_model::{Document, HookId, Sha256};
use pointsman_plan::instances::is_for_instances;
use pointsman_plan::{self as plan, Host, Options, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A document on its way, with all that was found out before anything changes.
struct Prepared {
    document: Document,
    digest: Sha256,
    resolved: Resolved,
    plan: Plan,
    /// What cards will not do of it, as far as is known.
    outlook: Vec<Note>,
}

/// An edition that is in force by now, and is to be carried out.
pub(super) struct Entry<'a> {
    pub(super) edition: &'a Edition,
    pub(super) document: &'a Document,
    pub(super) resolved: &'a Resolved,
    /// How the node stood before.
    pub(super) before: &'a State,
    /// Whether it takes the place of one that waits to be confirmed, as soon as anything runs it.
    pub(super) takes_over: bool,
    pub(super) arrived: Instant,
}

impl Engine {
    /// What applying a document would do. Changes nothing.
    pub(super) fn plan(&mut self, request: &Request) -> Result<Plan, Problem> {
        let Prepared { resolved, mut plan, outlook, .. } = self.prepare(request, false)?;
        self.cache.prune(&resolved, false);
        plan.notes.extend(outlook);
        Ok(plan)
    }

    /// Applies a document.
    pub(super) fn apply(&mut self, request: &Request) -> Result<ApplyReport, Problem> {
        let prepared = self.prepare(request, true)?;
        let before = self.state.state().clone();
        let mut notes = self.window_notes(request, &prepared.digest);
        let takes_over = self.takes_over(request, &prepared.digest);
        let edition = self.accept(request, &prepared)?;
        let Prepared { document, resolved, mut plan, outlook, .. } = prepared;
        self.cache.prune(&resolved, true);
        self.refused = None;
        self.ignored = None;
        plan.notes.append(&mut notes);
        let entry = Entry {
            edition: &edition,
            document: &document,
            resolved: &resolved,
            before: &before,
            takes_over,
            arrived: request.arrived,
        };
        let mut report = self.enter(&entry, plan);
        report.plan.notes.extend(outlook);
        Ok(report)
    }

    /// Carries out the plan of an edition that is in force by now, and remembers what came of it.
    pub(super) fn enter(&mut self, entry: &Entry<'_>, plan: Plan) -> ApplyReport {
        let &Entry { edition, document, resolved, before, takes_over, arrived } = entry;
        let (results, visible) = self.carry_out(&plan, resolved, arrived);
        let total = arrived.elapsed();

        let wanted = hooks(document);
        let failures = outcome::failures(&plan, &results);
        let refusals: Vec<_> = plan.refusals.iter().cloned().chain(failures).collect();
        let outcome = outcome::outcome(&wanted, &plan, &results, &refusals);
        let mut next = self.state.state().clone();
        let mut notes = plan.notes.clone();
        if takes_over {
            let taken = outcome != ApplyOutcome::Refused;
            next.unconfirmed.take_if(|_| taken);
            notes.push(Self::take_over_note(before, taken));
        }
        next.remember(&wanted, &self.done(&wanted, &plan, &refusals), edition);
        self.judge_good(&mut next, &wanted, &refusals);
        let changed = next != *before || !plan.steps.is_empty();
        notes.extend(self.remember(next));
        if changed {
            self.collect();
        }
        self.settle_anew();
        self.settle_changed(&plan, &results, &Scope::of(document));
        let waited = self.last.waiting();
        self.last = LastPlan {
            scope: Scope::of(document),
            wanted: wanted.clone(),
            hooks: plan.hooks.clone(),
            refusals: refusals.clone(),
            notes: notes.clone(),
            warnings: plan.warnings.clone(),
        };
        self.tell_pending(&waited);
        ApplyReport {
            outcome,
            plan: Plan { notes, ..plan },
            results,
            refusals,
            visible_micros: micros(visible),
            total_micros: micros(total),
            unconfirmed: self.unconfirmed_status(),
        }
    }

    /// Remembers the document in force as a good one if all of it runs and nothing is left to
    /// confirm.
    pub(super) fn judge_good(
        &self,
        next: &mut State,
        wanted: &BTreeSet<HookId>,
        refusals: &[Refusal],
    ) {
        let bypassed = wanted.iter().any(|hook| next.bypass(hook).is_some());
        if refusals.is_empty() && next.unconfirmed.is_none() && !bypassed {
            next.remember_good(self.keep);
        }
    }

    /// The hooks that run what the document wants. A bypassed one does not.
    pub(super) fn done(
        &self,
        wanted: &BTreeSet<HookId>,
        plan: &Plan,
        refusals: &[Refusal],
    ) -> BTreeSet<HookId> {
        let mut done = outcome::done(wanted, plan, refusals);
        done.retain(|hook| self.state.state().bypass(hook).is_none());
        done
    }

    /// Removes all that is ours.
    pub(super) fn drain(&mut self) -> Result<DrainReport, Problem> {
        let scope = self.last.scope.clone();
        let observed = self.observe(&scope)?;
        let mut failures = Vec::new();
        // First, so that a start after a crash does not attach again. An operator who breaks the
        // glass on a host with a full disk must get what he asked for all the same.
        let mut next = self.state.state().clone();
        let was_drained = next.drained;
        next.drain();
        // Also what waits there to be looked at must not come with the next start.
        next.passed_over =
            crate::watch::read(&self.document).ok().flatten().as_deref().map(Sha256::of);
        next.passed_over_snapshot = self.laid_down_document();
        self.ignored = None;
        self.fleet.waits_no_more();
        if let Err(error) = self.state.force(next) {
            failures.push(format!(
                "the next start will attach the chains again: it could not be recorded that the \
                 node is drained: {error}"
            ));
        }
        let plan = plan::drain(&observed);
        let (results, _) = self.carry_out(&plan, &Resolved::default(), Instant::now());
        failures.extend(outcome::failures(&plan, &results).into_iter().map(|r| r.message));
        // What is pinned elsewhere runs on, and nothing was looked at.
        failures.extend(self.kernel.no_chains());
        // What runs where nobody can look.
        let stays = plan.hooks.iter().filter(|diff| diff.after.is_some()).map(|diff| &diff.hook);
        let stays: BTreeSet<_> = stays.collect();
        let told =
            plan.notes.iter().filter(|note| note.hook.as_ref().is_some_and(|h| stays.contains(h)));
        failures.extend(told.map(|note| note.message.clone()));
        self.last = LastPlan::default();
        self.drifts.forget();
        self.seen = None;
        self.chains_changed();
        tracing::warn!(steps = results.len(), failures = failures.len(), "node drained");
        for failure in &failures {
            tracing::error!("drain: {failure}");
        }
        let message = match failures.len() {
            0 => "all that is ours was removed".to_owned(),
            n => format!("{n} things could not be removed or recorded"),
        };
        // Draining what is drained already is nothing that happened.
        if !was_drained || !results.is_empty() {
            self.event(EventKind::Drained, None, &message);
        }
        Ok(DrainReport { results, failures })
    }

    /// Everything up to the plan. `keep`: objects are put into the store.
    fn prepare(&mut self, request: &Request, keep: bool) -> Result<Prepared, Problem> {
        let parsed = Document::parse(&request.text).map_err(problem::invalid)?;
        let digest = Sha256::of(&request.text);
        let observed = self.observe(&Scope::of(&parsed))?;
        self.guard(&parsed, &digest, &observed, request.asked)?;
        let document = self.with_instances(parsed)?;
        let scope = Scope::of(&document);
        let mut observed = self.observe(&scope)?;
        let resolved = self.resolve(&document, Origin::Sources, keep)?;
        if resolved.inspected > 0 {
            // The verifier may have taken seconds.
            observed = self.observe(&scope)?;
        }
        let plan = self.make_plan(&document, &resolved, &observed, request.options);
        let outlook = self.outlook(&document, observed);
        Ok(Prepared { document, digest, resolved, plan, outlook })
    }

    pub(super) fn guard(
        &self,
        document: &Document,
        digest: &Sha256,
        observed: &Observed,
        asked: bool,
    ) -> Result<(), Problem> {
        let state = self.state.state();
        let current = state.current.as_ref().map(|edition| plan::Current {
            node: &edition.node,
            generation: edition.generation,
            digest: &edition.document,
            drained: state.drained,
            left: &state.left,
        });
        let live = observed.hooks.values().filter_map(|hook| hook.live());
        let running = live.filter_map(|(_, chain)| chain.record.as_ref());
        let operators = |member: &&MemberSpec| !is_for_instances(member);
        let programs =
            running.map(|record| record.spec.members.iter().filter(operators).count()).sum();
        plan::guard(current.as_ref(), document, digest, programs, asked).map_err(problem::guarded)
    }

    pub(super) fn resolve(
        &mut self,
        document: &Document,
        origin: Origin<'_>,
        keep: bool,
    ) -> Result<Resolved, Problem> {
        let mut resolver = Resolver {
            kernel: self.kernel.as_mut(),
            store: &self.objects,
            dropped: self.fleet.drop_dir(),
            cache: &mut self.cache,
            keep: keep.then_some(&mut self.state),
        };
        resolver.resolve(document, origin).map_err(|error| problem::storage(&error))
    }

    pub(super) fn make_plan(
        &mut self,
        document: &Document,
        resolved: &Resolved,
        observed: &Observed,
        options: Options,
    ) -> Plan {
        let bypassed = self.state.state().bypassed_words(&self.clock.now());
        self.plan_bypassing(&bypassed, document, resolved, observed, options)
    }

    /// The plan while these hooks are bypassed.
    pub(super) fn plan_bypassing(
        &mut self,
        bypassed: &BTreeMap<HookId, String>,
        document: &Document,
        resolved: &Resolved,
        observed: &Observed,
        options: Options,
    ) -> Plan {
        // Offloads and queues change at any time, so they are read for each plan anew.
        let wanted = hooks(document).into_iter();
        let interfaces = wanted.chain(observed.hooks.keys().cloned()).map(|hook| hook.interface);
        let mut observed = observed.clone();
        self.kernel.read_nics(&mut observed, &interfaces.collect(), &Scope::of(document));
        let Resolved { programs, facts, .. } = resolved;
        let wanted = Wanted { document, programs, facts, bypassed };
        plan::plan(&wanted, &observed, self.kernel.caps(), options)
    }

    /// Makes the document the one in force, on disk, before anything visible changes: after a
    /// crash the next start goes on with it.
    fn accept(&mut self, request: &Request, prepared: &Prepared) -> Result<Edition, Problem> {
        let Prepared { document, digest, resolved, plan, .. } = prepared;
        let edition = Edition {
            node: document.node.clone(),
            generation: document.generation,
            document: *digest,
            objects: resolved.objects(),
        };
        let mut next = self.state.state().clone();
        next.unconfirmed = self.window_after(request, digest);
        next.accept(&edition, self.clock.now().unix_ms);
        let unchanged =
            |diff: &&pointsman_model::plan::HookDiff| diff.change == HookChange::Unchanged;
        let wanted = hooks(document);
        let unchanged = plan.hooks.iter().filter(unchanged).map(|diff| &diff.hook);
        let unchanged: BTreeSet<_> =
            unchanged.filter(|hook| next.bypass(hook).is_none()).cloned().collect();
        // What is remembered under a name that goes is still needed when the new name comes.
        let leaving = renames(plan).map(|rename| rename.from.clone()).collect();
        next.remember(&(&wanted | &leaving), &(&unchanged & &wanted), &edition);
        self.state.accept(&request.text, digest, next).map_err(|error| {
            for hash in &resolved.stored {
                // The error that matters is the one that ended it.
                let _ = self.objects.remove(hash);
            }
            problem::storage(&error)
        })?;
        Ok(edition)
    }

    /// Carries a plan out; also tells when the last visible step ended, counted from `start`.
    pub(super) fn carry_out(
        &mut self,
        plan: &Plan,
        resolved: &Resolved,
        start: Instant,
    ) -> (Vec<StepResult>, Duration) {
        let programs = resolved.by_fingerprint();
        let store = &self.objects;
        let ours = InstanceProgram::ALL.map(|program| self.kernel.instance_program(program));
        let read = |hash: &Sha256| match ours.iter().find(|bytes| Sha256::of(bytes) == *hash) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => store.read(hash).map_err(|error| error.to_string()),
        };
        let Resolved { facts, namespaces, .. } = resolved;
        let mut namespaces = namespaces.clone();
        self.add(plan.hooks.iter().map(|diff| &diff.hook), &mut namespaces);
        let objects = Objects { programs: &programs, facts, namespaces: &namespaces, read: &read };
        let kernel = self.kernel.as_mut();
        let mut host = KernelHost { kernel, objects, start, visible: Duration::ZERO };
        let results = plan::carry_out(plan, &mut host, &mut || start.elapsed());
        let visible = host.visible;
        for (step, result) in plan.steps.iter().zip(&results) {
            match &result.outcome {
                StepOutcome::Done if step.is_visible() => {
                    tracing::info!(micros = result.micros, "{step}");
                }
                StepOutcome::Done => tracing::debug!(micros = result.micros, "{step}"),
                StepOutcome::Failed(why) => tracing::error!("{step} failed: {why}"),
                StepOutcome::Skipped => tracing::warn!("{step} skipped"),
            }
        }
        self.follow_renames(plan, &results);
        if !plan.steps.is_empty() {
            self.chains_changed();
        }
        (results, visible)
    }

    /// Renames what is remembered of hooks that were renamed.
    fn follow_renames(&mut self, plan: &Plan, results: &[StepResult]) {
        let steps = plan.steps.iter().zip(results);
        let done = steps.filter(|(_, result)| result.outcome == StepOutcome::Done);
        let mut next = self.state.state().clone();
        for (step, _) in done {
            if let Step::RenameHook(RenameHook { from, to }) = step {
                next.exchange(from, to);
                self.drifts.exchange(from, to);
            }
        }
        if next != *self.state.state() {
            self.force(next);
        }
    }

    /// Remembers what is known after a plan was carried out. It is carried out by now: a disk
    /// that does not take it is worth a note and nothing more.
    pub(super) fn remember(&mut self, next: State) -> Option<Note> {
        let error = self.state.set(next).err()?;
        tracing::error!(%error, "cannot remember what was carried out");
        let message = format!(
            "it could not be recorded which chains run now, so after a reboot a refused hook may \
             get an older chain: {error}"
        );
        Some(Note { hook: None, program: None, message })
    }

    /// Removes documents and objects that nobody can ask for any more.
    pub(super) fn collect(&mut self) {
        let Ok(observed) = self.kernel.observe(&self.last.scope) else {
            // The next apply collects them.
            return;
        };
        let chains = observed.hooks.values().flat_map(|hook| hook.chains.values());
        let records = chains.filter_map(|chain| chain.record.as_ref());
        let running = records.flat_map(|record| record.spec.members.iter().map(|m| m.object));
        if let Err(error) = self.state.collect(&self.objects, &running.collect()) {
            tracing::warn!(%error, "cannot remove what is not needed any more");
        }
    }
}

/// The hooks of a document.
pub(super) fn hooks(document: &Document) -> BTreeSet<HookId> {
    let with_chain = document.interfaces.iter().filter(|(_, interface)| interface.xdp.is_some());
    with_chain.map(|(name, _)| HookId::xdp(name.clone())).collect()
}

struct KernelHost<'a> {
    kernel: &'a mut dyn Kernel,
    objects: Objects<'a>,
    start: Instant,
    visible: Duration,
}

impl Host for KernelHost<'_> {
    fn execute(&mut self, step: &Step) -> Result<(), String> {
        self.kernel.execute(step, &self.objects)?;
        if step.is_visible() {
            self.visible = self.start.elapsed();
        }
        Ok(())
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
