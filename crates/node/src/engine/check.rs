//! Looks whether the host is still as it was left, and puts right what can be put right.

use super::apply::hooks;
use super::drift::Verdict;
use super::instances::is_accepted;
use super::{Engine, outcome};
use crate::host::Scope;
use crate::resolve::Origin;
use crate::state::Edition;
use pointsman_model::api::{StepOutcome, StepResult};
use pointsman_model::event::EventKind;
use pointsman_model::observed::Observed;
use pointsman_model::plan::{Attach, Plan, Refusal, Step};
use pointsman_model::{Document, HookId};
use pointsman_plan::{Options, narrow, relevant};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a step that failed is left alone while nothing about its interface changes. Its cause
/// may be one that cannot be seen, such as a driver without free queues.
const RETRY: Duration = Duration::from_secs(60);

/// What the last look ended with.
#[derive(Debug)]
pub(super) struct Seen {
    /// What the plan for the document in force depends on.
    world: Observed,
    /// Until when it is enough that this is still so; `None`: for good.
    until: Option<Instant>,
}

impl Engine {
    /// Does what the document in force asks for and the host lacks. Nothing that opens a gap.
    pub(super) fn check(&mut self, now: Instant) {
        self.checks += 1;
        self.catch_up();
        let edition = self.edition();
        let idle = edition.is_none();
        let blind = edition.and_then(|edition| self.look(&edition, now).err());
        if let Some(why) = blind.as_ref().filter(|_| self.blind != blind) {
            tracing::error!("cannot look whether all is as it should be: {why}");
        }
        self.blind = blind;
        let end = Instant::now();
        self.schedule.checked(now, end);
        match &self.seen {
            Some(Seen { until: Some(until), .. }) => self.schedule.by(*until),
            None if !idle && self.blind.is_none() => self.schedule.acted(end),
            _ => {}
        }
    }

    fn look(&mut self, edition: &Edition, now: Instant) -> Result<(), String> {
        if self.is_as_seen(now)? {
            return Ok(());
        }
        let before = self.seen.take();
        let document = self.wanted_document(edition)?;
        let resolved = self
            .resolve(&document, Origin::Accepted(edition), false)
            .map_err(|problem| problem.title)?;
        let scope = Scope::of(&document);
        let observed = self.observe(&scope).map_err(|problem| problem.title)?;
        if let Some(before) = &before {
            self.clean_after(&before.world, &observed);
        }
        let plan = self.make_plan(&document, &resolved, &observed, Options::default());
        let verdict = self.judge(&document, &plan, &observed, now);
        self.drifts.settle(&plan, &observed);
        let mine = self.mine(edition, &observed);
        let plan = narrow(plan, |hook| !verdict.leave.contains(hook) && mine.has(hook));
        let (results, _) = self.carry_out(&plan, &resolved, now);
        let failures = outcome::failures(&plan, &results);
        self.settle_changed(&plan, &results, &scope);
        self.tell_done(&plan, &results, &verdict, before.as_ref(), now);
        self.seen = self.seen_after(&document, observed, &plan, &failures, verdict.next)?;
        self.take_over(&document, plan, failures, edition);
        for hook in self.return_to_last_good(edition, &verdict.leave) {
            if verdict.put_back.contains(&hook) {
                self.repaired(&hook, now);
            }
        }
        self.notify();
        Ok(())
    }

    /// Whether nothing has changed that the plan depends on. Cheap: it is asked whenever any
    /// interface of the host changes.
    fn is_as_seen(&mut self, now: Instant) -> Result<bool, String> {
        let Some(seen) = &self.seen else { return Ok(false) };
        if seen.until.is_some_and(|until| until <= now) {
            return Ok(false);
        }
        let scope = self.last.scope.clone();
        let observed = self.see(&scope).map_err(|error| error.to_string())?;
        let Some(seen) = &self.seen else { return Ok(false) };
        Ok(relevant(observed, &self.last.wanted) == seen.world)
    }

    /// What is enough to be looked at from now on; `None`: how things were left is not known.
    /// `next`: when something that is left as it is now must be put right.
    pub(super) fn seen_after(
        &mut self,
        document: &Document,
        before: Observed,
        plan: &Plan,
        failures: &[Refusal],
        next: Option<Instant>,
    ) -> Result<Option<Seen>, String> {
        let wanted = hooks(document);
        let retry = Instant::now() + RETRY;
        let until = Some(next.map_or(retry, |next| next.min(retry)));
        if plan.steps.is_empty() {
            // What a refusal is about may not be seen, such as what a driver can do.
            let until = if plan.refusals.is_empty() { next } else { until };
            return Ok(Some(Seen { world: relevant(before, &wanted), until }));
        }
        if failures.is_empty() {
            return Ok(None);
        }
        // What failed is not tried again at once, unless the interfaces changed meanwhile.
        let after = self.observe(&Scope::of(document)).map_err(|problem| problem.title)?;
        let (before, after) = (relevant(before, &wanted), relevant(after, &wanted));
        if (&after.interfaces, &after.unreachable) != (&before.interfaces, &before.unreachable) {
            return Ok(None);
        }
        Ok(Some(Seen { world: after, until }))
    }

    pub(super) fn take_over(
        &mut self,
        document: &Document,
        plan: Plan,
        failures: Vec<Refusal>,
        edition: &Edition,
    ) {
        let refusals: Vec<_> = plan.refusals.iter().cloned().chain(failures).collect();
        let (wanted, waited) = (hooks(document), self.last.waiting());
        let mut next = self.state.state().clone();
        if is_accepted(edition) {
            next.remember(&wanted, &self.done(&wanted, &plan, &refusals), edition);
        }
        self.last.take_over(Scope::of(document), wanted, plan, refusals);
        // A look may be what makes the document whole.
        self.judge_good(&mut next, &self.last.wanted, &self.last.refusals);
        let note = self.remember(next);
        self.last.notes.extend(note);
        self.tell_pending(&waited);
    }

    /// Writes down what was put right, and what was attached for other reasons.
    fn tell_done(
        &mut self,
        plan: &Plan,
        results: &[StepResult],
        verdict: &Verdict,
        before: Option<&Seen>,
        now: Instant,
    ) {
        let undone = |(step, result): (&Step, &StepResult)| {
            let undone = result.outcome != StepOutcome::Done;
            step.hook().filter(|_| undone).cloned()
        };
        let steps = || plan.steps.iter().zip(results);
        let undone: BTreeSet<HookId> = steps().filter_map(undone).collect();
        for hook in verdict.repair.difference(&undone) {
            self.repaired(hook, now);
        }
        for (step, _) in steps().filter(|(_, result)| result.outcome == StepOutcome::Done) {
            if let Step::Attach(attach) = step
                && !verdict.repair.contains(&attach.chain.hook)
            {
                self.tell_attached(attach, before);
            }
        }
    }

    fn tell_attached(&mut self, attach: &Attach, before: Option<&Seen>) {
        let hook = &attach.chain.hook;
        let (interface, index) = (&hook.interface, attach.interface_index);
        let known = before.and_then(|seen| seen.world.interfaces.get(interface));
        let how = match known {
            _ if self.last.pending(hook).is_some() => "appeared",
            Some(known) if known.index != index => "is a new one",
            _ => "was without its chain",
        };
        let mode = attach.mode;
        let message =
            format!("interface {interface} (number {index}) {how}: attached in {mode} mode");
        self.event(EventKind::Attached, Some(hook), &message);
    }
}
