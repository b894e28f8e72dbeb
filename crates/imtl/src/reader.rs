//! From bytes, however split, to records.

use crate::layout::{MAGIC, RECORD_BYTES};
use crate::{Record, StreamError};

/// Makes records of the bytes of one stream. It keeps less than one record.
#[derive(Debug, Clone)]
pub struct Reader {
    partial: [u8; RECORD_BYTES],
    have: usize,
    /// A record did not start where it should; nothing after that can be trusted.
    lost: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// At the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: [0; RECORD_BYTES], have: 0, lost: false }
    }

    /// Takes from the front of `input` what the next record needs, and leaves the rest. `None`:
    /// there is no whole record yet, and `input` is empty.
    ///
    /// # Errors
    /// [`StreamError::Magic`] as soon as the four bytes are there: whoever speaks another protocol
    /// need not fill a record first. It comes once; whatever is given later is dropped.
    pub fn read(&mut self, input: &mut &[u8]) -> Option<Result<Record, StreamError>> {
        if self.lost {
            *input = &[];
            return None;
        }
        self.fill(input, MAGIC.len());
        let found: [u8; MAGIC.len()] = std::array::from_fn(|at| self.partial[at]);
        if self.have >= MAGIC.len() && found != MAGIC {
            self.lost = true;
            return Some(Err(StreamError::Magic { found }));
        }
        self.fill(input, RECORD_BYTES);
        if self.have < RECORD_BYTES {
            return None;
        }
        self.have = 0;
        Some(Record::from_bytes(self.partial))
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] if that was within a record.
    pub const fn end(&self) -> Result<(), StreamError> {
        if self.have > 0 && !self.lost {
            return Err(StreamError::Truncated { have: self.have });
        }
        Ok(())
    }

    /// Takes bytes until there are `wanted` of the record.
    fn fill(&mut self, input: &mut &[u8], wanted: usize) {
        let count = wanted.saturating_sub(self.have).min(input.len());
        let (taken, rest) = input.split_at(count);
        self.partial[self.have..self.have + count].copy_from_slice(taken);
        self.have += count;
        *input = rest;
    }
}
