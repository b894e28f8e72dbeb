//! What a publish did, and how far the nodes are.

use super::changes::{Tense, changes, plural};
use super::some_of;
use crate::output::Look;
use crate::render::text::{Tone, grouped, one_line};
use pointsman_model::NodeName;
use pointsman_model::fleet::{NodeOutcome, PublishReport};
use serde::Serialize;
use std::fmt::Write as _;

/// What a publish did, or would do.
pub(crate) fn publish(look: Look, report: &PublishReport, tense: Tense) -> String {
    let PublishReport { snapshot, nodes, unchanged } = report;
    let stay = plural(usize::try_from(*unchanged).unwrap_or(usize::MAX), "node", "nodes");
    let changed = nodes.iter().filter(|change| is_change(change.outcome)).count();
    let kept = nodes.len() - changed;
    let mut text = match (snapshot, tense) {
        (Some(snapshot), _) => {
            let head = format!("snapshot {} is published", snapshot.number);
            look.paint(Tone::Good, &head)
        }
        (None, Tense::Did) => look.paint(Tone::Heading, "nothing to publish"),
        (None, Tense::Would) => look.paint(Tone::Heading, "nothing is published: a dry run"),
    };
    let _ = write!(text, ": {} changed", plural(changed, "node", "nodes"));
    if kept > 0 {
        let kept = plural(kept, "keeps what it has", "keep what they have");
        let _ = write!(text, ", {}", look.paint(Tone::Bad, &kept));
    }
    let _ = writeln!(text, ", {stay} as before");
    if nodes.is_empty() { text } else { text + "\n" + &changes(look, nodes, tense) }
}

/// Whether a node gets something else.
pub(crate) fn is_change(outcome: NodeOutcome) -> bool {
    match outcome {
        NodeOutcome::Changed | NodeOutcome::Added | NodeOutcome::Removed => true,
        NodeOutcome::WouldEmpty | NodeOutcome::Refused => false,
    }
}

/// How a wait for nodes ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Waited {
    /// Those on which it is in force.
    pub(crate) in_force: Vec<NodeName>,
    /// Those that refuse it, or something of it, and why.
    pub(crate) failing: Vec<Left>,
    /// Those of which nothing was heard in time, and how they stood.
    pub(crate) waiting: Vec<Left>,
    /// Those that have not enrolled yet, or left the fleet meanwhile.
    pub(crate) not_there: Vec<NodeName>,
    /// How long it took, in milliseconds.
    pub(crate) milliseconds: u64,
}

/// A node on which it is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Left {
    pub(crate) node: NodeName,
    pub(crate) why: String,
}

impl Waited {
    /// Whether it is in force everywhere.
    pub(crate) fn all(&self) -> bool {
        self.failing.is_empty() && self.waiting.is_empty()
    }
}

/// The most nodes that are told of one by one.
const TOLD: usize = 20;

/// How a wait ended.
pub(crate) fn waited(look: Look, waited: &Waited) -> String {
    let Waited { in_force, failing, waiting, not_there, milliseconds } = waited;
    let time = crate::render::text::micros(milliseconds.saturating_mul(1_000));
    let mut text = String::new();
    if !in_force.is_empty() {
        let nodes = plural(in_force.len(), "node", "nodes");
        let head = format!("in force on {nodes} after {time}");
        let _ = writeln!(text, "{}: {}", look.paint(Tone::Good, &head), some_of(in_force, 8));
    }
    for (tone, word, left) in
        [(Tone::Bad, "failing", failing), (Tone::Warn, "not in force yet", waiting)]
    {
        for Left { node, why } in left.iter().take(TOLD) {
            let _ = write!(text, "{}: {node}", look.paint(tone, word));
            let _ =
                if why.is_empty() { writeln!(text) } else { writeln!(text, ": {}", one_line(why)) };
        }
        if let Some(more) = left.len().checked_sub(TOLD).filter(|&more| more > 0) {
            let _ = writeln!(text, "{}: {} more", look.paint(tone, word), grouped(more as u64));
        }
    }
    if !not_there.is_empty() {
        let head = look.paint(Tone::Faint, "not waited for, as they are not enrolled");
        let _ = writeln!(text, "{head}: {}", some_of(not_there, 8));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples;
    use crate::render::samples::PLAIN;

    fn report() -> PublishReport {
        PublishReport {
            snapshot: Some(samples::snapshot(41)),
            nodes: vec![
                samples::change("edge-1", NodeOutcome::Changed, "@@\n-1\n+2\n"),
                samples::change("edge-2", NodeOutcome::WouldEmpty, ""),
            ],
            unchanged: 1_202,
        }
    }

    #[test]
    fn a_publish_says_what_changed_and_what_did_not() {
        insta::assert_snapshot!(publish(PLAIN, &report(), Tense::Did), @"
        snapshot 41 is published: 1 node changed, 1 keeps what it has, 1,202 nodes as before

        ! keeps what it has: its last program would go (--allow-empty allows it): edge-2

        ~ changed: edge-1
            @@
            -1
            +2
        ");
        let nothing = PublishReport { snapshot: None, nodes: vec![], unchanged: 1 };
        let text = publish(PLAIN, &nothing, Tense::Did);
        assert_eq!(text, "nothing to publish: 0 nodes changed, 1 node as before\n");
        let dry = PublishReport { snapshot: None, ..report() };
        assert!(publish(PLAIN, &dry, Tense::Would).starts_with("nothing is published: a dry run"));
    }

    #[test]
    fn a_wait_tells_where_it_is_in_force_and_where_not() {
        let left = |name: &str, why: &str| Left { node: samples::name(name), why: why.into() };
        let outcome = Waited {
            in_force: vec![samples::name("edge-1"), samples::name("edge-3")],
            failing: vec![left("edge-2", "eth0: no such\ninterface")],
            waiting: (0..22).map(|n| left(&format!("far-{n}"), "")).collect(),
            not_there: vec![samples::name("new-1")],
            milliseconds: 1_234,
        };
        let text = waited(PLAIN, &outcome);
        let end = "not in force yet: far-19\nnot in force yet: 2 more\n\
                   not waited for, as they are not enrolled: new-1\n";
        assert!(text.ends_with(end), "{text}");
        insta::assert_snapshot!(text.lines().take(3).collect::<Vec<_>>().join("\n"), @"
        in force on 2 nodes after 1.23 s: edge-1, edge-3
        failing: edge-2: eth0: no such interface
        not in force yet: far-0
        ");
        assert!(!outcome.all() && Waited::default().all());
    }
}
