//! Records: a node's document and who it is for, signed.
//!
//! ```text
//! untrusted comment: pointsman record
//! base64 of "ED", the key's id, the signature of the payload's BLAKE2b hash
//! trusted comment: pointsman fleet=F node=N generation=G
//! base64 of the signature of the signature and of the trusted comment
//! {"schema":"pointsman.record/v1", ...}
//! ```
//!
//! The first four lines are a minisign signature file, each ended by a line feed; what follows
//! them is the payload, to its last byte. There is one way to write a record down: a single bit
//! that differs, in the comment too, makes it none.

use crate::keys::PublicKey;
use minisign_verify::Signature;
use pointsman_model::document::MAX_GENERATION;
use pointsman_model::fleet::{MAX_RECORD, RECORD_SCHEMA, RecordObject};
use pointsman_model::{FleetName, NodeName};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// What the first line says. It is not signed, so it has to be this.
pub(crate) const COMMENT: &str = "pointsman record";

/// What the first line starts with.
const UNTRUSTED: &str = "untrusted comment: ";

/// The longest signature file: its trusted comment names a fleet and a node.
const MAX_SIGNATURE: usize = 1 << 10;

/// Why a record is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Larger than a record can be.
    #[error("the record is of {bytes} bytes; the limit is {MAX_RECORD}")]
    TooLarge {
        /// What it has.
        bytes: usize,
    },
    /// It does not start with a signature.
    #[error("the record does not start with the four lines of a minisign signature: {0}")]
    Unsigned(&'static str),
    /// It is signed with another key.
    #[error("the record is signed with the key {found}, not with {expected}")]
    OtherKey {
        /// The id of the key that it claims.
        found: String,
        /// The id of the key that it has to be signed with.
        expected: String,
    },
    /// The signature does not belong to these bytes.
    #[error("the signature is not that of these bytes: the record was altered, or cut off")]
    BadSignature,
    /// It is of another fleet.
    #[error("the record is of the fleet {found}, not of {expected}")]
    OtherFleet {
        /// What it says.
        found: FleetName,
        /// What was expected.
        expected: FleetName,
    },
    /// It is for another node.
    #[error("the record is for the node {found}, not for {expected}")]
    OtherNode {
        /// What it says.
        found: NodeName,
        /// What was expected.
        expected: NodeName,
    },
    /// It is signed, and wrong all the same: whoever signed it made a mistake.
    #[error("the record is signed, but {0}")]
    Invalid(String),
}

impl RecordError {
    /// What kind of fault it is, in one word that stays the same: see
    /// [`RefusedSnapshot::kind`](pointsman_model::fleet::RefusedSnapshot::kind).
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Unsigned(_) => "unsigned",
            Self::OtherKey { .. } | Self::BadSignature => "bad_signature",
            Self::OtherFleet { .. } => "other_fleet",
            Self::OtherNode { .. } => "other_node",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// A record in its two parts. Nothing of it is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The signature: what minisign keeps in a `.minisig` file.
    pub signature_text: &'a str,
    /// What is signed: what minisign takes as the file.
    pub payload_bytes: &'a [u8],
}

/// What a record says, once its signature was verified and it is for this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<'a> {
    /// The document's generation.
    pub generation: u64,
    /// When it was signed, in milliseconds since the Unix epoch.
    pub issued_unix_ms: u64,
    /// The objects that lie beside it.
    pub objects: Vec<RecordObject>,
    /// The node document, byte for byte as it was signed. Its node and its generation are those
    /// of the record; nothing else of it was looked at.
    pub document_bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Splits a record after its fourth line.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`], [`RecordError::Unsigned`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD {
            return Err(RecordError::TooLarge { bytes: bytes.len() });
        }
        let head = &bytes[..bytes.len().min(MAX_SIGNATURE)];
        let ends = head.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
        let end = ends.map(|(at, _)| at + 1).nth(3);
        let end = end.ok_or(RecordError::Unsigned("there are no four lines"))?;
        let signature_text = std::str::from_utf8(&head[..end])
            .map_err(|_| RecordError::Unsigned("they are not text"))?;
        let mut lines = signature_text.split_terminator('\n');
        if lines.next().and_then(|line| line.strip_prefix(UNTRUSTED)) != Some(COMMENT) {
            return Err(RecordError::Unsigned(
                "the first one is not `untrusted comment: pointsman record`",
            ));
        }
        if signature_text.contains('\r') {
            return Err(RecordError::Unsigned("they end in line feeds, without carriage returns"));
        }
        Ok(Self { signature_text, payload_bytes: &bytes[end..] })
    }

    /// Verifies the signature, and that the record is for this node of this fleet. Which
    /// generations are too old is for the caller to know.
    ///
    /// # Errors
    /// [`RecordError`]: the first thing that is wrong.
    pub fn verify(
        &self,
        key: &PublicKey,
        fleet: &FleetName,
        node: &NodeName,
    ) -> Result<Verified<'a>, RecordError> {
        let signature = self.verify_signature(key)?;
        let claim = Claim::parse(signature.trusted_comment())?;
        if claim.fleet != *fleet {
            return Err(RecordError::OtherFleet { found: claim.fleet, expected: fleet.clone() });
        }
        if claim.node != *node {
            return Err(RecordError::OtherNode { found: claim.node, expected: node.clone() });
        }
        read_payload(self.payload_bytes, &claim)
    }

    fn verify_signature(&self, key: &PublicKey) -> Result<Signature, RecordError> {
        use minisign_verify::Error;
        let signature = Signature::decode(self.signature_text)
            .map_err(|_| RecordError::Unsigned("what stands in them is no signature"))?;
        key.inner().verify(self.payload_bytes, &signature, false).map_err(|error| match error {
            Error::UnexpectedKeyId => RecordError::OtherKey {
                found: self.key_id().unwrap_or_default(),
                expected: key.key_id(),
            },
            Error::UnexpectedAlgorithm | Error::UnsupportedAlgorithm => RecordError::Unsigned(
                "the signature is one of minisign's old kind, without hashing first",
            ),
            _ => RecordError::BadSignature,
        })?;
        Ok(signature)
    }

    /// The id of the key that the signature claims to be of.
    fn key_id(&self) -> Option<String> {
        use base64::Engine as _;
        let line = self.signature_text.lines().nth(1)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(line).ok()?;
        let id = bytes.get(2..)?.first_chunk()?;
        Some(format!("{:X}", u64::from_le_bytes(*id)))
    }
}

/// What a trusted comment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) fleet: FleetName,
    pub(crate) node: NodeName,
    pub(crate) generation: u64,
}

impl Claim {
    fn parse(comment: &str) -> Result<Self, RecordError> {
        let fields = || {
            let rest = comment.strip_prefix("pointsman fleet=")?;
            let (fleet, rest) = rest.split_once(" node=")?;
            let (node, generation) = rest.split_once(" generation=")?;
            let claim = Self {
                fleet: fleet.parse().ok()?,
                node: node.parse().ok()?,
                generation: generation.parse().ok()?,
            };
            // The number is written in one way only.
            (claim.to_string() == comment).then_some(claim)
        };
        fields().ok_or_else(|| {
            RecordError::Invalid(
                "its trusted comment is not `pointsman fleet=F node=N generation=G`".to_owned(),
            )
        })
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { fleet, node, generation } = self;
        write!(f, "pointsman fleet={fleet} node={node} generation={generation}")
    }
}

/// [`RecordPayload`](pointsman_model::fleet::RecordPayload) as it is read: the document stays as
/// it was written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    schema: String,
    fleet: FleetName,
    node: NodeName,
    generation: u64,
    issued_unix_ms: u64,
    #[serde(default)]
    objects: Vec<RecordObject>,
    #[serde(borrow)]
    document: &'a RawValue,
}

/// Who a document is for.
#[derive(Deserialize)]
struct Address {
    node: NodeName,
    generation: u64,
}

pub(crate) fn read_payload<'a>(
    bytes: &'a [u8],
    claim: &Claim,
) -> Result<Verified<'a>, RecordError> {
    let invalid = |what: String| RecordError::Invalid(what);
    // What serde derives would take an array of the fields as well.
    if bytes.first() != Some(&b'{') {
        return Err(invalid("its payload is not a JSON object".to_owned()));
    }
    let payload: Payload = serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("its payload cannot be read: {error}")))?;
    let Payload { schema, fleet, node, generation, issued_unix_ms, objects, document } = payload;
    if schema != RECORD_SCHEMA {
        let schema: String = schema.chars().take(80).collect();
        return Err(invalid(format!(
            "has the schema {schema:?}; this program knows {RECORD_SCHEMA:?}"
        )));
    }
    let said = Claim { fleet, node, generation };
    if said != *claim {
        return Err(invalid(format!(
            "its payload is of `{said}`, and its trusted comment says `{claim}`"
        )));
    }
    if !(1..=MAX_GENERATION).contains(&generation) {
        return Err(invalid(format!(
            "has the generation {generation}; expected 1 to {MAX_GENERATION}"
        )));
    }
    let mut hashes = BTreeSet::new();
    if let Some(twice) = objects.iter().find(|object| !hashes.insert(object.sha256)) {
        return Err(invalid(format!("it names the object {} twice", twice.sha256)));
    }
    let address: Address = serde_json::from_str(document.get())
        .map_err(|error| invalid(format!("its document cannot be read: {error}")))?;
    if (&address.node, address.generation) != (&claim.node, claim.generation) {
        return Err(invalid(format!(
            "its document is generation {} of the node {}, and its trusted comment says `{claim}`",
            address.generation, address.node
        )));
    }
    Ok(Verified { generation, issued_unix_ms, objects, document_bytes: document.get().as_bytes() })
}

#[cfg(test)]
#[cfg(feature = "sign")]
mod tests;
