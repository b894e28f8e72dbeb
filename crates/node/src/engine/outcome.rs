//! What came of a plan: pure.

use pointsman_model::HookId;
use pointsman_model::api::{ApplyOutcome, ApplyReport, StepOutcome, StepResult};
use pointsman_model::plan::{HookChange, Plan, Refusal, RefusalReason, Step};
use std::collections::BTreeSet;

/// The steps that failed, and the hooks whose steps were skipped for it, as refusals.
pub(super) fn failures(plan: &Plan, results: &[StepResult]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut blamed = BTreeSet::new();
    let mut cause: Option<(&Step, &str)> = None;
    for (step, result) in plan.steps.iter().zip(results) {
        match &result.outcome {
            StepOutcome::Done => {}
            StepOutcome::Failed(why) => {
                blamed.extend(step.hook());
                if step.program().is_some() {
                    cause = Some((step, why));
                }
                refusals.push(refusal(step, format!("{step}: {why}")));
            }
            // Skipped for a step of its own hook: that one is blamed already. Otherwise for a
            // step on a program.
            StepOutcome::Skipped => {
                if let Some(hook) = step.hook()
                    && blamed.insert(hook)
                    && let Some((cause, why)) = cause
                {
                    let message = format!("{step} was not tried, because {cause} failed: {why}");
                    refusals.push(refusal(step, message));
                }
            }
        }
    }
    refusals
}

/// Whether every chain that was to come to run does, and every link that was to go is gone. What
/// is tidied up afterwards does not count.
pub(super) fn runs_as_planned(plan: &Plan, results: &[StepResult]) -> bool {
    let mut visible = plan.steps.iter().zip(results).filter(|(step, _)| step.is_visible());
    visible.all(|(_, result)| result.outcome == StepOutcome::Done)
}

fn refusal(step: &Step, message: String) -> Refusal {
    let hook = step.hook().cloned();
    let pointer = match (&hook, step.program()) {
        (Some(hook), _) => format!("{}/{}", hook.interface.pointer(), hook.kind),
        (None, Some((program, _))) => format!("/programs/{program}"),
        (None, None) => String::new(),
    };
    Refusal {
        reason: RefusalReason::StepFailed,
        pointer,
        hook,
        program: step.program().map(|(program, _)| program.clone()),
        message,
        log: None,
    }
}

/// The hooks that are as the document wants them.
pub(super) fn done(
    wanted: &BTreeSet<HookId>,
    plan: &Plan,
    refusals: &[Refusal],
) -> BTreeSet<HookId> {
    let refused: BTreeSet<_> = refusals.iter().filter_map(|r| r.hook.as_ref()).collect();
    let planned = plan.hooks.iter().filter(|diff| diff.change != HookChange::Pending);
    let planned = planned.map(|diff| &diff.hook);
    planned.filter(|hook| wanted.contains(hook) && !refused.contains(hook)).cloned().collect()
}

/// How an apply ended.
pub(super) fn outcome(
    wanted: &BTreeSet<HookId>,
    plan: &Plan,
    results: &[StepResult],
    refusals: &[Refusal],
) -> ApplyOutcome {
    let visible = plan.steps.iter().zip(results);
    let changed = visible
        .filter(|(step, result)| step.is_visible() && result.outcome == StepOutcome::Done)
        .count();
    match (refusals.is_empty(), plan.steps.is_empty()) {
        (true, true) if plan.hooks.iter().any(|d| d.change == HookChange::Pending) => {
            ApplyOutcome::Pending
        }
        (true, true) => ApplyOutcome::Unchanged,
        (true, false) => ApplyOutcome::Applied,
        (false, _) if changed == 0 && done(wanted, plan, refusals).is_empty() => {
            ApplyOutcome::Refused
        }
        (false, _) => ApplyOutcome::Partly,
    }
}

/// How an apply ended, in words.
pub(super) fn words(report: &ApplyReport) -> &'static str {
    match report.outcome {
        ApplyOutcome::Unchanged => "unchanged",
        ApplyOutcome::Applied => "applied",
        ApplyOutcome::Pending => "pending",
        ApplyOutcome::Partly => "partly applied",
        ApplyOutcome::Refused => "refused",
    }
}

/// Writes an apply to the log.
pub(super) fn log(report: &ApplyReport, source: &str) {
    /// What a person reads; a document can have thousands, and its answer has them all.
    const SHOWN: usize = 50;
    for refusal in report.refusals.iter().take(SHOWN) {
        tracing::warn!(
            hook = refusal.hook.as_ref().map(ToString::to_string),
            program = refusal.program.as_ref().map(ToString::to_string),
            reason = %refusal.reason,
            pointer = refusal.pointer,
            "refused: {}",
            refusal.message
        );
    }
    if let Some(more @ 1..) = report.refusals.len().checked_sub(SHOWN) {
        tracing::warn!("refused: {more} more, which the status lists");
    }
    let outcome = words(report);
    tracing::info!(
        generation = report.plan.generation,
        source,
        outcome,
        steps = report.results.len(),
        refusals = report.refusals.len(),
        visible_micros = report.visible_micros,
        total_micros = report.total_micros,
        "document in force"
    );
}
