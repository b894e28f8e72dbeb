//! What is told of a publish.

use super::plan::{Group, Judged, next, outcome};
use pointsman_model::NodeName;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{NodeChange, NodeOutcome, PublishReport, Snapshot};

/// How many bytes of differences and errors a report has at most. A fleet that changes as a whole
/// has the same ones thousands of times.
const MOST_TEXT: usize = 2 << 20;

/// A report while it is written.
#[derive(Debug)]
pub(super) struct Report {
    nodes: Vec<NodeChange>,
    room: usize,
    pub(super) unchanged: u64,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), room: MOST_TEXT, unchanged: 0 }
    }

    /// Whether there is room for more differences.
    pub(super) fn has_room(&self) -> bool {
        self.room > 0
    }

    /// Tells of a node. Once there is no room any more, differences are left out, and of errors
    /// all but the first.
    pub(super) fn tell(
        &mut self,
        node: NodeName,
        outcome: NodeOutcome,
        generation: Option<u64>,
        diff: &str,
        errors: &[DocumentError],
    ) {
        let length = |error: &DocumentError| error.message.len() + error.pointer.len();
        let text = diff.len() + errors.iter().map(length).sum::<usize>();
        let (diff, errors) = if text <= self.room {
            self.room -= text;
            (diff.to_owned(), errors.to_vec())
        } else {
            self.room = 0;
            (String::new(), errors.first().cloned().into_iter().collect())
        };
        self.nodes.push(NodeChange { node, outcome, generation, diff, errors });
    }

    /// Tells of nodes that keep what they have, and why.
    pub(super) fn tell_group(&mut self, group: &Group, judged: &Judged) {
        let none = String::new();
        let (outcome, diff, errors) = match judged {
            Judged::Settled(_) => return self.unchanged += group.members.len() as u64,
            Judged::Change(change) => (outcome(group), &change.diff, &[][..]),
            Judged::WouldEmpty { diff } => (NodeOutcome::WouldEmpty, diff, &[][..]),
            Judged::Refused(errors) => (NodeOutcome::Refused, &none, &errors[..]),
        };
        let changes = matches!(judged, Judged::Change(_));
        for (node, last) in &group.members {
            let generation = if changes { next(*last) } else { Ok(*last) };
            match generation {
                Ok(generation) => {
                    let generation = Some(generation).filter(|&generation| generation > 0);
                    self.tell(node.clone(), outcome, generation, diff, errors);
                }
                Err(errors) => {
                    self.tell(node.clone(), NodeOutcome::Refused, Some(*last), "", &errors);
                }
            }
        }
    }

    pub(super) fn finish(mut self, snapshot: Option<Snapshot>) -> PublishReport {
        self.nodes.sort_by(|a, b| a.node.cmp(&b.node));
        PublishReport { snapshot, nodes: self.nodes, unchanged: self.unchanged }
    }

    /// The changes alone, by node.
    pub(super) fn into_nodes(self) -> Vec<NodeChange> {
        self.finish(None).nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_bounded_and_every_node_is_in_it() {
        let mut report = Report::new();
        let diff = "x".repeat(MOST_TEXT / 10);
        let error = DocumentError { pointer: String::new(), message: diff.clone() };
        for n in (0..30).rev() {
            let node = NodeName::new(format!("edge-{n:02}")).unwrap();
            report.tell(node, NodeOutcome::Refused, None, &diff, &[error.clone(), error.clone()]);
        }
        let report = report.finish(None);
        assert_eq!(report.nodes.len(), 30);
        assert!(report.nodes.is_sorted_by_key(|change| &change.node));
        let whole = report.nodes.iter().filter(|change| change.errors.len() == 2).count();
        assert_eq!(whole, 3);
        assert!(report.nodes.iter().all(|change| !change.errors.is_empty()));
    }
}
