//! Counters, and how fast they rise between two looks.

use super::table::{Column, cell, lines, table};
use super::text::{Tone, VERDICTS, grouped, utc};
use crate::output::Look;
use pointsman_model::Verdicts;
use pointsman_model::status::{Counters, HookCounters, ProgramCounters};

/// Counters, with rates per second where there was an earlier look.
pub(crate) fn counters(look: Look, now: &Counters, earlier: Option<&Counters>) -> String {
    let Counters { at_unix_ms, hooks } = now;
    let mut text = look.paint(Tone::Faint, &utc(*at_unix_ms)) + "\n";
    if hooks.is_empty() {
        text += "no hook is ours\n";
    }
    for hook in hooks {
        let before = earlier.and_then(|earlier| {
            let seconds = seconds_between(earlier, now)?;
            let hook = earlier.hooks.iter().find(|other| other.hook == hook.hook)?;
            Some(Before { hook, seconds })
        });
        text += &one(look, hook, before);
    }
    text
}

/// An earlier look at a hook.
#[derive(Debug, Clone, Copy)]
struct Before<'a> {
    hook: &'a HookCounters,
    /// How long ago it was; positive.
    seconds: f64,
}

fn seconds_between(earlier: &Counters, now: &Counters) -> Option<f64> {
    // A clock set back makes no rate.
    let ms = now.at_unix_ms.checked_sub(earlier.at_unix_ms).filter(|&ms| ms > 0)?;
    Some(std::time::Duration::from_millis(ms).as_secs_f64())
}

fn one(look: Look, now: &HookCounters, before: Option<Before<'_>>) -> String {
    let HookCounters { hook, programs, passed_end } = now;
    // A column for each verdict that any program gave.
    let any = programs.iter().fold(Verdicts::default(), |sum, p| sum + p.verdicts).to_array();
    let used: Vec<usize> = (0..Verdicts::LEN).filter(|&at| any[at] > 0).collect();
    let mut columns =
        vec![("program", Column::Text), ("", Column::Whole), ("runs", Column::Number)];
    columns.extend(used.iter().map(|&at| (VERDICTS[at], Column::Number)));
    columns.push(("final", Column::Number));
    let mut table = table(look, &columns);
    for program in programs {
        let ProgramCounters { program: name, running, enforce, runs, verdicts, finals } = program;
        let was = before.and_then(|before| {
            let program = before.hook.programs.iter().find(|other| other.program == *name)?;
            // Counters start again when a hook is released: no rate then.
            (program.runs <= *runs).then_some((program, before.seconds))
        });
        let with_rate = |count: u64, old: fn(&ProgramCounters) -> u64| {
            counted(count, was.map(|(program, seconds)| (old(program), seconds)))
        };
        let how = match (running, enforce) {
            (false, _) => "gone",
            (true, true) => "enforced",
            (true, false) => "observed",
        };
        let mut row = vec![cell(name), cell(how), cell(with_rate(*runs, |p| p.runs))];
        for &at in &used {
            let old = was.map(|(p, seconds)| (p.verdicts.to_array()[at], seconds));
            row.push(cell(counted(verdicts.to_array()[at], old)));
        }
        row.push(cell(with_rate(finals.total(), |p| p.finals.total())));
        table.add_row(row);
    }
    let end = counted(*passed_end, before.map(|before| (before.hook.passed_end, before.seconds)));
    let end = end.replacen('\n', "  ", 1);
    let heading = look.paint(Tone::Heading, &hook.to_string());
    let table = if programs.is_empty() { String::new() } else { lines(&table) };
    format!("\n{heading}\n{table}  passed at the end: {end}\n")
}

/// A count, and below it how fast it rises.
fn counted(now: u64, was: Option<(u64, f64)>) -> String {
    match was.and_then(|(was, seconds)| Some((now.checked_sub(was)?, seconds))) {
        None => grouped(now),
        Some((more, seconds)) => format!("{}\n{}/s", grouped(now), rate(more, seconds)),
    }
}

fn rate(more: u64, seconds: f64) -> String {
    // Exact below 2^53 packets in one interval; saturates above.
    let per_second = more as f64 / seconds;
    if per_second > 0.0 && per_second < 10.0 {
        return format!("{per_second:.1}");
    }
    grouped(per_second.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, PLAIN, drops_and_passes};

    fn program(name: &str, drop: u64, pass: u64) -> ProgramCounters {
        ProgramCounters {
            program: samples::program(name),
            running: true,
            enforce: true,
            runs: drop + pass,
            verdicts: drops_and_passes(drop, pass),
            finals: drops_and_passes(drop, 0),
        }
    }

    fn at(at_unix_ms: u64, programs: Vec<ProgramCounters>, passed_end: u64) -> Counters {
        let hook = HookCounters { hook: samples::hook("eth0"), programs, passed_end };
        Counters { at_unix_ms, hooks: vec![hook] }
    }

    #[test]
    fn a_single_look_has_no_rates() {
        let mut observed = program("watch", 3, 4);
        observed.enforce = false;
        observed.finals = Verdicts::default();
        let mut gone = program("old", 0, 99);
        gone.running = false;
        let now = at(1_735_689_600_000, vec![program("ddos", 12, 34_567), observed, gone], 34_000);
        insta::assert_snapshot!(counters(PLAIN, &now, None), @"
        2025-01-01 00:00:00.000 UTC

        eth0/xdp
          program              runs  drop    pass  final
          ddos     enforced  34,579    12  34,567     12
          watch    observed       7     3       4      0
          old      gone          99     0      99      0
          passed at the end: 34,000
        ");
    }

    #[test]
    fn two_looks_have_rates() {
        let earlier = at(1_735_689_600_000, vec![program("ddos", 10, 1_000)], 1_000);
        let now = at(1_735_689_602_000, vec![program("ddos", 13, 3_000_000)], 2_999_001);
        insta::assert_snapshot!(counters(PLAIN, &now, Some(&earlier)), @"
        2025-01-01 00:00:02.000 UTC

        eth0/xdp
          program                   runs   drop         pass  final
          ddos     enforced    3,000,013     13    3,000,000     13
                             1,499,502/s  1.5/s  1,499,500/s  1.5/s
          passed at the end: 2,999,001  1,499,001/s
        ");
    }

    #[test]
    fn what_started_again_or_is_new_has_no_rate() {
        let earlier = at(1_000, vec![program("ddos", 0, 1_000)], 1_000);
        let now = at(2_000, vec![program("ddos", 0, 5), program("new", 0, 5)], 0);
        let text = counters(PLAIN, &now, Some(&earlier));
        assert!(!text.contains("/s"), "{text}");
        let same_moment = at(1_000, vec![program("ddos", 0, 2_000)], 2_000);
        let text = counters(PLAIN, &same_moment, Some(&earlier));
        assert!(!text.contains("/s"), "{text}");
    }

    #[test]
    fn rates_are_exact_enough() {
        assert_eq!(rate(0, 1.0), "0");
        assert_eq!(rate(1, 2.0), "0.5");
        assert_eq!(rate(14_880_952, 1.0), "14,880,952");
        assert_eq!(rate(10, 1.0), "10");
    }
}
