//! Constant databases: keys and values in one immutable file, found with two or three positioned
//! reads. The format is D. J. Bernstein's (<https://cr.yp.to/cdb/cdb.txt>); files of his tools and
//! of tinycdb are interchangeable with ours.
//!
//! ```text
//! 0      256 x { position of table, slots in it }
//! 2048   records: { length of key, length of value, key, value }
//! ...    tables: slots x { hash of key, position of record; 0: the slot is empty }
//! ```
//!
//! Every number is 32 bits, little-endian. A key with the hash `h` is looked for in table
//! `h % 256`, from slot `h / 256 % slots` on, until it is found or a slot is empty. Of several
//! records of one key the one that was added first is found.

mod entries;
mod lookup;
mod writer;

pub use entries::{Entries, entries};
pub use lookup::{AHEAD, Lookup, Next, find, find_with};
pub use writer::{WriteError, Writer};

/// The bytes before the first record.
pub const HEADER: u64 = 2048;

/// How many tables there are.
const TABLES: usize = 256;

/// Two numbers: a table's place, a slot, the lengths of a record.
const PAIR: usize = 8;

/// The most slots that one lookup looks at. In a table that is half empty, as writers make them,
/// a few are enough; this many are only there to keep a reader busy.
pub const MAX_SLOTS: u64 = 1 << 16;

/// The most records that one lookup opens, their keys having the hash that it looks for. Different
/// keys rarely share one.
pub const MAX_CANDIDATES: usize = 1 << 10;

/// Why a file is no constant database, or cannot be searched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdbError {
    /// The file ends before what it says is there.
    #[error("the database is cut off: {missing} bytes are missing at {offset}")]
    Truncated {
        /// Where reading started.
        offset: u64,
        /// How many bytes are missing there.
        missing: u64,
    },
    /// A position that lies in the header, or past what 32 bits can say.
    #[error("the database says that {what} lies at {position}, where none can be")]
    Misplaced {
        /// A table, a record or a value.
        what: &'static str,
        /// Where it should be.
        position: u64,
    },
    /// The value is larger than the reader takes.
    #[error("the value is of {bytes} bytes; the limit is {most}")]
    TooLarge {
        /// What the database declares.
        bytes: u64,
        /// The reader's limit.
        most: usize,
    },
    /// The search does not come to an end within what is reasonable.
    #[error(
        "the search was given up after {slots} slots and {candidates} records: the database was \
         built to keep readers busy"
    )]
    TooManyProbes {
        /// Slots looked at.
        slots: u64,
        /// Records opened.
        candidates: usize,
    },
    /// Bytes were fed that no [`Next::Need`] asked for.
    #[error("{given} bytes were given where at most {asked} were asked for")]
    NotAsked {
        /// How many came.
        given: usize,
        /// How many were asked for.
        asked: usize,
    },
}

/// The hash of a key.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, &byte| hash.wrapping_mul(33) ^ u32::from(byte))
}

/// A pair of numbers from the first eight bytes.
fn pair(bytes: &[u8]) -> Option<(u32, u32)> {
    let (pair, _) = bytes.split_first_chunk::<PAIR>()?;
    let [a, b, c, d, e, f, g, h] = *pair;
    Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}

#[cfg(test)]
mod tests;
