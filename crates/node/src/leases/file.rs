//! The journal of leases on disk: appended to, compacted by a rename, never synced.
//!
//! It has to outlive the daemon, not the host: connections end with the keeper, and nothing of
//! another keeper's connections is read. Space for giving everything back is set aside before
//! anything is given away, so a full disk stops grants and nothing else.

use pointsman_lease::journal::{self, RELEASE_BYTES, Strange};
use pointsman_lease::{Change, Record};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The file in the run directory.
pub const FILE: &str = "leases.journal";

/// The size from which it is compacted, in bytes.
const COMPACT_ABOVE: u64 = 4 << 20;

/// Space is set aside in pieces of this size, in bytes.
const CHUNK: u64 = 64 << 10;

/// The size from which nothing more is given away, in bytes: far above what compaction leaves.
const MAX_WRITTEN: u64 = 256 << 20;

/// The largest journal that is read back, in bytes: whatever is written has room in it.
const MAX_JOURNAL: usize = 512 << 20;

/// As much of a journal as its heading needs at most, in bytes.
const HEADING: u64 = 4096;

/// The journal of one keeper's connections.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    epoch: String,
    /// `None`: it could not be opened.
    file: Option<File>,
    /// Where the next record goes.
    length: u64,
    /// Up to where there is space.
    reserved: u64,
    /// The size from which it is compacted next.
    compact_at: u64,
    /// Something is not written down: a whole new journal must be written before anything is
    /// given away.
    behind: bool,
    /// Why nothing can be given away; `None`: it can.
    failing: Option<String>,
    /// There is one that cannot be read, or not be understood: who holds what is not known, and it
    /// is not written over.
    unreadable: bool,
}

/// How much a record matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It gives something away: not without being written down.
    Grant,
    /// It takes something back: for it there is space.
    Release,
    /// Anything else: not in the space that is set aside for releases.
    Other,
}

impl Weight {
    fn of(change: &Change) -> Self {
        match change {
            change if change.gives() => Self::Grant,
            change if change.takes_back() => Self::Release,
            _ => Self::Other,
        }
    }
}

impl JournalFile {
    /// Opens the journal in `directory`, and reads the records that belong to the keeper `epoch`.
    /// What another keeper's daemon left is begun anew; so is anything where this keeper is `fresh`:
    /// no daemon has served its connections before.
    #[must_use]
    pub(super) fn open(directory: &Path, epoch: &str, fresh: bool) -> (Self, Vec<Record>) {
        let path = directory.join(FILE);
        let mut journal = Self {
            path,
            epoch: epoch.to_owned(),
            file: None,
            length: 0,
            reserved: 0,
            compact_at: COMPACT_ABOVE,
            behind: false,
            failing: None,
            unreadable: false,
        };
        let read = if fresh {
            Ok(None)
        } else {
            match crate::store::read_regular(&journal.path, MAX_JOURNAL) {
                Ok(bytes) => journal.resume(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!(
                        "there is no {}: it is begun anew; where it was removed, lcores that are \
                         held may be given away again",
                        journal.path.display()
                    );
                    Ok(None)
                }
                // Of what another keeper's daemon left, the heading is enough.
                Err(_) if journal.is_of_another() => Ok(None),
                Err(error) => Err(error),
            }
        };
        let records = match read {
            Ok(Some(records)) => records,
            Ok(None) => {
                if let Err(error) = journal.begin(&[], 0) {
                    journal.fail("write", &error);
                }
                Vec::new()
            }
            Err(error) => {
                journal.give_up(&error);
                Vec::new()
            }
        };
        (journal, records)
    }

    /// The records of the journal that is there; `None`: it is not about this keeper's
    /// connections.
    fn resume(&mut self, bytes: &[u8]) -> io::Result<Option<Vec<Record>>> {
        let read = journal::decode(bytes);
        if read.heading.is_some_and(|heading| heading.epoch != self.epoch) {
            return Ok(None);
        }
        if let Some(strange) = read.strange {
            let advice = match strange {
                Strange::Version(_) => {
                    "; the version of pointsman-node that wrote it can: install it, and \
                     `systemctl reload` (SIGHUP), which keeps all clients"
                }
                Strange::Damaged(_) => "",
            };
            return Err(io::Error::other(format!("{strange}{advice}")));
        }
        if read.torn {
            tracing::info!(
                "the last record of {} was cut off when the daemon ended; the request it answers \
                 is done again",
                self.path.display()
            );
        }
        let file = OpenOptions::new().write(true).open(&self.path)?;
        self.length = read.length as u64;
        let size = bytes.len() as u64;
        if read.torn {
            // Nothing of what was torn may stay behind the next record.
            file.set_len(self.length)?;
        }
        self.file = Some(file);
        self.reserved = if read.torn { self.length } else { size };
        // What was set aside stays so, as far as nobody else has taken it.
        let _ = self.reserve(size);
        Ok(Some(read.records))
    }

    /// Whether its heading names another keeper.
    fn is_of_another(&self) -> bool {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let read = || -> io::Result<Vec<u8>> {
            let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
            let mut bytes = Vec::new();
            file.take(HEADING).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let heading = read().ok().and_then(|bytes| journal::heading_of(&bytes));
        heading.is_some_and(|heading| heading.epoch != self.epoch)
    }

    /// Who holds what cannot be known: nothing is done to the file, and nothing for clients.
    fn give_up(&mut self, error: &io::Error) {
        let why = format!(
            "cannot read {}: {error}; clients wait until a daemon is started that can. To begin \
             anew, which ends all connections: `systemctl stop pointsman-node`, then start it (a \
             restart hands the connections on, and this with them)",
            self.path.display()
        );
        tracing::error!("{why}");
        self.unreadable = true;
        self.failing = Some(why);
    }

    /// Whether it is not known who holds what: then no client may be told anything.
    #[must_use]
    pub(super) fn unreadable(&self) -> bool {
        self.unreadable
    }

    /// Why nothing can be given away; `None`: it can.
    #[must_use]
    pub(super) fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    /// Its size, in bytes.
    #[must_use]
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes a record down before it is applied. `held` things and clients can be given back
    /// after it; `snapshot` gives the records of a whole new journal, without this one.
    ///
    /// # Errors
    /// It gives something away and cannot be written down: it must not be applied. Everything else
    /// is to be applied in any case, and is written down as soon as that is possible.
    pub(super) fn write(
        &mut self,
        record: &Record,
        held: usize,
        snapshot: impl FnOnce() -> Vec<Record>,
    ) -> Result<(), String> {
        let weight = Weight::of(&record.change);
        // What is given away now can be given back too.
        let held = held + record.change.given();
        if self.unreadable {
            return self.refuse(weight);
        }
        if self.behind && weight != Weight::Grant {
            if weight == Weight::Release {
                // What is missing gave nothing away, so this makes sense without it.
                let _ = self.append(&journal::encode(record), held, weight);
            }
            return Ok(());
        }
        let due = self.length > self.compact_at;
        if (self.behind || due || self.file.is_none())
            && let Err(error) = self.begin(&snapshot(), held)
        {
            self.compact_at = compact_at(self.length);
            if self.behind || self.file.is_none() {
                self.behind = true;
                self.fail("write", &error);
                return self.refuse(weight);
            }
        }
        let bytes = journal::encode(record);
        match self.append(&bytes, held, weight) {
            Ok(()) => {
                if weight == Weight::Grant && self.failing.take().is_some() {
                    tracing::info!("{} can be written again", self.path.display());
                }
                Ok(())
            }
            Err(error) => {
                self.fail("write", &error);
                self.behind |= weight != Weight::Grant;
                self.refuse(weight)
            }
        }
    }

    fn refuse(&self, weight: Weight) -> Result<(), String> {
        match (weight, &self.failing) {
            (Weight::Grant, Some(why)) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    fn append(&mut self, bytes: &[u8], held: usize, weight: Weight) -> io::Result<()> {
        let end = self.length + bytes.len() as u64;
        if weight != Weight::Release {
            if end > MAX_WRITTEN {
                return Err(io::Error::other("it is as large as it may be"));
            }
            self.reserve(end.saturating_add(releases(held)))?;
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all_at(bytes, self.length) {
            // What of it was written is no record; what was set aside behind it is lost.
            let _ = file.set_len(self.length);
            self.reserved = self.length;
            return Err(error);
        }
        self.length = end;
        self.reserved = self.reserved.max(end);
        Ok(())
    }

    /// Makes sure that there is space up to `end`.
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if end > self.reserved {
            self.reserved = set_aside(file, self.reserved, end)?;
        }
        Ok(())
    }

    /// Looks whether something can be given away again, because somebody wants to know.
    pub(super) fn retry(&mut self, held: usize, snapshot: impl FnOnce() -> Vec<Record>) {
        if self.failing.is_none() || self.unreadable {
            return;
        }
        let result = if self.behind || self.file.is_none() {
            self.begin(&snapshot(), held)
        } else {
            // As much as the next grant needs, about.
            self.reserve(self.length.saturating_add(releases(held + 2)))
        };
        match result {
            Ok(()) => self.failing = None,
            Err(error) => self.fail("write", &error),
        }
    }

    /// Begins a new journal with these records, in place of the one there is.
    fn begin(&mut self, records: &[Record], held: usize) -> io::Result<()> {
        let mut bytes = journal::heading(&self.epoch);
        for record in records {
            bytes.extend_from_slice(&journal::encode(record));
        }
        let aside = self.path.with_extension("journal.aside");
        let written = (|| {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all_at(&bytes, 0)?;
            let length = bytes.len() as u64;
            // Before the old one is given up, with what is set aside in it.
            let reserved = set_aside(&file, length, length.saturating_add(releases(held)))?;
            fs::rename(&aside, &self.path)?;
            Ok((file, reserved))
        })();
        match written {
            Ok((file, reserved)) => {
                self.file = Some(file);
                self.length = bytes.len() as u64;
                self.reserved = reserved;
                self.compact_at = compact_at(self.length);
                self.behind = false;
                Ok(())
            }
            Err(error) => {
                // The error that matters is the first one.
                let _ = fs::remove_file(&aside);
                Err(error)
            }
        }
    }

    fn fail(&mut self, what: &str, error: &io::Error) {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; free space on its file system"
            }
            _ => "",
        };
        let why = format!("cannot {what} {}: {error}{advice}", self.path.display());
        // Once: every request would say it again.
        if self.failing.as_ref() != Some(&why) {
            tracing::error!(
                "{why}: no lcore is given away as long as this is so; leases end as ever"
            );
            self.failing = Some(why);
        }
    }
}

/// The size from which a journal is compacted that has this one now.
fn compact_at(length: u64) -> u64 {
    length.saturating_mul(2).clamp(COMPACT_ABOVE, MAX_WRITTEN)
}

/// What giving all of it back takes, in bytes, and one more.
fn releases(held: usize) -> u64 {
    (held + 1).saturating_mul(RELEASE_BYTES) as u64
}

/// Makes sure that a file with space up to `from` has space up to `end`, and returns up to where it
/// has.
fn set_aside(file: &File, from: u64, end: u64) -> io::Result<u64> {
    // A little is better than nothing where the disk is nearly full.
    for to in [end.next_multiple_of(CHUNK), end] {
        match fallocate(file, FallocateFlags::empty(), from, to - from) {
            Ok(()) => return Ok(to),
            // Not every file system can; then a release may fail, and is done all the same.
            Err(Errno::OPNOTSUPP) => return Ok(from),
            // tmpfs gives up where a signal comes in between.
            Err(Errno::INTR) => return set_aside(file, from, end),
            Err(Errno::NOSPC | Errno::DQUOT) if to > end => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::NOSPC.into())
}

#[cfg(test)]
mod tests;
