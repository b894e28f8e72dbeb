//! Whether what is laid down is another than it was, by looks alone: for what no event tells.
//!
//! A file system of the network does not tell what other hosts do there, and one that is mounted
//! over a watched directory hides it without a word.

use super::Places;
use super::drop::{OBJECTS, SNAPSHOT};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::path::{Path, PathBuf};

/// What changes whenever a file or a directory does: where it lies, which it is, how long, whose,
/// and when it was changed in seconds and nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: (u32, u32),
    inode: u64,
    bytes: u64,
    owner: (u32, u32, u16),
    changed: (i64, u32),
}

/// How the places were when they were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps([Option<Stamp>; 4]);

impl Stamps {
    /// Looks at what membership, snapshot and objects are read from.
    #[must_use]
    pub fn of(places: &Places) -> Self {
        let Places { config, drop } = places;
        let above: PathBuf = config.parent().map(Path::to_owned).unwrap_or_default();
        // Whether the membership is believed is also a matter of its directory.
        Self([&above, config, &drop.join(SNAPSHOT), &drop.join(OBJECTS)].map(|path| stamp(path)))
    }
}

/// `None`: it is not there, or cannot be looked at.
fn stamp(path: &Path) -> Option<Stamp> {
    // No automount, and nothing asked of a server that what is known would do for.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok()?;
    Some(Stamp {
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        bytes: found.stx_size,
        owner: (found.stx_uid, found.stx_gid, found.stx_mode),
        changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn whatever_is_laid_down_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let places = Places { config: at("etc/fleet.json"), drop: at("drop") };
        let mut last = Stamps::of(&places);
        let mut is_new = || {
            let now = Stamps::of(&places);
            let new = now != last;
            last = now;
            new
        };
        assert!(!is_new(), "nothing is there, still");
        for directory in ["etc", "drop"] {
            fs::create_dir(at(directory)).unwrap();
        }
        assert!(is_new(), "a directory came");
        for name in ["etc/fleet.json", "drop/snapshot.cdb"] {
            fs::write(at(name), "1").unwrap();
            assert!(is_new(), "{name} came");
            fs::write(at("drop/aside"), "2").unwrap();
            fs::rename(at("drop/aside"), at(name)).unwrap();
            assert!(is_new(), "{name} was replaced by one as long");
            fs::remove_file(at(name)).unwrap();
            assert!(is_new(), "{name} went");
        }
        fs::write(at("drop/other"), "1").unwrap();
        assert!(!is_new(), "something else");
        fs::create_dir(at("drop/objects")).unwrap();
        assert!(is_new());
        fs::write(at("drop/objects/x"), "x").unwrap();
        assert!(is_new(), "an object came");
    }
}
