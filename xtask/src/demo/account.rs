//! What the chain's counters say, and whether it adds up with what the sockets say.

use super::traffic::Totals;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write as _;

/// One program's counters, as far as the demo shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// The operator's name for it.
    pub(super) name: String,
    /// Packets it saw.
    pub(super) runs: u64,
    /// Packets it ended other than by passing them to the stack.
    pub(super) dropped: u64,
    /// Packets it ended by passing them to the stack.
    pub(super) passed: u64,
    /// Packets it would have dropped, were it in force.
    pub(super) would_drop: u64,
}

/// The counters of the one hook of the demo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// In the order they run.
    pub(super) programs: Vec<Program>,
    /// Packets that the chain handed to the network stack.
    pub(super) passed: u64,
}

impl Chain {
    /// Reads what `pointsman --json counters` prints.
    pub(super) fn read(counters: &Value) -> Result<Self> {
        let hooks = counters["hooks"].as_array().context("the counters name no hooks")?;
        let mut chain = Self::default();
        for hook in hooks {
            let programs = hook["programs"].as_array().context("a hook has no programs")?;
            let programs: Vec<_> = programs.iter().map(Program::read).collect::<Result<_>>()?;
            let passed: u64 = programs.iter().map(|program| program.passed).sum();
            chain.passed += number(hook, "passed_end")? + passed;
            chain.programs.extend(programs);
        }
        Ok(chain)
    }

    /// One program by its name.
    pub(super) fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|program| program.name == name)
    }

    fn dropped(&self) -> u64 {
        self.programs.iter().map(|program| program.dropped).sum()
    }

    /// The table that is shown while traffic flows.
    pub(super) fn table(&self) -> String {
        let mut table =
            format!("  {:<12}{:>13}{:>13}{:>13}\n", "program", "saw", "dropped", "would drop");
        for Program { name, runs, dropped, would_drop, .. } in &self.programs {
            let numbers = [*runs, *dropped, *would_drop].map(grouped);
            let [runs, dropped, would_drop] = &numbers;
            let _ = writeln!(table, "  {name:<12}{runs:>13}{dropped:>13}{would_drop:>13}");
        }
        table
    }
}

impl Program {
    fn read(value: &Value) -> Result<Self> {
        let name = value["program"].as_str().context("a program has no name")?.to_owned();
        let (verdicts, finals) = (&value["verdicts"], &value["finals"]);
        let mut dropped = 0;
        for verdict in ["aborted", "drop", "tx", "redirect", "invalid"] {
            dropped += number(finals, verdict)?;
        }
        Ok(Self {
            name,
            runs: number(value, "runs")?,
            dropped,
            passed: number(finals, "pass")?,
            would_drop: number(verdicts, "drop")?.saturating_sub(number(finals, "drop")?),
        })
    }
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key].as_u64().with_context(|| format!("no count {key} in {value}"))
}

/// One thing that has to hold, and whether it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// The thing, with its figures.
    pub(super) text: String,
    /// Whether it holds.
    pub(super) holds: bool,
}

/// What has to hold at the end. `reasons`: per program that must have dropped something, why.
pub(super) fn checks(totals: &Totals, chain: &Chain, reasons: &[(&str, &str)]) -> Vec<Check> {
    let Totals { sent, received, leaked, disordered, late_large } = *totals;
    let mut sum = format!("sent {} = received {}", grouped(sent), grouped(received));
    for program in chain.programs.iter().filter(|program| program.dropped > 0) {
        let reason = reasons.iter().find(|(name, _)| *name == program.name);
        let reason = reason.map_or("unexpected", |(_, reason)| reason);
        let dropped = grouped(program.dropped);
        let _ = write!(sum, " + dropped by {} {dropped} ({reason})", program.name);
    }
    let unaccounted = i128::from(sent) - i128::from(received) - i128::from(chain.dropped());
    let check = |text: String, holds: bool| Check { text, holds };
    let mut checks = vec![
        check(format!("{sum}; unaccounted {unaccounted}"), unaccounted == 0 && sent > 0),
        check(
            format!("passed by the chain {} = received by sockets", grouped(chain.passed)),
            chain.passed == received,
        ),
        check(format!("skipped a program, at any swap: {leaked}"), leaked == 0),
        check(format!("twice or out of order: {disordered}"), disordered == 0),
        check(format!("large ones after the upgrade: {late_large}"), late_large == 0),
    ];
    for (name, _) in reasons {
        let dropped = chain.program(name).map_or(0, |program| program.dropped);
        checks.push(check(format!("{name} dropped some: {}", grouped(dropped)), dropped > 0));
    }
    checks
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain() -> Chain {
        let verdicts = |drop: u64, pass: u64| {
            json!({"aborted": 0, "drop": drop, "pass": pass,
            "tx": 0, "redirect": 0, "invalid": 0})
        };
        Chain::read(&json!({"at_unix_ms": 1, "hooks": [{"hook": "demo0/xdp", "passed_end": 6,
        "programs": [
            {"program": "ports", "running": true, "enforce": true, "runs": 10,
             "verdicts": verdicts(3, 7), "finals": verdicts(3, 0)},
            {"program": "guard", "running": true, "enforce": false, "runs": 7,
             "verdicts": verdicts(2, 5), "finals": verdicts(0, 1)},
        ]}]}))
        .unwrap()
    }

    #[test]
    fn counters_are_read_and_observed_drops_are_no_drops() {
        let chain = chain();
        assert_eq!((chain.dropped(), chain.passed), (3, 7));
        assert_eq!(chain.program("guard").unwrap().would_drop, 2);
        assert_eq!(chain.program("ports").unwrap().would_drop, 0);
        assert!(Chain::read(&json!({"hooks": [{"programs": [{}]}]})).is_err());
    }

    #[test]
    fn what_adds_up_holds_and_what_is_missing_does_not() {
        let reasons = [("ports", "port not listed")];
        let totals = Totals { sent: 10, received: 7, ..Totals::default() };
        let good = checks(&totals, &chain(), &reasons);
        assert!(good.iter().all(|check| check.holds), "{good:?}");
        let text = "sent 10 = received 7 + dropped by ports 3 (port not listed); unaccounted 0";
        assert_eq!(good[0].text, text);

        let holds = |totals: Totals, reasons: &[(&str, &str)]| -> Vec<bool> {
            checks(&totals, &chain(), reasons).iter().map(|check| check.holds).collect()
        };
        let lost = Totals { sent: 11, ..totals };
        assert_eq!(holds(lost, &reasons), [false, true, true, true, true, true]);
        let leaked = Totals { leaked: 1, ..totals };
        assert_eq!(holds(leaked, &reasons), [true, true, false, true, true, true]);
        let idle = [("guard", "too large")];
        assert_eq!(holds(totals, &idle), [true, true, true, true, true, false]);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
