//! Finding one key, whoever does the reading.

use super::{CdbError, HEADER, MAX_CANDIDATES, MAX_SLOTS, PAIR, TABLES, hash, pair};
use std::collections::VecDeque;

/// How many bytes a lookup asks for where it expects a record: most documents come whole with the
/// lengths that say how long they are.
pub const AHEAD: usize = 8 << 10;

/// How many slots are read at a time. Smaller tables are read whole, wherever the search starts:
/// those of a shard are.
const WINDOW: u32 = 128;

/// What a lookup wants to be given, or has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// Read from the file here and [`feed`](Lookup::feed) what comes; less only where it ends.
    Need {
        /// From where.
        offset: u64,
        /// How much.
        len: usize,
    },
    /// The value.
    Found {
        /// Where in the file it starts.
        offset: u64,
        /// Itself.
        value: &'a [u8],
    },
    /// The key is not there.
    Absent,
}

/// One search, as a value that says what to read and is fed with it: by positioned reads of a
/// file, by range requests to a server. Memory grows with what was fed, never with what the
/// database declares.
#[derive(Debug, Clone)]
pub struct Lookup {
    key: Vec<u8>,
    hash: u32,
    most: usize,
    ahead: usize,
    table: u32,
    slots: u32,
    /// The slot to look at next.
    slot: u32,
    /// How many were looked at.
    seen: u32,
    /// Whether an empty one was among them.
    ended: bool,
    /// Records whose keys have the hash, in the order of their slots.
    candidates: VecDeque<u32>,
    opened: usize,
    /// The record's first bytes, then all of it.
    record: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Wants the table's place.
    Header,
    /// Wants slots.
    Slots,
    /// Wants a record's lengths, its key, and what comes with them.
    Open { position: u32 },
    /// Wants the rest of the record's value.
    Rest { position: u32, whole: usize },
    /// Has the value, from here to the record's end.
    Found { position: u32, start: usize },
    /// There is none.
    Absent,
}

impl Lookup {
    /// A search for `key`, whose value must not be larger than `most` bytes.
    #[must_use]
    pub fn new(key: &[u8], most: usize) -> Self {
        Self::reading_ahead(key, most, AHEAD)
    }

    fn reading_ahead(key: &[u8], most: usize, ahead: usize) -> Self {
        Self {
            key: key.to_vec(),
            hash: hash(key),
            most,
            ahead,
            table: 0,
            slots: 0,
            slot: 0,
            seen: 0,
            ended: false,
            candidates: VecDeque::new(),
            opened: 0,
            record: Vec::new(),
            state: State::Header,
        }
    }

    /// What to read, or what was found. The same until something is fed.
    #[must_use]
    pub fn next(&self) -> Next<'_> {
        match self.state {
            State::Header => {
                Next::Need { offset: u64::from(self.hash) % TABLES as u64 * PAIR as u64, len: PAIR }
            }
            State::Slots => {
                let (first, slots) = self.window();
                Next::Need {
                    offset: u64::from(self.table) + u64::from(first) * PAIR as u64,
                    len: slots as usize * PAIR,
                }
            }
            State::Open { position } => {
                Next::Need { offset: position.into(), len: self.ahead.max(PAIR + self.key.len()) }
            }
            State::Rest { position, whole } => Next::Need {
                offset: u64::from(position) + self.record.len() as u64,
                len: whole - self.record.len(),
            },
            State::Found { position, start } => Next::Found {
                offset: u64::from(position) + start as u64,
                value: &self.record[start..],
            },
            State::Absent => Next::Absent,
        }
    }

    /// Takes what [`Next::Need`] asked for. Where the file ends before, what is there of it.
    ///
    /// # Errors
    /// [`CdbError`]: the file is no constant database, or it is cut off. The search is over then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), CdbError> {
        let (offset, asked) = match self.next() {
            Next::Need { offset, len } => (offset, len),
            Next::Found { .. } | Next::Absent => (0, 0),
        };
        if bytes.len() > asked {
            return Err(CdbError::NotAsked { given: bytes.len(), asked });
        }
        let all = || match asked - bytes.len() {
            0 => Ok(()),
            missing => Err(CdbError::Truncated { offset, missing: missing as u64 }),
        };
        match self.state {
            State::Header => {
                all()?;
                self.header(bytes)
            }
            State::Slots => {
                all()?;
                self.slots(bytes)
            }
            State::Open { position } => {
                self.record.clear();
                self.record.extend_from_slice(bytes);
                self.open(position)
            }
            State::Rest { position, .. } => {
                all()?;
                self.record.extend_from_slice(bytes);
                self.state = State::Found { position, start: PAIR + self.key.len() };
                Ok(())
            }
            State::Found { .. } | State::Absent => Ok(()),
        }
    }

    /// The value, once it was found.
    #[must_use]
    pub fn into_value(mut self) -> Option<Vec<u8>> {
        let State::Found { start, .. } = self.state else { return None };
        self.record.drain(..start);
        Some(self.record)
    }

    /// How many bytes of the record are kept.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.record.capacity()
    }

    /// Which slots to read: the first, and how many.
    fn window(&self) -> (u32, u32) {
        if self.slots <= WINDOW {
            return (0, self.slots);
        }
        (self.slot, WINDOW.min(self.slots - self.slot).min(self.slots - self.seen))
    }

    fn header(&mut self, bytes: &[u8]) -> Result<(), CdbError> {
        let Some((table, slots)) = pair(bytes) else {
            return Err(CdbError::Truncated { offset: 0, missing: PAIR as u64 });
        };
        if slots == 0 {
            self.state = State::Absent;
            return Ok(());
        }
        let end = u64::from(table) + u64::from(slots) * PAIR as u64;
        if u64::from(table) < HEADER || end > u64::from(u32::MAX) + 1 {
            return Err(CdbError::Misplaced { what: "a table", position: table.into() });
        }
        (self.table, self.slots) = (table, slots);
        self.slot = (self.hash >> 8) % slots;
        self.state = State::Slots;
        Ok(())
    }

    fn slots(&mut self, bytes: &[u8]) -> Result<(), CdbError> {
        let (first, read) = self.window();
        for _ in 0..read {
            let at = (self.slot - first) as usize * PAIR;
            let Some((hash, position)) = pair(&bytes[at..]) else { break };
            if position == 0 {
                self.ended = true;
                break;
            }
            if hash == self.hash {
                self.candidates.push_back(position);
            }
            self.seen += 1;
            self.slot = (self.slot + 1) % self.slots;
        }
        self.go_on()
    }

    /// To the next record that may be it, or to more slots.
    fn go_on(&mut self) -> Result<(), CdbError> {
        if let Some(position) = self.candidates.pop_front() {
            if u64::from(position) < HEADER {
                return Err(CdbError::Misplaced { what: "a record", position: position.into() });
            }
            if self.opened == MAX_CANDIDATES {
                return Err(self.given_up());
            }
            self.opened += 1;
            self.state = State::Open { position };
        } else if self.ended || self.seen >= self.slots {
            self.state = State::Absent;
        } else if u64::from(self.seen) >= MAX_SLOTS {
            return Err(self.given_up());
        } else {
            self.state = State::Slots;
        }
        Ok(())
    }

    fn given_up(&self) -> CdbError {
        CdbError::TooManyProbes { slots: self.seen.into(), candidates: self.opened }
    }

    fn open(&mut self, position: u32) -> Result<(), CdbError> {
        let have = self.record.len();
        let short = |whole: usize| CdbError::Truncated {
            offset: position.into(),
            missing: whole.saturating_sub(have) as u64,
        };
        let (key, value) = pair(&self.record).ok_or_else(|| short(PAIR))?;
        if key as usize != self.key.len() {
            return self.go_on();
        }
        let start = PAIR + self.key.len();
        let found = self.record.get(PAIR..start).ok_or_else(|| short(start))?;
        if found != self.key {
            return self.go_on();
        }
        if value as usize > self.most {
            return Err(CdbError::TooLarge { bytes: value.into(), most: self.most });
        }
        let whole = start + value as usize;
        if u64::from(position) + whole as u64 > u64::from(u32::MAX) + 1 {
            return Err(CdbError::Misplaced { what: "a record", position: position.into() });
        }
        self.state = if have < whole && have < self.ahead.max(start) {
            return Err(short(whole));
        } else if have < whole {
            State::Rest { position, whole }
        } else {
            self.record.truncate(whole);
            State::Found { position, start }
        };
        Ok(())
    }
}

/// Searches a whole file in memory.
///
/// # Errors
/// [`CdbError`]: the bytes are no constant database, as far as this key is concerned.
pub fn find<'a>(file: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, CdbError> {
    // Nothing is read ahead, and a value is where it is: only lengths and keys are copied.
    let mut lookup = Lookup::reading_ahead(key, usize::MAX, 0);
    loop {
        match lookup.next() {
            Next::Need { offset, len } => {
                let from = usize::try_from(offset).map_or(file.len(), |at| at.min(file.len()));
                let rest = &file[from..];
                if let State::Rest { .. } = lookup.state {
                    let missing = len.saturating_sub(rest.len()) as u64;
                    let value = rest.get(..len).ok_or(CdbError::Truncated { offset, missing })?;
                    return Ok(Some(value));
                }
                lookup.feed(&rest[..len.min(rest.len())])?;
            }
            // An empty one: there is no rest to ask for.
            Next::Found { .. } => return Ok(Some(&[])),
            Next::Absent => return Ok(None),
        }
    }
}

/// Searches with positioned reads: `read` is given where to start and how much to read, and gives
/// less only where the file ends.
///
/// # Errors
/// What `read` fails with, and [`CdbError`] by way of `E`.
pub fn find_with<E: From<CdbError>>(
    key: &[u8],
    most: usize,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut lookup = Lookup::new(key, most);
    loop {
        match lookup.next() {
            Next::Need { offset, len } => {
                let bytes = read(offset, len)?;
                lookup.feed(&bytes)?;
            }
            Next::Found { .. } | Next::Absent => return Ok(lookup.into_value()),
        }
    }
}
