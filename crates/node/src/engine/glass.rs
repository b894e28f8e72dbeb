//! Breaking the glass: bypass and its end, each one swap of one hook.

use super::apply::micros;
use super::instances::is_accepted;
use super::{Engine, outcome};
use crate::history::Bypass;
use crate::host::Scope;
use crate::problem;
use crate::resolve::Origin;
use crate::state::Edition;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::deadline::Deadline;
use pointsman_model::event::EventKind;
use pointsman_model::glass::{BypassReport, BypassStatus};
use pointsman_model::plan::{HookChange, Plan, Refusal};
use pointsman_model::{HookId, InterfaceId};
use pointsman_plan::{Options, narrow_to};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What an operator asks of the chain on one interface.
#[derive(Debug, Clone)]
pub struct BypassRequest {
    /// The interface.
    pub interface: InterfaceId,
    /// End the bypass instead of beginning it.
    pub off: bool,
    /// How long it lasts; `None`: until it is ended.
    pub length: Option<Duration>,
    /// Who asks, where the socket tells.
    pub uid: Option<u32>,
    /// When the request arrived.
    pub arrived: Instant,
}

impl Engine {
    /// Begins or ends a bypass.
    pub(super) fn bypass(&mut self, request: &BypassRequest) -> Result<BypassReport, Problem> {
        let hook = HookId::xdp(request.interface.clone());
        let known = self.state.state().bypass(&hook).is_some();
        if !request.off {
            return self.begin_bypass(hook, request);
        }
        if !known {
            self.bypassable(&hook)?;
            let notes = vec![format!("{hook} was not bypassed: nothing changes")];
            return Ok(self.bypass_report(hook, false, notes));
        }
        let mut report = self.end_bypass(&hook, request.arrived)?;
        report.was_bypassed = true;
        let message = match report.refusals.first() {
            None => format!("ended by {}: the chain runs again", who(request.uid)),
            Some(refusal) => format!("ended by {}: {}", who(request.uid), refusal.message),
        };
        self.event(EventKind::BypassEnded, Some(&hook), &message);
        Ok(report)
    }

    fn begin_bypass(
        &mut self,
        hook: HookId,
        request: &BypassRequest,
    ) -> Result<BypassReport, Problem> {
        let edition = self.bypassable(&hook)?;
        let was = self.state.state().bypass(&hook).cloned();
        let now = self.clock.now();
        let until = request
            .length
            .map(|length| Deadline::after(now.clone(), super::deadline::millis(length)));
        let bypass = Bypass {
            hook: hook.clone(),
            since_unix_ms: was.as_ref().map_or(now.unix_ms, |was| was.since_unix_ms),
            until,
            uid: request.uid,
        };
        let before = self.state.state().clone();
        let mut next = before.clone();
        next.set_bypass(bypass);
        let words = next.bypassed_words(&now);
        let (plan, resolved) = self.plan_one(&hook, &edition, &words)?;
        if let Some(obstacle) = plan.hooks.iter().find(|diff| diff.change == HookChange::Refused) {
            let why = plan.refusals.iter().find(|r| r.hook.as_ref() == Some(&obstacle.hook));
            let why = why.map_or("it is refused there", |refusal| refusal.message.as_str());
            return Err(conflict(&format!("no chain of ours can run on {hook}: {why}")));
        }
        let mut notes: Vec<_> = plan.notes.iter().map(|note| note.message.clone()).collect();
        // First what is remembered, then the swap: a start after a kill in between goes on with it.
        if let Some(error) = self.force(next) {
            notes.push(format!(
                "the bypass could not be recorded and ends when the daemon does: {error}"
            ));
        }
        let (results, visible) = self.carry_out(&plan, &resolved, request.arrived);
        let failures = outcome::failures(&plan, &results);
        let mut refusals = Vec::new();
        if outcome::runs_as_planned(&plan, &results) {
            let message =
                format!("every packet passes {}, as {} asked", words[&hook], who(request.uid));
            self.event(EventKind::Bypassed, Some(&hook), &message);
            // Such as the old chain's pins that are still there.
            let later = |failure: &Refusal| format!("{}; it is tried again", failure.message);
            notes.extend(failures.iter().map(later));
        } else {
            self.force(before);
            for failure in &failures {
                tracing::error!(%hook, "the bypass failed: {}", failure.message);
            }
            refusals.clone_from(&failures);
        }
        self.settle_one(&hook);
        self.last.take_over_hooks(plan, failures);
        let mut report = self.bypass_report(hook, was.is_some(), notes);
        report.results = results;
        report.refusals = refusals;
        report.visible_micros = micros(visible);
        report.total_micros = micros(request.arrived.elapsed());
        Ok(report)
    }

    /// Ends a bypass: the chain that the document in force wants comes back, or, where that is
    /// refused, the one that ran last.
    pub(super) fn end_bypass(
        &mut self,
        hook: &HookId,
        arrived: Instant,
    ) -> Result<BypassReport, Problem> {
        let mut next = self.state.state().clone();
        next.end_bypass(hook);
        let Some(edition) = self.edition().filter(|_| self.last.wanted.contains(hook)) else {
            self.force(next);
            let notes = vec![format!("the document in force wants no chain on {hook}")];
            return Ok(self.bypass_report(hook.clone(), true, notes));
        };
        let words = next.bypassed_words(&self.clock.now());
        let (plan, resolved) = self.plan_one(hook, &edition, &words)?;
        let mut notes: Vec<_> = plan.notes.iter().map(|note| note.message.clone()).collect();
        if let Some(error) = self.force(next) {
            notes.push(format!("the next start will bypass {hook} again: {error}"));
        }
        let (results, visible) = self.carry_out(&plan, &resolved, arrived);
        let failures = outcome::failures(&plan, &results);
        let refusals: Vec<_> = plan.refusals.iter().cloned().chain(failures).collect();
        self.settle_one(hook);
        let pending = plan.hooks.iter().any(|diff| diff.change == HookChange::Pending);
        self.last.take_over_hooks(plan, refusals.clone());
        if refusals.is_empty() {
            let mut next = self.state.state().clone();
            if !pending && is_accepted(&edition) {
                let wanted = self.last.wanted.clone();
                let mut done: std::collections::BTreeSet<_> = (next.last_good.iter())
                    .filter(|good| good.edition == edition)
                    .map(|good| good.hook.clone())
                    .collect();
                done.insert(hook.clone());
                next.remember(&wanted, &done, &edition);
            }
            self.judge_good(&mut next, &self.last.wanted, &self.last.refusals);
            self.remember(next);
        } else {
            self.return_one(hook, &edition);
            let about = |note: &&pointsman_model::plan::Note| note.hook.as_ref() == Some(hook);
            notes.extend(self.last.notes.iter().filter(about).map(|note| note.message.clone()));
        }
        let mut report = self.bypass_report(hook.clone(), true, notes);
        report.results = results;
        report.refusals = refusals;
        report.visible_micros = micros(visible);
        report.total_micros = micros(arrived.elapsed());
        Ok(report)
    }

    /// What the document in force wants on one hook while these hooks are bypassed.
    fn plan_one(
        &mut self,
        hook: &HookId,
        edition: &Edition,
        bypassed: &BTreeMap<HookId, String>,
    ) -> Result<(Plan, crate::resolve::Resolved), Problem> {
        let broken = |why| problem::plain(ProblemKind::Internal, 500, why);
        let document = self.wanted_document(edition).map_err(broken)?;
        let resolved = self.resolve(&document, Origin::Accepted(edition), false)?;
        let observed = self.observe(&Scope::of(&document))?;
        let options = Options::default();
        let plan = self.plan_bypassing(bypassed, &document, &resolved, &observed, options);
        let mut plan = narrow_to(plan, hook);
        plan.notes.retain(|note| note.hook.as_ref() == Some(hook));
        Ok((plan, resolved))
    }

    /// The edition in force, if it wants a chain on `hook`.
    fn bypassable(&self, hook: &HookId) -> Result<Edition, Problem> {
        let state = self.state.state();
        let Some(edition) = self.edition() else {
            let title = match state.drained {
                true => "the node is drained: nothing runs that could be bypassed",
                false => "no document is in force: there is no chain to bypass",
            };
            return Err(conflict(title));
        };
        if self.last.wanted.contains(hook) {
            return Ok(edition);
        }
        let wanted: Vec<_> =
            self.last.wanted.iter().map(|hook| hook.interface.to_string()).collect();
        let wanted = if wanted.is_empty() { "none".to_owned() } else { wanted.join(", ") };
        let title = format!(
            "generation {} wants no chain on interface {}; it wants one on: {wanted}. Nothing was \
             changed",
            edition.generation, hook.interface
        );
        Err(problem::plain(ProblemKind::NotFound, 404, title))
    }

    fn bypass_report(&self, hook: HookId, was_bypassed: bool, notes: Vec<String>) -> BypassReport {
        BypassReport {
            bypass: self.bypass_status(&hook),
            hook,
            was_bypassed,
            results: Vec::new(),
            refusals: Vec::new(),
            notes,
            visible_micros: 0,
            total_micros: 0,
        }
    }

    /// How `hook` is bypassed; `None`: it is not.
    pub(super) fn bypass_status(&self, hook: &HookId) -> Option<BypassStatus> {
        let Bypass { since_unix_ms, until, uid, .. } = self.state.state().bypass(hook)?;
        let now = self.clock.now();
        Some(BypassStatus {
            since_unix_ms: *since_unix_ms,
            until_unix_ms: until.as_ref().map(|until| until.unix_ms(&now)),
            remaining_ms: until.as_ref().map(|until| until.remaining_ms(&now)),
            uid: *uid,
        })
    }
}

/// Something that does not go together with how the host stands.
pub(super) fn conflict(title: &str) -> Problem {
    problem::plain(ProblemKind::Conflict, 409, format!("{title}; nothing was changed"))
}

/// Who asked for something, in words.
pub(super) fn who(uid: Option<u32>) -> String {
    match uid {
        Some(uid) => format!("user {uid}"),
        None => "an unknown user".to_owned(),
    }
}
