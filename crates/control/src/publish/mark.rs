//! What is kept of a published record beside it, to know without reading it whether it is still
//! what is wanted.

use pointsman_model::Sha256;
use std::fmt;
use std::str::FromStr;

/// What a record was made of. Records with equal marks have the same document, but for the names
/// of their nodes and their generations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    /// What the policies and programs came to: [`pointsman_fleet::Selection::inputs`].
    pub(super) inputs: Sha256,
    /// The key that it is signed with.
    pub(super) key_id: String,
    /// Whether the document says that it may empty the node.
    pub(super) allow_empty: bool,
}

const ALLOW_EMPTY: &str = "allow_empty";

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.inputs, self.key_id)?;
        if self.allow_empty { write!(f, " {ALLOW_EMPTY}") } else { Ok(()) }
    }
}

/// A text that is no mark: another version may have written it. The record itself has to be read
/// then.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;

impl FromStr for Mark {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let mut words = text.split(' ');
        let (Some(inputs), Some(key_id)) = (words.next(), words.next()) else {
            return Err(Unknown);
        };
        let allow_empty = match (words.next(), words.next()) {
            (None, _) => false,
            (Some(ALLOW_EMPTY), None) => true,
            _ => return Err(Unknown),
        };
        let inputs = inputs.parse().map_err(|_| Unknown)?;
        Ok(Self { inputs, key_id: key_id.to_owned(), allow_empty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is() {
        for allow_empty in [false, true] {
            let mark = Mark { inputs: Sha256::of(b"x"), key_id: "E762".into(), allow_empty };
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        let hash = Sha256::of(b"x");
        for text in ["", "adopted", &hash.to_string(), &format!("{hash} k odd"), "x k"] {
            assert_eq!(text.parse::<Mark>(), Err(Unknown), "{text}");
        }
    }
}
