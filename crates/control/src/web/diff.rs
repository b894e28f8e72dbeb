//! Differences, line by line, and what a publish means for nodes.

use pointsman_model::fleet::{NodeChange, NodeOutcome};

/// A line of a difference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The class that colours it: `added`, `removed`, `place` or none.
    pub(super) class: &'static str,
    pub(super) text: &'a str,
}

/// The lines of a unified difference.
pub(super) fn lines(diff: &str) -> Vec<Line<'_>> {
    diff.lines()
        .map(|text| {
            let class = match text.as_bytes().first() {
                Some(b'+') => "added",
                Some(b'-') => "removed",
                Some(b'@') => "place",
                _ => "same",
            };
            Line { class, text }
        })
        .collect()
}

/// A node of a publish, as a page shows it.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) change: &'a NodeChange,
    pub(super) outcome: &'static str,
    pub(super) class: &'static str,
    pub(super) lines: Vec<Line<'a>>,
}

pub(super) fn shown(changes: &[NodeChange]) -> Vec<Shown<'_>> {
    changes
        .iter()
        .map(|change| {
            let (outcome, class) = match change.outcome {
                NodeOutcome::Changed => ("changes", "behind"),
                NodeOutcome::Added => ("is new", "well"),
                NodeOutcome::WouldEmpty => {
                    ("would lose its last program: keeps what it has", "failing")
                }
                NodeOutcome::Refused => ("cannot be made: keeps what it has", "failing"),
                NodeOutcome::Removed => ("leaves", "silent"),
            };
            Shown { change, outcome, class, lines: lines(&change.diff) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_by_their_first_character() {
        let classes: Vec<_> =
            lines("@@ -1 +1 @@\n-a\n+b\n c\n").iter().map(|line| line.class).collect();
        assert_eq!(classes, ["place", "removed", "added", "same"]);
    }
}
