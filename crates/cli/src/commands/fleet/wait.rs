//! Which nodes a publish is in force on, from what they report. Pure.
//!
//! A node that fails may still fail from before: its report counts only if it speaks of what was
//! published.

use crate::render::fleet::publish::{Left, Waited};
use pointsman_model::NodeName;
use pointsman_model::fleet::{Node, NodeHealth, NodeOutcome, NodeReport, PublishReport};
use std::collections::{BTreeMap, HashSet};

/// The nodes that are waited for, and those that are not any more.
#[derive(Debug, Default)]
pub(super) struct Watch {
    waiting: BTreeMap<NodeName, Waiting>,
    outcome: Waited,
}

#[derive(Debug)]
struct Waiting {
    generation: u64,
    /// How the node stood when it was looked at last.
    why: String,
    /// When it sent a report that counts against it.
    suspect: Option<u64>,
}

/// Whether a look told enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Sure,
    /// It fails, and its report says whether that is about what was published.
    Unsure,
}

impl Watch {
    pub(super) fn new(report: &PublishReport) -> Self {
        let gets = |outcome| matches!(outcome, NodeOutcome::Changed | NodeOutcome::Added);
        let changes = report.nodes.iter().filter(|change| gets(change.outcome));
        let waiting = changes.filter_map(|change| {
            let why = String::new();
            let waiting = Waiting { generation: change.generation?, why, suspect: None };
            Some((change.node.clone(), waiting))
        });
        Self { waiting: waiting.collect(), outcome: Waited::default() }
    }

    /// How many are waited for.
    pub(super) fn left(&self) -> usize {
        self.waiting.len()
    }

    /// How many are not waited for any more.
    pub(super) fn settled(&self) -> usize {
        self.outcome.in_force.len() + self.outcome.failing.len() + self.outcome.not_there.len()
    }

    /// How many fail.
    pub(super) fn failing(&self) -> usize {
        self.outcome.failing.len()
    }

    /// Those that are waited for.
    pub(super) fn names(&self) -> Vec<NodeName> {
        self.waiting.keys().cloned().collect()
    }

    /// How a node stands now.
    pub(super) fn look(&mut self, node: &Node) -> Watched {
        let Some(waiting) = self.waiting.get_mut(&node.name) else { return Watched::Sure };
        waiting.why = why(node);
        if node.enrolled_unix_ms.is_none() {
            // Nobody knows whether it ever will be there.
            self.settle(&node.name, |outcome, name, _| outcome.not_there.push(name));
            return Watched::Sure;
        }
        let reached = node.in_force >= Some(waiting.generation);
        match node.health {
            NodeHealth::Failing if reached => {
                self.settle(&node.name, |outcome, node, why| {
                    outcome.failing.push(Left { node, why });
                });
            }
            NodeHealth::Failing => return Watched::Unsure,
            _ if reached => {
                self.settle(&node.name, |outcome, name, _| outcome.in_force.push(name));
            }
            _ => {}
        }
        Watched::Sure
    }

    /// What a node that fails reported. It fails for good when two reports say so after what was
    /// published was handed over: the first may have been made before the daemon looked at it.
    pub(super) fn look_closer(&mut self, node: &Node, report: Option<&NodeReport>) {
        let Some(waiting) = self.waiting.get_mut(&node.name) else { return };
        let handed_over = report.and_then(|report| report.courier.handed_over);
        if handed_over < Some(waiting.generation) {
            waiting.suspect = None;
            return;
        }
        match (waiting.suspect, node.seen_unix_ms) {
            (Some(first), Some(seen)) if seen > first => {
                self.settle(&node.name, |outcome, node, why| {
                    outcome.failing.push(Left { node, why });
                });
            }
            (None, seen) => waiting.suspect = seen,
            _ => {}
        }
    }

    /// Those that are not among all nodes any more.
    pub(super) fn gone(&mut self, all: &[Node]) {
        let there: HashSet<&NodeName> = all.iter().map(|node| &node.name).collect();
        for name in self.names().iter().filter(|name| !there.contains(name)) {
            self.left_the_fleet(name);
        }
    }

    pub(super) fn left_the_fleet(&mut self, name: &NodeName) {
        self.settle(name, |outcome, name, _| outcome.not_there.push(name));
    }

    fn settle(&mut self, name: &NodeName, how: impl FnOnce(&mut Waited, NodeName, String)) {
        if let Some((name, waiting)) = self.waiting.remove_entry(name) {
            how(&mut self.outcome, name, waiting.why);
        }
    }

    /// How it ended. `trouble`: why nodes could not be asked after at the end.
    pub(super) fn finish(self, milliseconds: u64, trouble: Option<&str>) -> Waited {
        let Self { waiting, mut outcome } = self;
        let why = |waiting: Waiting| trouble.map_or(waiting.why, ToOwned::to_owned);
        outcome.waiting =
            waiting.into_iter().map(|(node, waiting)| Left { node, why: why(waiting) }).collect();
        outcome.milliseconds = milliseconds;
        outcome
    }
}

fn why(node: &Node) -> String {
    match (node.trouble.as_str(), node.health) {
        ("", NodeHealth::Well | NodeHealth::Behind) => String::new(),
        ("", health) => health.to_string(),
        (trouble, _) => trouble.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::{change, name, node};
    use pointsman_model::fleet::CourierStatus;

    fn watch(names: &[&str]) -> Watch {
        let nodes = names.iter().map(|name| change(name, NodeOutcome::Changed, "")).collect();
        Watch::new(&PublishReport { snapshot: None, nodes, unchanged: 0 })
    }

    fn at(text: &str, health: NodeHealth, in_force: u64, seen: u64) -> Node {
        let (in_force, seen_unix_ms) = (Some(in_force), Some(seen));
        Node { in_force, seen_unix_ms, ..node(text, health) }
    }

    fn handed(generation: u64) -> NodeReport {
        let courier = CourierStatus {
            version: String::new(),
            poll_interval_ms: 1,
            snapshot: None,
            handed_over: Some(generation),
            source_trouble: None,
            daemon_trouble: None,
        };
        NodeReport { courier, status: None, counters: None }
    }

    #[test]
    fn only_nodes_that_get_something_are_waited_for() {
        use NodeOutcome::{Added, Changed, Refused, Removed, WouldEmpty};
        let all = [("a", Changed), ("b", Added), ("c", Refused), ("d", Removed), ("e", WouldEmpty)];
        let nodes = all.iter().map(|(name, outcome)| change(name, *outcome, "")).collect();
        let watch = Watch::new(&PublishReport { snapshot: None, nodes, unchanged: 0 });
        assert_eq!(watch.names(), [name("a"), name("b")]);
    }

    #[test]
    fn a_node_is_done_when_it_says_so_or_is_ahead() {
        let mut watch = watch(&["a", "b", "c"]);
        assert_eq!(watch.look(&at("a", NodeHealth::Behind, 41, 1)), Watched::Sure);
        assert_eq!(watch.left(), 3);
        watch.look(&at("a", NodeHealth::Well, 42, 2));
        watch.look(&at("b", NodeHealth::Behind, 43, 2));
        // A daemon that is away is silent later; what was in force is.
        watch.look(&at("c", NodeHealth::Silent, 41, 2));
        let outcome = watch.finish(7, None);
        assert_eq!(outcome.in_force, [name("a"), name("b")]);
        assert_eq!(outcome.waiting, [Left { node: name("c"), why: "silent".into() }]);
        assert!(!outcome.all());
    }

    #[test]
    fn an_old_failure_is_no_answer_to_a_new_publish() {
        let mut watch = watch(&["a"]);
        let mut failing = at("a", NodeHealth::Failing, 41, 1);
        failing.trouble = "eth0: refused".into();
        assert_eq!(watch.look(&failing), Watched::Unsure);
        watch.look_closer(&failing, Some(&handed(41)));
        watch.look_closer(&failing, None);
        // Handed over, and reported once: perhaps before the daemon looked.
        watch.look_closer(&failing, Some(&handed(42)));
        watch.look_closer(&failing, Some(&handed(42)));
        assert_eq!(watch.left(), 1, "the same report is no second one");
        failing.seen_unix_ms = Some(2);
        assert_eq!(watch.look(&failing), Watched::Unsure);
        watch.look_closer(&failing, Some(&handed(42)));
        let outcome = watch.finish(7, None);
        assert_eq!(outcome.failing, [Left { node: name("a"), why: "eth0: refused".into() }]);
    }

    #[test]
    fn what_is_in_force_in_parts_fails_at_once() {
        let mut watch = watch(&["a", "b"]);
        watch.look(&at("a", NodeHealth::Failing, 42, 1));
        assert_eq!((watch.failing(), watch.settled(), watch.left()), (1, 1, 1));
    }

    #[test]
    fn nodes_that_are_not_there_are_not_waited_for() {
        let mut watch = watch(&["a", "b", "c"]);
        let mut new = node("a", NodeHealth::New);
        new.enrolled_unix_ms = None;
        watch.look(&new);
        watch.gone(&[new, node("c", NodeHealth::Behind)]);
        assert_eq!(watch.names(), [name("c")]);
        watch.left_the_fleet(&name("c"));
        let outcome = watch.finish(7, None);
        assert_eq!(outcome.not_there, [name("a"), name("b"), name("c")]);
        assert!(outcome.all(), "there is nothing to wait for");
    }

    #[test]
    fn an_unreachable_control_plane_is_the_reason_given() {
        let outcome = watch(&["a"]).finish(7, Some("cannot reach it"));
        assert_eq!(outcome.waiting[0].why, "cannot reach it");
    }
}
