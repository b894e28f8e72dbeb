//! A plan: what an apply would do.

use super::diff::{self, Failed};
use super::preflight;
use super::refusal::{LogLines, notes, refusals};
use super::text::{self, Tone, count};
use crate::output::Look;
use pointsman_model::HookId;
use pointsman_model::api::{StepOutcome, StepResult};
use pointsman_model::plan::{HookChange, Plan};

/// A plan that was only asked for.
pub(crate) fn plan(look: Look, plan: &Plan) -> String {
    let Plan { generation, steps, refusals: refused, notes: _, hooks: _, warnings, budgets } = plan;
    let mut text = look.paint(Tone::Heading, &format!("plan for generation {generation}: "));
    text += &match (steps.len(), refused.len()) {
        (0, 0) => "nothing to do\n\n".to_owned(),
        (steps, 0) => format!("{}\n\n", count(steps, "step")),
        (steps, refused) => format!(
            "{}, {}\n\n",
            count(steps, "step"),
            look.paint(Tone::Bad, &count(refused, "refusal"))
        ),
    };
    text += &hooks(look, plan, &|_| None);
    if !steps.is_empty() {
        text += "\nsteps in order (* packets can notice)\n";
        for step in steps {
            let mark = if step.is_visible() { "*" } else { " " };
            text += &format!("  {mark} {step}\n");
        }
    }
    text += &separated(refusals(look, &refused.iter().collect::<Vec<_>>(), LogLines::NEWS));
    text += &separated(preflight::budgets(look, budgets));
    text += &separated(preflight::warnings(look, warnings));
    text += &separated(notes(look, &plan.notes));
    text
}

/// What a plan does per hook: first what changes or is refused, then what stays.
pub(crate) fn hooks(look: Look, plan: &Plan, failed: &dyn Fn(&HookId) -> Option<Failed>) -> String {
    if plan.hooks.is_empty() {
        return "no hook is wanted, none is ours\n".to_owned();
    }
    let (stay, change): (Vec<_>, Vec<_>) =
        plan.hooks.iter().partition(|hook| hook.change == HookChange::Unchanged);
    change.into_iter().chain(stay).map(|diff| diff::hook(look, diff, failed(&diff.hook))).collect()
}

/// A section with an empty line before it; nothing where there is none.
pub(crate) fn separated(section: String) -> String {
    if section.is_empty() { section } else { format!("\n{section}") }
}

/// The steps that were carried out, with how each ended.
pub(crate) fn results(look: Look, results: &[StepResult]) -> String {
    let line = |result: &StepResult| {
        let StepResult { step, outcome, micros } = result;
        let time = text::micros(*micros);
        match outcome {
            StepOutcome::Done => {
                format!("  {}  {time:>8}  {step}\n", look.paint(Tone::Good, "done   "))
            }
            StepOutcome::Skipped => {
                format!("  {}  {:>8}  {step}\n", look.paint(Tone::Warn, "skipped"), "")
            }
            StepOutcome::Failed(why) => {
                let failed = look.paint(Tone::Bad, "failed ");
                format!("  {failed}  {time:>8}  {step}\n{}", text::indent(why, "      "))
            }
        }
    };
    results.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, PLAIN, chain, member};
    use pointsman_model::chain::ChainId;
    use pointsman_model::observed::AttachMode;
    use pointsman_model::plan::{
        BuildChain, HookDiff, Note, PrepareProgram, RetireChain, Step, Swap,
    };
    use pointsman_model::preflight::Severity;

    fn swap() -> Plan {
        let (ddos, ports) = (member("ddos", "ddos_main", 10), member("ports", "port_filter", 19));
        let (before, after) = (chain(std::slice::from_ref(&ports)), chain(&[ddos.clone(), ports]));
        let chain = |sequence| ChainId { hook: samples::hook("eth0"), sequence };
        Plan {
            generation: 43,
            steps: vec![
                Step::PrepareProgram(PrepareProgram {
                    program: ddos.program.clone(),
                    fingerprint: ddos.fingerprint.clone(),
                    keeps: [("blocklist".parse().unwrap(), ddos.fingerprint)].into(),
                    loses: [("seen".parse().unwrap(), "entries: 16 before, 32 now".into())].into(),
                }),
                Step::BuildChain(BuildChain {
                    chain: chain(7),
                    generation: 43,
                    spec: after.clone(),
                }),
                Step::Swap(Swap { chain: chain(7), dispatcher: None }),
                Step::RetireChain(RetireChain { chain: chain(6) }),
            ],
            refusals: vec![],
            notes: vec![Note {
                hook: None,
                program: Some(ddos.program),
                message: "writes packets, which observing would not undo".into(),
            }],
            warnings: vec![samples::warning("eth0", Severity::Warning)],
            budgets: vec![samples::budget("eth0", &[("ddos", 34_567), ("ports", 120)])],
            hooks: vec![
                HookDiff {
                    others: vec![],
                    hook: samples::hook("eth1"),
                    change: HookChange::Unchanged,
                    before: Some(before.clone()),
                    after: Some(before.clone()),
                    mode: Some(AttachMode::Skb),
                    engine: "fused: asked for".into(),
                    pending: None,
                },
                HookDiff {
                    others: vec![],
                    hook: samples::hook("eth0"),
                    change: HookChange::Swap,
                    before: Some(before),
                    after: Some(after),
                    mode: Some(AttachMode::Native),
                    engine: "fused: asked for".into(),
                    pending: None,
                },
            ],
        }
    }

    #[test]
    fn a_plan_shows_hooks_steps_and_notes() {
        insta::assert_snapshot!(plan(PLAIN, &swap()), @"
        plan for generation 43: 4 steps

        ~ eth0/xdp  swap the chain  native
            engine fused: asked for
          + 10  ddos   ddos_main    goes on after pass  enforced  inlined  deeb92f091ca
            19  ports  port_filter  goes on after pass  enforced  inlined  87afb3f7f383
          eth1/xdp  unchanged  skb
            1 program: ports

        steps in order (* packets can notice)
            prepare program ddos (c11decb2675b5219), keeping blocklist
            build chain eth0/xdp#7 of 2 programs
          * swap to chain eth0/xdp#7
            retire chain eth0/xdp#6

        verifier: instructions walked for each member alone, of 1,000,000 for a chain
          eth0/xdp  34,687    3.4 %
            ddos    34,567    3.4 %
            ports      120    0.0 %

        warning: eth0/xdp: disruptive: attaching the first chain with driver ixgbe takes the interface down and up

        note: ddos: writes packets, which observing would not undo
        ");
    }

    #[test]
    fn a_plan_with_a_refusal_counts_and_explains_it() {
        let mut refused = swap();
        refused.steps.clear();
        refused.hooks.truncate(1);
        refused.notes.clear();
        refused.warnings.clear();
        refused.budgets.clear();
        refused.refusals.push(samples::foreign_program());
        insta::assert_snapshot!(plan(PLAIN, &refused), @"
        plan for generation 43: 0 steps, 1 refusal

          eth1/xdp  unchanged  skb
            1 program: ports

        refused: foreign program  hook eth9/xdp  at /interfaces/eth9/xdp
          eth9 carries XDP program xdp_dispatcher (id 55, native), which is not ours and stays untouched
        ");
    }

    #[test]
    fn nothing_to_do_is_said() {
        let text = plan(PLAIN, &Plan { generation: 5, ..Plan::default() });
        assert_eq!(
            text,
            "plan for generation 5: nothing to do\n\nno hook is wanted, none is ours\n"
        );
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let colours = |text: &str| {
            let mut plain = String::new();
            let mut rest = text;
            while let Some((before, after)) = rest.split_once("\u{1b}[") {
                plain += before;
                rest = after.split_once('m').unwrap().1;
            }
            plain + rest
        };
        let coloured = plan(samples::COLOUR, &swap());
        assert_ne!(coloured, plan(PLAIN, &swap()));
        assert_eq!(colours(&coloured), plan(PLAIN, &swap()));
    }
}
