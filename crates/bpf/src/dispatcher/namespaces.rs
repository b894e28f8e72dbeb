//! Which XDP programs run anywhere on this host.

use super::clean::Programs;
use super::netlink;
use crate::error::Error;
use crate::probe::interface_index;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, fstat, makedev, open, statx};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The interfaces of this thread's network namespace: numbers and names, ascending.
///
/// # Errors
/// They cannot be listed.
pub fn interfaces() -> Result<Vec<(u32, String)>, Error> {
    let list = fs::read_to_string("/proc/thread-self/net/dev")
        .map_err(|e| Error::os("list the interfaces", e))?;
    let names = list.lines().skip(2).filter_map(|line| line.split_once(':'));
    // One that vanishes meanwhile is none.
    let found = names.filter_map(|(name, _)| {
        let name = name.trim();
        Some((interface_index(name).ok()?, name.to_owned()))
    });
    let mut interfaces: Vec<_> = found.collect();
    interfaces.sort();
    Ok(interfaces)
}

/// The programs on the interfaces of this thread's network namespace.
pub(super) fn running_here() -> Result<Programs, Error> {
    let mut programs = Programs::new();
    for (index, _) in interfaces()? {
        let hook = match netlink::hook(index) {
            Ok(hook) => hook,
            Err(Error::Os { source, .. })
                if Errno::from_io_error(&source) == Some(Errno::NODEV) =>
            {
                continue;
            }
            Err(e) => return Err(e),
        };
        programs.extend(hook.software.map(|(id, _)| id));
        programs.extend(hook.offloaded);
    }
    Ok(programs)
}

/// What runs in the network namespaces of this host.
#[derive(Debug, Default)]
pub(super) struct Everywhere {
    /// The programs that were found.
    pub(super) programs: Programs,
    /// Why there may be more: the first thing that could not be looked at.
    pub(super) unseen: Option<String>,
}

/// The programs on the interfaces of every network namespace that can be found.
///
/// # Errors
/// This thread's own namespace cannot be looked at.
pub(super) fn running() -> Result<Everywhere, Error> {
    let mut search = Search::default();
    search.processes(Path::new("/proc"));
    let mut everywhere = Everywhere { programs: running_here()?, unseen: search.missing() };
    for (path, namespace) in search.found.into_values() {
        match inside(&namespace) {
            Ok(mut programs) => everywhere.programs.append(&mut programs),
            Err(e) => {
                let why = || format!("the network namespace {}: {e}", path.display());
                everywhere.unseen.get_or_insert_with(why);
            }
        }
    }
    Ok(everywhere)
}

/// Looks from a thread of its own: a thread in another namespace is of no use afterwards.
fn inside(namespace: &File) -> Result<Programs, Error> {
    let enter = || move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    std::thread::scope(|scope| {
        let look = scope.spawn(|| match enter() {
            Ok(()) => running_here(),
            // A namespace of another kind.
            Err(Errno::INVAL) => Ok(Programs::new()),
            Err(e) => Err(Error::os("enter a network namespace", e)),
        });
        look.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The inode of the first PID namespace, in which all processes are (`PROC_PID_INIT_INO` of
/// `linux/proc_ns.h`).
const ALL_PROCESSES: u64 = 0xEFFF_FFFC;

/// Looks for every network namespace that a thread is in, that a file is open of, or that is
/// mounted.
#[derive(Debug, Default)]
struct Search {
    /// By inode: all of them are in one filesystem.
    found: BTreeMap<u64, (PathBuf, File)>,
    /// Inodes of those that are mounted somewhere, and where.
    mounted: BTreeMap<u64, PathBuf>,
    /// What links of processes say that were followed already.
    seen: BTreeSet<PathBuf>,
    /// The device of that filesystem, once it is known.
    device: Option<u64>,
    unseen: Option<String>,
}

impl Search {
    fn processes(&mut self, proc: &Path) {
        let own = proc.join("thread-self/ns/net");
        match fs::metadata(&own) {
            Ok(meta) => self.device = Some(meta.dev()),
            Err(e) => self.cannot(&own, e),
        }
        // Whoever is hidden from us can have namespaces that we do not find: processes above a
        // container, or all of others where /proc is mounted with hidepid.
        match fs::metadata(proc.join("self/ns/pid")) {
            Ok(meta) if meta.ino() == ALL_PROCESSES => {}
            Ok(_) => self.cannot(proc, "shows only the processes of a PID namespace"),
            Err(e) => self.cannot(proc, e),
        }
        let first = proc.join("1/ns/net");
        if let Err(e) = fs::read_link(&first) {
            self.cannot(&first, e);
        }
        for process in self.numbers(proc) {
            for thread in self.numbers(&process.join("task")) {
                self.link(&thread.join("ns/net"));
            }
            for file in self.numbers(&process.join("fd")) {
                self.link(&file);
            }
            self.mounts(&process);
        }
    }

    /// Where namespaces are mounted for a process, as `ip netns` and container engines do.
    fn mounts(&mut self, process: &Path) {
        let namespace = match fs::read_link(process.join("ns/mnt")) {
            Ok(namespace) if !self.seen.contains(&namespace) => namespace,
            Ok(_) => return,
            Err(e) => return self.missed(process, e),
        };
        let text = match fs::read_to_string(process.join("mountinfo")) {
            Ok(text) => text,
            Err(e) => return self.missed(process, e),
        };
        self.seen.insert(namespace);
        for (inode, place) in text.lines().filter_map(mount_of_namespace) {
            let place = process.join("root").join(place.strip_prefix("/").unwrap_or(&place));
            self.open(&place);
            self.mounted.entry(inode).or_insert(place);
        }
    }

    /// Follows a link of a process, if it leads to a namespace.
    fn link(&mut self, path: &Path) {
        let target = match fs::read_link(path) {
            Ok(target) => target,
            Err(e) => return self.missed(path, e),
        };
        let text = target.as_os_str().as_encoded_bytes();
        // A file that was opened where a namespace is mounted has that path, or after it was
        // unmounted the path `/`.
        if text.starts_with(b"net:[") {
            // Only what could be opened needs no second look: processes end.
            if !self.seen.contains(&target) && self.open(path) {
                self.seen.insert(target);
            }
        } else if text.starts_with(b"/") && self.is_namespace(path) {
            self.open(path);
        }
    }

    /// Whether a path leads to a namespace. Asks no server of a network filesystem.
    fn is_namespace(&self, path: &Path) -> bool {
        let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty());
        let device = |found: &Statx| makedev(found.stx_dev_major, found.stx_dev_minor);
        found.is_ok_and(|found| Some(device(&found)) == self.device)
    }

    /// Opens what may be a namespace, and nothing else: opening a device does something.
    fn open(&mut self, path: &Path) -> bool {
        match self.open_namespace(path) {
            Ok(Some((inode, file))) => {
                self.found.insert(inode, (path.to_owned(), file));
            }
            Ok(None) => {}
            Err(e) => {
                self.missed(path, e);
                return false;
            }
        }
        true
    }

    fn open_namespace(&self, path: &Path) -> io::Result<Option<(u64, File)>> {
        let found = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&found)?;
        if Some(stat.st_dev) != self.device || self.found.contains_key(&stat.st_ino) {
            return Ok(None);
        }
        let same = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
        Ok(Some((stat.st_ino, File::open(same)?)))
    }

    /// The first thing that could not be looked at.
    fn missing(&mut self) -> Option<String> {
        let hidden = self.mounted.iter().find(|(inode, _)| !self.found.contains_key(inode));
        let hidden = hidden.map(|(_, path)| format!("{}: cannot be opened", path.display()));
        self.unseen.take().or(hidden)
    }

    /// The entries of a directory that are called by a number.
    fn numbers(&mut self, directory: &Path) -> Vec<PathBuf> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) => {
                self.missed(directory, e);
                return vec![];
            }
        };
        let numbered = entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
        numbered.map(|entry| entry.path()).collect()
    }

    /// What could not be looked at. Processes end and close files meanwhile: that is no reason.
    /// EINVAL says that a process has no mounts any more.
    fn missed(&mut self, path: &Path, error: io::Error) {
        let gone =
            matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::SRCH | Errno::INVAL));
        if !gone {
            self.cannot(path, error);
        }
    }

    fn cannot(&mut self, path: &Path, why: impl Display) {
        self.unseen.get_or_insert_with(|| format!("{}: {why}", path.display()));
    }
}

/// The inode of the network namespace that a line of `mountinfo` mounts, and where.
fn mount_of_namespace(line: &str) -> Option<(u64, PathBuf)> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let inode = root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    rest.starts_with("nsfs ").then(|| (inode, unescaped(place)))
}

/// Spaces and the like stand in octal in `mountinfo`.
fn unescaped(text: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_seen_there_may_be_more() {
        let proc = std::env::temp_dir().join(format!("pointsman-proc-{}", std::process::id()));
        fs::create_dir_all(proc.join("7/task/7/ns")).unwrap();
        let mut search = Search::default();
        search.processes(&proc);
        assert!(search.found.is_empty());
        let unseen = search.missing().unwrap();
        assert!(unseen.contains("ns/net"), "{unseen}");
        fs::remove_dir_all(&proc).unwrap();
    }

    #[test]
    fn what_is_mounted_and_not_found_may_be_more() {
        let mut search = Search::default();
        assert_eq!(search.missing(), None);
        search.mounted.insert(7, "/run/netns/seven".into());
        assert!(search.missing().unwrap().contains("/run/netns/seven"));
    }

    #[test]
    fn mounted_namespaces_are_found() {
        let line = "510 24 0:4 net:[4026532] /run/netns/a\\040b rw shared:240 - nsfs nsfs rw";
        assert_eq!(mount_of_namespace(line), Some((4_026_532, PathBuf::from("/run/netns/a b"))));
        let other = "510 24 0:4 mnt:[4026532] /run/x rw - nsfs nsfs rw";
        assert_eq!(mount_of_namespace(other), None);
        assert_eq!(mount_of_namespace("24 1 0:22 / /sys rw - sysfs sysfs rw"), None);
    }
}
