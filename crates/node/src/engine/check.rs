//! Looks whether the host is still as it was left, and puts right what can be put right.

use super::apply::hooks;
use super::{Engine, outcome};
use crate::resolve::Origin;
use crate::state::Edition;
use pointsman_model::event::EventKind;
use pointsman_model::plan::HookChange;
use pointsman_plan::{Options, narrow};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How soon after a change the host is looked at again.
pub(super) const SETTLING: Duration = Duration::from_millis(100);

impl Engine {
    /// Does what the document in force asks for and the host lacks. Nothing that opens a gap.
    pub(super) fn check(&mut self, now: Instant) {
        self.check_due = now + self.check_interval;
        self.checks += 1;
        self.catch_up();
        let state = self.state.state();
        let Some(edition) = state.current.clone().filter(|_| !state.drained) else { return };
        let blind = self.look(&edition, now).err();
        if let Some(why) = blind.as_ref().filter(|_| self.blind != blind) {
            tracing::error!("cannot look whether all is as it should be: {why}");
        }
        self.blind = blind;
    }

    fn look(&mut self, edition: &Edition, now: Instant) -> Result<(), String> {
        let document = self.accepted_document(edition)?;
        let resolved = self
            .resolve(&document, Origin::Accepted(edition), false)
            .map_err(|problem| problem.title)?;
        let mut observed = self.observe().map_err(|problem| problem.title)?;
        let plan = self.make_plan(&document, &resolved, &mut observed, Options::default());
        let verdict = self.judge(&document, &plan, &observed, now);
        self.check_due = verdict.next.map_or(self.check_due, |next| next.min(self.check_due));
        self.drifts.settle(&plan, &observed);
        let plan = narrow(plan, |hook| !verdict.leave.contains(hook));
        if plan.steps.is_empty() && !self.last.tells_otherwise(&plan) {
            return Ok(());
        }
        let (results, _) = self.carry_out(&plan, &resolved, now);
        let failures = outcome::failures(&plan, &results);
        let refusals: Vec<_> = plan.refusals.iter().cloned().chain(failures).collect();
        let failed: BTreeSet<_> = refusals.iter().filter_map(|r| r.hook.clone()).collect();
        for diff in plan.hooks.iter().filter(|diff| !failed.contains(&diff.hook)) {
            if verdict.repair.contains(&diff.hook) {
                self.repaired(&diff.hook, now);
            } else if diff.change == HookChange::Attach {
                self.event(EventKind::Attached, Some(&diff.hook), "its interface appeared");
            }
        }
        for diff in &plan.hooks {
            let waited = self.last.pending(&diff.hook).is_some();
            if let Some(pending) = diff.pending.as_ref().filter(|_| !waited) {
                self.event(EventKind::Pending, Some(&diff.hook), pending);
            }
        }
        let wanted = hooks(&document);
        let mut next = self.state.state().clone();
        next.remember(&wanted, &self.done(&wanted, &plan, &refusals), edition);
        self.last.take_over(wanted, plan, refusals);
        let note = self.remember(next);
        self.last.notes.extend(note);
        if failed.is_empty() && !results.is_empty() {
            // To learn how things were left.
            self.check_due = self.check_due.min(now + SETTLING);
        }
        Ok(())
    }
}
