//! Carrying out: what one failing step takes with it, and what goes on.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, chain, host, interface};
use pointsman_model::api::{StepOutcome, StepResult};
use pointsman_model::plan::{Plan, Step};
use pointsman_plan::simulator::Simulator;
use pointsman_plan::{Host, carry_out};
use serde_json::{Value, json};
use std::time::Duration;

/// A host on which one step fails, chosen by its text.
struct FailsAt<'a> {
    host: &'a mut Simulator,
    text: &'static str,
}

impl Host for FailsAt<'_> {
    fn execute(&mut self, step: &Step) -> Result<(), String> {
        if step.to_string().starts_with(self.text) {
            return Err("planted".into());
        }
        self.host.execute(step)
    }
}

/// Carries out `plan` with the step `text` failing; the outcomes, one line each.
fn outcomes(plan: &Plan, host: &mut Simulator, text: &'static str) -> String {
    let results = carry_out(plan, &mut FailsAt { host, text }, &mut || Duration::ZERO);
    assert_eq!(results.len(), plan.steps.len());
    let line = |result: &StepResult| {
        let outcome = match &result.outcome {
            StepOutcome::Done => "done",
            StepOutcome::Failed(_) => "FAILED",
            StepOutcome::Skipped => "skipped",
        };
        let step = result.step.split(" (").next().unwrap();
        format!("{outcome} {step}")
    };
    results.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Two interfaces that change from p and q to r and s.
fn change() -> (Bench, Simulator, Plan, Value) {
    let (mut bench, mut host) = (Bench::with(&["p", "q", "r", "s"]), host());
    host.add_interface(&interface("eth1"), None);
    let both = |a: &str, b: &str| {
        json!({"eth0": {"xdp": {"chain": [{"program": a}]}},
            "eth1": {"xdp": {"chain": [{"program": b}]}}})
    };
    bench.apply(1, &both("p", "q"), &mut host);
    bench.entries("r", "m", &[1]);
    let wanted = both("r", "s");
    let plan = bench.plan(&bench.document(2, &wanted), &host);
    (bench, host, plan, wanted)
}

#[test]
fn a_failed_build_stops_its_hook_and_all_releases() {
    let (bench, mut host, plan, wanted) = change();
    insta::assert_snapshot!(outcomes(&plan, &mut host, "build chain eth0"), @"
    done prepare program r
    done prepare program s
    done set map m of program r to 1 entries
    FAILED build chain eth0/xdp#2 of 1 programs
    done build chain eth1/xdp#2 of 1 programs
    skipped swap to chain eth0/xdp#2
    done swap to chain eth1/xdp#2
    skipped retire chain eth0/xdp#1
    done retire chain eth1/xdp#1
    skipped release program p
    skipped release program q
    ");
    bench.apply(2, &wanted, &mut host);
    assert!(bench.plan(&bench.document(2, &wanted), &host).is_converged());
    assert_eq!(host.violations(), [""; 0]);
}

#[test]
fn a_failed_prepare_stops_the_hooks_that_use_the_program() {
    let (_, mut host, plan, _) = change();
    insta::assert_snapshot!(outcomes(&plan, &mut host, "prepare program r"), @"
    FAILED prepare program r
    done prepare program s
    skipped set map m of program r to 1 entries
    skipped build chain eth0/xdp#2 of 1 programs
    done build chain eth1/xdp#2 of 1 programs
    skipped swap to chain eth0/xdp#2
    done swap to chain eth1/xdp#2
    skipped retire chain eth0/xdp#1
    done retire chain eth1/xdp#1
    skipped release program p
    skipped release program q
    ");
}

#[test]
fn failed_map_entries_stop_the_hooks_that_use_the_program() {
    let (_, mut host, plan, _) = change();
    insta::assert_snapshot!(outcomes(&plan, &mut host, "set map m"), @"
    done prepare program r
    done prepare program s
    FAILED set map m of program r to 1 entries
    skipped build chain eth0/xdp#2 of 1 programs
    done build chain eth1/xdp#2 of 1 programs
    skipped swap to chain eth0/xdp#2
    done swap to chain eth1/xdp#2
    skipped retire chain eth0/xdp#1
    done retire chain eth1/xdp#1
    skipped release program p
    skipped release program q
    ");
}

#[test]
fn a_failed_swap_keeps_the_old_chain_and_all_it_needs() {
    let (_, mut host, plan, _) = change();
    insta::assert_snapshot!(outcomes(&plan, &mut host, "swap to chain eth1"), @"
    done prepare program r
    done prepare program s
    done set map m of program r to 1 entries
    done build chain eth0/xdp#2 of 1 programs
    done build chain eth1/xdp#2 of 1 programs
    done swap to chain eth0/xdp#2
    FAILED swap to chain eth1/xdp#2
    done retire chain eth0/xdp#1
    skipped retire chain eth1/xdp#1
    skipped release program p
    skipped release program q
    ");
    assert!(host.uses_pinned_maps(&interface("eth1")));
}

#[test]
fn a_failed_release_stops_nothing() {
    let (_, mut host, plan, _) = change();
    insta::assert_snapshot!(outcomes(&plan, &mut host, "release program p"), @"
    done prepare program r
    done prepare program s
    done set map m of program r to 1 entries
    done build chain eth0/xdp#2 of 1 programs
    done build chain eth1/xdp#2 of 1 programs
    done swap to chain eth0/xdp#2
    done swap to chain eth1/xdp#2
    done retire chain eth0/xdp#1
    done retire chain eth1/xdp#1
    FAILED release program p
    done release program q
    ");
}

#[test]
fn each_step_tells_its_own_time() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    let plan = bench.plan(&bench.document(1, &chain("eth0", &["1 p"])), &host);
    let mut clock = Duration::ZERO;
    let mut readings = 0;
    let mut now = || {
        readings += 1;
        clock += Duration::from_micros(readings * 10);
        clock
    };
    let results = carry_out(&plan, &mut host, &mut now);
    assert_eq!(results.iter().map(|r| r.micros).collect::<Vec<_>>(), [20, 40, 60]);
}

#[test]
fn trying_over_and_over_leaves_nothing_behind() {
    let (bench, mut host) = (Bench::with(&["p", "q"]), host());
    let hook = common::hook("eth0");
    let chains = |host: &Simulator| host.observe().hooks[&hook].chains.len();
    let wanted = bench.document(1, &chain("eth0", &["10 p"]));
    for _ in 0..3 {
        let plan = bench.plan(&wanted, &host);
        assert!(outcomes(&plan, &mut host, "attach").contains("FAILED attach"));
        assert_eq!(chains(&host), 0);
    }
    common::run(&bench.plan(&wanted, &host), &mut host);
    let other = bench.document(2, &chain("eth0", &["10 p", "20 q"]));
    for _ in 0..3 {
        let plan = bench.plan(&other, &host);
        assert!(outcomes(&plan, &mut host, "swap").contains("FAILED swap"));
        assert_eq!(chains(&host), 1, "the one that runs");
    }
    assert_eq!(host.violations(), &[] as &[String]);
}
