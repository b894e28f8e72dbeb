//! What a record is worth, and what has to be fetched for it.

use crate::source::Place;
use pointsman_model::fleet::RecordObject;
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_snapshot::keys::PublicKey;
use pointsman_snapshot::record::{Record, RecordError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// A record that may be handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) generation: u64,
    /// What it needs beside it.
    pub(crate) objects: Vec<Wanted>,
}

/// An object that a record needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) sha256: Sha256,
    /// Its size, where the record says.
    pub(crate) bytes: Option<u64>,
    pub(crate) place: Place,
}

/// Looks at a record. Without a key its claims are believed: the daemon will not.
pub(crate) fn check(
    bytes: &[u8],
    key: Option<&PublicKey>,
    fleet: &FleetName,
    node: &NodeName,
) -> Result<Checked, RecordError> {
    let record = Record::parse(bytes)?;
    let Some(key) = key else { return unverified(record.payload_bytes) };
    let verified = record.verify(key, fleet, node)?;
    let objects = wanted(&verified.objects, verified.document_bytes);
    Ok(Checked { generation: verified.generation, objects })
}

/// The parts of a payload that matter here.
#[derive(Deserialize)]
struct Claims<'a> {
    generation: u64,
    #[serde(default)]
    objects: Vec<RecordObject>,
    #[serde(borrow)]
    document: &'a RawValue,
}

fn unverified(payload: &[u8]) -> Result<Checked, RecordError> {
    let claims: Claims<'_> = serde_json::from_slice(payload)
        .map_err(|error| RecordError::Invalid(format!("its payload cannot be read: {error}")))?;
    let objects = wanted(&claims.objects, claims.document.get().as_bytes());
    Ok(Checked { generation: claims.generation, objects })
}

/// The parts of a document that name what is fetched. Everything else of it is the daemon's to
/// judge, and may be of a later version.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    programs: BTreeMap<String, Program>,
}

#[derive(Deserialize)]
struct Program {
    #[serde(default)]
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    sha256: Option<Sha256>,
}

fn wanted(published: &[RecordObject], document: &[u8]) -> Vec<Wanted> {
    let mut wanted: Vec<_> = published
        .iter()
        .map(|object| Wanted {
            sha256: object.sha256,
            bytes: Some(object.bytes),
            place: Place::Store(object.sha256),
        })
        .collect();
    let mut known: BTreeSet<_> = wanted.iter().map(|object| object.sha256).collect();
    let programs = serde_json::from_slice::<Document>(document).map(|document| document.programs);
    for program in programs.unwrap_or_default().into_values() {
        let Some(Object { url: Some(url), sha256: Some(sha256) }) = program.object else {
            continue;
        };
        if known.insert(sha256) {
            wanted.push(Wanted { sha256, bytes: None, place: Place::Url(url) });
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_published_beside_the_record_is_not_fetched_from_elsewhere() {
        let (a, b) = (Sha256::of(b"a"), Sha256::of(b"b"));
        let document = json!({"schema": "of a later version", "programs": {
            "published": {"object": {"url": "https://x/a", "sha256": a}},
            "linked": {"object": {"url": "https://x/b", "sha256": b}},
            "twice": {"object": {"url": "https://y/b", "sha256": b}},
            "local": {"object": {"path": "/srv/x.o"}},
            "stored": {"object": {"sha256": a}},
            "builtin": {"builtin": "counting-pass", "more": 1},
        }})
        .to_string();
        let found = wanted(&[RecordObject { sha256: a, bytes: 7 }], document.as_bytes());
        let linked = Place::Url("https://x/b".into());
        assert_eq!(
            found,
            [
                Wanted { sha256: a, bytes: Some(7), place: Place::Store(a) },
                Wanted { sha256: b, bytes: None, place: linked },
            ]
        );
    }

    #[test]
    fn a_document_that_makes_no_sense_here_needs_nothing() {
        for document in ["", "[]", r#"{"programs": 7}"#, r#"{"programs": {"p": {"object": 7}}}"#] {
            assert_eq!(wanted(&[], document.as_bytes()), []);
        }
    }
}
