//! What a connection has asked and not yet got: framing, numbers, and the order of answers. Pure.
//!
//! Memory is bounded: less than a record of input, and at most [`Ledger::has_room`] requests with
//! their answers. Whoever owns the socket reads no more while there is no room.

use crate::handover::{take, take_number};
use crate::link::Kind;
use std::collections::VecDeque;

/// An imtl record, in bytes. `manager/mtl_mproto.h` of Media-Transport-Library has the layout.
pub(crate) const RECORD: usize = 118;

/// The most requests of one connection that wait for an answer, or with it for their turn. libmtl
/// has one per thread; more is read when one is done.
pub(crate) const MAX_IN_FLIGHT: usize = 64;

/// The most bytes of one connection's requests and answers before no more is read from it. What is
/// read already may exceed it: the last request, and answers that are larger than their requests.
pub(crate) const MAX_HELD: usize = 128 << 10;

/// A request, until its answer has left. `D` is what a descriptor is held by.
#[derive(Debug)]
struct Entry<D> {
    answered: bool,
    /// How often a daemon crashed that had been told it and had not answered.
    crashes: u32,
    bytes: Vec<u8>,
    descriptors: Vec<D>,
}

/// A connection's requests that are not done.
#[derive(Debug)]
pub(crate) struct Ledger<D> {
    /// Input that is no whole record yet.
    partial: Vec<u8>,
    entries: VecDeque<Entry<D>>,
    /// The number of the first entry.
    first: u64,
    /// The last number that the running daemon has been told.
    told: u64,
    held: usize,
}

/// A request as the daemon is told it.
#[derive(Debug)]
pub(crate) struct Asked<'a, D> {
    pub(crate) sequence: u64,
    /// How often a daemon crashed, maybe over this.
    pub(crate) crashes: u32,
    pub(crate) bytes: &'a [u8],
    pub(crate) descriptors: &'a [D],
}

impl<D> Default for Ledger<D> {
    fn default() -> Self {
        Self { partial: Vec::new(), entries: VecDeque::new(), first: 1, told: 0, held: 0 }
    }
}

impl<D> Ledger<D> {
    /// How many bytes may be read from the socket now; none if it may not be read.
    pub(crate) fn has_room(&self, kind: Kind) -> usize {
        if self.entries.len() >= MAX_IN_FLIGHT || self.held >= MAX_HELD {
            return 0;
        }
        match kind {
            Kind::Imtl => (MAX_IN_FLIGHT - self.entries.len()) * RECORD - self.partial.len(),
            Kind::Native => crate::link::MAX_MESSAGE,
        }
    }

    /// Input of a stream, however cut.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while self.partial.len() + bytes.len() >= RECORD {
            let (rest, after) = bytes.split_at(RECORD - self.partial.len());
            self.partial.extend_from_slice(rest);
            bytes = after;
            let record = std::mem::take(&mut self.partial);
            self.ask(record, Vec::new());
        }
        self.partial.extend_from_slice(bytes);
    }

    /// A whole request.
    pub(crate) fn ask(&mut self, bytes: Vec<u8>, descriptors: Vec<D>) {
        self.held += bytes.len();
        self.entries.push_back(Entry { answered: false, crashes: 0, bytes, descriptors });
    }

    /// Takes the answer to a request. False if there is none that waits for it.
    pub(crate) fn answer(&mut self, sequence: u64, bytes: Vec<u8>, descriptors: Vec<D>) -> bool {
        let index = sequence.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let entry = index.and_then(|index| self.entries.get_mut(index));
        let Some(entry) = entry.filter(|entry| !entry.answered && sequence <= self.told) else {
            return false;
        };
        self.held = self.held + bytes.len() - entry.bytes.len();
        *entry = Entry { answered: true, crashes: 0, bytes, descriptors };
        true
    }

    /// The next answer whose turn it is, or what is left of it.
    pub(crate) fn due(&self) -> Option<(&[u8], &[D])> {
        let entry = self.entries.front().filter(|entry| entry.answered)?;
        Some((&entry.bytes, &entry.descriptors))
    }

    /// So many bytes of the answer that is due have left, and all its descriptors.
    pub(crate) fn sent(&mut self, bytes: usize) {
        let Some(entry) = self.entries.front_mut() else { return };
        let bytes = bytes.min(entry.bytes.len());
        self.held -= bytes;
        entry.descriptors.clear();
        entry.bytes.drain(..bytes);
        if entry.bytes.is_empty() {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// The first request that the running daemon has not been told.
    pub(crate) fn untold(&self) -> Option<Asked<'_, D>> {
        let first = usize::try_from((self.told + 1).saturating_sub(self.first)).ok()?;
        let (index, entry) =
            self.entries.iter().enumerate().skip(first).find(|(_, entry)| !entry.answered)?;
        let sequence = self.first + index as u64;
        let Entry { crashes, bytes, descriptors, .. } = entry;
        Some(Asked { sequence, crashes: *crashes, bytes, descriptors })
    }

    /// The running daemon has been told all up to here.
    pub(crate) fn told(&mut self, sequence: u64) {
        self.told = sequence;
    }

    /// Another daemon runs, and has been told nothing.
    pub(crate) fn told_nothing(&mut self) {
        self.told = 0;
    }

    /// The running daemon has crashed, maybe over something that it had been told.
    pub(crate) fn suspect(&mut self) {
        for (sequence, entry) in (self.first..).zip(&mut self.entries) {
            if !entry.answered && sequence <= self.told {
                entry.crashes = entry.crashes.saturating_add(1);
            }
        }
    }

    /// How many requests the running daemon has been told and has not answered.
    pub(crate) fn waiting(&self) -> usize {
        let told = usize::try_from((self.told + 1).saturating_sub(self.first)).unwrap_or(0);
        self.entries.iter().take(told).filter(|entry| !entry.answered).count()
    }

    /// Whether a daemon may have crashed over something in it.
    pub(crate) fn has_suspects(&self) -> bool {
        self.entries.iter().any(|entry| !entry.answered && entry.crashes > 0)
    }

    /// Drops what is unanswered, and the answers behind it: they would be taken for others.
    pub(crate) fn give_up(&mut self) {
        let keep = self.entries.iter().take_while(|entry| entry.answered).count();
        self.entries.truncate(keep);
        self.partial = Vec::new();
        self.held = self.entries.iter().map(|entry| entry.bytes.len()).sum();
    }

    /// Writes it down. False if a descriptor belongs to it, which cannot be.
    pub(crate) fn save(&self, into: &mut Vec<u8>) -> bool {
        if self.entries.iter().any(|entry| !entry.descriptors.is_empty()) {
            return false;
        }
        let put = |into: &mut Vec<u8>, bytes: &[u8]| {
            into.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            into.extend_from_slice(bytes);
        };
        into.extend_from_slice(&self.first.to_le_bytes());
        put(into, &self.partial);
        into.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            into.push(u8::from(entry.answered));
            put(into, &entry.bytes);
        }
        true
    }

    /// Reads back what was written down, and takes it off; `None` if it was not.
    pub(crate) fn load(from: &mut &[u8]) -> Option<Self> {
        let bytes = |from: &mut &[u8]| {
            let length = usize::try_from(take_number(from)?).ok()?;
            take(from, length).map(<[u8]>::to_vec)
        };
        let first = take_number(from)?;
        let partial = bytes(from)?;
        let mut ledger = Self { partial, first, ..Self::default() };
        for _ in 0..take_number(from)? {
            let answered = take(from, 1)? != [0];
            ledger.ask(bytes(from)?, Vec::new());
            ledger.entries.back_mut()?.answered = answered;
        }
        let sound = first > 0 && ledger.partial.len() < RECORD;
        (sound && ledger.entries.len() <= MAX_IN_FLIGHT).then_some(ledger)
    }

    /// Whether nothing is asked and nothing waits to leave.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
