//! Making a database, in memory.

use super::{HEADER, PAIR, TABLES, hash};
use std::collections::HashSet;

/// Why something cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The key is there already. Readers would find the first and never the second.
    #[error("the key {} is there already", key.escape_ascii())]
    Duplicate {
        /// It.
        key: Vec<u8>,
    },
    /// The file would be larger than its numbers can say.
    #[error(
        "the database would be of {bytes} bytes; 32-bit positions allow {most}: use more shards"
    )]
    TooLarge {
        /// What it would be.
        bytes: u64,
        /// What it can be.
        most: u64,
    },
}

/// The largest file: positions and lengths are 32 bits.
const MOST: u64 = u32::MAX as u64;

/// Collects keys and values, and makes a file of them. The same ones in the same order make the
/// same bytes.
#[derive(Debug, Clone)]
pub struct Writer {
    file: Vec<u8>,
    keys: HashSet<Vec<u8>>,
    /// By table: the hash of each key, and where its record is.
    tables: Vec<Vec<(u32, u32)>>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            file: vec![0; HEADER as usize],
            keys: HashSet::new(),
            tables: vec![Vec::new(); TABLES],
        }
    }

    /// Adds a key that is not there yet.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was added then.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let records = self.keys.len();
        fits(self.file.len(), records, key.len(), value.len())?;
        if !self.keys.insert(key.to_vec()) {
            return Err(WriteError::Duplicate { key: key.to_vec() });
        }
        let position = number(self.file.len());
        self.file.extend_from_slice(&number(key.len()).to_le_bytes());
        self.file.extend_from_slice(&number(value.len()).to_le_bytes());
        self.file.extend_from_slice(key);
        self.file.extend_from_slice(value);
        let hash = hash(key);
        self.tables[hash as usize % TABLES].push((hash, position));
        Ok(())
    }

    /// How many keys were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The file.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let Self { mut file, tables, .. } = self;
        for (at, entries) in tables.iter().enumerate() {
            // Twice as many slots as keys: a search soon comes to an empty one.
            let mut slots = vec![(0, 0); 2 * entries.len()];
            for &(hash, position) in entries {
                let mut slot = (hash >> 8) as usize % slots.len();
                while slots[slot].1 != 0 {
                    slot = (slot + 1) % slots.len();
                }
                slots[slot] = (hash, position);
            }
            let place = [number(file.len()), number(slots.len())].map(u32::to_le_bytes);
            file[at * PAIR..(at + 1) * PAIR].copy_from_slice(place.as_flattened());
            for (hash, position) in slots {
                file.extend_from_slice(&hash.to_le_bytes());
                file.extend_from_slice(&position.to_le_bytes());
            }
        }
        file
    }
}

/// Whether a file with `end` bytes so far, of `records` records, can take another one.
fn fits(end: usize, records: usize, key: usize, value: usize) -> Result<(), WriteError> {
    let tables = (records as u64).saturating_add(1).saturating_mul(2 * PAIR as u64);
    let bytes = [end, PAIR, key, value]
        .into_iter()
        .fold(tables, |bytes, more| bytes.saturating_add(more as u64));
    if bytes > MOST {
        return Err(WriteError::TooLarge { bytes, most: MOST });
    }
    Ok(())
}

/// A length or a position.
fn number(value: usize) -> u32 {
    u32::try_from(value).expect("invariant: what was added fits 32-bit positions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_32_bits_cannot_say_is_refused() {
        let most = MOST as usize;
        // The last byte that fits: its record's lengths, and the two slots that it takes.
        let room = most - HEADER as usize - PAIR - 2 * PAIR;
        assert_eq!(fits(HEADER as usize, 0, 4, room - 4), Ok(()));
        let error = fits(HEADER as usize, 0, 4, room - 3).unwrap_err();
        assert_eq!(error, WriteError::TooLarge { bytes: MOST + 1, most: MOST });
        assert!(error.to_string().contains("use more shards"), "{error}");
        // The tables of what is there already count.
        assert!(fits(most - 1000, 100, 1, 1).is_err());
        assert!(fits(most, 0, 0, 0).is_err());
        assert!(fits(usize::MAX, usize::MAX, usize::MAX, usize::MAX).is_err());
    }

    #[test]
    fn a_key_enters_once() {
        let mut writer = Writer::new();
        writer.add(b"edge\n1", b"first").unwrap();
        let before = writer.clone().finish();
        let error = writer.add(b"edge\n1", b"second").unwrap_err();
        assert_eq!(error.to_string(), r"the key edge\n1 is there already");
        assert_eq!(writer.len(), 1);
        assert_eq!(writer.finish(), before, "nothing was added");
    }
}
