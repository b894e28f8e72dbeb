//! Network namespaces without a name, by the processes that are in them.

use super::Namespace;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Which process was found in a namespace last: a look at all processes takes milliseconds.
static LAST: Mutex<BTreeMap<u64, u32>> = Mutex::new(BTreeMap::new());

/// Of more namespaces it is not remembered; most of them are gone.
const REMEMBERED: usize = 1024;

/// Opens the network namespace with this inode by a process that is in it; `None`: this process sees
/// none.
pub(super) fn find(inode: u64) -> Option<Namespace> {
    let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let known = last().get(&inode).copied();
    if let Some(found) = known.and_then(|pid| open(pid, inode)) {
        return Some(found);
    }
    let files = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = files.filter_map(|file| file.file_name().to_str()?.parse().ok());
    let found = pids.find_map(|pid| Some((pid, open(pid, inode)?)));
    let mut last = last();
    if last.len() >= REMEMBERED {
        last.clear();
    }
    match found {
        Some((pid, namespace)) => {
            last.insert(inode, pid);
            Some(namespace)
        }
        None => {
            last.remove(&inode);
            None
        }
    }
}

/// The namespace of a process, if it has this inode.
fn open(pid: u32, inode: u64) -> Option<Namespace> {
    let path = format!("/proc/{pid}/ns/net");
    // Most are others; reading a link opens nothing.
    if std::fs::read_link(&path).ok()? != Path::new(&format!("net:[{inode}]")) {
        return None;
    }
    let namespace = Namespace::open_file(&PathBuf::from(path)).ok()?;
    // Its number may be another process's by now.
    namespace.id().is_ok_and(|id| id.inode() == inode).then_some(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NamespaceError;
    use pointsman_model::document::NamespaceSpec;
    use std::process::{Command, Stdio};

    #[test]
    fn a_namespace_without_a_name_is_found_as_long_as_somebody_is_in_it() {
        let own = Namespace::own().unwrap().id().unwrap();
        assert_eq!(find(own.inode()).unwrap().id().unwrap(), own);
        let mut inside = Command::new("unshare");
        inside.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut inside = match inside.spawn() {
            Ok(inside) if rustix::process::geteuid().is_root() => inside,
            _ => {
                println!("SKIP a_namespace_without_a_name: needs root and unshare");
                return;
            }
        };
        // What comes back says that the namespace was left for the new one.
        let (mut to, mut from) = (inside.stdin.take().unwrap(), inside.stdout.take().unwrap());
        std::io::Write::write_all(&mut to, b"x").unwrap();
        std::io::Read::read_exact(&mut from, &mut [0]).unwrap();
        let file = PathBuf::from(format!("/proc/{}/ns/net", inside.id()));
        let theirs = Namespace::open(&file).unwrap().id().unwrap();
        assert_ne!(theirs, own);
        let path = NamespaceSpec::Inode(theirs.inode()).path();
        for _ in 0..2 {
            assert_eq!(Namespace::open(&path).unwrap().id().unwrap(), theirs);
        }
        drop(to);
        inside.wait().unwrap();
        let error = Namespace::open(&path).unwrap_err();
        assert!(matches!(&error, NamespaceError::Missing { path: named } if *named == path));
    }
}
