//! The fleet at a glance.

use super::node::{generation, seen};
use super::snapshot::published;
use super::{health, some_of, tone};
use crate::control::{Publishing, Signer, Trouble};
use crate::output::Look;
use crate::render::table::{Column, cell, lines, table};
use crate::render::text::{Tone, grouped, minute, one_line};
use pointsman_model::fleet::{Node, NodeHealth, Snapshot};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The most nodes that are told of one by one.
const TOLD: usize = 40;

/// How a fleet stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Glance {
    /// How many nodes there are.
    pub(crate) nodes: usize,
    /// How many stand how; all five, also where there are none.
    pub(crate) health: BTreeMap<NodeHealth, usize>,
    /// Those that fail, are silent or behind, the worst first.
    pub(crate) not_well: Vec<Node>,
    /// Those that have not enrolled, or not reported, yet.
    pub(crate) new: Vec<Node>,
    /// What was published last.
    pub(crate) snapshot: Option<Snapshot>,
    /// What records are signed with.
    #[serde(flatten)]
    pub(crate) signer: Option<Signer>,
    /// How publishing stands.
    pub(crate) publishing: Option<Publishing>,
}

impl Glance {
    pub(crate) fn new(
        nodes: Vec<Node>,
        snapshot: Option<Snapshot>,
        signer: Option<Signer>,
    ) -> Self {
        use NodeHealth::{Behind, Failing, New, Silent, Well};
        let mut counts: BTreeMap<_, _> =
            [Failing, Silent, Behind, Well, New].into_iter().map(|health| (health, 0)).collect();
        for node in &nodes {
            *counts.entry(node.health).or_default() += 1;
        }
        let total = nodes.len();
        let (new, known): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.health == New);
        let mut not_well: Vec<_> = known.into_iter().filter(|node| node.health != Well).collect();
        not_well.sort_by_key(|node| node.health);
        Self { nodes: total, health: counts, not_well, new, snapshot, signer, publishing: None }
    }
}

/// How the fleet stands, and who is not well.
pub(crate) fn glance(look: Look, glance: &Glance, now_unix_ms: u64) -> String {
    let Glance { nodes, health: counts, not_well, new, snapshot, signer, publishing } = glance;
    let all = super::changes::plural(*nodes, "node", "nodes");
    let mut text = look.paint(Tone::Heading, &all);
    let parts: Vec<_> = counts
        .iter()
        .filter(|&(_, count)| *count > 0)
        .map(|(health, count)| {
            look.paint(tone(*health), &format!("{} {health}", grouped(*count as u64)))
        })
        .collect();
    if !parts.is_empty() {
        let _ = write!(text, ": {}", parts.join(", "));
    }
    text.push('\n');
    let _ = match snapshot {
        Some(snapshot) => writeln!(text, "snapshot {}: {}", snapshot.number, published(snapshot)),
        None => writeln!(text, "nothing was published yet"),
    };
    if let Some(Publishing { trouble: Some(trouble), .. }) = publishing {
        let Trouble { since_unix_ms, last_unix_ms: _, times, message } = trouble;
        let head = look.paint(Tone::Bad, "publishing fails");
        let (since, why) = (minute(*since_unix_ms), one_line(message));
        let _ = writeln!(text, "{head} since {since}, {} in a row: {why}", grouped(*times));
    }
    if let Some(Signer { fleet, key_id, public_key }) = signer {
        let (fleet, id, key) = (one_line(fleet), one_line(key_id), one_line(public_key));
        let _ = writeln!(text, "fleet {fleet}, signed with the key {id}: {key}");
    }
    if !new.is_empty() {
        let names: Vec<_> = new.iter().map(|node| &node.name).collect();
        let _ = writeln!(text, "not enrolled, or not heard of, yet: {}", some_of(&names, 8));
    }
    if not_well.is_empty() {
        return text;
    }
    text.push('\n');
    let mut rows = table(
        look,
        &[
            ("NAME", Column::Whole),
            ("HEALTH", Column::Whole),
            ("IN FORCE", Column::Number),
            ("PUBLISHED", Column::Number),
            ("SEEN", Column::Whole),
            ("WHY", Column::Text),
        ],
    );
    for node in not_well.iter().take(TOLD) {
        rows.add_row([
            cell(&node.name),
            cell(health(look, node.health)),
            cell(generation(node.in_force)),
            cell(generation(node.published)),
            cell(seen(node, now_unix_ms)),
            cell(one_line(&node.trouble)),
        ]);
    }
    text += &lines(&rows);
    if let Some(more) = not_well.len().checked_sub(TOLD).filter(|&more| more > 0) {
        let more = grouped(more as u64);
        let _ = writeln!(text, "  and {more} more (pointsman fleet node ls --health ...)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::{self, NOW};
    use crate::render::samples::PLAIN;

    fn signer() -> Signer {
        let (fleet, key_id) = ("lab".into(), "7".into());
        Signer { fleet, key_id, public_key: "RW\u{1b}[2J".into() }
    }

    #[test]
    fn a_fleet_that_is_well_takes_three_lines() {
        let nodes =
            vec![samples::node("a", NodeHealth::Well), samples::node("b", NodeHealth::Well)];
        let text =
            glance(PLAIN, &Glance::new(nodes, Some(samples::snapshot(41)), Some(signer())), NOW);
        insta::assert_snapshot!(text, @"
        2 nodes: 2 well
        snapshot 41: 2025-01-01 00:00:00.000 UTC by deploy (asked): 3 of 1,204 nodes changed
        fleet lab, signed with the key 7: RW?[2J
        ");
        let text = glance(PLAIN, &Glance::new(vec![], None, None), NOW);
        assert_eq!(text, "0 nodes\nnothing was published yet\n");
    }

    #[test]
    fn that_publishing_fails_is_told() {
        let mut it = Glance::new(vec![], None, None);
        it.publishing = Some(Publishing { success_unix_ms: Some(NOW), trouble: None });
        assert_eq!(glance(PLAIN, &it, NOW), "0 nodes\nnothing was published yet\n");
        let trouble = Trouble {
            since_unix_ms: NOW - 86_400_000,
            last_unix_ms: NOW,
            times: 1_440,
            message: "the store\nis full".into(),
        };
        it.publishing = Some(Publishing { success_unix_ms: None, trouble: Some(trouble) });
        insta::assert_snapshot!(glance(PLAIN, &it, NOW), @"
        0 nodes
        nothing was published yet
        publishing fails since 2024-12-31 00:01 UTC, 1,440 in a row: the store is full
        ");
    }

    #[test]
    fn who_is_not_well_is_told_with_the_reason_the_worst_first() {
        let mut silent = samples::node("edge-2", NodeHealth::Silent);
        silent.trouble = "has not reported for 12 min".into();
        let mut failing = samples::node("edge-9", NodeHealth::Failing);
        failing.trouble = "refused: \u{1b}[2J\nforged  well".into();
        let nodes = vec![
            samples::node("edge-1", NodeHealth::Well),
            silent,
            samples::node("edge-3", NodeHealth::New),
            failing,
        ];
        let it = Glance::new(nodes, Some(samples::snapshot(41)), None);
        insta::assert_snapshot!(glance(PLAIN, &it, NOW), @"
        4 nodes: 1 failing, 1 silent, 1 well, 1 new
        snapshot 41: 2025-01-01 00:00:00.000 UTC by deploy (asked): 3 of 1,204 nodes changed
        not enrolled, or not heard of, yet: edge-3

          NAME    HEALTH   IN FORCE  PUBLISHED  SEEN      WHY
          edge-9  failing        41         42  12 s ago  refused: ?[2J forged  well
          edge-2  silent         41         42  12 s ago  has not reported for 12 min
        ");
        let counts = serde_json::to_value(&it).unwrap()["health"].clone();
        let expected =
            serde_json::json!({"failing": 1, "silent": 1, "behind": 0, "well": 1, "new": 1});
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_fleet_in_trouble_does_not_fill_the_scrollback() {
        let nodes =
            (0..1_500).map(|n| samples::node(&format!("n{n}"), NodeHealth::Silent)).collect();
        let text = glance(PLAIN, &Glance::new(nodes, None, None), NOW);
        assert!(text.ends_with("  and 1,460 more (pointsman fleet node ls --health ...)\n"));
        assert_eq!(text.lines().count(), 2 + 1 + 1 + TOLD + 1);
    }
}
