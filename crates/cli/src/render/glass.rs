//! Bypasses, rollbacks, confirmations, and the generations there are.

use super::apply::apply;
use super::plan::{results, separated};
use super::refusal::{LogLines, refusals};
use super::table::{Column, cell, lines, table};
use super::text::{Tone, grouped, micros, uptime, utc};
use crate::output::Look;
use pointsman_model::api::StepOutcome;
use pointsman_model::glass::{
    BypassReport, BypassStatus, ConfirmReport, GenerationInfo, Generations, RollbackReport,
    UnconfirmedStatus,
};
use std::fmt::Write as _;

/// What beginning or ending a bypass did.
pub(crate) fn bypass(look: Look, report: &BypassReport) -> String {
    let BypassReport {
        hook,
        bypass,
        was_bypassed,
        results: steps,
        refusals: refused,
        notes,
        visible_micros,
        total_micros,
    } = report;
    let mut text = look.paint(Tone::Heading, &hook.to_string()) + "  ";
    text += &match (bypass, was_bypassed, refused.is_empty()) {
        (Some(bypass), _, true) => {
            let head = look.paint(Tone::Bad, "BYPASSED: every packet passes");
            format!("{head}\n  {}", bypassed(bypass))
        }
        (None, true, true) => look.paint(Tone::Good, "not bypassed any more"),
        (None, false, true) => look.paint(Tone::Good, "not bypassed"),
        (Some(_), _, false) => look.paint(Tone::Bad, "still bypassed, as before"),
        (None, true, false) => {
            look.paint(Tone::Bad, "not bypassed any more, and what is wanted there was refused")
        }
        (None, false, false) => look.paint(Tone::Bad, "could not be bypassed"),
    };
    text.push('\n');
    if steps.iter().any(|step| step.outcome != StepOutcome::Done) {
        text += &results(look, steps);
    }
    text += &separated(refusals(look, &refused.iter().collect::<Vec<_>>(), LogLines::NEWS));
    for note in notes {
        let _ = writeln!(text, "{} {note}", look.paint(Tone::Warn, "note:"));
    }
    if *visible_micros > 0 {
        let (visible, total) = (micros(*visible_micros), micros(*total_micros));
        let _ = writeln!(text, "in force for packets after {visible}, all done after {total}");
    }
    text
}

/// Since when a hook is bypassed, until when, and who asked for it.
pub(crate) fn bypassed(bypass: &BypassStatus) -> String {
    let BypassStatus { since_unix_ms, until_unix_ms, remaining_ms, uid } = bypass;
    let mut text = format!("since {}", utc(*since_unix_ms));
    match (until_unix_ms, remaining_ms) {
        (Some(until), Some(left)) => {
            let _ = write!(text, ", ends {} ({})", utc(*until), left_seconds(*left));
        }
        _ => text += ", until it is ended",
    }
    if let Some(uid) = uid {
        let _ = write!(text, ", user {uid}");
    }
    text
}

/// How an operator keeps what is in force, and what happens otherwise.
pub(crate) fn unconfirmed(look: Look, waiting: &UnconfirmedStatus) -> String {
    let UnconfirmedStatus { generation, until_unix_ms, remaining_ms, back_to } = waiting;
    let otherwise = match back_to {
        Some(generation) => format!("returns to generation {generation}"),
        None => "runs nothing of ours, as after a drain".to_owned(),
    };
    let head = format!(
        "UNCONFIRMED: generation {generation} goes at {} ({} left) unless confirmed:",
        utc(*until_unix_ms),
        left_seconds(*remaining_ms)
    );
    format!(
        "{}\n  pointsman confirm {generation}\notherwise the host {otherwise} by itself\n",
        look.paint(Tone::Bad, &head)
    )
}

fn left_seconds(ms: u64) -> String {
    uptime(ms.div_ceil(1_000))
}

/// What a rollback did.
pub(crate) fn rollback(look: Look, report: &RollbackReport) -> String {
    let RollbackReport { from, to, report } = report;
    let head = look.paint(Tone::Heading, &format!("rolled back from generation {from} to {to}"));
    format!("{head}\n{}", apply(look, report))
}

/// What a confirmation did.
pub(crate) fn confirm(look: Look, report: &ConfirmReport) -> String {
    let ConfirmReport { generation, remaining_ms } = report;
    let text = match remaining_ms {
        Some(left) => {
            format!("generation {generation} is confirmed, with {} to spare", left_seconds(*left))
        }
        None => format!("generation {generation} is in force for good already"),
    };
    look.paint(Tone::Good, &text) + "\n"
}

/// The generations that a node can return to.
pub(crate) fn generations(look: Look, answer: &Generations) -> String {
    let Generations { generations, keep, bytes } = answer;
    if generations.is_empty() {
        return "no document was accepted yet\n".to_owned();
    }
    let mut table = table(
        look,
        &[
            ("generation", Column::Number),
            ("in force since", Column::Whole),
            ("state", Column::Text),
            ("document", Column::Whole),
            ("objects", Column::Number),
            ("bytes", Column::Number),
        ],
    );
    for generation in generations {
        let GenerationInfo {
            generation,
            at_unix_ms,
            current,
            good,
            rolled_back,
            document,
            objects,
            bytes,
        } = generation;
        let states = [
            (*current, "in force"),
            (*good, "good"),
            (!*good, "not whole or not confirmed"),
            (*rolled_back, "rolled back"),
        ];
        let states: Vec<_> = states.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        table.add_row([
            cell(generation),
            cell(utc(*at_unix_ms)),
            cell(states.join(", ")),
            cell(document.short()),
            cell(objects),
            cell(grouped(*bytes)),
        ]);
    }
    let bytes = grouped(*bytes);
    format!("{}on disk: {bytes} bytes; the last {keep} good ones are kept\n", lines(&table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, PLAIN};
    use pointsman_model::Sha256;
    use pointsman_model::api::StepResult;

    const NOW: u64 = 1_735_689_600_000;

    #[test]
    fn a_bypass_is_loud_and_says_until_when() {
        let report = BypassReport {
            hook: samples::hook("eth0"),
            bypass: Some(BypassStatus {
                since_unix_ms: NOW,
                until_unix_ms: Some(NOW + 600_000),
                remaining_ms: Some(599_001),
                uid: Some(0),
            }),
            was_bypassed: false,
            results: vec![],
            refusals: vec![],
            notes: vec!["text".into()],
            visible_micros: 900,
            total_micros: 1_500,
        };
        insta::assert_snapshot!(bypass(PLAIN, &report), @"
        eth0/xdp  BYPASSED: every packet passes
          since 2025-01-01 00:00:00.000 UTC, ends 2025-01-01 00:10:00.000 UTC (10 min 0 s), user 0
        note: text
        in force for packets after 900 µs, all done after 1.5 ms
        ");
        let ended = BypassReport { bypass: None, was_bypassed: true, ..report.clone() };
        assert!(bypass(PLAIN, &ended).starts_with("eth0/xdp  not bypassed any more\n"));
        let failed = BypassReport {
            bypass: None,
            refusals: vec![samples::foreign_program()],
            results: vec![StepResult {
                step: "swap to chain eth0/xdp#2".into(),
                outcome: StepOutcome::Failed("no memory".into()),
                micros: 7,
            }],
            ..report
        };
        let text = bypass(PLAIN, &failed);
        assert!(text.contains("could not be bypassed") && text.contains("no memory"), "{text}");
    }

    #[test]
    fn an_unconfirmed_generation_says_how_to_keep_it() {
        let mut waiting = UnconfirmedStatus {
            generation: 42,
            until_unix_ms: NOW + 60_000,
            remaining_ms: 59_500,
            back_to: Some(41),
        };
        insta::assert_snapshot!(unconfirmed(PLAIN, &waiting), @"
        UNCONFIRMED: generation 42 goes at 2025-01-01 00:01:00.000 UTC (1 min 0 s left) unless confirmed:
          pointsman confirm 42
        otherwise the host returns to generation 41 by itself
        ");
        waiting.back_to = None;
        assert!(unconfirmed(PLAIN, &waiting).contains("as after a drain"));
        let report = ConfirmReport { generation: 42, remaining_ms: Some(12_000) };
        assert_eq!(confirm(PLAIN, &report), "generation 42 is confirmed, with 12 s to spare\n");
        let report = ConfirmReport { remaining_ms: None, ..report };
        assert_eq!(confirm(PLAIN, &report), "generation 42 is in force for good already\n");
    }

    #[test]
    fn generations_are_a_table() {
        let row = |generation, current, good, rolled_back| GenerationInfo {
            generation,
            at_unix_ms: NOW + generation,
            current,
            good,
            rolled_back,
            document: Sha256::of(b"document"),
            objects: 2,
            bytes: 12_345,
        };
        let answer = Generations {
            generations: vec![
                row(40, false, true, false),
                row(41, true, true, false),
                row(42, false, true, true),
                row(43, false, false, false),
            ],
            keep: 5,
            bytes: 23_456,
        };
        insta::assert_snapshot!(generations(PLAIN, &answer), @"
          generation  in force since               state              document      objects   bytes
                  40  2025-01-01 00:00:00.040 UTC  good               43cc23fa52b8        2  12,345
                  41  2025-01-01 00:00:00.041 UTC  in force, good     43cc23fa52b8        2  12,345
                  42  2025-01-01 00:00:00.042 UTC  good, rolled back  43cc23fa52b8        2  12,345
                  43  2025-01-01 00:00:00.043 UTC  not whole or not   43cc23fa52b8        2  12,345
                                                   confirmed
        on disk: 23,456 bytes; the last 5 good ones are kept
        ");
        let none = Generations { generations: vec![], ..answer };
        assert_eq!(generations(PLAIN, &none), "no document was accepted yet\n");
    }
}
