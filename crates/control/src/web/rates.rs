//! How many packets a second: from the counters of two reports. A pure decision.

use pointsman_model::status::{Counters, HookCounters, ProgramCounters};
use pointsman_model::{HookId, ProgramName, Verdicts};

/// What a program answers in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Packets that it saw.
    pub runs: f64,
    /// `XDP_ABORTED`, and numbers that are no verdict, which the kernel treats alike.
    pub aborted: f64,
    /// `XDP_DROP`.
    pub drop: f64,
    /// `XDP_PASS`.
    pub pass: f64,
    /// `XDP_TX`.
    pub tx: f64,
    /// `XDP_REDIRECT`.
    pub redirect: f64,
}

/// A program's rates on a hook.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramRates {
    /// The hook.
    pub hook: HookId,
    /// The program.
    pub program: ProgramName,
    /// Whether it is in the chain now.
    pub running: bool,
    /// Its counters now.
    pub total: ProgramCounters,
    /// `None`: it cannot be told yet. There is one report alone, no time passed between two, or
    /// the program is new.
    pub rates: Option<Rates>,
}

/// The rates of all programs between two reports of a node.
///
/// Counters that went back began anew between the two: the host was restarted, or the hook was
/// released. What they show then came since, within the time at most: it is taken as it is, so a
/// rate is never below zero and never an absurd one.
#[must_use]
pub fn rates(before: Option<&Counters>, now: &Counters) -> Vec<ProgramRates> {
    let passed = before.and_then(|before| now.at_unix_ms.checked_sub(before.at_unix_ms));
    let seconds = passed.filter(|&ms| ms > 0).map(|ms| ms as f64 / 1000.0);
    let mut all = Vec::new();
    for HookCounters { hook, programs, .. } in &now.hooks {
        let hook_before =
            before.and_then(|before| before.hooks.iter().find(|other| other.hook == *hook));
        for program in programs {
            let last = hook_before.and_then(|hook| {
                hook.programs.iter().find(|other| other.program == program.program)
            });
            let rates = last.zip(seconds).map(|(last, seconds)| between(last, program, seconds));
            all.push(ProgramRates {
                hook: hook.clone(),
                program: program.program.clone(),
                running: program.running,
                total: program.clone(),
                rates,
            });
        }
    }
    all
}

fn between(last: &ProgramCounters, now: &ProgramCounters, seconds: f64) -> Rates {
    let zero = ProgramCounters { runs: 0, verdicts: Verdicts::default(), ..last.clone() };
    // One counter that went back tells of all of the program's: they begin together.
    let last = if went_back(last, now) { &zero } else { last };
    let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
    let (was, is) = (&last.verdicts, &now.verdicts);
    Rates {
        runs: rate(now.runs, last.runs),
        aborted: rate(
            is.aborted.saturating_add(is.invalid),
            was.aborted.saturating_add(was.invalid),
        ),
        drop: rate(is.drop, was.drop),
        pass: rate(is.pass, was.pass),
        tx: rate(is.tx, was.tx),
        redirect: rate(is.redirect, was.redirect),
    }
}

fn went_back(last: &ProgramCounters, now: &ProgramCounters) -> bool {
    let numbers = |counters: &ProgramCounters| {
        let Verdicts { aborted, drop, pass, tx, redirect, invalid } = counters.verdicts;
        [counters.runs, aborted, drop, pass, tx, redirect, invalid]
    };
    numbers(last).into_iter().zip(numbers(now)).any(|(last, now)| now < last)
}

/// A rate for people: three digits that count.
#[must_use]
pub fn shown(rate: f64) -> String {
    match rate {
        _ if rate < 0.05 => "0".into(),
        _ if rate < 10.0 => format!("{rate:.1}"),
        _ if rate < 10_000.0 => format!("{rate:.0}"),
        _ if rate < 1_000_000.0 => format!("{:.1} k", rate / 1e3),
        _ => format!("{:.1} M", rate / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn counters(at_unix_ms: u64, programs: &[(&str, u64, u64, u64)]) -> Counters {
        let program = |&(program, runs, drop, pass): &(&str, u64, u64, u64)| -> Value {
            json!({"program": program, "running": true, "enforce": true, "runs": runs,
                "verdicts": {"drop": drop, "pass": pass}, "finals": {}})
        };
        let programs: Vec<_> = programs.iter().map(program).collect();
        let hook = json!({"hook": {"interface": "eth0", "kind": "xdp"}, "programs": programs,
            "passed_end": 0});
        serde_json::from_value(json!({"at_unix_ms": at_unix_ms, "hooks": [hook]})).unwrap()
    }

    fn of(before: &Counters, now: &Counters) -> Vec<Option<(f64, f64, f64)>> {
        let told = rates(Some(before), now).into_iter();
        told.map(|it| it.rates.map(|rates| (rates.runs, rates.drop, rates.pass))).collect()
    }

    #[test]
    fn two_reports_tell_what_happens_in_a_second() {
        let before = counters(1_000, &[("a", 100, 40, 60), ("b", 5, 0, 5)]);
        let now = counters(3_000, &[("a", 300, 100, 200), ("b", 5, 0, 5)]);
        assert_eq!(of(&before, &now), [Some((100.0, 30.0, 70.0)), Some((0.0, 0.0, 0.0))]);
    }

    #[test]
    fn one_report_no_time_or_a_new_program_tell_nothing() {
        let now = counters(1_000, &[("a", 1, 0, 1)]);
        assert_eq!(rates(None, &now)[0].rates, None);
        assert_eq!(of(&now, &now), [None]);
        assert_eq!(of(&counters(2_000, &[("a", 0, 0, 0)]), &now), [None]);
        assert_eq!(of(&counters(0, &[("b", 0, 0, 0)]), &now), [None]);
        let other: Counters = serde_json::from_value(json!({"at_unix_ms": 0, "hooks": [
            {"hook": {"interface": "eth1", "kind": "xdp"}, "programs": [], "passed_end": 0}]}))
        .unwrap();
        assert_eq!(of(&other, &now), [None]);
    }

    #[test]
    fn counters_that_went_back_began_anew() {
        let before = counters(0, &[("a", 1_000_000, 500_000, 500_000)]);
        assert_eq!(of(&before, &counters(2_000, &[("a", 30, 10, 20)])), [Some((15.0, 5.0, 10.0))]);
        // The sum has caught up, one verdict has not: all of them began anew.
        let before = counters(0, &[("a", 100, 100, 0)]);
        assert_eq!(
            of(&before, &counters(1_000, &[("a", 200, 0, 200)])),
            [Some((200.0, 0.0, 200.0))]
        );
    }

    #[test]
    fn rates_are_short() {
        let told: Vec<_> =
            [0.0, 0.5, 99.6, 1_234.0, 43_210.0, 1_231_500.0, 14_880_952.0].map(shown).into();
        assert_eq!(told, ["0", "0.5", "100", "1234", "43.2 k", "1.2 M", "14.9 M"]);
    }

    proptest! {
        #[test]
        fn a_rate_is_a_number_and_not_below_zero(
            times in any::<(u64, u64)>(), last in any::<(u64, u64, u64)>(),
            next in any::<(u64, u64, u64)>(),
        ) {
            let before = counters(times.0, &[("a", last.0, last.1, last.2)]);
            let now = counters(times.1, &[("a", next.0, next.1, next.2)]);
            for told in of(&before, &now).into_iter().flatten() {
                for rate in [told.0, told.1, told.2] {
                    prop_assert!(rate.is_finite() && rate >= 0.0);
                }
            }
        }
    }
}
