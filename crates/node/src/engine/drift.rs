//! What somebody else changed, and what is done about it when.

use super::Engine;
use super::deadline::millis;
use crate::clock::unix_ms;
use crate::host::Scope;
use pointsman_model::api::{StepOutcome, StepResult};
use pointsman_model::document::DriftPolicy;
use pointsman_model::event::EventKind;
use pointsman_model::observed::Observed;
use pointsman_model::plan::{Attach, HookChange, Plan, Step};
use pointsman_model::status::{DriftKind, DriftStatus};
use pointsman_model::{Document, HookId};
use pointsman_plan::{Pace, Settled, drift};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is known of hooks that were in order.
#[derive(Debug, Default)]
pub(super) struct Drifts {
    settled: BTreeMap<HookId, Settled>,
    found: BTreeMap<HookId, Found>,
}

/// What was found on one hook since the last apply.
#[derive(Debug)]
struct Found {
    status: DriftStatus,
    pace: Pace,
}

/// What a check does about drift.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The hooks that are put right now.
    pub(super) repair: BTreeSet<HookId>,
    /// The hooks on which the document is refused, and what ran last is put back now.
    pub(super) put_back: BTreeSet<HookId>,
    /// The hooks that stay as they are for now.
    pub(super) leave: BTreeSet<HookId>,
    /// When the first of these is put right.
    pub(super) next: Option<Instant>,
}

impl Drifts {
    /// What is shown of a hook.
    pub(super) fn status(&self, hook: &HookId) -> Option<DriftStatus> {
        self.found.get(hook).map(|found| found.status.clone())
    }

    /// Starts anew: an operator has just said what he wants.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The same for one hook.
    pub(super) fn forget_one(&mut self, hook: &HookId) {
        self.settled.remove(hook);
        self.found.remove(hook);
    }

    /// Gives what is known of two hooks each other's names.
    pub(super) fn exchange(&mut self, one: &HookId, other: &HookId) {
        let (first, second) = (self.settled.remove(one), self.settled.remove(other));
        self.settled.extend(first.map(|settled| (other.clone(), settled)));
        self.settled.extend(second.map(|settled| (one.clone(), settled)));
        let (first, second) = (self.found.remove(one), self.found.remove(other));
        self.found.extend(first.map(|found| (other.clone(), found)));
        self.found.extend(second.map(|found| (one.clone(), found)));
    }

    /// Notes how `hooks` were left, which are in order.
    pub(super) fn left(&mut self, hooks: &BTreeSet<HookId>, observed: &Observed) {
        for hook in hooks {
            let settled = Settled::of(hook, observed);
            self.settled.extend(settled.map(|settled| (hook.clone(), settled)));
        }
    }

    /// Notes how the hooks of `plan` were left that are in order. Where the document is refused,
    /// in order is whatever chain of ours was found first, or put there by ourselves.
    pub(super) fn settle(&mut self, plan: &Plan, observed: &Observed) {
        for diff in &plan.hooks {
            let before = self.settled.get(&diff.hook);
            let in_order = match diff.change {
                HookChange::Unchanged => true,
                HookChange::Refused => {
                    before.is_none_or(|before| drift(&diff.hook, *before, observed).is_none())
                }
                _ => false,
            };
            let settled = Settled::of(&diff.hook, observed).filter(|_| in_order);
            if let Some(settled) = settled {
                self.settled.insert(diff.hook.clone(), settled);
            }
        }
        let known = |hook: &HookId| plan.hooks.iter().any(|diff| diff.hook == *hook);
        self.settled.retain(|hook, _| known(hook));
        self.found.retain(|hook, _| known(hook));
    }
}

impl Engine {
    /// Takes how things are left now for how they should be, as soon as that can be seen.
    pub(super) fn settle_anew(&mut self) {
        self.drifts.forget();
        self.returned.clear();
        self.seen = None;
        self.schedule.acted(Instant::now());
    }

    /// Notes at once how the hooks were left that a plan changed: what somebody does to them before
    /// the next look must not pass for what was left.
    pub(super) fn settle_changed(&mut self, plan: &Plan, results: &[StepResult], scope: &Scope) {
        let steps = || plan.steps.iter().zip(results);
        let hooks = |done: bool| -> BTreeSet<HookId> {
            let those = steps().filter(|(_, r)| (r.outcome == StepOutcome::Done) == done);
            those.filter_map(|(step, _)| step.hook().cloned()).collect()
        };
        let changed = &hooks(true) - &hooks(false);
        if changed.is_empty() {
            return;
        }
        if let Ok(observed) = self.observe(scope) {
            self.drifts.left(&changed, &observed);
        }
        // Who is faster than this look must not go for somebody who has done nothing.
        for (step, _) in steps() {
            if let Step::Attach(Attach { chain, interface_index, dispatcher, .. }) = step
                && changed.contains(&chain.hook)
            {
                let (interface_index, dispatcher) = (*interface_index, dispatcher.is_some());
                let unseen = Settled { interface_index, program_id: 0, dispatcher };
                self.drifts.settled.entry(chain.hook.clone()).or_insert(unseen);
            }
        }
    }

    /// The same for one hook; what others did elsewhere stays known.
    pub(super) fn settle_one(&mut self, hook: &HookId) {
        self.drifts.forget_one(hook);
        self.returned.remove(hook);
        self.seen = None;
        self.schedule.acted(Instant::now());
    }

    /// Looks for drift on the hooks of a plan, and decides what is done about it.
    pub(super) fn judge(
        &mut self,
        document: &Document,
        plan: &Plan,
        observed: &Observed,
        now: Instant,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        for diff in &plan.hooks {
            let hook = &diff.hook;
            let settled = self.drifts.settled.get(hook);
            let kind = settled.and_then(|settled| {
                // Nothing else than somebody in the dispatcher makes a plan for what was in order.
                let rearranged = settled.dispatcher && diff.change == HookChange::Swap;
                let rearranged = rearranged.then_some(DriftKind::Rearranged);
                drift(hook, *settled, observed).or(rearranged)
            });
            let Some(kind) = kind else {
                if matches!(diff.change, HookChange::Unchanged | HookChange::Refused)
                    && let Some(found) = self.drifts.found.get_mut(hook)
                {
                    // Whoever did it, it is right again.
                    found.status.repaired = true;
                    found.status.next_repair_unix_ms = None;
                }
                continue;
            };
            let since = now.duration_since(self.started);
            let found = self.drifts.found.get(hook);
            let pace = found.map(|found| found.pace).unwrap_or_default();
            let due = pace.due(since);
            let policy = policy(document, hook);
            let plight = match (policy, diff.change) {
                (_, HookChange::Refused) if kind == DriftKind::Displaced => Plight::Displaced,
                (DriftPolicy::Leave, _) => Plight::Left,
                (DriftPolicy::Repair, _) if due > since => Plight::Waits(due.saturating_sub(since)),
                (DriftPolicy::Repair, _) => Plight::Repair,
            };
            match plight {
                Plight::Repair if diff.change == HookChange::Refused => {
                    verdict.put_back.insert(hook.clone());
                }
                Plight::Repair => drop(verdict.repair.insert(hook.clone())),
                Plight::Displaced => {}
                Plight::Left => drop(verdict.leave.insert(hook.clone())),
                Plight::Waits(wait) => {
                    verdict.leave.insert(hook.clone());
                    let at = now + wait;
                    verdict.next = Some(verdict.next.map_or(at, |next| next.min(at)));
                }
            }
            self.found(hook, kind, plight, pace);
        }
        verdict
    }

    fn found(&mut self, hook: &HookId, kind: DriftKind, plight: Plight, pace: Pace) {
        let before = self.drifts.found.get(hook).map(|found| &found.status);
        let news = before.is_none_or(|before| before.repaired || before.kind != kind);
        let at_unix_ms = match before {
            Some(before) if !news => before.at_unix_ms,
            _ => unix_ms(),
        };
        let message = format!("{}; {}", what(kind), plight.words(pace));
        let next_repair_unix_ms = match plight {
            Plight::Waits(wait) => Some(unix_ms() + millis(wait)),
            Plight::Repair | Plight::Displaced | Plight::Left => None,
        };
        let repairs = before.map_or(0, |before| before.repairs);
        let status = DriftStatus {
            kind,
            message: message.clone(),
            at_unix_ms,
            repaired: false,
            repairs,
            next_repair_unix_ms,
        };
        self.drifts.found.insert(hook.clone(), Found { status, pace });
        if news {
            self.event(EventKind::Drifted, Some(hook), &message);
        }
    }

    /// Notes that a hook was put right.
    pub(super) fn repaired(&mut self, hook: &HookId, now: Instant) {
        let since = now.duration_since(self.started);
        let Some(Found { status, pace }) = self.drifts.found.get_mut(hook) else { return };
        pace.repaired(since);
        status.repaired = true;
        status.repairs = status.repairs.saturating_add(1);
        let mut message = what(status.kind).to_owned();
        message += "; it was put right";
        if pace.is_fight() {
            message += ", and somebody keeps undoing it";
        }
        status.message.clone_from(&message);
        self.event(EventKind::Repaired, Some(hook), &message);
    }
}

/// What becomes of a hook with drift.
#[derive(Debug, Clone, Copy)]
enum Plight {
    Repair,
    Displaced,
    Left,
    Waits(Duration),
}

impl Plight {
    fn words(self, pace: Pace) -> String {
        match self {
            Self::Repair => "it is put right now".into(),
            Self::Displaced => {
                "what is not ours stays; once it is gone the chain is attached".into()
            }
            Self::Left => "it is left as it is until the next apply, as the document says".into(),
            Self::Waits(wait) if pace.is_fight() => format!(
                "somebody keeps undoing what is put right: find out who; next repair in {} s",
                wait.as_secs().max(1)
            ),
            Self::Waits(wait) => format!("next repair in {} s", wait.as_secs().max(1)),
        }
    }
}

fn what(kind: DriftKind) -> &'static str {
    match kind {
        DriftKind::Detached => "somebody detached what was attached here",
        DriftKind::Replaced => "somebody made our link run another program",
        DriftKind::Displaced => "a program that is not ours is attached where ours was",
        DriftKind::Unpinned => "somebody removed pins of the chain or of its link",
        DriftKind::MapsUnpinned => "somebody removed pinned maps of the chain's programs",
        DriftKind::Rearranged => {
            "somebody changed the dispatcher, and its programs are not as the document wants them"
        }
    }
}

fn policy(document: &Document, hook: &HookId) -> DriftPolicy {
    let interface = document.interfaces.get(&hook.interface);
    interface.and_then(|interface| interface.xdp.as_ref()).map(|xdp| xdp.drift).unwrap_or_default()
}
