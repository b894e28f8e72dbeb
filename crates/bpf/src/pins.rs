//! Names and small records in a BPF filesystem. It holds no files, so a record is the value of a
//! frozen one-entry map.

use crate::error::Error;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use libbpf_sys as sys;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// A name as a file name in bpffs, which reserves dots for itself (kernel/bpf/inode.c,
/// `bpf_lookup`): dots and percent signs are written in percent-encoding. So are slashes: the names
/// of maps are whatever an object says, and must not lead out of their directory.
#[must_use]
pub fn file_name(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2e").replace('/', "%2f")
}

/// The inverse of [`file_name`].
#[must_use]
pub fn name_of(file: &str) -> String {
    file.replace("%2f", "/").replace("%2e", ".").replace("%25", "%")
}

/// Whether `path` is in a BPF filesystem.
///
/// # Errors
/// The path cannot be looked at.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    let found = rustix::fs::statfs(path)?;
    Ok(found.f_type as u32 == BPF_FS_MAGIC)
}

/// Where the filesystem is mounted that `path` lies in: the last directory above it on the same
/// device.
///
/// # Errors
/// The path cannot be looked at.
pub fn mount_of(path: &Path) -> io::Result<PathBuf> {
    let mut mount = fs::canonicalize(path)?;
    let device = fs::metadata(&mount)?.dev();
    while let Some(above) = mount.parent().map(Path::to_owned) {
        if fs::metadata(&above)?.dev() != device {
            break;
        }
        mount = above;
    }
    Ok(mount)
}

/// Mounts a BPF filesystem at `path`, for its owner alone, unless there is one.
///
/// # Errors
/// The kernel's answer.
pub fn ensure_mounted(path: &Path) -> io::Result<()> {
    use rustix::mount::{MountFlags, mount};
    if is_bpffs(path)? {
        return Ok(());
    }
    Ok(mount("bpf", path, "bpf", MountFlags::empty(), Some(c"mode=0700"))?)
}

/// Whether there is anything at `path`.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Makes a directory and those above it, for the owner alone.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Error::os(format!("make directory {}", path.display()), e))
}

/// The names in a directory; empty where there is none.
pub(crate) fn list(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |e| Error::os(format!("list {}", directory.display()), e);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes a directory of pins with all that is in it. Goes on past what cannot be removed and
/// reports the first of it.
pub(crate) fn remove_directory(path: &Path) -> Result<(), Error> {
    let mut first = None;
    for name in list(path)? {
        let inner = path.join(&name);
        let removed = match fs::symlink_metadata(&inner) {
            Ok(found) if found.is_dir() => remove_directory(&inner),
            _ => remove(&inner),
        };
        first = first.or(removed.err());
    }
    if first.is_none() {
        match fs::remove_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                first = Some(Error::os(format!("remove directory {}", path.display()), e));
            }
            _ => {}
        }
    }
    first.map_or(Ok(()), Err)
}

/// Exchanges two names in one step.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Removes a pin, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::os(format!("remove pin {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// Pins `record` at `path` in one step: whoever looks finds the old one or the new one.
pub(crate) fn write_record(path: &Path, record: &[u8]) -> Result<(), Error> {
    let failed = |e: libbpf_rs::Error| Error::Pin {
        path: path.display().to_string(),
        why: format!("cannot write the record: {e}"),
    };
    let size = u32::try_from(record.len()).unwrap_or(u32::MAX).max(1);
    let opts = sys::bpf_map_create_opts {
        sz: size_of::<sys::bpf_map_create_opts>() as sys::size_t,
        ..Default::default()
    };
    let map =
        MapHandle::create(MapType::Array, Some("pm_record"), 4, size, 1, &opts).map_err(failed)?;
    if !record.is_empty() {
        map.update(&0u32.to_ne_bytes(), record, MapFlags::ANY).map_err(failed)?;
    }
    map.freeze().map_err(failed)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push("%new");
    let aside = Path::new(&aside);
    remove(aside)?;
    crate::kernel::pin(std::os::fd::AsFd::as_fd(&map), aside)?;
    fs::rename(aside, path).map_err(|e| Error::os(format!("rename to {}", path.display()), e))
}

/// Reads a record; `None`: there is none.
pub(crate) fn read_record(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let broken = |why: String| Error::Pin { path: path.display().to_string(), why };
    let map = match MapHandle::from_pinned_path(path) {
        Ok(map) => map,
        Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(broken(format!("is not a record: {e}"))),
    };
    if map.map_type() != MapType::Array || map.key_size() != 4 {
        return Err(broken("is not a record: another kind of map".into()));
    }
    let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
    value
        .map_err(|e| broken(format!("is not a record: {e}")))?
        .map(Some)
        .ok_or_else(|| broken("is an empty record".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_come_back() {
        for name in ["eth0.100", ".rodata", "a%2eb", "plain", "%", "50%.x", "/a/b", "a%2fb"] {
            let file = file_name(name);
            assert!(!file.contains(['.', '/']), "{file}");
            assert_eq!(name_of(&file), name);
        }
    }
}
