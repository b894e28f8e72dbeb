//! What a publish means for nodes: those for which it means the same are shown once.

use super::some_of;
use crate::output::Look;
use crate::render::text::{Tone, grouped, one_line, printable};
use pointsman_model::NodeName;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{NodeChange, NodeOutcome};
use std::fmt::Write as _;

/// The most differences that are shown.
const DIFFERENCES: usize = 20;

/// The most names in a line.
const NAMES: usize = 8;

/// Whether what is published is to be read as done or as wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tense {
    Would,
    Did,
}

/// Nodes for which a publish means the same.
struct Group<'a> {
    outcome: NodeOutcome,
    diff: &'a str,
    errors: &'a [DocumentError],
    nodes: Vec<&'a NodeName>,
}

/// What changes where.
pub(crate) fn changes(look: Look, nodes: &[NodeChange], tense: Tense) -> String {
    let groups = grouped_alike(nodes);
    let shown = groups.iter().take(DIFFERENCES).map(|group| one(look, group, tense));
    let mut text = shown.collect::<Vec<_>>().join("\n");
    if let Some(rest) = groups.get(DIFFERENCES..).filter(|rest| !rest.is_empty()) {
        let nodes: usize = rest.iter().map(|group| group.nodes.len()).sum();
        let nodes = plural(nodes, "more node", "more nodes");
        let _ = writeln!(text, "\n{nodes} with other differences (--json has all)");
    }
    text
}

/// The worst first, then in the order given.
fn grouped_alike(nodes: &[NodeChange]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for change in nodes {
        let NodeChange { node, outcome, generation: _, diff, errors } = change;
        let errors_text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let at = *places.entry((outcome_rank(*outcome), diff, errors_text)).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Group { outcome: *outcome, diff, errors, nodes: vec![] });
        }
        groups[at].nodes.push(node);
    }
    groups.sort_by_key(|group| outcome_rank(group.outcome));
    groups
}

fn outcome_rank(outcome: NodeOutcome) -> u8 {
    match outcome {
        NodeOutcome::Refused => 0,
        NodeOutcome::WouldEmpty => 1,
        NodeOutcome::Removed => 2,
        NodeOutcome::Changed => 3,
        NodeOutcome::Added => 4,
    }
}

fn one(look: Look, group: &Group<'_>, tense: Tense) -> String {
    let Group { outcome, diff, errors, nodes } = group;
    let (tone, what) = match (outcome, tense) {
        (NodeOutcome::Changed, Tense::Did) => (Tone::Warn, "~ changed"),
        (NodeOutcome::Changed, Tense::Would) => (Tone::Warn, "~ would change"),
        (NodeOutcome::Added, Tense::Did) => (Tone::Good, "+ got its first document"),
        (NodeOutcome::Added, Tense::Would) => (Tone::Good, "+ would get its first document"),
        (NodeOutcome::Removed, Tense::Did) => (Tone::Bad, "- has no record any more"),
        (NodeOutcome::Removed, Tense::Would) => (Tone::Bad, "- would have no record any more"),
        (NodeOutcome::WouldEmpty, _) => {
            (Tone::Bad, "! keeps what it has: its last program would go (--allow-empty allows it)")
        }
        (NodeOutcome::Refused, _) => (Tone::Bad, "! keeps what it has: no document can be made"),
    };
    let head = format!("{what}: {}", some_of(nodes, NAMES));
    let mut text = look.paint(tone, &head) + "\n";
    for error in *errors {
        let _ = writeln!(text, "    {}", one_line(&error.to_string()));
    }
    text + &difference(look, diff)
}

/// A difference of two texts, indented.
pub(crate) fn difference(look: Look, diff: &str) -> String {
    let line = |line: &str| {
        let tone = match line.as_bytes().first() {
            Some(b'+') => Some(Tone::Good),
            Some(b'-') => Some(Tone::Bad),
            Some(b'@') => Some(Tone::Faint),
            _ => None,
        };
        let line = printable(line);
        let line = tone.map_or_else(|| line.clone(), |tone| look.paint(tone, &line));
        format!("    {line}\n")
    };
    diff.lines().map(line).collect()
}

/// `1 node`, `1,200 nodes`.
pub(crate) fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number as u64), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::change;
    use crate::render::samples::{COLOUR, PLAIN};

    const DIFF: &str = "@@ -1,3 +1,3 @@\n {\n-  \"priority\": 10\n+  \"priority\": 20\n";

    #[test]
    fn what_means_the_same_is_shown_once_and_the_worst_first() {
        let mut all: Vec<_> =
            (1..=10).map(|n| change(&format!("edge-{n}"), NodeOutcome::Changed, DIFF)).collect();
        all.push(change("new-1", NodeOutcome::Added, ""));
        let mut refused = change("odd-1", NodeOutcome::Refused, "");
        refused.errors = vec![DocumentError {
            pointer: "/interfaces/eth0/xdp".into(),
            message: "policies a and b want different engines\n\u{1b}[2J".into(),
        }];
        all.push(refused);
        all.push(change("last-1", NodeOutcome::WouldEmpty, "@@\n-x\n"));
        insta::assert_snapshot!(changes(PLAIN, &all, Tense::Would), @r#"
        ! keeps what it has: no document can be made: odd-1
            /interfaces/eth0/xdp: policies a and b want different engines ?[2J

        ! keeps what it has: its last program would go (--allow-empty allows it): last-1
            @@
            -x

        ~ would change: edge-1, edge-2, edge-3, edge-4, edge-5, edge-6, edge-7, edge-8 and 2 more
            @@ -1,3 +1,3 @@
             {
            -  "priority": 10
            +  "priority": 20

        + would get its first document: new-1
        "#);
    }

    #[test]
    fn differences_without_end_are_counted() {
        let all: Vec<_> = (0..25)
            .map(|n| change(&format!("n{n}"), NodeOutcome::Changed, &format!("+{n}\n")))
            .collect();
        let text = changes(PLAIN, &all, Tense::Did);
        assert!(
            text.ends_with("\n5 more nodes with other differences (--json has all)\n"),
            "{text}"
        );
        assert_eq!(text.matches("~ changed: ").count(), DIFFERENCES);
    }

    #[test]
    fn only_terminals_see_colours() {
        let all = [change("a", NodeOutcome::Changed, "+\u{1b}[31mx\n")];
        assert!(!changes(PLAIN, &all, Tense::Did).contains('\u{1b}'));
        let text = changes(COLOUR, &all, Tense::Did);
        assert!(text.contains("\u{1b}[32m+?[31mx\u{1b}[0m"), "{text:?}");
    }
}
