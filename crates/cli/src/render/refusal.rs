//! Refusals and notes: what is not as it was asked for, and why.

use super::text::{Tone, indent};
use crate::output::Look;
use pointsman_model::plan::{Note, Refusal};
use std::fmt::Write as _;

/// How much of a verifier log is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLines(pub(crate) usize);

impl LogLines {
    /// Where a refusal is the news.
    pub(crate) const NEWS: Self = Self(60);
    /// Where it is known already.
    pub(crate) const REMINDER: Self = Self(12);
}

/// Refusals, one paragraph each.
pub(crate) fn refusals(look: Look, refusals: &[&Refusal], log: LogLines) -> String {
    refusals.iter().map(|refusal| paragraph(look, refusal, log)).collect()
}

fn paragraph(look: Look, refusal: &Refusal, log: LogLines) -> String {
    let Refusal { reason, pointer, hook, program, message, log: full_log } = refusal;
    let mut text = look.paint(Tone::Bad, &format!("refused: {reason}"));
    if let Some(hook) = hook {
        let _ = write!(text, "  hook {hook}");
    }
    if let Some(program) = program {
        let _ = write!(text, "  program {program}");
    }
    if !pointer.is_empty() {
        let _ = write!(text, "  at {pointer}");
    }
    text.push('\n');
    text += &indent(message, "  ");
    if let Some(full_log) = full_log {
        text += &verifier_log(look, full_log, log);
    }
    text
}

/// The end of a verifier log: the reason stands there.
fn verifier_log(look: Look, log: &str, LogLines(most): LogLines) -> String {
    let lines: Vec<_> = log.trim_end().lines().collect();
    let left_out = lines.len().saturating_sub(most);
    let mut text = match left_out {
        0 => "  verifier log:\n".to_owned(),
        _ => format!("  verifier log, last {most} of {} lines (--json has all):\n", lines.len()),
    };
    for line in &lines[left_out..] {
        text += &format!("  {} {line}", look.paint(Tone::Faint, "|"));
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Notes, one line each.
pub(crate) fn notes(look: Look, notes: &[Note]) -> String {
    let line = |note: &Note| {
        let Note { hook, program, message } = note;
        let hook = hook.as_ref().map(|hook| format!("{hook}: "));
        // Most messages name the program in their sentence.
        let unnamed = program.as_ref().filter(|program| !message.contains(program.as_str()));
        let program = unnamed.map(|program| format!("{program}: "));
        let place = hook.into_iter().chain(program).collect::<String>();
        format!("{} {place}{message}\n", look.paint(Tone::Warn, "note:"))
    };
    notes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn a_refusal_names_reason_hook_program_place_and_log() {
        let refusal = samples::verifier_refusal();
        insta::assert_snapshot!(refusals(samples::PLAIN, &[&refusal], LogLines::NEWS), @"
        refused: program unusable  hook eth0/xdp  program ddos  at /interfaces/eth0/xdp/chain/1
          program ddos: the verifier refuses ddos_main (ddos.c:17): check the packet's end before reading
          verifier log:
          | ; __u8 kind = *(__u8 *)data; @ ddos.c:17
          | 3: (71) r1 = *(u8 *)(r2 +0)
          |
          | invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)
        ");
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let mut refusal = samples::verifier_refusal();
        let lines = (1..=100).map(|n| format!("line {n}\n"));
        refusal.log = Some(lines.collect());
        let text = refusals(samples::PLAIN, &[&refusal], LogLines(3));
        assert!(text.ends_with("\n  | line 98\n  | line 99\n  | line 100\n"), "{text}");
        assert!(text.contains("verifier log, last 3 of 100 lines"), "{text}");
    }

    #[test]
    fn notes_say_what_they_are_about() {
        let note = |hook: bool, program: bool| Note {
            hook: hook.then(|| samples::hook("eth0")),
            program: program.then(|| samples::program("ddos")),
            message: "text".into(),
        };
        let mut all = vec![note(true, true), note(false, true), note(false, false)];
        all.push(Note { message: "ddos is upgraded".into(), ..note(true, true) });
        insta::assert_snapshot!(notes(samples::PLAIN, &all), @"
        note: eth0/xdp: ddos: text
        note: ddos: text
        note: text
        note: eth0/xdp: ddos is upgraded
        ");
    }
}
