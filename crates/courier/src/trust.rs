//! The key that records are verified with.
//!
//! The daemon decides. A courier that looks as well says at once, and clearly, what the daemon
//! would refuse, and keeps it out of the drop directory.

use crate::files::read_small;
use pointsman_model::{FleetName, NodeName};
use pointsman_snapshot::keys::PublicKey;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The largest file that is read.
const MAX_FILE: usize = 64 << 10;

/// To whom a node listens: `fleet.json`, written when the node enrols, owned by root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The fleet.
    pub fleet: FleetName,
    /// The node's name in it.
    pub node: NodeName,
    /// The key that records are signed with: the base64 line of a minisign public key.
    pub public_key: String,
}

impl Membership {
    /// Reads it; `None`: there is none, or we may not read it.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        let wrong = |why: String| format!("{}: {why}", path.display());
        let bytes = match read_small(path, MAX_FILE) {
            Ok((bytes, _)) => bytes,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Ok(None),
                    _ => Err(wrong(error.to_string())),
                };
            }
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(error.to_string()))
    }
}

/// Where the key comes from.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Records are handed over as they are.
    Nobody,
    /// This key.
    Key(Box<PublicKey>),
    /// The one in this file, read anew for each record; without the file as [`Self::Nobody`].
    File(PathBuf),
}

impl Trust {
    /// The key for records of this node; `None`: they are not verified here.
    ///
    /// # Errors
    /// One line: the file is wrong, or of another node.
    pub fn key(&self, fleet: &FleetName, node: &NodeName) -> Result<Option<PublicKey>, String> {
        let path = match self {
            Self::Nobody => return Ok(None),
            Self::Key(key) => return Ok(Some((**key).clone())),
            Self::File(path) => path,
        };
        let Some(membership) = Membership::read(path)? else { return Ok(None) };
        if (&membership.fleet, &membership.node) != (fleet, node) {
            return Err(format!(
                "{} is of node {} of fleet {}, and this courier enrolled as node {node} of fleet \
                 {fleet}: enrol again",
                path.display(),
                membership.node,
                membership.fleet
            ));
        }
        PublicKey::from_base64(&membership.public_key)
            .map(Some)
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn the_file_is_read_anew_and_must_be_of_this_node() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.json");
        let trust = Trust::File(path.clone());
        let (fleet, node) = (FleetName::new("f").unwrap(), NodeName::new("n").unwrap());
        assert_eq!(trust.key(&fleet, &node), Ok(None));
        for (text, expected) in [
            (format!(r#"{{"fleet":"f","node":"n","public_key":"{KEY}"}}"#), Ok(KEY)),
            (format!(r#"{{"fleet":"g","node":"n","public_key":"{KEY}"}}"#), Err("enrol again")),
            (format!(r#"{{"fleet":"f","node":"m","public_key":"{KEY}"}}"#), Err("enrol again")),
            (r#"{"fleet":"f","node":"n","public_key":"RW"}"#.into(), Err("public key")),
            (r#"{"fleet":"f","node":"n"}"#.into(), Err("missing field")),
            ("x".repeat(MAX_FILE + 1), Err("more than")),
        ] {
            std::fs::write(&path, &text).unwrap();
            match (trust.key(&fleet, &node), expected) {
                (Ok(Some(key)), Ok(expected)) => assert_eq!(key.to_base64(), expected),
                (Err(error), Err(expected)) => {
                    assert!(error.contains(expected) && error.contains("fleet.json"), "{error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
