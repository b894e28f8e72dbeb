//! Looks whether the host is still as it was left, and puts right what can be put right.

use super::apply::hooks;
use super::{CHECK_INTERVAL, Engine, LastPlan, outcome};
use crate::resolve::Origin;
use pointsman_model::event::EventKind;
use pointsman_model::plan::HookChange;
use pointsman_plan::Options;
use std::time::Instant;

impl Engine {
    /// Does what the document in force asks for and the host lacks. Nothing that opens a gap.
    pub(super) fn check(&mut self, now: Instant) {
        self.check_due = now + CHECK_INTERVAL;
        let state = self.state.state();
        let Some(edition) = state.current.clone().filter(|_| !state.drained) else { return };
        if let Err(why) = self.look(&edition, now) {
            tracing::warn!("cannot look whether all is as it should be: {why}");
        }
    }

    fn look(&mut self, edition: &crate::state::Edition, now: Instant) -> Result<(), String> {
        let document = self.accepted_document(edition)?;
        let resolved = self
            .resolve(&document, Origin::Accepted(edition), false)
            .map_err(|problem| problem.title)?;
        let observed = self.observe().map_err(|problem| problem.title)?;
        let plan = self.make_plan(&document, &resolved, &observed, Options::default());
        if plan.steps.is_empty() {
            return Ok(());
        }
        let (results, _) = self.carry_out(&plan, &resolved, now);
        let failures = outcome::failures(&plan, &results);
        let refusals: Vec<_> = plan.refusals.iter().cloned().chain(failures).collect();
        for diff in plan.hooks.iter().filter(|diff| diff.change == HookChange::Attach) {
            self.event(EventKind::Attached, Some(&diff.hook), "its interface appeared");
        }
        let wanted = hooks(&document);
        let mut next = self.state.state().clone();
        next.remember(&wanted, &outcome::done(&wanted, &plan, &refusals), edition);
        let mut notes = plan.notes;
        notes.extend(self.remember(next));
        self.last = LastPlan { wanted, hooks: plan.hooks, refusals, notes };
        Ok(())
    }
}
