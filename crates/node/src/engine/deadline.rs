//! What the engine does by itself when time is over: an unconfirmed document goes, a bypass ends.
//!
//! Every deadline is in the state file before anything of it is visible, and is looked at before
//! each message and at each start, before what runs is adopted. So neither a kill nor a reboot nor
//! a client that went away keeps it from being met.

use super::{Engine, LastPlan, Request, outcome};
use crate::history::{Bypass, Unconfirmed};
use crate::host::Scope;
use crate::resolve::{Origin, Resolved};
use crate::state::{Edition, State};
use pointsman_model::deadline::Deadline;
use pointsman_model::event::EventKind;
use pointsman_model::glass::UnconfirmedStatus;
use pointsman_model::plan::{HookChange, HookDiff, Note, Step};
use pointsman_model::{HookId, Sha256};
use pointsman_plan::{self as plan, Options, narrow_to};
use std::time::{Duration, Instant};

impl Engine {
    /// When the next deadline passes, as far as can be said now; the host may sleep meanwhile, so
    /// it is looked at again with every check.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state.state();
        let returning = state.unconfirmed.as_ref().is_some_and(|window| window.returning);
        let left = state.next_deadline_ms(&self.clock.now())?;
        let now = Instant::now();
        let due = if returning { now } else { now + Duration::from_millis(left) };
        Some(self.retry_at.map_or(due, |retry| due.max(retry)))
    }

    /// Does what is due.
    pub(super) fn expire(&mut self) {
        if self.retry_at.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        self.retry_at = None;
        let now = self.clock.now();
        let over = |deadline: &Deadline| deadline.remaining_ms(&now) == 0;
        let state = self.state.state();
        if state.unconfirmed.as_ref().is_some_and(|w| w.returning || over(&w.deadline)) {
            self.give_back();
            self.look_at_what_waited(true);
        }
        let expired: Vec<_> = (self.state.state().bypassed.iter())
            .filter(|bypass| bypass.until.as_ref().is_some_and(over))
            .map(|bypass| bypass.hook.clone())
            .collect();
        for hook in expired {
            self.bypass_expired(&hook);
        }
    }

    /// At a start, before what runs is adopted: bypasses whose time is over are none, and the
    /// adoption puts their chains back.
    pub(super) fn expire_before_adoption(&mut self) {
        let now = self.clock.now();
        let over =
            |bypass: &Bypass| bypass.until.as_ref().is_some_and(|d| d.remaining_ms(&now) == 0);
        let mut next = self.state.state().clone();
        let expired: Vec<_> = next.bypassed.iter().filter(|b| over(b)).cloned().collect();
        next.bypassed.retain(|bypass| !over(bypass));
        self.force(next);
        for bypass in expired {
            let message = "its time was over while the daemon did not run";
            self.event(EventKind::BypassExpired, Some(&bypass.hook), message);
        }
    }

    fn bypass_expired(&mut self, hook: &HookId) {
        match self.end_bypass(hook, Instant::now()) {
            Ok(ended) => {
                let message = match ended.refusals.first() {
                    None => "its time is over: the chain runs again".to_owned(),
                    Some(refusal) => format!("its time is over: {}", refusal.message),
                };
                self.event(EventKind::BypassExpired, Some(hook), &message);
                self.notify();
            }
            Err(problem) => {
                tracing::error!(%hook, "a bypass cannot be ended now: {}", problem.title);
                self.retry_at = Some(Instant::now() + self.schedule.interval());
            }
        }
    }

    /// Returns to what was in force before a document that nobody confirmed.
    ///
    /// First the state says what is in force and that it has to be carried out, then it is carried
    /// out, then the state says that it was. A crash in between is made good by the next start.
    pub(super) fn give_back(&mut self) {
        let mut next = self.state.state().clone();
        let Some(unconfirmed) = &next.unconfirmed else { return };
        if !unconfirmed.returning {
            let from = next.current.as_ref().map_or(0, |edition| edition.generation);
            tracing::warn!(generation = from, "nobody confirmed the document in time: returning");
            next.give_back();
            self.force(next);
        }
        self.settle_anew();
        if let Err(why) = self.carry_back() {
            tracing::error!("cannot return to what was in force before: {why}");
            self.stuck = Some(why);
            self.retry_at = Some(Instant::now() + self.schedule.interval());
            return;
        }
        self.stuck = None;
        let mut next = self.state.state().clone();
        next.unconfirmed = None;
        let target = match &next.current {
            Some(edition) if !next.drained => format!("generation {} is", edition.generation),
            _ => "nothing of ours is, as after a drain: nothing was".to_owned(),
        };
        self.force(next);
        let message = match self.last.refusals.len() {
            0 => format!("nobody confirmed in time: {target} in force again"),
            n => format!("nobody confirmed in time: {target} in force again, with {n} refusals"),
        };
        self.event(EventKind::Returned, None, &message);
        self.collect();
        self.notify();
    }

    /// Carries out what the state says is in force. Fails as long as some hook goes on with what
    /// nobody confirmed.
    fn carry_back(&mut self) -> Result<(), String> {
        let state = self.state.state();
        let edition = match &state.current {
            Some(edition) if !state.drained => edition.clone(),
            _ => return self.carry_back_to_nothing(),
        };
        // Who let the document come through a gap lets it go through one.
        let options = Options { allow_gap: true };
        let refused = match self.accepted_document(&edition) {
            Ok(_) => self.carry_on(&edition, options)?,
            Err(message) => {
                tracing::error!(generation = edition.generation, "refused: {message}");
                let observed = self.observe(&Scope::default()).map_err(|problem| problem.title)?;
                observed.hooks.into_keys().collect()
            }
        };
        let mut failure = None;
        for hook in refused {
            if let Err(why) = self.carry_back_one(&hook, &edition, options) {
                failure.get_or_insert(format!("{hook} still runs what nobody confirmed: {why}"));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Sees to it that a hook on which `edition` was refused does not go on with what nobody
    /// confirmed: what ran there before it comes back, or nothing runs.
    fn carry_back_one(
        &mut self,
        hook: &HookId,
        edition: &Edition,
        options: Options,
    ) -> Result<(), String> {
        // What was to be tidied up after the swap is no reason to undo it.
        if self.stands(hook, edition, options)? {
            return Ok(());
        }
        let before = self.state.state().last_good(hook).filter(|good| *good != edition).cloned();
        let message = match before {
            None => format!("nothing of ours runs on {hook} until what is in force can"),
            Some(good) => match self.bring_back(hook, &good, options) {
                Ok(_) => return Ok(()),
                Err(_) if self.stands(hook, &good, options)? => return Ok(()),
                Err(why) => format!(
                    "nothing of ours runs on {hook}: generation {}, which ran there before, cannot \
                     be brought back: {why}",
                    good.generation
                ),
            },
        };
        self.take_off(hook)?;
        tracing::error!("{message}");
        self.returned.insert(hook.clone(), message);
        Ok(())
    }

    /// Whether nothing visible is left to do for a hook to be as `edition` wants it.
    fn stands(
        &mut self,
        hook: &HookId,
        edition: &Edition,
        options: Options,
    ) -> Result<bool, String> {
        let Ok(document) = self.wanted_document(edition) else { return Ok(false) };
        let observed = self.observe(&Scope::of(&document)).map_err(|problem| problem.title)?;
        let resolved = self
            .resolve(&document, Origin::Accepted(edition), false)
            .map_err(|problem| problem.title)?;
        let plan = self.make_plan(&document, &resolved, &observed, options);
        let refused = |diff: &HookDiff| diff.hook == *hook && diff.change == HookChange::Refused;
        let plan = narrow_to(plan, hook);
        Ok(!plan.hooks.iter().any(refused) && !plan.steps.iter().any(Step::is_visible))
    }

    fn carry_back_to_nothing(&mut self) -> Result<(), String> {
        let observed = self.observe(&Scope::default()).map_err(|problem| problem.title)?;
        let plan = plan::drain(&observed);
        let (results, _) = self.carry_out(&plan, &Resolved::default(), Instant::now());
        self.last = LastPlan::default();
        match outcome::failures(&plan, &results).into_iter().next() {
            Some(failure) => Err(failure.message),
            None => Ok(()),
        }
    }

    /// Takes the chain of a hook off.
    fn take_off(&mut self, hook: &HookId) -> Result<(), String> {
        let observed = self.observe(&Scope::default()).map_err(|problem| problem.title)?;
        let plan = narrow_to(plan::drain(&observed), hook);
        let (results, _) = self.carry_out(&plan, &Resolved::default(), Instant::now());
        match outcome::failures(&plan, &results).into_iter().next() {
            Some(failure) if !outcome::runs_as_planned(&plan, &results) => Err(failure.message),
            _ => Ok(()),
        }
    }

    /// Whether a document has to be confirmed once the one of `request` is in force.
    pub(super) fn window_after(&self, request: &Request, digest: &Sha256) -> Option<Unconfirmed> {
        let state = self.state.state();
        match request.confirm_within {
            Some(within) => Some(Unconfirmed {
                deadline: Deadline::after(self.clock.now(), millis(within)),
                returning: false,
                before: state.before(),
            }),
            // The same bytes again say nothing new: only a confirmation confirms.
            None if is_current(state, digest) => state.unconfirmed.clone(),
            // Until something runs what takes over, what nobody confirmed may go on.
            None => {
                state.unconfirmed.clone().map(|window| Unconfirmed { returning: false, ..window })
            }
        }
    }

    /// Whether the document of `request` takes the place of one that waits to be confirmed.
    pub(super) fn takes_over(&self, request: &Request, digest: &Sha256) -> bool {
        self.waits() && request.confirm_within.is_none() && !is_current(self.state.state(), digest)
    }

    /// What an operator should know of the document that waited to be confirmed when this one came.
    pub(super) fn window_notes(&self, request: &Request, digest: &Sha256) -> Vec<Note> {
        let state = self.state.state();
        let (Some(_), Some(current)) = (&state.unconfirmed, &state.current) else {
            return Vec::new();
        };
        let generation = current.generation;
        let message = match (request.confirm_within, is_current(state, digest)) {
            (None, true) => format!(
                "generation {generation} still waits to be confirmed: applying it again does not \
                 confirm it, `pointsman confirm` does"
            ),
            // It depends on whether anything runs it.
            (None, false) => return Vec::new(),
            (Some(_), _) => format!(
                "generation {generation} was not confirmed either: without a confirmation the host \
                 returns to what was in force before it"
            ),
        };
        vec![Note { hook: None, program: None, message }]
    }

    /// What an operator should know once a document was `taken` in place of an unconfirmed one, or
    /// was refused on all hooks.
    pub(super) fn take_over_note(before: &State, taken: bool) -> Note {
        let generation = before.current.as_ref().map_or(0, |edition| edition.generation);
        let message = if taken {
            format!(
                "generation {generation} was not confirmed, and this document takes its place for \
                 good: nothing returns by itself any more"
            )
        } else {
            format!(
                "generation {generation} was not confirmed, and nothing runs this document: without \
                 a confirmation the host returns to what was in force before, as it would have"
            )
        };
        Note { hook: None, program: None, message }
    }

    /// Why the host goes on with what nobody confirmed, though its time is over.
    pub(super) fn stuck_words(&self) -> Option<String> {
        let window = self.state.state().unconfirmed.as_ref().filter(|window| window.returning);
        let why = window.and(self.stuck.as_ref())?;
        let seconds = self.schedule.interval().as_secs().max(1);
        Some(format!(
            "the return to what was confirmed is not done, and is tried again every {seconds} s: \
             {why}; `pointsman drain` takes everything of ours off"
        ))
    }

    /// The document in force as long as nobody has confirmed it, where that was asked for.
    pub(super) fn unconfirmed_status(&self) -> Option<UnconfirmedStatus> {
        let state = self.state.state();
        let (window, current) = (state.unconfirmed.as_ref()?, state.current.as_ref()?);
        let now = self.clock.now();
        let back_to = window.before.edition.as_ref().filter(|_| !window.before.drained);
        Some(UnconfirmedStatus {
            generation: current.generation,
            until_unix_ms: window.deadline.unix_ms(&now),
            remaining_ms: if window.returning { 0 } else { window.deadline.remaining_ms(&now) },
            back_to: back_to.map(|edition| edition.generation),
        })
    }

    /// Remembers `next`, on disk or else in memory, and logs what the disk said.
    pub(super) fn force(&mut self, next: State) -> Option<String> {
        let error = self.state.force(next).err()?;
        tracing::error!("{error}; it is remembered until the daemon ends");
        Some(error.to_string())
    }

    /// Writes what the disk did not take earlier.
    pub(super) fn catch_up(&mut self) {
        self.events.catch_up();
        if let Err(error) = self.state.catch_up() {
            tracing::debug!(%error, "the state is still not on disk");
        }
    }
}

fn is_current(state: &State, digest: &Sha256) -> bool {
    !state.drained && state.current.as_ref().is_some_and(|edition| edition.document == *digest)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
