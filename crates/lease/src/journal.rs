//! How records lie in a file: each with its length and a checksum, and the file's own name first.
//!
//! ```text
//! frame    length u32 (little endian) | first 8 bytes of the SHA-256 of the payload | payload
//! file     frame of the heading, frames of records, zeros or nothing
//! ```
//!
//! A length of 0 is the end: space may be set aside behind the last record. Whatever is no whole
//! frame ends the journal too, because only a write that was cut off leaves that behind. A whole
//! frame that means nothing to this version is something else: another version wrote it, and what
//! it gave away is not known.

use crate::Record;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The version of what is written.
pub const FORMAT: u32 = 1;

/// The most bytes that giving one lcore back, or taking all from one client, takes in a journal.
pub const RELEASE_BYTES: usize = 160;

const LENGTH: usize = 4;
const CHECK: usize = 8;

/// The largest payload that is believed: one client with as many lcores as there can be.
const MAX_PAYLOAD: usize = 8 << 20;

/// What a journal starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// The version.
    pub format: u32,
    /// The name of the keeper whose connections it is about.
    pub epoch: String,
}

/// What was read of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// Its heading; `None`: there is none.
    pub heading: Option<Heading>,
    /// The records, in their order.
    pub records: Vec<Record>,
    /// Bytes from the start that are whole frames: the next one goes there.
    pub length: usize,
    /// Whether something that is no frame follows.
    pub torn: bool,
    /// What was written whole and is not understood: only another version can tell what it says,
    /// and what follows it is not read.
    pub strange: Option<String>,
}

/// The frame of a heading.
#[must_use]
pub fn heading(epoch: &str) -> Vec<u8> {
    frame(&Heading { format: FORMAT, epoch: epoch.to_owned() })
}

/// The frame of a record.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    frame(record)
}

fn frame(value: &impl Serialize) -> Vec<u8> {
    let payload = serde_json::to_vec(value).expect("invariant: records have string keys");
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(LENGTH + CHECK + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&check(&payload));
    bytes.extend_from_slice(&payload);
    bytes
}

fn check(payload: &[u8]) -> [u8; CHECK] {
    let hash = Sha256::digest(payload);
    std::array::from_fn(|at| hash[at])
}

/// Reads a journal as far as it is whole.
#[must_use]
pub fn decode(bytes: &[u8]) -> Journal {
    let mut rest = bytes;
    let mut journal = Journal::default();
    let Some(first) = next(&mut rest) else {
        journal.torn = !bytes.is_empty();
        return journal;
    };
    match serde_json::from_slice::<Heading>(first) {
        Ok(heading) => {
            if heading.format != FORMAT {
                let format = heading.format;
                let what = format!("it has format {format}, this version reads format {FORMAT}");
                journal.strange = Some(what);
            }
            journal.heading = Some(heading);
        }
        Err(error) => journal.strange = Some(format!("its heading is not understood: {error}")),
    }
    if journal.strange.is_some() {
        return journal;
    }
    journal.length = bytes.len() - rest.len();
    while let Some(payload) = next(&mut rest) {
        match serde_json::from_slice(payload) {
            Ok(record) => journal.records.push(record),
            Err(error) => {
                let at = journal.length;
                journal.strange =
                    Some(format!("the record at byte {at} is not understood: {error}"));
                return journal;
            }
        }
        journal.length = bytes.len() - rest.len();
    }
    journal.torn = bytes[journal.length..].iter().any(|byte| *byte != 0);
    journal
}

/// Takes the next frame's payload; `None`: there is no whole one.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<LENGTH>()?;
    let (claimed, after) = after.split_first_chunk::<CHECK>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length == 0 || length > MAX_PAYLOAD {
        return None;
    }
    let (payload, after) = after.split_at_checked(length)?;
    if check(payload) != *claimed {
        return None;
    }
    *rest = after;
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;
    use proptest::prelude::*;

    fn records(count: u64) -> Vec<Record> {
        let record = |sequence| {
            let change = Change::Returned(vec![sequence as u32 % 65_536]);
            Record { connection: u64::MAX, sequence, change, refused: None }
        };
        (0..count).map(record).collect()
    }

    #[test]
    fn what_is_set_aside_for_a_release_is_enough() {
        for change in [Change::Returned(vec![u32::from(u16::MAX)]), Change::Cleared] {
            let release =
                Record { connection: u64::MAX, sequence: u64::MAX, change, refused: None };
            assert!(encode(&release).len() <= RELEASE_BYTES, "{}", encode(&release).len());
        }
        // Giving back many at once takes less than as many single ones.
        let ids = (0..8192).collect();
        let all = Record {
            connection: u64::MAX,
            sequence: u64::MAX,
            change: Change::Returned(ids),
            refused: None,
        };
        assert!(encode(&all).len() <= RELEASE_BYTES * 8192);
    }

    #[test]
    fn what_another_version_wrote_is_told_from_what_was_cut_off() {
        let other = decode(&frame(&Heading { format: FORMAT + 1, epoch: "a".into() }));
        assert_eq!(other.heading.map(|heading| heading.epoch).as_deref(), Some("a"));
        assert!(other.strange.is_some_and(|what| what.contains("format 2")));
        assert!(decode(&frame(&"a")).strange.is_some_and(|what| what.contains("heading")));
        let (known, unknown) = (encode(&records(1)[0]), frame(&["a change to come"]));
        let whole = [heading("e"), known.clone(), unknown.clone(), known].concat();
        let read = decode(&whole);
        assert_eq!((read.records.len(), read.torn), (1, false));
        assert!(read.strange.is_some_and(|what| what.contains("record at byte")));
        let cut = &whole[..read.length + unknown.len() - 1];
        assert_eq!((decode(cut).torn, decode(cut).strange), (true, None));
        assert_eq!(decode(b""), Journal::default());
        assert!(decode(b"GET / HTTP/1.1").torn);
    }

    proptest! {
        /// Cut anywhere, and with anything behind the cut, it gives the records that are whole.
        #[test]
        fn a_torn_journal_gives_what_is_whole(
            count in 0u64..6, cut: prop::sample::Index, tail in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let head = heading("e");
            let frames: Vec<Vec<u8>> = records(count).iter().map(encode).collect();
            let whole = [head.clone(), frames.concat()].concat();
            let cut = cut.index(whole.len() + 1);
            let bytes = [&whole[..cut], &tail].concat();
            let read = decode(&bytes);
            let mut end = head.len();
            let mut expected = 0;
            for frame in &frames {
                if end + frame.len() > cut {
                    break;
                }
                end += frame.len();
                expected += 1;
            }
            if cut >= head.len() {
                prop_assert_eq!(&read.records[..expected], &records(count)[..expected]);
                prop_assert_eq!(read.records.len(), expected);
                prop_assert_eq!(read.length, end);
            } else {
                prop_assert_eq!((read.heading, read.length), (None, 0));
            }
        }
    }
}
