//! The event log: what happened on this node, for people and for programs that follow.
//!
//! One JSON object a line in `events.jsonl`, and one older file of the same kind. It is not synced:
//! nothing is decided by it, the state file is the truth about what was asked for, and a power cut
//! may cost the last lines. A disk that takes nothing stops nobody: events wait in memory.

use pointsman_model::HookId;
use pointsman_model::event::{Event, EventKind};
use pointsman_model::glass::EventPage;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How many events are kept in memory, where requests are answered from.
const MAX_RECENT: usize = 4096;

/// The longest message, in bytes: a hostile document must not push everything else out.
const MAX_MESSAGE: usize = 2048;

/// Opens the log to be written at its end; tests hand in a full device here.
pub type OpenLog = fn(&Path) -> io::Result<File>;

/// The log of a node.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    old: PathBuf,
    open: OpenLog,
    recent: VecDeque<Event>,
    /// How many of `recent`, the newest ones, are not on disk.
    unwritten: usize,
    last: u64,
    not_on_disk: Option<String>,
}

impl EventLog {
    /// Reads the log in `directory`, or starts with none. What of it cannot be read is left out.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let mut log = Self {
            path: directory.join("events.jsonl"),
            old: directory.join("events.old.jsonl"),
            open: append,
            recent: VecDeque::new(),
            unwritten: 0,
            last: 0,
            not_on_disk: None,
        };
        for path in [log.old.clone(), log.path.clone()] {
            if let Err(error) = log.read(&path) {
                tracing::warn!("cannot read events of {}: {error}", path.display());
            }
        }
        log
    }

    /// The log with its files opened by `open`, so that a test can fill the disk.
    #[must_use]
    pub fn opened_by(mut self, open: OpenLog) -> Self {
        self.open = open;
        self
    }

    fn read(&mut self, path: &Path) -> io::Result<()> {
        // A file that grew beyond its size was not written here.
        let limit = usize::try_from(2 * MAX_FILE).unwrap_or(usize::MAX);
        let bytes = match crate::store::read_regular(path, limit) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut broken = 0;
        for line in bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Event>(line) {
                Ok(event) if event.sequence > self.last => self.push(event),
                _ => broken += 1,
            }
        }
        if broken > 0 {
            tracing::warn!("{broken} lines of {} are no events: left out", path.display());
        }
        if whole < bytes.len() {
            // A line that a kill or a power cut tore: the next one must not be glued to it.
            OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
        }
        Ok(())
    }

    fn push(&mut self, event: Event) {
        self.last = event.sequence;
        self.recent.push_back(event);
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
            self.unwritten = self.unwritten.min(self.recent.len());
        }
    }

    /// Adds an event.
    pub fn add(
        &mut self,
        at_unix_ms: u64,
        kind: EventKind,
        hook: Option<&HookId>,
        generation: Option<u64>,
        message: &str,
    ) {
        let sequence = self.last.saturating_add(1);
        let (hook, message) = (hook.cloned(), one_line(message));
        self.unwritten += 1;
        self.push(Event { sequence, at_unix_ms, kind, hook, generation, message });
        self.catch_up();
    }

    /// Writes what is not on disk yet.
    pub fn catch_up(&mut self) {
        while self.unwritten > 0 {
            let event = &self.recent[self.recent.len() - self.unwritten];
            if let Err(error) = self.write(event) {
                if self.not_on_disk.is_none() {
                    tracing::error!("events are kept in memory only: {error}");
                }
                self.not_on_disk = Some(format!(
                    "cannot write {}: {error}; the last {} events are in memory only and end with \
                     the daemon",
                    self.path.display(),
                    self.unwritten
                ));
                return;
            }
            self.unwritten -= 1;
        }
        self.not_on_disk = None;
    }

    /// The file is opened for each line: events are rare, and a file that somebody moved away is
    /// not written to for ever.
    fn write(&self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let mut file = (self.open)(&self.path)?;
        let mut length = file.metadata()?.len();
        if length > 0 && length + line.len() as u64 > MAX_FILE {
            fs::rename(&self.path, &self.old)?;
            file = (self.open)(&self.path)?;
            length = 0;
        }
        file.write_all(&line).inspect_err(|_| {
            // The first part of a line that did not fit. The error that matters is the first one.
            let _ = file.set_len(length);
        })
    }

    /// The events after the one numbered `after`, at most `limit`, oldest first; without `after`
    /// the last `limit` ones.
    #[must_use]
    pub fn page(&self, after: Option<u64>, limit: usize) -> EventPage {
        let start = match after {
            Some(after) => self.recent.partition_point(|event| event.sequence <= after),
            None => self.recent.len().saturating_sub(limit),
        };
        EventPage {
            events: self.recent.iter().skip(start).take(limit).cloned().collect(),
            last: self.last,
            not_on_disk: self.not_on_disk.clone(),
        }
    }

    /// The number of the last event; 0: there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Why events are not written to disk; `None`: they are.
    #[must_use]
    pub fn not_on_disk(&self) -> Option<&str> {
        self.not_on_disk.as_deref()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// A message on one line, cut where it is too long.
fn one_line(message: &str) -> String {
    let mut line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push_str(" ...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(log: &mut EventLog, message: &str) {
        log.add(7, EventKind::Applied, None, Some(3), message);
    }

    fn messages(log: &EventLog) -> Vec<String> {
        log.page(Some(0), MAX_RECENT).events.into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn numbers_go_on_over_restarts_and_a_torn_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(directory.path());
        add(&mut log, "one");
        add(&mut log, "two\nlines");
        let path = directory.path().join("events.jsonl");
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(br#"{"sequence":3,"at_uni"#);
        fs::write(&path, &torn).unwrap();
        let mut log = EventLog::open(directory.path());
        assert_eq!(messages(&log), ["one", "two lines"]);
        add(&mut log, "three");
        let log = EventLog::open(directory.path());
        assert_eq!(messages(&log), ["one", "two lines", "three"]);
        assert_eq!(log.last(), 3);
        assert_eq!(log.page(Some(1), 1).events[0].sequence, 2);
        assert_eq!(log.page(None, 2).events[0].sequence, 2);
        assert!(log.page(Some(99), 5).events.is_empty());
    }

    #[test]
    fn garbage_is_no_reason_not_to_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        fs::write(&path, b"\xff\xfe\n{}\n[1]\n").unwrap();
        let mut log = EventLog::open(directory.path());
        add(&mut log, "good");
        assert_eq!(messages(&EventLog::open(directory.path())), ["good"]);
    }

    #[test]
    fn files_are_bounded_and_so_is_memory() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(directory.path());
        for _ in 0..1_500 {
            add(&mut log, &"é".repeat(3_000));
        }
        for name in ["events.jsonl", "events.old.jsonl"] {
            let length = fs::metadata(directory.path().join(name)).unwrap().len();
            assert!(length > 0 && length <= MAX_FILE, "{name} has {length} bytes");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        let again = EventLog::open(directory.path());
        assert_eq!(again.last(), 1_500);
        for _ in 0..MAX_RECENT {
            add(&mut log, "short");
        }
        assert_eq!(log.recent.len(), MAX_RECENT);
    }

    #[test]
    fn a_full_disk_keeps_events_in_memory_until_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let full: OpenLog = |_| OpenOptions::new().write(true).open("/dev/full");
        let mut log = EventLog::open(directory.path()).opened_by(full);
        add(&mut log, "one");
        add(&mut log, "two");
        assert_eq!(messages(&log), ["one", "two"]);
        assert!(log.not_on_disk().is_some_and(|why| why.contains("the last 2 events")));
        log = log.opened_by(append);
        add(&mut log, "three");
        assert_eq!(log.not_on_disk(), None);
        assert_eq!(messages(&EventLog::open(directory.path())), ["one", "two", "three"]);
    }
}
