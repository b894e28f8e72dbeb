//! Differences for people.

use pointsman_model::fleet::{PolicySpec, UnifiedDiff};
use serde_json::Value;
use similar::TextDiff;

/// How many lines are compared with care. Beyond, what lies between the first and the last line
/// that differ is shown as replaced: comparing takes time that grows with the square.
const MOST_LINES: usize = 8192;

/// How many unchanged lines stand around a change.
const CONTEXT: usize = 3;

/// From one document of a node to another, as a unified diff of their pretty-printed JSON; empty:
/// they say the same. Left out are the generation, which differs always, and the node, which never
/// does: so nodes to which the same happens have the same difference.
#[must_use]
pub fn diff_documents(old: Option<&Value>, new: Option<&Value>) -> UnifiedDiff {
    let shown = |document: Option<&Value>| {
        let mut document = document?.clone();
        if let Value::Object(fields) = &mut document {
            fields.remove("generation");
            fields.remove("node");
        }
        Some(document)
    };
    unified(&pretty(shown(old).as_ref()), &pretty(shown(new).as_ref()))
}

/// From what a policy says to what it shall say; `None`: it is not there.
#[must_use]
pub fn diff_policies(old: Option<&PolicySpec>, new: Option<&PolicySpec>) -> UnifiedDiff {
    let json = |spec: Option<&PolicySpec>| {
        spec.map(|spec| serde_json::to_value(spec).expect("invariant: a policy has names as keys"))
    };
    unified(&pretty(json(old).as_ref()), &pretty(json(new).as_ref()))
}

fn pretty(value: Option<&Value>) -> String {
    value.map_or_else(String::new, |value| format!("{value:#}\n"))
}

/// From one text to another in the unified format, without file names; empty: they are the same.
#[must_use]
pub fn unified(old: &str, new: &str) -> UnifiedDiff {
    if old == new {
        return String::new();
    }
    let (old_lines, new_lines): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let before = old_lines.iter().zip(&new_lines).take_while(same).count();
    let after = old_lines[before..]
        .iter()
        .rev()
        .zip(new_lines[before..].iter().rev())
        .take_while(same)
        .count();
    if old_lines.len() + new_lines.len() - 2 * (before + after) <= MOST_LINES {
        return TextDiff::from_lines(old, new).unified_diff().context_radius(CONTEXT).to_string();
    }
    replaced(&old_lines, &new_lines, before, after)
}

/// One hunk: everything but the first `before` and the last `after` lines goes, and comes.
fn replaced(old: &[&str], new: &[&str], before: usize, after: usize) -> String {
    let (lead, trail) = (before.min(CONTEXT), after.min(CONTEXT));
    let start = before - lead;
    let range = |lines: &[&str]| {
        let count = lines.len() - after + trail - start;
        // An empty range stands at the line before it.
        format!("{},{count}", if count == 0 { start } else { start + 1 })
    };
    let mut text = format!("@@ -{} +{} @@\n", range(old), range(new));
    let mut put = |sign: char, lines: &[&str]| {
        for line in lines {
            text.push(sign);
            text.push_str(line);
            if !line.ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
    };
    put(' ', &old[start..before]);
    put('-', &old[before..old.len() - after]);
    put('+', &new[before..new.len() - after]);
    put(' ', &new[new.len() - after..new.len() - after + trail]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    /// What `patch` does, for hunks that fit exactly.
    fn patch(old: &str, diff: &str) -> String {
        let old: Vec<&str> = old.split_inclusive('\n').collect();
        let (mut new, mut at) = (String::new(), 0);
        for line in diff.split_inclusive('\n') {
            if let Some(header) = line.strip_prefix("@@ -") {
                let range = header.split(' ').next().unwrap();
                let (start, count) = range.split_once(',').unwrap_or((range, "1"));
                let start: usize = start.parse().unwrap();
                let start = if count == "0" { start } else { start - 1 };
                old[at..start].iter().for_each(|line| new.push_str(line));
                at = start;
                continue;
            }
            let (sign, text) = line.split_at(1);
            if sign != "+" {
                assert_eq!(old[at], text, "{diff}");
                at += 1;
            }
            if sign != "-" {
                new.push_str(text);
            }
        }
        old[at..].iter().for_each(|line| new.push_str(line));
        new
    }

    #[test]
    fn a_document_is_shown_without_its_generation() {
        let old = json!({"node": "edge-1", "generation": 1, "interfaces": {"eth0": {"xdp": {"chain": []}}}});
        let mut new = old.clone();
        new["generation"] = json!(2);
        assert_eq!(diff_documents(Some(&old), Some(&new)), "");
        new["interfaces"]["eth0"]["xdp"]["chain"] = json!([{"program": "ddos"}]);
        insta::assert_snapshot!(diff_documents(Some(&old), Some(&new)), @r#"
        @@ -2,7 +2,11 @@
           "interfaces": {
             "eth0": {
               "xdp": {
        -        "chain": []
        +        "chain": [
        +          {
        +            "program": "ddos"
        +          }
        +        ]
               }
             }
           }
        "#);
        let all_new = diff_documents(None, Some(&old));
        assert!(all_new.starts_with("@@ -0,0 +1,9 @@\n+{\n"), "{all_new}");
        assert_eq!(diff_documents(None, None), "");
    }

    #[test]
    fn texts_too_large_to_compare_are_shown_as_replaced() {
        let lines = |salt: usize| -> String {
            let middle: String = (0..10_000).map(|n| format!("{}\n", n * 7 + salt)).collect();
            format!("a\nb\nc\nd\n{middle}w\nx\ny\nz\n")
        };
        let (old, new) = (lines(1), lines(2));
        let diff = unified(&old, &new);
        assert!(diff.starts_with("@@ -2,10006 +2,10006 @@\n b\n c\n d\n-1\n"), "{}", &diff[..60]);
        assert_eq!(patch(&old, &diff), new);
        let from_nothing = unified("", &new);
        assert!(from_nothing.starts_with("@@ -0,0 +1,10008 @@\n"), "{}", &from_nothing[..60]);
        assert_eq!(patch("", &from_nothing), new);
    }

    fn text() -> impl Strategy<Value = String> {
        vec(prop_oneof![Just("a\n"), Just("b\n"), Just("{\n"), Just("}\n"), Just("\n")], 0..40)
            .prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_text_to_the_other(old in text(), new in text()) {
            let diff = unified(&old, &new);
            prop_assert_eq!(diff.is_empty(), old == new);
            prop_assert_eq!(patch(&old, &diff), new.clone());
            let lines = |text: &str| -> Vec<String> {
                text.split_inclusive('\n').map(str::to_owned).collect()
            };
            let (a, b) = (lines(&old), lines(&new));
            let (a, b): (Vec<_>, Vec<_>) = (
                a.iter().map(String::as_str).collect(),
                b.iter().map(String::as_str).collect(),
            );
            // The way of texts that are too large leads there too.
            let before = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            let after = a[before..].iter().rev().zip(b[before..].iter().rev())
                .take_while(|(a, b)| a == b).count();
            if old != new {
                prop_assert_eq!(patch(&old, &replaced(&a, &b, before, after)), new);
            }
        }
    }
}
