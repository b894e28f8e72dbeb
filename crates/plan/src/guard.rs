//! Keeps the document in force from being replaced by mistake.

use pointsman_model::document::DocumentError;
use pointsman_model::{Document, NodeName, Sha256};

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
}

/// Decides whether `new` may take the place of `current`. `programs_running` is how many programs
/// run in our chains, over all hooks.
///
/// # Errors
/// The document is for another node, older than the one in force, different with the same
/// generation, or suddenly empty. After a drain the same generation may come with other contents.
pub fn guard(
    current: Option<&Current<'_>>,
    new: &Document,
    new_digest: &Sha256,
    programs_running: usize,
) -> Result<(), DocumentError> {
    if let Some(current) = current {
        check_node(current, new)?;
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

    /// Guards the change from one edition to another while `running` programs run.
    fn change(
        (old, old_digest): &(Document, Sha256),
        (new, new_digest): &(Document, Sha256),
        drained: bool,
        running: usize,
    ) -> Result<(), String> {
        let current =
            Current { node: &old.node, generation: old.generation, digest: old_digest, drained };
        guard(Some(&current), new, new_digest, running).map_err(|error| error.to_string())
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
        assert!(guard(None, document, digest, 1).is_err());
        assert_eq!(guard(None, document, digest, 0), Ok(()));
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
}
