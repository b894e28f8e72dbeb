//! Which XDP programs run anywhere on this host.

use super::clean::Programs;
use super::netlink;
use crate::error::Error;
use crate::probe::interface_index;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
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

/// The programs on the interfaces of every network namespace that can be found.
pub(super) fn running() -> Result<Programs, Error> {
    let mut programs = running_here()?;
    for namespace in namespaces() {
        programs.append(&mut inside(&namespace)?);
    }
    Ok(programs)
}

/// Looks from a thread of its own: a thread in another namespace is of no use afterwards.
fn inside(namespace: &File) -> Result<Programs, Error> {
    std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| Error::os("enter a network namespace", e))?;
            running_here()
        });
        look.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Every network namespace that a thread is in, that a file is open of, or that is mounted.
fn namespaces() -> Vec<File> {
    let mut found = BTreeMap::new();
    let mut add = |path: &Path| -> io::Result<()> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        found.entry((meta.dev(), meta.ino())).or_insert(file);
        Ok(())
    };
    for path in in_processes().into_iter().chain(mounted()) {
        // Processes end while they are looked at.
        let _ = add(&path);
    }
    found.into_values().collect()
}

fn in_processes() -> Vec<PathBuf> {
    let mut seen = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    let mut add = |path: PathBuf| {
        let Ok(target) = fs::read_link(&path) else { return };
        let is_net = target.as_os_str().as_encoded_bytes().starts_with(b"net:[");
        if is_net && seen.insert(target) {
            found.push(path);
        }
    };
    for process in numbers(Path::new("/proc")) {
        for thread in numbers(&process.join("task")) {
            add(thread.join("ns/net"));
        }
        for file in numbers(&process.join("fd")) {
            add(file);
        }
    }
    found
}

/// The entries of a directory that are called by a number.
fn numbers(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbered =
        entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    numbered.map(|entry| entry.path()).collect()
}

/// Where namespaces are mounted, as `ip netns` and container engines do.
fn mounted() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(mount_of_namespace).collect()
}

/// Where a line of `mountinfo` mounts a network namespace.
fn mount_of_namespace(line: &str) -> Option<PathBuf> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    (rest.starts_with("nsfs ") && root.starts_with("net:[")).then(|| unescaped(place))
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
    fn mounted_namespaces_are_found() {
        let line = "510 24 0:4 net:[4026532] /run/netns/a\\040b rw shared:240 - nsfs nsfs rw";
        assert_eq!(mount_of_namespace(line), Some(PathBuf::from("/run/netns/a b")));
        let other = "510 24 0:4 mnt:[4026532] /run/x rw - nsfs nsfs rw";
        assert_eq!(mount_of_namespace(other), None);
        assert_eq!(mount_of_namespace("24 1 0:22 / /sys rw - sysfs sysfs rw"), None);
    }
}
