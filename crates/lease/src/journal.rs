//! How records lie in a file: each with its length and a checksum, and the file's own name first.
//!
//! ```text
//! frame    length u32 (little endian) | first 8 bytes of the SHA-256 of the payload | payload
//! file     frame of the heading, frames of records, zeros or nothing
//! ```
//!
//! A length of 0 is the end: space may be set aside behind the last record. A frame that was cut off
//! ends the journal too: the beginning of one, and nothing but zeros behind it, is what a daemon
//! that is killed leaves. Everything else is believed by nobody: a whole frame that means nothing to
//! this version, because another version wrote it, and one that is damaged, because others may
//! follow. What those gave away is not known. The heading is never cut off: a journal is begun
//! aside and renamed.

use crate::Record;
use serde::de::IgnoredAny;
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
    /// Whether a frame follows that was cut off.
    pub torn: bool,
    /// What is not understood, and what follows it is not read.
    pub strange: Option<Strange>,
}

/// Why it is not known what a journal says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Strange {
    /// Something was written whole: only another version can tell what it says.
    #[error("{0}")]
    Version(String),
    /// Something is no frame, and was not cut off: nobody can tell.
    #[error("{0}")]
    Damaged(String),
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

/// The heading of a journal of which these are the first bytes, if it is whole and understood.
#[must_use]
pub fn heading_of(mut bytes: &[u8]) -> Option<Heading> {
    serde_json::from_slice(next(&mut bytes)?).ok()
}

/// Reads a journal as far as it is whole.
#[must_use]
pub fn decode(bytes: &[u8]) -> Journal {
    let mut rest = bytes;
    let mut journal = Journal::default();
    let Some(first) = next(&mut rest) else {
        journal.strange = Some(Strange::Damaged("it does not begin with a heading".into()));
        return journal;
    };
    match serde_json::from_slice::<Heading>(first) {
        Ok(heading) => {
            if heading.format != FORMAT {
                let format = heading.format;
                let what = format!("it has format {format}, this version reads format {FORMAT}");
                journal.strange = Some(Strange::Version(what));
            }
            journal.heading = Some(heading);
        }
        Err(error) => {
            let what = format!("its heading is not understood: {error}");
            journal.strange = Some(Strange::Version(what));
        }
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
                let what = format!("the record at byte {at} is not understood: {error}");
                journal.strange = Some(Strange::Version(what));
                return journal;
            }
        }
        journal.length = bytes.len() - rest.len();
    }
    journal.torn = rest.iter().any(|byte| *byte != 0);
    if journal.torn && !is_cut_off(rest) {
        journal.torn = false;
        let what = format!("the record at byte {} is damaged", journal.length);
        journal.strange = Some(Strange::Damaged(what));
    }
    journal
}

/// Whether what is no whole frame can be the beginning of one, with nothing written behind it. No
/// payload has a zero in it, and the beginning of one is no JSON.
fn is_cut_off(rest: &[u8]) -> bool {
    let Some((head, payload)) = rest.split_at_checked(LENGTH + CHECK) else { return true };
    let claimed = head.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    let claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    let (text, behind) = payload.split_at(end);
    claimed <= MAX_PAYLOAD
        && text.len() < claimed
        && behind.iter().all(|byte| *byte == 0)
        && serde_json::from_slice::<IgnoredAny>(text).is_err()
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
        let (index, most) = (u32::MAX, u32::MAX);
        for change in [
            Change::Returned(vec![u32::from(u16::MAX)]),
            Change::PortReturned { index, port: u16::MAX },
            Change::QueueReturned { index, queue: most },
            Change::FlowReturned { index, location: most },
            Change::Cleared,
            Change::Closed,
        ] {
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
        assert!(version(other.strange).contains("format 2"));
        assert!(version(decode(&frame(&"a")).strange).contains("heading"));
        let (known, unknown) = (encode(&records(1)[0]), frame(&["a change to come"]));
        let whole = [heading("e"), known.clone(), unknown.clone(), known].concat();
        let read = decode(&whole);
        assert_eq!((read.records.len(), read.torn), (1, false));
        assert!(version(read.strange).contains("record at byte"));
        let cut = &whole[..read.length + unknown.len() - 1];
        assert_eq!((decode(cut).torn, decode(cut).strange), (true, None));
        for none in [&b""[..], &[0; 40], b"GET / HTTP/1.1", &heading("e")[..20]] {
            let read = decode(none);
            assert!(matches!(read.strange, Some(Strange::Damaged(_))), "{read:?}");
            assert!(!read.torn && read.heading.is_none() && heading_of(none).is_none());
        }
        let named = heading_of(&[heading("e"), vec![7; 100]].concat());
        assert_eq!(named.map(|heading| heading.epoch).as_deref(), Some("e"));
    }

    fn version(strange: Option<Strange>) -> String {
        match strange {
            Some(Strange::Version(what)) => what,
            other => panic!("another version wrote that: {other:?}"),
        }
    }

    proptest! {
        /// Cut anywhere, and with space set aside behind the cut or not, it gives the records that
        /// are whole.
        #[test]
        fn a_torn_journal_gives_what_is_whole(
            count in 0u64..6, cut: prop::sample::Index, aside in 0usize..60,
        ) {
            let head = heading("e");
            let frames: Vec<Vec<u8>> = records(count).iter().map(encode).collect();
            let whole = [head.clone(), frames.concat()].concat();
            let cut = head.len() + cut.index(whole.len() + 1 - head.len());
            let bytes = [&whole[..cut], &vec![0; aside]].concat();
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
            prop_assert_eq!(&read.records, &records(count)[..expected]);
            prop_assert_eq!(read.length, end);
            let written = whole[end..cut].iter().any(|byte| *byte != 0);
            prop_assert_eq!((read.torn, read.strange), (written, None));
        }

        /// A byte that is another one anywhere is never taken for the end: what follows would be
        /// given away again. But for the last one, which may not have been written.
        #[test]
        fn a_damaged_journal_is_not_believed(
            count in 1u64..6, at: prop::sample::Index, by in 1u8.., aside in 0usize..60,
        ) {
            let frames: Vec<u8> = records(count).iter().flat_map(encode).collect();
            let mut bytes = [heading("e"), frames].concat();
            let at = at.index(bytes.len() - 1);
            bytes[at] ^= by;
            bytes.resize(bytes.len() + aside, 0);
            let read = decode(&bytes);
            prop_assert!(matches!(read.strange, Some(Strange::Damaged(_))), "{:?}", read);
        }
    }
}
