//! Keeps the document in force from being replaced by mistake.

use pointsman_model::document::DocumentError;
use pointsman_model::{Document, NodeName, Sha256};
use serde::{Deserialize, Serialize};

/// The document in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current<'a> {
    /// The node it names.
    pub node: &'a NodeName,
    /// Its generation.
    pub generation: u64,
    /// The hash of its bytes.
    pub digest: &'a Sha256,
    /// Whether the node was drained since it was accepted.
    pub drained: bool,
    /// What somebody returned from and that must not come back by itself. None of it is older
    /// than the document in force.
    pub left: &'a [Mark],
}

/// One document among those of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Its generation.
    pub generation: u64,
    /// The hash of its bytes.
    pub digest: Sha256,
}

/// Decides whether `new` may take the place of `current`. `programs_running` is how many programs
/// run in our chains, over all hooks. `asked`: an operator asks for this very document, and it was
/// not merely found where documents are laid down.
///
/// After a rollback the highest generation that was ever in force still counts: what was returned
/// from comes back only when it is asked for, and anything else must be newer than all of it.
///
/// # Errors
/// The document is for another node, older than the one in force, different with the same
/// generation, returned from, or suddenly empty. After a drain the same generation may come with
/// other contents.
pub fn guard(
    current: Option<&Current<'_>>,
    new: &Document,
    new_digest: &Sha256,
    programs_running: usize,
    asked: bool,
) -> Result<(), DocumentError> {
    if let Some(current) = current {
        check_node(current, new)?;
        check_left(current, new, new_digest, asked)?;
        check_generation(current, new, new_digest)?;
    }
    if programs_running > 0 && new.is_empty() && !new.allow_empty {
        return Err(error(
            "",
            format!(
                "it is suddenly empty: it has no program in any chain, and {programs_running} of \
                 ours run on this host; if that is meant, write `\"allow_empty\": true` into it, \
                 or use `pointsman drain`"
            ),
        ));
    }
    Ok(())
}

/// What must not come back by itself after a node has gone to `to`, for which it left `from`;
/// without `from`, `to` was applied.
///
/// Only what is at least as new as `to` can come back: the rest is older than what is in force.
#[must_use]
pub fn left_behind(left: &[Mark], from: Option<Mark>, to: Mark) -> Vec<Mark> {
    let mut behind: Vec<Mark> = left.iter().copied().chain(from).collect();
    behind.retain(|mark| mark.generation >= to.generation && mark.digest != to.digest);
    behind.sort_unstable_by_key(|mark| (mark.generation, mark.digest));
    behind.dedup();
    behind
}

fn check_node(current: &Current<'_>, new: &Document) -> Result<(), DocumentError> {
    let (expected, found) = (current.node, &new.node);
    if expected == found {
        return Ok(());
    }
    Err(error(
        "/node",
        format!(
            "expected {:?}, as in the document in force, found {:?}: this document is for another \
             host; to give this host another name, drain it, stop pointsman-node and start it \
             with an empty state directory",
            expected.as_str(),
            found.as_str()
        ),
    ))
}

fn check_left(
    current: &Current<'_>,
    new: &Document,
    new_digest: &Sha256,
    asked: bool,
) -> Result<(), DocumentError> {
    let Some(highest) = current.left.iter().map(|mark| mark.generation).max() else {
        return Ok(());
    };
    let highest = highest.max(current.generation);
    if new.generation > highest || current.digest == new_digest {
        return Ok(());
    }
    let (in_force, found) = (current.generation, new.generation);
    let next = highest.saturating_add(1);
    if current.left.iter().any(|mark| mark.digest == *new_digest) {
        if asked {
            return Ok(());
        }
        return Err(error(
            "/generation",
            format!(
                "generation {found} was returned from, and generation {in_force} is in force: it \
                 comes back only with `pointsman apply FILE`; a document of generation {next} or \
                 higher is taken as ever"
            ),
        ));
    }
    // After a drain the highest generation may come with other contents, as it always could.
    if current.drained && found == highest {
        return Ok(());
    }
    Err(error(
        "/generation",
        format!(
            "expected at least {next}, found {found}: generation {in_force} is in force because \
             somebody returned from generation {highest}; `pointsman generations` lists what \
             the node can return to"
        ),
    ))
}

fn check_generation(
    current: &Current<'_>,
    new: &Document,
    new_digest: &Sha256,
) -> Result<(), DocumentError> {
    let (in_force, found) = (current.generation, new.generation);
    let next = in_force.saturating_add(1);
    if found < in_force {
        return Err(error(
            "/generation",
            format!(
                "expected at least {in_force}, the generation in force, found {found}: this \
                 document is older; to return to its contents, raise its generation to {next}"
            ),
        ));
    }
    if found == in_force && current.digest != new_digest && !current.drained {
        return Err(error(
            "/generation",
            format!(
                "generation {in_force} is in force with other contents; raise the generation to \
                 {next}"
            ),
        ));
    }
    Ok(())
}

fn error(pointer: &str, message: String) -> DocumentError {
    DocumentError { pointer: pointer.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn document(text: &str) -> (Document, Sha256) {
        let document = Document::parse(text.as_bytes()).unwrap();
        (document, Sha256::of(text.as_bytes()))
    }

    fn edition(generation: u64, rest: &str) -> (Document, Sha256) {
        document(&format!(
            r#"{{"schema": "pointsman.node/v1", "node": "edge-17", "generation": {generation}{rest}}}"#
        ))
    }

    const CHAIN: &str = r#", "programs": {"count": {"builtin": "counting-pass"}},
        "interfaces": {"eth0": {"xdp": {"chain": [{"program": "count"}]}}}"#;

    fn standing<'a>(
        (document, digest): (&'a Document, &'a Sha256),
        drained: bool,
        left: &'a [Mark],
    ) -> Current<'a> {
        Current { node: &document.node, generation: document.generation, digest, drained, left }
    }

    /// Guards the change from one edition to another while `running` programs run.
    fn change(
        (old, old_digest): &(Document, Sha256),
        (new, new_digest): &(Document, Sha256),
        drained: bool,
        running: usize,
    ) -> Result<(), String> {
        let current = standing((old, old_digest), drained, &[]);
        guard(Some(&current), new, new_digest, running, true).map_err(|error| error.to_string())
    }

    #[test]
    fn generations_only_rise() {
        let (old, new) = (edition(41, CHAIN), edition(42, CHAIN));
        assert_eq!(change(&old, &new, false, 1), Ok(()));
        let error = change(&new, &old, false, 1).unwrap_err();
        insta::assert_snapshot!(error, @"/generation: expected at least 42, the generation in force, found 41: this document is older; to return to its contents, raise its generation to 43");
        // A drain does not make an old document young.
        assert_eq!(change(&new, &old, true, 0), Err(error));
    }

    #[test]
    fn a_generation_has_one_content_until_drained() {
        let (old, new) = (edition(42, CHAIN), edition(42, &format!("{CHAIN} ")));
        assert_eq!(change(&old, &old, false, 1), Ok(()));
        insta::assert_snapshot!(change(&old, &new, false, 1).unwrap_err(), @"/generation: generation 42 is in force with other contents; raise the generation to 43");
        assert_eq!(change(&old, &new, true, 0), Ok(()));
    }

    #[test]
    fn an_empty_document_must_say_that_it_means_it() {
        let (old, empty) = (edition(1, CHAIN), edition(2, ""));
        insta::assert_snapshot!(change(&old, &empty, false, 3).unwrap_err(), @r#"document: it is suddenly empty: it has no program in any chain, and 3 of ours run on this host; if that is meant, write `"allow_empty": true` into it, or use `pointsman drain`"#);
        assert_eq!(change(&old, &empty, false, 0), Ok(()));
        assert_eq!(change(&old, &edition(2, r#", "allow_empty": true"#), false, 3), Ok(()));
        // Without a document in force too: pins may have been adopted.
        let (document, digest) = &empty;
        assert!(guard(None, document, digest, 1, true).is_err());
        assert_eq!(guard(None, document, digest, 0, true), Ok(()));
        // A chain without programs empties the host as well.
        let emptied = edition(2, r#", "interfaces": {"eth0": {"xdp": {"chain": []}}}"#);
        assert!(change(&old, &emptied, false, 3).is_err());
    }

    #[test]
    fn a_document_for_another_host_is_refused() {
        let old = edition(1, CHAIN);
        let other =
            document(r#"{"schema": "pointsman.node/v1", "node": "edge-18", "generation": 2}"#);
        insta::assert_snapshot!(change(&old, &other, false, 1).unwrap_err(), @r#"/node: expected "edge-17", as in the document in force, found "edge-18": this document is for another host; to give this host another name, drain it, stop pointsman-node and start it with an empty state directory"#);
        assert!(change(&old, &other, true, 0).is_err());
    }

    #[test]
    fn what_was_returned_from_comes_back_only_when_asked_for() {
        let (old, bad) = (edition(41, CHAIN), edition(42, CHAIN));
        let left = [Mark { generation: 42, digest: bad.1 }];
        let current = standing((&old.0, &old.1), false, &left);
        let judge = |(new, digest): &(Document, Sha256), asked| {
            guard(Some(&current), new, digest, 1, asked).map_err(|error| error.to_string())
        };
        assert_eq!(judge(&bad, true), Ok(()));
        insta::assert_snapshot!(judge(&bad, false).unwrap_err(), @"/generation: generation 42 was returned from, and generation 41 is in force: it comes back only with `pointsman apply FILE`; a document of generation 43 or higher is taken as ever");
        let other = edition(42, &format!("{CHAIN} "));
        insta::assert_snapshot!(judge(&other, true).unwrap_err(), @"/generation: expected at least 43, found 42: generation 41 is in force because somebody returned from generation 42; `pointsman generations` lists what the node can return to");
        assert_eq!(judge(&other, false), judge(&other, true));
        assert_eq!(judge(&old, false), Ok(()));
        assert_eq!(judge(&edition(43, CHAIN), false), Ok(()));
        assert!(judge(&edition(40, CHAIN), true).is_err());
    }

    proptest! {
        /// Over any history of applies and rollbacks: what comes by itself is never a document
        /// that was in force before and is not now, and a newer one is always taken.
        #[test]
        fn nothing_older_ever_comes_back_by_itself(
            history in vec((any::<bool>(), 0..4u64, 0..3usize), 0..12),
            drained: bool,
        ) {
            let text = |generation: u64, variant: usize| {
                edition(generation, &format!("{CHAIN}{}", " ".repeat(variant)))
            };
            let mut accepted = vec![text(5, 0)];
            let mut now = 0;
            let mut left: Vec<Mark> = Vec::new();
            let mark = |(document, digest): &(Document, Sha256)| Mark {
                generation: document.generation,
                digest: *digest,
            };
            let highest = |all: &[(Document, Sha256)]| {
                all.iter().map(|(document, _)| document.generation).max().unwrap()
            };
            for (back, step, variant) in history {
                let current = &accepted[now];
                if back {
                    let target = usize::try_from(step).unwrap() % (now + 1);
                    left = left_behind(&left, Some(mark(current)), mark(&accepted[target]));
                    now = target;
                    continue;
                }
                let new = text(current.0.generation + step, variant);
                let standing = standing((&current.0, &current.1), false, &left);
                for asked in [false, true] {
                    if guard(Some(&standing), &new.0, &new.1, 1, asked).is_err() {
                        continue;
                    }
                    let known = accepted.iter().position(|(_, digest)| *digest == new.1);
                    prop_assert!(asked || known.is_none_or(|at| at == now), "came back");
                    let fresh = new.0.generation > highest(&accepted);
                    prop_assert!(fresh || known.is_some(), "a generation with two contents");
                    left = left_behind(&left, None, mark(&new));
                    prop_assert!(!fresh || left.is_empty());
                    now = known.unwrap_or(accepted.len());
                    if known.is_none() {
                        accepted.push(new.clone());
                    }
                    break;
                }
            }
            let (current, digest) = &accepted[now];
            let standing = standing((current, digest), drained, &left);
            let newer = text(highest(&accepted) + 1, 0);
            prop_assert_eq!(guard(Some(&standing), &newer.0, &newer.1, 1, false), Ok(()));
        }
    }
}
