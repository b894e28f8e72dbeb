//! What an apply did.

use super::diff::Failed;
use super::plan::{hooks, results, separated};
use super::preflight::warnings;
use super::refusal::{LogLines, notes, refusals};
use super::text::{Tone, micros};
use crate::output::Look;
use pointsman_model::HookId;
use pointsman_model::api::{ApplyOutcome, ApplyReport, StepOutcome};
use pointsman_model::plan::Step;

/// The report of an apply.
pub(crate) fn apply(look: Look, report: &ApplyReport) -> String {
    let ApplyReport {
        outcome,
        plan,
        results: steps,
        refusals: refused,
        visible_micros,
        total_micros,
        unconfirmed,
    } = report;
    let (tone, how) = match outcome {
        ApplyOutcome::Unchanged => (Tone::Good, "unchanged, nothing had to be done"),
        ApplyOutcome::Applied => (Tone::Good, "applied"),
        ApplyOutcome::Pending => (Tone::Warn, "in force, and waits for interfaces"),
        ApplyOutcome::Partly => (Tone::Bad, "applied in part, the rest was refused"),
        ApplyOutcome::Refused => (Tone::Bad, "refused, no hook was changed"),
    };
    let mut text = look.paint(Tone::Heading, &format!("generation {}: ", plan.generation));
    text += &look.paint(tone, how);
    text += "\n\n";
    text += &hooks(look, plan, &|hook| failed(report, hook));
    // Steps that went well are the hooks' changes over again; one that failed is news.
    if steps.iter().any(|step| step.outcome != StepOutcome::Done) {
        text += "\nsteps\n";
        text += &results(look, steps);
    }
    text += &separated(refusals(look, &refused.iter().collect::<Vec<_>>(), LogLines::NEWS));
    text += &separated(warnings(look, &plan.warnings));
    text += &separated(notes(look, &plan.notes));
    let total = micros(*total_micros);
    text += &match visible(report).any(|(_, done)| done) {
        true => {
            let visible = micros(*visible_micros);
            format!("\nin force for packets after {visible}, all done after {total}\n")
        }
        false => format!("\ndone after {total}\n"),
    };
    if let Some(waiting) = unconfirmed {
        text += &separated(super::glass::unconfirmed(look, waiting));
    }
    text
}

/// The steps that packets can notice, and whether they were done.
fn visible(report: &ApplyReport) -> impl Iterator<Item = (&Step, bool)> {
    let steps = report.plan.steps.iter().zip(&report.results);
    steps
        .filter(|(step, _)| step.is_visible())
        .map(|(step, result)| (step, result.outcome == StepOutcome::Done))
}

/// Whether what the plan said about `hook` did not come about.
fn failed(report: &ApplyReport, hook: &HookId) -> Option<Failed> {
    let here = || visible(report).filter(|(step, _)| step.hook() == Some(hook));
    if here().all(|(_, done)| done) {
        return None;
    }
    // Of a detach and an attach, the first alone may have been done.
    Some(if here().any(|(_, done)| done) { Failed::Gone } else { Failed::Stays })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, PLAIN, chain, member};
    use pointsman_model::api::StepResult;
    use pointsman_model::chain::ChainId;
    use pointsman_model::observed::AttachMode;
    use pointsman_model::plan::{Attach, Detach, HookChange, HookDiff, Plan};
    use pointsman_model::preflight::Severity;

    fn report() -> ApplyReport {
        let after = chain(&[member("ddos", "ddos_main", 10)]);
        let step = Step::Attach(Attach {
            dispatcher: None,
            chain: ChainId { hook: samples::hook("eth0"), sequence: 1 },
            interface_index: 2,
            mode: AttachMode::Native,
        });
        ApplyReport {
            outcome: ApplyOutcome::Applied,
            results: vec![StepResult {
                step: step.to_string(),
                outcome: StepOutcome::Done,
                micros: 1_234,
            }],
            plan: Plan {
                generation: 42,
                steps: vec![step],
                refusals: vec![],
                notes: vec![],
                warnings: vec![samples::warning("eth0", Severity::Warning)],
                budgets: vec![],
                hooks: vec![HookDiff {
                    others: vec![],
                    hook: samples::hook("eth0"),
                    change: HookChange::Attach,
                    before: None,
                    after: Some(after),
                    mode: Some(AttachMode::Native),
                    engine: "fused: this kernel has no freplace".into(),
                    pending: None,
                }],
            },
            refusals: vec![],
            visible_micros: 12_345,
            total_micros: 15_000,
            unconfirmed: None,
        }
    }

    #[test]
    fn an_apply_says_what_changed_and_when() {
        insta::assert_snapshot!(apply(PLAIN, &report()), @"
        generation 42: applied

        + eth0/xdp  attach a chain  native
            engine fused: this kernel has no freplace
          + 10  ddos  ddos_main  goes on after pass  enforced  inlined  deeb92f091ca

        warning: eth0/xdp: disruptive: attaching the first chain with driver ixgbe takes the interface down and up

        in force for packets after 12.3 ms, all done after 15.0 ms
        ");
    }

    #[test]
    fn a_failed_step_and_a_refusal_are_shown() {
        let mut report = report();
        report.outcome = ApplyOutcome::Partly;
        report.results[0].outcome = StepOutcome::Failed("eth0: device or resource busy".into());
        report.results.push(StepResult {
            step: "retire chain eth0/xdp#0".into(),
            outcome: StepOutcome::Skipped,
            micros: 0,
        });
        report.refusals.push(samples::verifier_refusal());
        insta::assert_snapshot!(apply(PLAIN, &report), @"
        generation 42: applied in part, the rest was refused

        ! eth0/xdp  failed: attach a chain; stays as it is
            no chain runs

        steps
          failed     1.2 ms  attach chain eth0/xdp#1 (native)
              eth0: device or resource busy
          skipped            retire chain eth0/xdp#0

        refused: program unusable  hook eth0/xdp  program ddos  at /interfaces/eth0/xdp/chain/1
          program ddos: the verifier refuses ddos_main (ddos.c:17): check the packet's end before reading
          verifier log:
          | ; __u8 kind = *(__u8 *)data; @ ddos.c:17
          | 3: (71) r1 = *(u8 *)(r2 +0)
          |
          | invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)

        warning: eth0/xdp: disruptive: attaching the first chain with driver ixgbe takes the interface down and up

        done after 15.0 ms
        ");
    }

    #[test]
    fn a_chain_that_was_taken_away_and_not_attached_again_is_gone() {
        let mut report = report();
        let hook = samples::hook("eth0");
        report.plan.hooks[0].change = HookChange::Reattach;
        report.plan.hooks[0].before = report.plan.hooks[0].after.clone();
        report
            .plan
            .steps
            .insert(0, Step::Detach(Detach { hook, opens_gap: true, dispatcher: None }));
        report.results.insert(0, report.results[0].clone());
        assert!(!apply(PLAIN, &report).contains("failed"));
        report.results[1].outcome = StepOutcome::Failed("eth0: no memory".into());
        let text = apply(PLAIN, &report);
        assert!(text.contains("; the old chain is gone\n    no chain runs\n"), "{text}");
        assert!(text.contains("in force for packets after"), "{text}");
    }

    #[test]
    fn an_unchanged_apply_claims_no_visible_change() {
        let report = ApplyReport {
            outcome: ApplyOutcome::Unchanged,
            plan: Plan { generation: 42, ..Plan::default() },
            results: vec![],
            refusals: vec![],
            visible_micros: 0,
            total_micros: 900,
            unconfirmed: None,
        };
        insta::assert_snapshot!(apply(PLAIN, &report), @"
        generation 42: unchanged, nothing had to be done

        no hook is wanted, none is ours

        done after 900 µs
        ");
    }
}
