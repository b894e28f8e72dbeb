//! Policies.

use super::changes::{Tense, changes, difference};
use super::{NOTHING, some_of};
use crate::output::Look;
use crate::render::table::{Column, cell, lines, table};
use crate::render::text::{Tone, minute, one_line};
use pointsman_model::PolicyName;
use pointsman_model::document::SlotChoice;
use pointsman_model::fleet::{Policy, PolicyDiff, PolicyEntry, PolicyMap, Selector};
use serde::Serialize;
use std::fmt::Write as _;

/// All of them, a line each.
pub(crate) fn policies(look: Look, policies: &[Policy]) -> String {
    if policies.is_empty() {
        return "no policy\n".to_owned();
    }
    let mut rows = table(
        look,
        &[
            ("NAME", Column::Whole),
            ("REVISION", Column::Number),
            ("INTERFACE", Column::Whole),
            ("NODES", Column::Text),
            ("PROGRAMS", Column::Text),
            ("CHANGED", Column::Whole),
            ("BY", Column::Text),
        ],
    );
    for policy in policies {
        let spec = &policy.spec;
        let programs: Vec<_> = in_order(&spec.chain).map(PolicyEntry::name_on_nodes).collect();
        let off = if spec.enabled { "" } else { "off: " };
        rows.add_row([
            cell(&policy.name),
            cell(policy.revision),
            cell(&spec.interface),
            cell(selector(&spec.selector)),
            cell(format!("{off}{}", some_of(&programs, 6))),
            cell(minute(policy.updated_unix_ms)),
            cell(one_line(&policy.updated_by)),
        ]);
    }
    lines(&rows)
}

/// Entries as they run.
fn in_order(chain: &[PolicyEntry]) -> impl Iterator<Item = &PolicyEntry> {
    let mut sorted: Vec<_> = chain.iter().collect();
    sorted.sort_by_key(|entry| entry.priority);
    sorted.into_iter()
}

fn selector(selector: &Selector) -> String {
    let Selector { all, labels, nodes } = selector;
    let mut parts = Vec::new();
    if *all {
        parts.push("all".to_owned());
    }
    if !labels.is_empty() {
        parts.push(super::labels(labels));
    }
    if !nodes.is_empty() {
        let names: Vec<_> = nodes.iter().collect();
        parts.push(some_of(&names, 4));
    }
    if parts.is_empty() { "none".to_owned() } else { parts.join("; ") }
}

/// One, as it is kept.
pub(crate) fn policy(look: Look, policy: &Policy) -> String {
    let Policy { name, revision, updated_unix_ms, updated_by, spec } = policy;
    let mut text = look.paint(Tone::Heading, name.as_str());
    let _ = write!(text, "  revision {revision}, changed {}", minute(*updated_unix_ms));
    let _ = writeln!(text, " by {}", one_line(updated_by));
    if !spec.enabled {
        text += &look.paint(Tone::Warn, "  off: kept, and as if it were not there");
        text.push('\n');
    }
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    if !spec.description.is_empty() {
        line("for", &one_line(&spec.description));
    }
    line("nodes", &selector(&spec.selector));
    line("interface", &spec.interface.to_string());
    if let Some(engine) = &spec.engine {
        line("engine", &word(engine));
    }
    if let Some(mode) = &spec.mode {
        line("mode", &word(mode));
    }
    if let Some(drift) = &spec.drift {
        line("drift", &word(drift));
    }
    if spec.chain.is_empty() {
        line("chain", "empty: an empty program stays attached and passes every packet");
        return text;
    }
    text.push('\n');
    text + &chain(look, &spec.chain)
}

/// A choice as it is written in a policy.
fn word(choice: &impl Serialize) -> String {
    let value = serde_json::to_value(choice).expect("invariant: API values are JSON");
    value.as_str().unwrap_or_default().to_owned()
}

fn chain(look: Look, chain: &[PolicyEntry]) -> String {
    let mut rows = table(
        look,
        &[
            ("PRIORITY", Column::Number),
            ("PROGRAM", Column::Whole),
            ("ON NODES", Column::Text),
            ("ENTRY", Column::Text),
            ("GOES ON AFTER", Column::Text),
            ("", Column::Text),
        ],
    );
    for entry in in_order(chain) {
        let mut marks = Vec::new();
        if !entry.enforce {
            marks.push("observes".to_owned());
        }
        if entry.slot == SlotChoice::Own {
            marks.push("own slot".to_owned());
        }
        marks.extend(entry.globals.iter().map(|(name, value)| format!("{name}={value}")));
        marks.extend(entry.maps.iter().map(|(name, map)| contents(name.as_str(), map)));
        rows.add_row([
            cell(entry.priority),
            cell(&entry.program),
            cell(entry.name_on_nodes()),
            cell(entry.entry.as_ref().map_or(NOTHING, |entry| entry.as_str())),
            cell(entry.chain_call_actions),
            cell(one_line(&marks.join(", "))),
        ]);
    }
    lines(&rows)
}

fn contents(name: &str, map: &PolicyMap) -> String {
    let PolicyMap { entries, on_upgrade } = map;
    let entries = match entries.as_ref().map(Vec::len) {
        None => String::new(),
        Some(1) => " 1 entry".to_owned(),
        Some(entries) => format!(" {entries} entries"),
    };
    let upgrade =
        on_upgrade.map_or_else(String::new, |what| format!(" (upgrade: {})", word(&what)));
    format!("{name}:{entries}{upgrade}")
}

/// What a change of a policy would change.
pub(crate) fn diff(look: Look, name: &PolicyName, diff: &PolicyDiff) -> String {
    let PolicyDiff { policy, nodes } = diff;
    let heading = look.paint(Tone::Heading, &format!("policy {name}"));
    let mut text = if policy.is_empty() {
        format!("{heading}  stays as it is\n")
    } else {
        format!("{heading}\n{}", difference(look, policy))
    };
    text += "\n";
    if nodes.is_empty() {
        return text + "no node changes\n";
    }
    text + &changes(look, nodes, Tense::Would)
}

/// What became of a policy that was saved.
pub(crate) fn saved(policy: &Policy, before: Option<u64>) -> String {
    let Policy { name, revision, .. } = policy;
    match before {
        Some(before) if before == *revision => {
            format!("policy {name} says that already (revision {revision})\n")
        }
        Some(before) => format!(
            "policy {name} saved: revision {before} -> {revision}\n\
             publish to bring it to the nodes: pointsman fleet publish\n"
        ),
        None => format!(
            "policy {name} made (revision {revision})\n\
             publish to bring it to the nodes: pointsman fleet publish\n"
        ),
    }
}

/// The question before a policy is removed.
pub(crate) fn removal(look: Look, name: &PolicyName, would: &PolicyDiff) -> String {
    super::go_on(&format!("{}remove policy {name}", diff(look, name, would)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples;
    use crate::render::samples::PLAIN;
    use pointsman_model::fleet::NodeOutcome;

    #[test]
    fn policies_are_a_table() {
        let mut off = samples::policy("tap");
        off.spec.enabled = false;
        off.spec.selector = Selector { all: true, ..Selector::default() };
        insta::assert_snapshot!(policies(PLAIN, &[samples::policy("edge-guard"), off]), @"
        NAME        REVISION  INTERFACE  NODES                PROGRAMS       CHANGED               BY
        edge-guard         7  eth0       role=edge; edge-1,   guard,         2024-12-31 23:01 UTC  alice
                                         edge-2               counting-pass
        tap                7  eth0       all                  off: guard,    2024-12-31 23:01 UTC  alice
                                                              counting-pass
        ");
        assert_eq!(policies(PLAIN, &[]), "no policy\n");
    }

    #[test]
    fn a_policy_is_shown_in_the_order_its_programs_run() {
        let mut it = samples::policy("edge-guard");
        it.updated_by = "al\u{1b}[2Jice\nroot".into();
        insta::assert_snapshot!(policy(PLAIN, &it), @"
        edge-guard  revision 7, changed 2024-12-31 23:01 UTC by al?[2Jice root
          for         keeps the edge clean
          nodes       role=edge; edge-1, edge-2
          interface   eth0
          engine      dispatcher

          PRIORITY  PROGRAM                ON NODES       ENTRY      GOES ON AFTER
                10  ddos                   guard          ddos_main  pass,tx        own slot, rate=5000,
                                                                                    blocklist: 1 entry
                                                                                    (upgrade: keep)
                90  builtin:counting-pass  counting-pass  -          pass           observes
        ");
        it.spec.chain.clear();
        assert!(policy(PLAIN, &it).ends_with("passes every packet\n"));
    }

    #[test]
    fn a_difference_is_of_the_policy_and_of_nodes() {
        let name = PolicyName::new("edge-guard").unwrap();
        let would = PolicyDiff {
            policy: "@@ -1 +1 @@\n-a\n+b\n".into(),
            nodes: vec![samples::change("edge-1", NodeOutcome::Changed, "@@\n-1\n+2\n")],
        };
        insta::assert_snapshot!(diff(PLAIN, &name, &would), @"
        policy edge-guard
            @@ -1 +1 @@
            -a
            +b

        ~ would change: edge-1
            @@
            -1
            +2
        ");
        let would = PolicyDiff { policy: String::new(), nodes: vec![] };
        let text = diff(PLAIN, &name, &would);
        assert_eq!(text, "policy edge-guard  stays as it is\n\nno node changes\n");
    }
}
