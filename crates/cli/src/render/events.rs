//! Events, a line each.

use super::text::{Tone, utc};
use crate::output::Look;
use pointsman_model::event::{Event, EventKind};
use pointsman_model::glass::EventPage;
use std::fmt::Write as _;

/// A page of the log.
pub(crate) fn events(look: Look, page: &EventPage) -> String {
    let EventPage { events, last: _, not_on_disk } = page;
    let mut text: String = events.iter().map(|event| line(look, event)).collect();
    if let Some(why) = not_on_disk {
        let _ = writeln!(text, "{} {why}", look.paint(Tone::Warn, "note:"));
    }
    text
}

fn line(look: Look, event: &Event) -> String {
    let Event { sequence, at_unix_ms, kind, hook, generation, message } = event;
    let tone = match kind {
        EventKind::Started
        | EventKind::Applied
        | EventKind::Attached
        | EventKind::Repaired
        | EventKind::BypassEnded
        | EventKind::BypassExpired
        | EventKind::Confirmed
        | EventKind::InstanceRegistered => Tone::Good,
        EventKind::Pending | EventKind::Unconfirmed | EventKind::InstanceEnded => Tone::Warn,
        EventKind::DocumentRefused
        | EventKind::Drifted
        | EventKind::Drained
        | EventKind::Bypassed
        | EventKind::RolledBack
        | EventKind::Returned
        | EventKind::InstanceCleared => Tone::Bad,
    };
    let kind = look.paint(tone, &format!("{kind:<16}"));
    let mut text = format!("{sequence:<6}  {}  {kind}", utc(*at_unix_ms));
    if let Some(hook) = hook {
        let _ = write!(text, "  {hook}");
    }
    if let Some(generation) = generation {
        let _ = write!(text, "  generation {generation}");
    }
    let _ = writeln!(text, "  {message}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, PLAIN};

    #[test]
    fn an_event_is_a_line() {
        let event = |sequence, kind, hook, message: &str| Event {
            sequence,
            at_unix_ms: 1_735_689_600_123 + sequence,
            kind,
            hook,
            generation: Some(42),
            message: message.into(),
        };
        let page = EventPage {
            events: vec![
                event(7, EventKind::Applied, None, "applied (request)"),
                event(8, EventKind::Bypassed, Some(samples::hook("eth0")), "every packet passes"),
            ],
            last: 8,
            not_on_disk: Some("cannot write events.jsonl".into()),
        };
        insta::assert_snapshot!(events(PLAIN, &page), @"
        7       2025-01-01 00:00:00.130 UTC  applied           generation 42  applied (request)
        8       2025-01-01 00:00:00.131 UTC  bypassed          eth0/xdp  generation 42  every packet passes
        note: cannot write events.jsonl
        ");
    }
}
