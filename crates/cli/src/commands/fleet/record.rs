//! `fleet node record`: what is published for a node, byte for byte, and whether it is signed.

use super::Context;
use super::program::write;
use crate::args::fleet::RecordArgs;
use crate::error::{CliError, Exit};
use crate::input;
use crate::output::Reader;
use crate::render::text::printable;
use pointsman_model::{FleetName, NodeName};
use pointsman_snapshot::keys::PublicKey;
use pointsman_snapshot::record::Record;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Longer than any file with a public key.
const MAX_KEY: usize = 64 << 10;

/// What a trusted comment starts with in a signature file.
const TRUSTED: &str = "trusted comment: ";

/// A record whose signature is good, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Checked {
    key_id: String,
    trusted_comment: String,
    generation: u64,
    issued_unix_ms: u64,
}

/// What was written where, for programs.
#[derive(Debug, Serialize)]
struct Written<'a> {
    payload: &'a Path,
    signature: &'a Path,
}

pub(super) async fn record(context: &Context<'_>, args: &RecordArgs) -> Result<Exit, CliError> {
    let RecordArgs { name, verify, output } = args;
    let key = verify.as_deref().map(public_key).transpose()?;
    let bytes = context.control.record(name).await?;
    if let Some(key) = &key {
        let checked = check(&bytes, key, name)?;
        context.output.answer(&checked, |checked, _| said(checked))?;
    }
    match output {
        Some(file) => export(context, name, &bytes, file, key.is_some()),
        None if key.is_some() => Ok(Exit::Done),
        None => show(context, &bytes),
    }
}

/// As minisign says it.
fn said(checked: &Checked) -> String {
    let comment = printable(&checked.trusted_comment);
    format!("Signature and comment signature verified\nTrusted comment: {comment}\n")
}

fn check(bytes: &[u8], key: &PublicKey, node: &NodeName) -> Result<Checked, CliError> {
    let refused = |why: String| CliError::Unverified { name: format!("record of {node}"), why };
    let record = Record::parse(bytes).map_err(|error| refused(error.to_string()))?;
    let comment = record.signature_text.lines().find_map(|line| line.strip_prefix(TRUSTED));
    let comment = comment.unwrap_or_default();
    // Whatever fleet it says: that it says so is verified, and shown.
    let fleet = comment
        .strip_prefix("pointsman fleet=")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|name| FleetName::new(name).ok())
        .ok_or_else(|| refused("its trusted comment names no fleet".to_owned()))?;
    let verified = record.verify(key, &fleet, node).map_err(|error| refused(error.to_string()))?;
    Ok(Checked {
        key_id: key.key_id(),
        trusted_comment: comment.to_owned(),
        generation: verified.generation,
        issued_unix_ms: verified.issued_unix_ms,
    })
}

/// The key itself, or the file that it is in.
fn public_key(given: &str) -> Result<PublicKey, CliError> {
    if let Ok(key) = PublicKey::from_base64(given) {
        return Ok(key);
    }
    let text = input::read(Path::new(given), "a public key", MAX_KEY)?;
    let text = String::from_utf8_lossy(&text);
    // A file of minisign's has a comment above the key.
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    PublicKey::from_base64(line.unwrap_or_default())
        .map_err(|error| CliError::Unverified { name: given.to_owned(), why: error.to_string() })
}

/// Splits a record into the two files that minisign takes.
fn export(
    context: &Context<'_>,
    name: &NodeName,
    bytes: &[u8],
    file: &Path,
    told: bool,
) -> Result<Exit, CliError> {
    let record = Record::parse(bytes).map_err(|error| CliError::Unverified {
        name: format!("record of {name}"),
        why: error.to_string(),
    })?;
    let signature = beside(file);
    write(file, record.payload_bytes)?;
    write(&signature, record.signature_text.as_bytes())?;
    // Programs get one value.
    if !(told && context.output.json) {
        let written = Written { payload: file, signature: &signature };
        context.output.answer(&written, |written, _| {
            let (payload, signature) = (written.payload.display(), written.signature.display());
            format!("wrote {payload} and {signature}\ncheck: minisign -Vm {payload} -P KEY\n")
        })?;
    }
    Ok(Exit::Done)
}

/// Where minisign looks for the signature of a file.
fn beside(file: &Path) -> PathBuf {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// The record as it is. On a terminal it can do no harm.
fn show(context: &Context<'_>, bytes: &[u8]) -> Result<Exit, CliError> {
    if context.output.terminal {
        let text = printable(&String::from_utf8_lossy(bytes));
        match context.output.show(&(text + "\n"))? {
            Reader::Reads | Reader::Gone => return Ok(Exit::Done),
        }
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::fleet::{RECORD_SCHEMA, RecordPayload};
    use pointsman_snapshot::keys::SigningKey;
    use serde_json::json;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn signed(key: &SigningKey) -> Vec<u8> {
        let payload = RecordPayload {
            schema: RECORD_SCHEMA.into(),
            fleet: FleetName::new("lab").unwrap(),
            node: name("edge-1"),
            generation: 7,
            issued_unix_ms: 1,
            objects: vec![],
            document: json!({"schema": "pointsman.node/v1", "node": "edge-1", "generation": 7}),
        };
        pointsman_snapshot::sign(key, &payload).unwrap()
    }

    #[test]
    fn a_good_record_is_told_in_minisigns_words() {
        let key = SigningKey::generate().unwrap();
        let checked = check(&signed(&key), key.public_key(), &name("edge-1")).unwrap();
        assert_eq!(
            said(&checked),
            "Signature and comment signature verified\n\
             Trusted comment: pointsman fleet=lab node=edge-1 generation=7\n"
        );
    }

    #[test]
    fn a_record_of_another_key_or_node_or_with_a_changed_bit_is_refused() {
        let [key, other] = [(); 2].map(|()| SigningKey::generate().unwrap());
        let record = signed(&key);
        let mut flipped = record.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for (bytes, key, node, words) in [
            (&record[..], &other, "edge-1", "is signed with the key"),
            (&record, &key, "edge-2", "is for the node edge-1"),
            (&flipped, &key, "edge-1", "the signature is not that"),
            (b"{}", &key, "edge-1", "four lines"),
        ] {
            let error = check(bytes, key.public_key(), &name(node)).unwrap_err();
            assert_eq!(error.exit(), Exit::Refused);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn keys_are_given_as_they_are_or_in_a_file() {
        let key = SigningKey::generate().unwrap();
        let public = key.public_key();
        assert_eq!(&public_key(public.to_base64()).unwrap(), public);
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in [public.to_file_text(), format!("{public}\r\n"), public.to_string()] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(&public_key(file.path().to_str().unwrap()).unwrap(), public);
        }
        std::fs::write(file.path(), "").unwrap();
        assert!(public_key(file.path().to_str().unwrap()).is_err());
        assert!(public_key("/nonexistent").unwrap_err().to_string().contains("cannot read"));
        assert_eq!(beside(Path::new("a/b.json")), Path::new("a/b.json.minisig"));
    }
}
