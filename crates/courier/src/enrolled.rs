//! `courier.json`: what a node got when it enrolled, and how its courier reaches the servers.

use crate::Secret;
use crate::files::read_small;
use crate::source::ClientOptions;
use pointsman_model::{FleetName, NodeName};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use url::Url;

/// The form of the file.
pub const COURIER_SCHEMA: &str = "pointsman.courier/v1";

/// The largest file that is read.
const MAX_FILE: usize = 64 << 10;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// [`COURIER_SCHEMA`].
    pub schema: String,
    /// The fleet.
    pub fleet: FleetName,
    /// The node's name in it.
    pub node: NodeName,
    /// The control plane.
    pub control: Url,
    /// What goes into `Authorization: Bearer`.
    pub credential: Secret,
    /// Where snapshots are, if not at the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Url>,
    /// A file of certificates in PEM that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The proxy for everything. Here, and not on a command line, it may have a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Secret>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnrolledError {
    /// It is not there.
    #[error(
        "there is no {}: enrol this node first (pointsman-courier enroll --help), or name the \
         file with --config", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the credential.
    #[error(
        "{} may be read or written by others (mode {mode:04o}), and holds a secret: chmod 600",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It cannot be read, or makes no sense.
    #[error("{}: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Enrolled {
    /// Reads the file, which must be for its owner alone.
    ///
    /// # Errors
    /// [`EnrolledError`].
    pub fn read(path: &Path) -> Result<Self, EnrolledError> {
        let owned = || path.to_owned();
        let invalid = |why: String| EnrolledError::Invalid { path: owned(), why };
        let (bytes, metadata) = read_small(path, MAX_FILE).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => EnrolledError::Missing { path: owned() },
            _ => invalid(error.to_string()),
        })?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(EnrolledError::Exposed { path: owned(), mode });
        }
        // An error of the parser never shows more than the names of fields.
        let enrolled: Self =
            serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if enrolled.schema != COURIER_SCHEMA {
            let found: String = enrolled.schema.chars().take(80).collect();
            return Err(invalid(format!(
                "the schema is {found:?}, and this program knows {COURIER_SCHEMA:?}"
            )));
        }
        control_url(&enrolled.control).map_err(invalid)?;
        Ok(enrolled)
    }
}

/// Whether a URL can be that of a control plane.
pub(crate) fn control_url(url: &Url) -> Result<(), String> {
    if matches!(url.scheme(), "http" | "https") && url.host().is_some() {
        return Ok(());
    }
    Err("the control plane's URL: expected http://HOST or https://HOST".into())
}

/// How servers are reached, with the certificates read from their file.
///
/// # Errors
/// One line that names the file.
pub fn client_options(ca: Option<&Path>, proxy: Option<Secret>) -> Result<ClientOptions, String> {
    const MAX_CA: usize = 4 << 20;
    let read = |path: &Path| {
        read_small(path, MAX_CA)
            .map(|(bytes, _)| bytes)
            .map_err(|error| format!("cannot read the CA file {}: {error}", path.display()))
    };
    Ok(ClientOptions { ca: ca.map(read).transpose()?, proxy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_that_is_wrong_is_named_and_its_secret_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("courier.json");
        assert!(matches!(Enrolled::read(&path), Err(EnrolledError::Missing { .. })));
        let good = json!({"schema": COURIER_SCHEMA, "fleet": "f", "node": "n",
            "control": "https://control.example", "credential": "pmc_topsecret"});
        let with = |key: &str, value: serde_json::Value| {
            let mut file = good.clone();
            file[key] = value;
            file
        };
        for (file, expected) in [
            (good.clone(), None),
            (with("source", json!("s3://bucket/x")), None),
            (with("schema", json!("v9")), Some("v9")),
            (with("control", json!("ftp://x")), Some("https://HOST")),
            (with("control", json!("control")), Some("URL")),
            (with("node", json!("../x")), Some("node name")),
            (with("more", json!(1)), Some("unknown field")),
            (json!([]), Some("courier.json")),
        ] {
            fs::write(&path, file.to_string()).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            match (Enrolled::read(&path), expected) {
                (Ok(enrolled), None) => {
                    assert!(!format!("{enrolled:?}").contains("topsecret"));
                }
                (Err(error), Some(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected), "{error}");
                    assert!(error.contains("courier.json"), "{error}");
                    assert!(!error.contains("topsecret"), "{error}");
                }
                (found, _) => panic!("{file}: {found:?}"),
            }
        }
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = Enrolled::read(&path).unwrap_err().to_string();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    }
}
