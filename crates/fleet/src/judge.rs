//! Whether a node needs a new generation.

use crate::Composed;
use pointsman_model::Document;
use serde_json::{Map, Value};

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What is wanted was published before.
    Same,
    /// It gets a new generation, or its first.
    Change {
        /// Whether the document says that it may empty the node.
        allow_empty: bool,
    },
    /// It would lose its last program, and nobody allowed that: it keeps what it has.
    WouldEmpty,
}

/// Decides what becomes of a node that has the document `before`, and for which `wanted` is
/// wanted. Without `before`, nothing is published for it.
///
/// Documents say the same if they differ in no more than node, generation, and whether they may
/// empty the node: so what holds of one node holds of all others with the same documents.
///
/// `allow_empty` lets documents without a program in any chain take the place of those that have
/// one. Then they say so themselves, and so do those that come after them, until one has a program
/// again: a node may have missed the first.
#[must_use]
pub fn judge(before: Option<&Value>, wanted: &Composed, allow_empty: bool) -> Verdict {
    if before.is_some_and(|before| say_the_same(before, wanted)) {
        return Verdict::Same;
    }
    let was_empty = before.is_none_or(is_empty);
    if wanted.is_empty && !was_empty && !allow_empty {
        return Verdict::WouldEmpty;
    }
    let was_allowed = was_empty && before.is_some_and(|before| before["allow_empty"] == true);
    Verdict::Change { allow_empty: wanted.is_empty && (allow_empty || was_allowed) }
}

/// Whether a published document empties a node, as the node itself sees it. What this version
/// cannot read may well have programs.
fn is_empty(document: &Value) -> bool {
    Document::parse(document.to_string().as_bytes()).is_ok_and(|document| document.is_empty())
}

fn say_the_same(before: &Value, wanted: &Composed) -> bool {
    let Value::Object(before) = before else { return false };
    let counts = |(key, _): &(&String, &Value)| {
        !matches!(key.as_str(), "node" | "generation" | "allow_empty")
    };
    let wanted = wanted.said();
    let fields = |of: &Map<String, Value>| of.iter().filter(counts).count();
    let same = |(key, value): (&String, &Value)| before.get(key) == Some(value);
    fields(before) == fields(&wanted) && wanted.iter().filter(counts).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Library, compose};
    use pointsman_model::NodeName;
    use pointsman_model::fleet::Labels;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    const SAME: Verdict = Verdict::Same;
    const PLAIN: Verdict = Verdict::Change { allow_empty: false };
    const ALLOWED: Verdict = Verdict::Change { allow_empty: true };

    fn node(n: u8) -> NodeName {
        NodeName::new(format!("edge-{n}")).unwrap()
    }

    /// What one policy with this chain on eth0 makes; `None`: no policy.
    fn wanted(chain: Option<Value>) -> Composed {
        let mut policies = BTreeMap::new();
        if let Some(chain) = chain {
            let spec = json!({"selector": {"all": true}, "interface": "eth0", "chain": chain});
            let name = "p".to_owned().try_into().unwrap();
            policies.insert(name, serde_json::from_value(spec).unwrap());
        }
        compose(&node(1), &Labels::new(), policies, &Library::default()).unwrap()
    }

    fn counter(priority: u32) -> Option<Value> {
        Some(json!([{"program": "builtin:counting-pass", "priority": priority}]))
    }

    #[test]
    fn only_what_a_document_says_counts() {
        assert_eq!(judge(None, &wanted(counter(10)), false), PLAIN);
        let first = wanted(counter(10)).document(&node(1), 1, false);
        assert_eq!(judge(Some(&first), &wanted(counter(10)), false), SAME);
        assert_eq!(judge(Some(&first), &wanted(counter(11)), false), PLAIN);
        let other = wanted(counter(10)).document(&node(2), 7, false);
        assert_eq!(judge(Some(&other), &wanted(counter(10)), false), SAME);
        // A field of another version is something that is said.
        let mut more = first.clone();
        more["lcores"] = json!({});
        assert_eq!(judge(Some(&more), &wanted(counter(10)), false), PLAIN);
        assert_eq!(judge(Some(&json!([])), &wanted(counter(10)), false), PLAIN);
    }

    #[test]
    fn a_node_that_has_nothing_is_not_emptied() {
        assert_eq!(judge(None, &wanted(None), false), PLAIN);
        assert_eq!(judge(None, &wanted(None), true), ALLOWED);
    }

    #[test]
    fn emptying_needs_to_be_allowed_and_stays_allowed_until_there_is_a_program() {
        let full = wanted(counter(1)).document(&node(1), 1, false);
        for empty in [None, Some(json!([]))] {
            let nothing = wanted(empty.clone());
            assert_eq!(judge(Some(&full), &nothing, false), Verdict::WouldEmpty);
            assert_eq!(judge(Some(&full), &nothing, true), ALLOWED);
            // The same again, asked for or not, is no news.
            let emptied = nothing.document(&node(1), 2, true);
            assert_eq!(judge(Some(&emptied), &nothing, false), SAME);
            assert_eq!(judge(Some(&emptied), &nothing, true), SAME);
            // Empty in another way: whoever missed generation 2 must take this one.
            let other = wanted(if empty.is_some() { None } else { Some(json!([])) });
            assert_eq!(judge(Some(&emptied), &other, false), ALLOWED);
            let never = nothing.document(&node(1), 1, false);
            assert_eq!(judge(Some(&never), &other, false), PLAIN);
            assert_eq!(judge(Some(&emptied), &wanted(counter(1)), true), PLAIN);
        }
    }

    #[test]
    fn what_cannot_be_read_may_have_programs() {
        let unknown = json!({"schema": "pointsman.node/v0", "generation": 7});
        assert_eq!(judge(Some(&unknown), &wanted(None), false), Verdict::WouldEmpty);
        assert_eq!(judge(Some(&unknown), &wanted(counter(1)), false), PLAIN);
    }

    proptest! {
        /// Over any history: what was published is not published again, and a node is emptied
        /// only where that was allowed.
        #[test]
        fn histories_are_sound(steps in proptest::collection::vec((0..4u32, any::<bool>()), 1..20)) {
            let mut last: Option<Value> = None;
            for (generation, (priority, allowed)) in (1..).zip(steps) {
                let chain = match priority {
                    0 => None,
                    1 => Some(json!([])),
                    priority => counter(priority),
                };
                let composed = wanted(chain);
                let was_full = last.as_ref().is_some_and(|old| !is_empty(old));
                match judge(last.as_ref(), &composed, allowed) {
                    Verdict::Same => {}
                    Verdict::WouldEmpty => {
                        prop_assert!(was_full && composed.is_empty && !allowed);
                    }
                    Verdict::Change { allow_empty } => {
                        prop_assert!(!(was_full && composed.is_empty) || allowed && allow_empty);
                        prop_assert!(!allow_empty || composed.is_empty);
                        let document = composed.document(&node(1), generation, allow_empty);
                        for allowed in [false, true] {
                            prop_assert_eq!(judge(Some(&document), &composed, allowed), SAME);
                        }
                        last = Some(document);
                    }
                }
            }
        }
    }
}
