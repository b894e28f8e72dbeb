//! Where a network namespace is found, checked.

use super::{NamespaceSpec, raw};
use crate::NamespaceName;
use std::path::{Path, PathBuf};

/// How those are called that have no name: this, and their inode.
const UNNAMED: &str = "unnamed-";

impl NamespaceSpec {
    /// Where a network namespace is found of which nobody says it: under `/run/netns`, or, where
    /// [`Self::unnamed`] made its name, with the processes that are in it.
    #[must_use]
    pub fn of(name: &NamespaceName) -> Self {
        let inode = name.as_str().strip_prefix(UNNAMED).and_then(|inode| inode.parse().ok());
        // Not every number that can be read is one that would be written so.
        match inode.filter(|inode| Self::unnamed(*inode).as_ref() == Some(name)) {
            Some(inode) => Self::Inode(inode),
            None => Self::Name(name.clone()),
        }
    }

    /// What the namespace with this inode is called, where it has no name.
    #[must_use]
    pub fn unnamed(inode: u64) -> Option<NamespaceName> {
        NamespaceName::new(format!("{UNNAMED}{inode}")).ok()
    }

    /// The file to open. For [`Self::Inode`] it is none, but what [`Self::sought`] reads: any
    /// process's file that is this namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Inode(inode) => format!("/proc/*/ns/net:[{inode}]").into(),
            Self::Name(name) => Path::new("/run/netns").join(name.as_str()),
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
        }
    }

    /// The inode of the namespace that a path of [`Self::path`] means; `None`: it is a file.
    #[must_use]
    pub fn sought(path: &Path) -> Option<u64> {
        path.to_str()?.strip_prefix("/proc/*/ns/net:[")?.strip_suffix(']')?.parse().ok()
    }
}

pub(super) fn check(raw: raw::RawNamespace) -> Result<NamespaceSpec, (&'static str, &'static str)> {
    /// `PATH_MAX` of `linux/limits.h`, less the terminating zero.
    const LONGEST_PATH: usize = 4095;
    /// `PID_MAX_LIMIT` of `linux/threads.h`.
    const MAX_PID: u32 = 4 << 20;
    let raw::RawNamespace { name, path, pid } = raw;
    match (name, path, pid) {
        (Some(name), None, None) => Ok(NamespaceSpec::Name(name)),
        (None, Some(path), None) if path.len() > LONGEST_PATH => {
            Err(("/path", "expected a path of at most 4095 bytes"))
        }
        (None, Some(path), None) if path.starts_with('/') && !path.contains('\0') => {
            Ok(NamespaceSpec::Path(path.into()))
        }
        (None, Some(_), None) => Err(("/path", "expected an absolute path")),
        (None, None, Some(pid @ 1..=MAX_PID)) => Ok(NamespaceSpec::Pid(pid)),
        (None, None, Some(_)) => Err(("/pid", "expected a number from 1 to 4194304")),
        _ => Err(("", "expected exactly one of `name`, `path` and `pid`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_is_found_by_its_inode_and_nothing_else_is() {
        let spec = |name: &str| NamespaceSpec::of(&NamespaceName::new(name).unwrap());
        let name = NamespaceSpec::unnamed(4_026_532_456).unwrap();
        assert_eq!(name.as_str(), "unnamed-4026532456");
        assert_eq!(NamespaceSpec::of(&name), NamespaceSpec::Inode(4_026_532_456));
        for inode in [0, 1, u64::MAX] {
            let path = NamespaceSpec::of(&NamespaceSpec::unnamed(inode).unwrap()).path();
            assert_eq!(NamespaceSpec::sought(&path), Some(inode), "{}", path.display());
        }
        // Names that others gave.
        for other in ["blue", "unnamed-", "unnamed-x", "unnamed-007", "unnamed-1-2", "unnamed"] {
            let path = spec(other).path();
            assert_eq!(path, Path::new("/run/netns").join(other));
            assert_eq!(NamespaceSpec::sought(&path), None);
        }
        let too_large = format!("unnamed-{}0", u64::MAX);
        assert!(matches!(spec(&too_large), NamespaceSpec::Name(_)));
        for file in
            ["/proc/1/ns/net", "/proc/1/ns/net:[5]", "/proc/*/ns/net:[]", "/proc/*/ns/net:[5"]
        {
            assert_eq!(NamespaceSpec::sought(Path::new(file)), None, "{file}");
        }
    }
}
