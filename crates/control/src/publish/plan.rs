//! What has to be done: decided without reading or writing anything.

use super::mark::Mark;
use crate::db::RecordState;
use pointsman_fleet::{Composed, Composer, Selection, Verdict, diff_documents, judge};
use pointsman_model::document::{DocumentError, MAX_GENERATION};
use pointsman_model::fleet::{Labels, Latest, NodeOutcome, UnifiedDiff};
use pointsman_model::{NodeName, Sha256};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How many groups are looked at before the next: what is in memory at once.
pub(super) const GROUPS: usize = 64;

/// The nodes, sorted by whether anything has to be decided about them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Those for which something else is wanted than what is published.
    pub(super) groups: Vec<Group>,
    /// Those that left the fleet and still have a record.
    pub(super) left: Vec<RecordState>,
    /// How many stay as they are.
    pub(super) settled: u64,
}

/// Nodes with the same document, for which the same is wanted: what becomes of one becomes of all.
#[derive(Debug)]
pub(super) struct Group {
    /// The policies that select them.
    pub(super) selection: Selection,
    /// The mark of their records; `None`: they have none.
    pub(super) before: Option<String>,
    /// The nodes, each with its last generation; 0: it never had one.
    pub(super) members: Vec<(NodeName, u64)>,
}

/// Compares what is wanted with what is published. `nodes` come ordered by name; `key_id` is that
/// of the key that records are signed with now.
pub(super) fn plan(
    nodes: &[(NodeName, Labels)],
    states: &BTreeMap<NodeName, RecordState>,
    composer: &mut Composer,
    key_id: &str,
) -> Plan {
    let mut plan = Plan::default();
    let mut groups: HashMap<(Sha256, Option<&str>), Group> = HashMap::new();
    for (node, labels) in nodes {
        let selection = composer.select(node, labels);
        let state = states.get(node);
        let before = state.and_then(|state| state.digest.as_deref());
        let mark = before.and_then(|text| text.parse::<Mark>().ok());
        if mark.is_some_and(|mark| mark.inputs == selection.inputs && mark.key_id == key_id) {
            plan.settled += 1;
            continue;
        }
        let group = groups.entry((selection.inputs, before)).or_insert_with(|| Group {
            selection,
            before: before.map(str::to_owned),
            members: Vec::new(),
        });
        group.members.push((node.clone(), state.map_or(0, |state| state.generation)));
    }
    let is_there = |name: &NodeName| nodes.binary_search_by(|(node, _)| node.cmp(name)).is_ok();
    let with_record = states.values().filter(|state| state.digest.is_some());
    plan.left = with_record.filter(|state| !is_there(&state.node)).cloned().collect();
    plan.groups = groups.into_values().collect();
    // The first of them decides: hash maps have no order of their own.
    plan.groups.sort_unstable_by(|a, b| a.members.first().cmp(&b.members.first()));
    plan
}

/// A published record of one of the nodes of a group.
#[derive(Debug)]
pub(super) struct Before {
    /// Its document.
    pub(super) document: Value,
    /// Whether it is signed with the key that records are signed with now.
    pub(super) is_ours: bool,
}

/// What becomes of the nodes of a group.
#[derive(Debug)]
pub(super) enum Judged {
    /// Their records say what is wanted: only their marks have to say so too.
    Settled(Mark),
    /// They get a new generation, or their first.
    Change(Change),
    /// They would lose their last program, and nobody allowed that.
    WouldEmpty { diff: UnifiedDiff },
    /// There is no document for them.
    Refused(Vec<DocumentError>),
}

/// What nodes get that change.
#[derive(Debug)]
pub(super) struct Change {
    /// Their document.
    pub(super) composed: Arc<Composed>,
    /// What is noted beside it.
    pub(super) mark: Mark,
    /// From what they have to what they get.
    pub(super) diff: UnifiedDiff,
}

/// How a decision is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Whether documents may empty nodes.
    pub(super) allow_empty: bool,
    /// The id of the key that records are signed with.
    pub(super) key_id: &'a str,
    /// Whether somebody reads differences: making them takes longer than all the rest.
    pub(super) with_diff: bool,
}

/// Decides about a group.
pub(super) fn decide(
    group: &Group,
    before: Option<&Before>,
    composer: &mut Composer,
    terms: Terms<'_>,
) -> Judged {
    let composed = match composer.compose(&group.selection) {
        Ok(composed) => composed,
        Err(errors) => return Judged::Refused(errors.to_vec()),
    };
    let document = before.map(|before| &before.document);
    let mark = |allow_empty| Mark {
        inputs: group.selection.inputs,
        key_id: terms.key_id.to_owned(),
        allow_empty,
    };
    let diff = |allow_empty| {
        let shown = group.members.first().filter(|_| terms.with_diff);
        let shown = shown.map(|(node, _)| composed.document(node, 1, allow_empty));
        if shown.is_some() { diff_documents(document, shown.as_ref()) } else { String::new() }
    };
    let change = |allow_empty| {
        let (mark, diff) = (mark(allow_empty), diff(allow_empty));
        Judged::Change(Change { composed: composed.clone(), mark, diff })
    };
    match judge(document, &composed, terms.allow_empty) {
        Verdict::Change { allow_empty } => change(allow_empty),
        Verdict::WouldEmpty => Judged::WouldEmpty { diff: diff(false) },
        Verdict::Same => {
            let says_so = document.is_some_and(|document| document["allow_empty"] == true);
            if before.is_some_and(|before| before.is_ours) {
                return Judged::Settled(mark(says_so));
            }
            // It needs another signature, and so another generation: a record never changes.
            change(says_so)
        }
    }
}

/// The generation after one.
///
/// # Errors
/// There is no higher one.
pub(super) fn next(generation: u64) -> Result<u64, Vec<DocumentError>> {
    if generation < MAX_GENERATION {
        return Ok(generation + 1);
    }
    let message = format!("the node has had generation {MAX_GENERATION}, and there is none above");
    Err(vec![DocumentError { pointer: "/generation".into(), message }])
}

/// Whether a node that changes had a record before.
pub(super) fn outcome(group: &Group) -> NodeOutcome {
    if group.before.is_some() { NodeOutcome::Changed } else { NodeOutcome::Added }
}

/// Which nodes are in which shard, and which shards have to be made anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// For each shard its nodes, ordered by name.
    pub(super) shards: Vec<Vec<NodeName>>,
    /// For each shard whether it differs from the snapshot before, or may.
    pub(super) dirty: Vec<bool>,
    /// How many records differ from the snapshot before.
    pub(super) changed: u64,
}

/// Lays out all records. `newest` is the number of the last snapshot and `before` how many shards
/// it has: what was recorded after it is not in it yet, whoever recorded it.
pub(super) fn lay_out<'a>(
    states: impl Iterator<Item = &'a RecordState>,
    number: usize,
    newest: u64,
    before: usize,
) -> Layout {
    let all_anew = number != before;
    let mut layout =
        Layout { shards: vec![Vec::new(); number], dirty: vec![all_anew; number], changed: 0 };
    for state in states {
        let place = Latest::place(&state.node, number);
        layout.dirty[place] |= state.snapshot > newest;
        if state.digest.is_some() {
            layout.shards[place].push(state.node.clone());
            layout.changed += u64::from(state.snapshot > newest);
        }
    }
    layout
}
