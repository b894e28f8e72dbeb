//! Carries a plan out, step by step, and says what became of each.

use crate::catalog::Load;
use pointsman_model::HookId;
use pointsman_model::api::{StepOutcome, StepResult};
use pointsman_model::plan::{Attach, Plan, RetireChain, Step, Swap};
use std::collections::BTreeSet;
use std::time::Duration;

/// What steps are carried out on: the kernel, or the simulator.
pub trait Host {
    /// Carries out one step, whole or not at all as far as packets can notice.
    ///
    /// # Errors
    /// One line that names the thing and says what went wrong.
    fn execute(&mut self, step: &Step) -> Result<(), String>;
}

/// Carries out the steps of `plan` in order. `now` is a clock that never goes back.
///
/// A step that fails takes with it the later steps of its hook, or of the hooks whose new chain
/// uses its program; every other hook goes on. Programs are released only if no hook failed: what
/// failed to change still runs its old chain. A chain that was built and does not come to run is
/// retired again, so that trying over and over leaves nothing behind.
pub fn carry_out(
    plan: &Plan,
    host: &mut dyn Host,
    now: &mut dyn FnMut() -> Duration,
) -> Vec<StepResult> {
    let mut failures = Failures::default();
    plan.steps
        .iter()
        .map(|step| {
            let (outcome, took) = if failures.hold_back(step) {
                (StepOutcome::Skipped, Duration::ZERO)
            } else {
                let start = now();
                let outcome = match host.execute(step) {
                    Ok(()) => StepOutcome::Done,
                    Err(why) => {
                        undo(step, host);
                        StepOutcome::Failed(why)
                    }
                };
                (outcome, now().saturating_sub(start))
            };
            if outcome != StepOutcome::Done {
                failures.record(step);
            }
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            StepResult { step: step.to_string(), outcome, micros }
        })
        .collect()
}

/// Retires the chain that a step should have brought to run: it was built before that, or the step
/// would have been skipped. What cannot be undone stays for the next plan.
fn undo(step: &Step, host: &mut dyn Host) {
    if let Step::Attach(Attach { chain, .. }) | Step::Swap(Swap { chain, .. }) = step {
        let _ = host.execute(&Step::RetireChain(RetireChain { chain: chain.clone() }));
    }
}

/// What failed or was skipped so far.
#[derive(Default)]
struct Failures {
    hooks: BTreeSet<HookId>,
    programs: BTreeSet<Load>,
}

impl Failures {
    fn hold_back(&self, step: &Step) -> bool {
        match step {
            Step::ReleaseProgram(_) => !self.hooks.is_empty(),
            Step::BuildChain(build) => {
                let mut members = build.spec.members.iter();
                self.hooks.contains(&build.chain.hook)
                    || members.any(|m| self.has(&(m.program.clone(), m.fingerprint.clone())))
            }
            Step::RenameHook(rename) => {
                self.hooks.contains(&rename.from) || self.hooks.contains(&rename.to)
            }
            _ => match (step.hook(), step.program()) {
                (Some(hook), _) => self.hooks.contains(hook),
                (None, Some((program, fingerprint))) => {
                    self.has(&(program.clone(), fingerprint.clone()))
                }
                (None, None) => false,
            },
        }
    }

    fn has(&self, load: &Load) -> bool {
        self.programs.contains(load)
    }

    fn record(&mut self, step: &Step) {
        self.hooks.extend(step.hook().cloned());
        if let Step::RenameHook(rename) = step {
            self.hooks.insert(rename.from.clone());
        }
        let load =
            step.program().map(|(program, fingerprint)| (program.clone(), fingerprint.clone()));
        self.programs.extend(load);
    }
}
