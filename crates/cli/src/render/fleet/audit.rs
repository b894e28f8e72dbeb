//! Who changed what.

use crate::json::{self, Change};
use crate::output::Look;
use crate::render::text::{Tone, one_line, utc};
use pointsman_model::fleet::AuditEntry;
use serde_json::Value;
use std::fmt::Write as _;

/// The longest value that is shown whole, in characters.
const LONGEST: usize = 120;

/// Entries, a line each; with `changes` also what changed.
pub(crate) fn audit(look: Look, entries: &[AuditEntry], changes: bool) -> String {
    if entries.is_empty() {
        return "nothing was changed\n".to_owned();
    }
    let who = |entry: &AuditEntry| match &entry.from {
        Some(from) => one_line(&format!("{} ({from})", entry.who)),
        None => one_line(&entry.who),
    };
    let widest = entries.iter().map(|entry| who(entry).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for entry in entries {
        let AuditEntry { number, at_unix_ms, verb, object, before, after, .. } = entry;
        let verb = look.paint(tone(verb), &one_line(verb));
        let _ = writeln!(
            text,
            "{number:<6}  {}  {:widest$}  {verb} {}",
            utc(*at_unix_ms),
            who(entry),
            one_line(object)
        );
        if changes {
            text += &changed(look, before.as_ref(), after.as_ref());
        }
    }
    text
}

fn tone(verb: &str) -> Tone {
    match verb {
        "delete" | "revoke" => Tone::Bad,
        "create" | "enrol" | "publish" => Tone::Good,
        _ => Tone::Warn,
    }
}

fn changed(look: Look, before: Option<&Value>, after: Option<&Value>) -> String {
    let mut text = String::new();
    for Change { pointer, before, after } in json::changes(before, after) {
        let place = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
        for (sign, tone, value) in [('-', Tone::Bad, before), ('+', Tone::Good, after)] {
            if let Some(value) = value {
                let line = one_line(&format!("{sign} {place}{}", short(value)));
                let _ = writeln!(text, "          {}", look.paint(tone, &line));
            }
        }
    }
    text
}

pub(crate) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}... (--json has all)", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::NOW;
    use crate::render::samples::PLAIN;
    use serde_json::json;

    fn entries() -> Vec<AuditEntry> {
        let entry = |number, who: &str, from: Option<&str>, verb: &str, object: &str| AuditEntry {
            number,
            at_unix_ms: NOW + number,
            who: who.into(),
            from: from.map(str::to_owned),
            verb: verb.into(),
            object: object.into(),
            before: None,
            after: None,
        };
        let mut update = entry(9, "alice", Some("192.0.2.7"), "update", "policy edge-guard");
        update.before = Some(json!({"chain": [1], "enabled": true, "interface": "eth0"}));
        update.after = Some(json!({"chain": [1], "enabled": false, "description": "\u{1b}[2J"}));
        let mut publish = entry(8, "control", None, "publish", "snapshot 41\nforged");
        publish.after = Some("x".repeat(200).into());
        vec![update, publish]
    }

    #[test]
    fn an_entry_is_a_line() {
        insta::assert_snapshot!(audit(PLAIN, &entries(), false), @"
        9       2025-01-01 00:01:00.009 UTC  alice (192.0.2.7)  update policy edge-guard
        8       2025-01-01 00:01:00.008 UTC  control            publish snapshot 41 forged
        ");
        assert_eq!(audit(PLAIN, &[], true), "nothing was changed\n");
    }

    #[test]
    fn what_changed_is_told_by_its_place() {
        insta::assert_snapshot!(audit(PLAIN, &entries(), true), @r#"
        9       2025-01-01 00:01:00.009 UTC  alice (192.0.2.7)  update policy edge-guard
                  + /description: "\u001b[2J"
                  - /enabled: true
                  + /enabled: false
                  - /interface: "eth0"
        8       2025-01-01 00:01:00.008 UTC  control            publish snapshot 41 forged
                  + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... (--json has all)
        "#);
    }
}
