//! Somebody in the daemon's place, who looks at the drop directory whenever anything happens there,
//! and believes nothing.

use super::NODE;
use pointsman_model::Sha256;
use pointsman_snapshot::cdb;
use pointsman_snapshot::keys::PublicKey;
use pointsman_snapshot::record::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Watches until it is asked.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Generations in their order, without repetitions.
    pub(crate) generations: Vec<u64>,
    /// What must not be.
    pub(crate) violations: Vec<String>,
    pub(crate) looks: u64,
}

impl Watcher {
    /// Watches `drop`, which is made if it is not there.
    pub(crate) fn start(drop: &Path, key: &PublicKey) -> Self {
        fs::create_dir_all(drop.join("objects")).unwrap();
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let all = WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM;
        for directory in [drop.to_owned(), drop.join("objects")] {
            inotify::add_watch(&watch, &directory, all).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, drop, key) = (Arc::clone(&stop), drop.to_owned(), key.clone());
        let mut seen = Seen::default();
        // What is there from the start counts, however late the thread comes to run.
        look(&drop, &key, &mut seen);
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Acquire) {
                wait(&watch);
                look(&drop, &key, &mut seen);
            }
            look(&drop, &key, &mut seen);
            seen
        });
        Self { stop, thread: Some(thread) }
    }

    /// Looks once more and tells.
    pub(crate) fn finish(mut self) -> Seen {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Waits for an event, or a moment: the one who asks it to stop makes none.
fn wait(watch: &OwnedFd) {
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let _ = poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&moment));
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    while reader.next().is_ok() {}
}

/// What a look at a moment finds; it is repeated where the directory changes meanwhile.
fn look(drop: &Path, key: &PublicKey, seen: &mut Seen) {
    seen.looks += 1;
    for name in names(drop) {
        if !["snapshot.cdb", "objects", ".courier"].contains(&&*name) {
            seen.violations.push(format!("{name} is in the drop directory"));
        }
    }
    for name in names(&drop.join("objects")) {
        let path = drop.join("objects").join(&name);
        match (name.parse::<Sha256>(), read(&path)) {
            (_, None) => {}
            (Ok(hash), Some(bytes)) if Sha256::of(&bytes) == hash => {}
            (_, Some(bytes)) => {
                seen.violations.push(format!("objects/{name} has {} wrong bytes", bytes.len()));
            }
        }
    }
    loop {
        let Some(file) = read(&drop.join("snapshot.cdb")) else { return };
        let (generation, objects) = match verify(&file, key) {
            Ok(verified) => verified,
            Err(error) => return seen.violations.push(format!("snapshot.cdb: {error}")),
        };
        let missing = objects
            .iter()
            .find(|hash| read(&drop.join("objects").join(hash.to_string())).is_none());
        if let Some(hash) = missing {
            // Two generations on it may be gone, and we are late.
            if read(&drop.join("snapshot.cdb")).as_ref() != Some(&file) {
                continue;
            }
            seen.violations.push(format!("generation {generation} is there without {hash}"));
        }
        match seen.generations.last() {
            Some(&last) if last == generation => {}
            Some(&last) if last > generation => {
                seen.violations.push(format!("generation {generation} after {last}"));
            }
            _ => seen.generations.push(generation),
        }
        return;
    }
}

fn verify(file: &[u8], key: &PublicKey) -> Result<(u64, Vec<Sha256>), String> {
    let record = cdb::find(file, NODE.as_bytes()).map_err(|error| error.to_string())?;
    let record = Record::parse(record.ok_or("no record")?).map_err(|error| error.to_string())?;
    let (fleet, node) = ("lab".parse().unwrap(), NODE.parse().unwrap());
    let verified = record.verify(key, &fleet, &node).map_err(|error| error.to_string())?;
    Ok((verified.generation, verified.objects.iter().map(|object| object.sha256).collect()))
}

/// The generation in `drop`, if there is a good one.
pub(crate) fn generation(drop: &Path, key: &PublicKey) -> Option<u64> {
    let file = read(&drop.join("snapshot.cdb"))?;
    Some(verify(&file, key).unwrap().0)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn read(path: &PathBuf) -> Option<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}
