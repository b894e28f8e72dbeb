//! JSON values beside each other: what differs, and how two changes of one value go together.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A place where two values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    /// Where: an RFC 6901 JSON pointer.
    pub(crate) pointer: String,
    /// `None`: it was not there.
    pub(crate) before: Option<&'a Value>,
    /// `None`: it is not there any more.
    pub(crate) after: Option<&'a Value>,
}

/// Where two values differ, as deep as objects go: a list is one value, because the place of an
/// entry says nothing about which entry it is.
pub(crate) fn changes<'a>(before: Option<&'a Value>, after: Option<&'a Value>) -> Vec<Change<'a>> {
    let mut found = Vec::new();
    collect(String::new(), before, after, &mut found);
    found
}

fn collect<'a>(
    pointer: String,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
    found: &mut Vec<Change<'a>>,
) {
    match (before, after) {
        _ if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for key in keys(&[old, new]) {
                collect(below(&pointer, key), old.get(key), new.get(key), found);
            }
        }
        _ => found.push(Change { pointer, before, after }),
    }
}

/// Two changes of one value, put together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merged {
    /// Both changes; where they touch the same, ours.
    pub(crate) value: Value,
    /// The pointers of the places where they touch the same and differ.
    pub(crate) conflicts: Vec<String>,
}

/// Puts together what became of `base` here and there.
pub(crate) fn merge(base: &Value, ours: &Value, theirs: &Value) -> Merged {
    let mut conflicts = Vec::new();
    let value = together(String::new(), Some(base), Some(ours), Some(theirs), &mut conflicts);
    // Both sides have a value at the root, and so has what they make together.
    Merged { value: value.unwrap_or(Value::Null), conflicts }
}

fn together(
    pointer: String,
    base: Option<&Value>,
    ours: Option<&Value>,
    theirs: Option<&Value>,
    conflicts: &mut Vec<String>,
) -> Option<Value> {
    if ours == theirs || base == theirs {
        return ours.cloned();
    }
    if base == ours {
        return theirs.cloned();
    }
    if let (Some(Value::Object(base)), Some(Value::Object(ours)), Some(Value::Object(theirs))) =
        (base, ours, theirs)
    {
        let part = |key: &String| {
            let (base, ours, theirs) = (base.get(key), ours.get(key), theirs.get(key));
            let value = together(below(&pointer, key), base, ours, theirs, conflicts)?;
            Some((key.clone(), value))
        };
        return Some(keys(&[ours, theirs]).into_iter().filter_map(part).collect());
    }
    conflicts.push(pointer);
    ours.cloned()
}

/// The keys of all objects, each once.
fn keys<'a>(objects: &[&'a Map<String, Value>]) -> BTreeSet<&'a String> {
    objects.iter().flat_map(|object| object.keys()).collect()
}

fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn differences_are_named_by_their_place() {
        let (old, new) = (
            json!({"a": 1, "b": {"c": [1], "d/e": true}, "f": 0}),
            json!({"a": 1, "b": {"c": [2], "d/e": null}, "g": 0}),
        );
        let found = changes(Some(&old), Some(&new));
        let places: Vec<_> = found.iter().map(|change| change.pointer.as_str()).collect();
        assert_eq!(places, ["/b/c", "/b/d~1e", "/f", "/g"]);
        assert_eq!((found[2].before, found[2].after), (Some(&json!(0)), None));
        assert_eq!(changes(Some(&old), Some(&old)), []);
        assert_eq!(changes(None, Some(&new)).len(), 1);
    }

    #[test]
    fn changes_of_different_places_go_together() {
        let base = json!({"enabled": true, "chain": [1], "selector": {"labels": {"a": "1"}}});
        let ours = json!({"enabled": true, "chain": [2], "selector": {"labels": {"a": "1"}}});
        let theirs = json!({"enabled": false, "chain": [1], "selector": {"labels": {}}, "mode": 1});
        let merged = merge(&base, &ours, &theirs);
        assert!(merged.conflicts.is_empty(), "{merged:?}");
        let both = json!({"enabled": false, "chain": [2], "selector": {"labels": {}}, "mode": 1});
        assert_eq!(merged.value, both);
    }

    #[test]
    fn changes_of_the_same_place_are_a_conflict_in_which_ours_stays() {
        let base = json!({"chain": [1], "drift": "repair", "x": {"y": 1}});
        let ours = json!({"chain": [2], "x": {"y": 2}});
        let theirs = json!({"chain": [3], "drift": "report", "x": 7});
        let merged = merge(&base, &ours, &theirs);
        assert_eq!(merged.conflicts, ["/chain", "/drift", "/x"]);
        assert_eq!(merged.value, ours);
        // The same change by both is none.
        assert!(merge(&base, &theirs, &theirs).conflicts.is_empty());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(null)), (0..3).prop_map(Value::from), Just(json!([1]))];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into())
        })
    }

    proptest! {
        #[test]
        fn a_side_that_changed_nothing_is_overruled(base in value(), changed in value()) {
            for (ours, theirs) in [(&base, &changed), (&changed, &base)] {
                let merged = merge(&base, ours, theirs);
                prop_assert_eq!(&merged.value, &changed);
                prop_assert!(merged.conflicts.is_empty());
            }
        }

        #[test]
        fn who_changes_what_the_other_did_not_gets_it(
            base in value(), ours in value(), theirs in value(),
        ) {
            let merged = merge(&base, &ours, &theirs);
            let swapped = merge(&base, &theirs, &ours);
            // Whose side one is on decides conflicts alone.
            if merged.conflicts.is_empty() {
                prop_assert_eq!(&merged.value, &swapped.value);
                prop_assert!(swapped.conflicts.is_empty());
            } else {
                prop_assert_eq!(merged.conflicts.len(), swapped.conflicts.len());
            }
            // Nothing of theirs is lost but for what conflicts.
            for change in changes(Some(&base), Some(&theirs)) {
                let conflict = merged.conflicts.iter().any(|place| {
                    change.pointer.starts_with(place) || place.starts_with(&change.pointer)
                });
                if !conflict {
                    prop_assert_eq!(merged.value.pointer(&change.pointer), change.after);
                }
            }
        }
    }
}
