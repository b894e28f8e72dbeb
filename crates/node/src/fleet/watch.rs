//! Notices what is laid down in the drop directory, and that `fleet.json` was written.
//!
//! None of the directories need be there: a node is enrolled, or a courier installed, while the
//! daemon runs. Of a directory that is missing, the nearest one above it is watched until it comes.
//! Where events tell nothing, a look once a minute does.

use super::Places;
use super::drop::{OBJECTS, SNAPSHOT};
use super::stamps::Stamps;
use pointsman_model::Sha256;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a directory that comes and goes while it is sought is sought again. Its next change
/// gives another event.
const TRIES: usize = 8;

/// The shortest time between two times that directories are sought.
const LULL: Duration = Duration::from_millis(50);

/// How long nothing is told before it is looked all the same.
pub const SLOW_LOOK: Duration = Duration::from_secs(60);

/// The watched places.
#[derive(Debug)]
pub struct PlacesWatch {
    inotify: OwnedFd,
    places: [Place; 3],
    all: Places,
    slow_look: Duration,
    /// How the places were when `changed` was called last.
    stamps: Stamps,
}

/// A directory and what is awaited in it.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    awaited: Awaited,
    /// What is watched for it; `None`: nothing yet.
    watched: Option<Watched>,
}

#[derive(Debug)]
enum Awaited {
    /// A file of this name.
    File(OsString),
    /// Any object.
    Objects,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched {
    descriptor: i32,
    /// In a directory above, the name of the missing one.
    missing: Option<OsString>,
}

/// What a batch of events means.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Something that is awaited was laid down, or may have been.
    laid_down: bool,
    /// Directories came or went.
    moved: bool,
}

impl PlacesWatch {
    /// Starts watching. What is laid down from now on is noticed by [`Self::run`].
    ///
    /// # Errors
    /// What the kernel said: there are too many watches, for one.
    pub fn start(places: &Places) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let (all, stamps) = (places.clone(), Stamps::of(places));
        let Places { config, drop } = places;
        let above = config.parent().filter(|directory| !directory.as_os_str().is_empty());
        let file = |name: &OsStr| Awaited::File(name.to_owned());
        let place = |directory: PathBuf, awaited| Place { directory, awaited, watched: None };
        let places = [
            place(
                above.unwrap_or(Path::new(".")).to_owned(),
                file(config.file_name().unwrap_or_default()),
            ),
            place(drop.clone(), file(OsStr::new(SNAPSHOT))),
            place(drop.join(OBJECTS), Awaited::Objects),
        ];
        let inotify = inotify::init(flags)?;
        let mut watch = Self { inotify, places, all, slow_look: SLOW_LOOK, stamps };
        watch.arm()?;
        Ok(watch)
    }

    /// Calls `changed` whenever something was laid down. Ends only when nothing can be watched any
    /// more. Blocks; for a thread of its own.
    pub fn run(&mut self, changed: impl FnMut()) -> io::Error {
        self.run_pausing(changed, || std::thread::sleep(LULL))
    }

    /// `pause` follows each time that directories were sought.
    fn run_pausing(&mut self, mut changed: impl FnMut(), mut pause: impl FnMut()) -> io::Error {
        let slow_look = Timespec::try_from(self.slow_look).ok();
        loop {
            let told = poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], slow_look.as_ref());
            let news = match told {
                // A directory may also lie below another mount by now.
                Ok(0) => Ok(News { laid_down: self.looks_new(), moved: true }),
                Ok(_) => self.drain(),
                Err(errno) => Err(errno),
            };
            let laid_down = match news {
                Ok(News { laid_down, moved: false }) => laid_down,
                Ok(News { laid_down, moved: true }) => match self.arm() {
                    Ok(came) => {
                        // Directories may come and go without end, and be sought without end then.
                        pause();
                        laid_down || came
                    }
                    Err(errno) => return errno.into(),
                },
                Err(Errno::INTR) => false,
                Err(errno) => return errno.into(),
            };
            if laid_down {
                self.stamps = Stamps::of(&self.all);
                changed();
            }
        }
    }

    /// Whether there is something else than when it was told last.
    fn looks_new(&self) -> bool {
        Stamps::of(&self.all) != self.stamps
    }

    /// Watches each directory, or what of the way to it there is; `true`: another directory than
    /// before, so there may be something in it.
    fn arm(&mut self) -> Result<bool, Errno> {
        let descriptors = |places: &[Place]| -> BTreeSet<i32> {
            places.iter().filter_map(|p| Some(p.watched.as_ref()?.descriptor)).collect()
        };
        let before = descriptors(&self.places);
        let mut came = false;
        for place in &mut self.places {
            let watched = watch_nearest(&self.inotify, place)?;
            came |= watched.missing.is_none() && place.watched.as_ref() != Some(&watched);
            place.watched = Some(watched);
        }
        for &gone in before.difference(&descriptors(&self.places)) {
            // It ended by itself where the directory was removed.
            let _ = inotify::remove_watch(&self.inotify, gone);
        }
        Ok(came)
    }

    /// Reads what has happened.
    fn drain(&self) -> Result<News, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut news = News::default();
        loop {
            match reader.next() {
                Ok(event) => {
                    self.note(event.wd(), event.events(), event.file_name(), &mut news);
                }
                Err(Errno::WOULDBLOCK) => return Ok(news),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn note(&self, descriptor: i32, flags: ReadFlags, name: Option<&CStr>, news: &mut News) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Anything may have happened.
            *news = News { laid_down: true, moved: true };
        }
        let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED;
        let name = name.map(|name| OsStr::from_bytes(name.to_bytes()));
        for place in &self.places {
            let Some(watched) = place.watched.as_ref().filter(|w| w.descriptor == descriptor)
            else {
                continue;
            };
            news.moved |= flags.intersects(gone | ReadFlags::UNMOUNT);
            let Some(name) = name else {
                news.laid_down |= flags.contains(ReadFlags::ATTRIB) && watched.missing.is_none();
                continue;
            };
            match &watched.missing {
                Some(missing) => news.moved |= name == missing,
                // Also one that is only created so far: whether its writer is at work, or linked it
                // into place whole (linkat(2) of a file without a name, or link and unlink), cannot be
                // told. A torn file is refused, and closing it gives another event.
                None => news.laid_down |= place.awaits(name),
            }
        }
    }
}

impl Place {
    fn awaits(&self, name: &OsStr) -> bool {
        match &self.awaited {
            Awaited::File(file) => name == file,
            Awaited::Objects => name.to_str().is_some_and(|name| name.parse::<Sha256>().is_ok()),
        }
    }
}

/// Watches a place's directory, or the nearest one above it that is there.
fn watch_nearest(inotify: &OwnedFd, place: &Place) -> Result<Watched, Errno> {
    // What is watched for two reasons is watched for both. CREATE: linked into place.
    let above = WatchFlags::MOVED_TO
        | WatchFlags::CREATE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::MASK_ADD;
    let more = match place.awaited {
        // ATTRIB: whose it is, and who may write, decides whether it is believed. The others: a file
        // that goes is news, too.
        Awaited::File(_) => WatchFlags::ATTRIB | WatchFlags::DELETE | WatchFlags::MOVED_FROM,
        // Nothing is read through a link there.
        Awaited::Objects => WatchFlags::DONT_FOLLOW,
    };
    let itself = above | WatchFlags::CLOSE_WRITE | more;
    let mut tries = 0;
    'again: loop {
        let mut at = place.directory.as_path();
        let mut missing = None;
        loop {
            let flags = if missing.is_none() { itself } else { above };
            match inotify::add_watch(inotify, at, flags) {
                Ok(descriptor) => {
                    // It may have come after it was found missing, and before this.
                    let came = |name: &OsString| at.join(name).symlink_metadata().is_ok();
                    if missing.as_ref().is_some_and(came) && tries < TRIES {
                        tries += 1;
                        continue 'again;
                    }
                    return Ok(Watched { descriptor, missing });
                }
                Err(errno @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                    let (Some(name), Some(parent)) = (at.file_name(), at.parent()) else {
                        return Err(errno);
                    };
                    missing = Some(name.to_owned());
                    at = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                }
                Err(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, Mode, OFlags};
    use std::cell::Cell;
    use std::fs::{self, File};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn start(directory: &Path) -> PlacesWatch {
        let config = directory.join("etc/pointsman/fleet.json");
        PlacesWatch::start(&Places { config, drop: directory.join("lib/drop") }).unwrap()
    }

    /// Whether something was laid down since the last time.
    fn laid_down(watch: &mut PlacesWatch) -> bool {
        let news = watch.drain().unwrap();
        let came = news.moved && watch.arm().unwrap();
        news.laid_down || came
    }

    #[test]
    fn what_is_laid_down_in_directories_that_come_later_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut watch = start(directory.path());
        assert!(!laid_down(&mut watch));
        fs::create_dir(at("lib")).unwrap();
        fs::create_dir(at("other")).unwrap();
        assert!(!laid_down(&mut watch));
        // The file is there before anybody looks into its directory.
        fs::create_dir(at("lib/drop")).unwrap();
        fs::write(at("lib/drop/snapshot.cdb"), "1").unwrap();
        assert!(laid_down(&mut watch));
        assert!(!laid_down(&mut watch));
        fs::write(at("lib/drop/other"), "1").unwrap();
        assert!(!laid_down(&mut watch));
        fs::write(at("lib/drop/aside"), "2").unwrap();
        fs::rename(at("lib/drop/aside"), at("lib/drop/snapshot.cdb")).unwrap();
        assert!(laid_down(&mut watch));

        let hash = Sha256::of(b"x").to_string();
        fs::create_dir_all(at("lib/drop/objects")).unwrap();
        assert!(laid_down(&mut watch), "there may be something in it");
        fs::write(at("lib/drop/objects/x.tmp"), "x").unwrap();
        assert!(!laid_down(&mut watch));
        fs::rename(at("lib/drop/objects/x.tmp"), at("lib/drop/objects").join(hash)).unwrap();
        assert!(laid_down(&mut watch));

        fs::create_dir_all(at("etc/pointsman")).unwrap();
        let file = File::create(at("etc/pointsman/fleet.json")).unwrap();
        assert!(laid_down(&mut watch), "its directory came");
        drop(file);
        assert!(laid_down(&mut watch));
        for name in ["etc/pointsman/fleet.json", "lib/drop/snapshot.cdb"] {
            fs::rename(at(name), at("aside")).unwrap();
            assert!(laid_down(&mut watch), "{name} went");
            fs::rename(at("aside"), at(name)).unwrap();
            assert!(laid_down(&mut watch));
            fs::remove_file(at(name)).unwrap();
            assert!(laid_down(&mut watch), "{name} was removed");
            fs::write(at(name), "again").unwrap();
            assert!(laid_down(&mut watch));
        }
        for path in ["etc/pointsman/fleet.json", "etc/pointsman"] {
            fs::set_permissions(at(path), fs::Permissions::from_mode(0o700)).unwrap();
            assert!(laid_down(&mut watch), "{path}: whether it is believed may have changed");
        }
        assert!(!laid_down(&mut watch));
    }

    #[test]
    fn directories_that_go_and_come_again_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("lib/drop")).unwrap();
        let mut watch = start(directory.path());
        for _ in 0..3 {
            fs::rename(at("lib/drop"), at("lib/old")).unwrap();
            assert!(!laid_down(&mut watch));
            fs::write(at("lib/old/snapshot.cdb"), "1").unwrap();
            assert!(!laid_down(&mut watch), "it is another directory now");
            fs::create_dir(at("lib/drop")).unwrap();
            assert!(laid_down(&mut watch));
            fs::write(at("lib/drop/snapshot.cdb"), "1").unwrap();
            assert!(laid_down(&mut watch));
            fs::remove_dir_all(at("lib/old")).unwrap();
        }
        fs::remove_dir_all(at("lib")).unwrap();
        assert!(laid_down(&mut watch), "the snapshot went with it");
        fs::create_dir_all(at("lib/drop")).unwrap();
        fs::write(at("lib/drop/snapshot.cdb"), "1").unwrap();
        assert!(laid_down(&mut watch));
        let places = watch.places.iter().filter(|place| {
            place.watched.as_ref().is_some_and(|watched| watched.missing.is_none())
        });
        assert_eq!(places.count(), 1, "the others are not there");
    }

    #[test]
    fn directories_that_come_and_go_without_end_are_sought_with_pauses() {
        const SWAPS: usize = 100;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("lib/drop")).unwrap();
        let mut watch = start(directory.path());
        let swap = move |drop_dir: &Path| {
            let aside = drop_dir.join("aside");
            std::os::unix::fs::symlink("nowhere", &aside).unwrap();
            fs::rename(aside, drop_dir.join("objects")).unwrap();
        };
        let (drop_dir, (told, heard)) = (at("lib/drop"), std::sync::mpsc::channel());
        swap(&drop_dir);
        // It waits for ever at the end, as the daemon's does.
        std::thread::spawn(move || {
            let pauses = Cell::new(0);
            let pause = || {
                pauses.set(pauses.get() + 1);
                if pauses.get() < SWAPS {
                    swap(&drop_dir);
                } else {
                    fs::write(drop_dir.join("snapshot.cdb"), "1").unwrap();
                }
            };
            watch.run_pausing(
                || {
                    let _ = told.send(pauses.get());
                },
                pause,
            )
        });
        let pauses = heard.recv_timeout(Duration::from_secs(20));
        assert_eq!(pauses, Ok(SWAPS), "one after each time that directories were sought");
    }

    #[test]
    fn what_no_event_tells_is_found_by_a_look() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("lib/drop")).unwrap();
        let mut watch = start(directory.path());
        watch.slow_look = Duration::from_millis(20);
        fs::write(at("lib/drop/snapshot.cdb"), "1").unwrap();
        // As if it lay on a server, and somebody else wrote it.
        watch.drain().unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            watch.run(|| {
                let _ = told.send(());
            })
        });
        heard.recv_timeout(Duration::from_secs(20)).expect("it was looked");
        // What is known is no news at the next look.
        let again = heard.recv_timeout(Duration::from_millis(200));
        assert!(again.is_err(), "{again:?}");
    }

    #[test]
    fn a_file_is_noticed_however_it_comes_into_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("lib/drop/objects")).unwrap();
        let mut watch = start(directory.path());
        let file = File::create(at("lib/drop/snapshot.cdb")).unwrap();
        assert!(laid_down(&mut watch));
        drop(file);
        assert!(laid_down(&mut watch), "what was looked at before may have been torn");
        fs::rename(at("lib/drop/snapshot.cdb"), at("lib/drop/aside")).unwrap();
        assert!(laid_down(&mut watch));
        fs::hard_link(at("lib/drop/aside"), at("lib/drop/snapshot.cdb")).unwrap();
        // As link(2) and unlink(2) do it, before anybody looks.
        fs::remove_file(at("lib/drop/aside")).unwrap();
        assert!(laid_down(&mut watch));
        // A file that had no name before (O_TMPFILE) is never closed after it has one.
        fs::remove_file(at("lib/drop/snapshot.cdb")).unwrap();
        let _ = laid_down(&mut watch);
        let flags = OFlags::TMPFILE | OFlags::WRONLY;
        let file = rustix::fs::openat(CWD, at("lib/drop"), flags, Mode::RUSR).unwrap();
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = at("lib/drop/snapshot.cdb");
        rustix::fs::linkat(CWD, itself, CWD, path, AtFlags::SYMLINK_FOLLOW).unwrap();
        assert!(laid_down(&mut watch));
        // A link to a directory is not one that objects are read from.
        fs::remove_dir(at("lib/drop/objects")).unwrap();
        fs::create_dir(at("away")).unwrap();
        std::os::unix::fs::symlink(at("away"), at("lib/drop/objects")).unwrap();
        let _ = laid_down(&mut watch);
        fs::write(at("away").join(Sha256::of(b"x").to_string()), "x").unwrap();
        assert!(!laid_down(&mut watch));
    }
}
