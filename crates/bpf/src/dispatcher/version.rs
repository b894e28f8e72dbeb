//! Which version of the protocol the host's libxdp speaks.

use super::config::Version;
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};
use std::fs;
use std::path::{Path, PathBuf};

/// What is spoken where there is no libxdp: Debian's, Ubuntu's and Red Hat's of years.
const DEFAULT: Version = Version::V2;

/// The version of the libxdp installed below `root` (`/` for this host): of the dispatcher that it
/// would load, or else of its library. 2 where there is none.
///
/// An application with a libxdp of its own may speak another. Nobody can know before it comes.
#[must_use]
pub fn host_version(root: &Path) -> Version {
    host_libxdp(root).map_or(DEFAULT, |found| found.version)
}

/// A libxdp that was found on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLibxdp {
    /// The version of the protocol that it speaks.
    pub version: Version,
    /// The file that tells: its dispatcher, or else its library.
    pub file: PathBuf,
}

/// The libxdp installed below `root`, as of [`host_version`]; `None`: there is none whose version
/// is known.
#[must_use]
pub fn host_libxdp(root: &Path) -> Option<HostLibxdp> {
    let directories = library_directories(root);
    let found = |file: PathBuf, version| Some(HostLibxdp { version: version?, file });
    let objects = directories.iter().map(|directory| directory.join("bpf/xdp-dispatcher.o"));
    let of_objects = objects.filter_map(|object| {
        let version = version_of_object(&fs::read(&object).ok()?);
        found(object, version)
    });
    let newest = |all: &mut dyn Iterator<Item = HostLibxdp>| all.max_by_key(|one| one.version);
    newest(&mut { of_objects }).or_else(|| {
        let listed = directories.iter().filter_map(|directory| fs::read_dir(directory).ok());
        let files = listed.flatten().filter_map(|file| Some(file.ok()?.path()));
        let mut of_libraries = files.filter_map(|file| {
            let version = version_of_library(file.file_name()?.to_str()?);
            found(file, version)
        });
        newest(&mut of_libraries)
    })
}

/// Where libraries lie, distribution by distribution.
fn library_directories(root: &Path) -> Vec<PathBuf> {
    let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    ["usr/local/lib", "usr/lib64", &triplet, "usr/lib"].map(|path| root.join(path)).into()
}

/// By the size of the configuration in a dispatcher's read-only data.
fn version_of_object(bytes: &[u8]) -> Option<Version> {
    let elf: ElfFile64<'_> = ElfFile64::parse(bytes).ok()?;
    let size = usize::try_from(elf.section_by_name(".rodata")?.size()).ok()?;
    [Version::V2, Version::V3].into_iter().find(|version| version.size() == size)
}

/// By the release in the name of a library, such as `libxdp.so.1.6.3`.
fn version_of_library(name: &str) -> Option<Version> {
    let mut numbers = name.strip_prefix("libxdp.so.")?.split('.').map(str::parse::<u32>);
    let release = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    match release {
        (1, 3..=5) => Some(Version::V2),
        (1, 6..) => Some(Version::V3),
        // Older ones would refuse whatever is spoken here.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_tells_by_its_release() {
        let of = |name| version_of_library(name).map(Version::number);
        assert_eq!(of("libxdp.so.1.3.1"), Some(2));
        assert_eq!(of("libxdp.so.1.5"), Some(2));
        assert_eq!(of("libxdp.so.1.6.3"), Some(3));
        assert_eq!(of("libxdp.so.1.10.0"), Some(3));
        for other in ["libxdp.so.1", "libxdp.so.1.2.9", "libxdp.so.2.0", "libxdp.a", "libc.so.6"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn the_dispatcher_tells_before_the_library() {
        let root = std::env::temp_dir().join(format!("pointsman-version-{}", std::process::id()));
        assert_eq!(host_version(&root), Version::V2, "nothing there");
        assert_eq!(host_libxdp(&root), None);
        let lib = root.join("usr/lib64");
        fs::create_dir_all(lib.join("bpf")).unwrap();
        fs::write(lib.join("libxdp.so.1.6.1"), "").unwrap();
        assert_eq!(host_version(&root), Version::V3);
        let library = HostLibxdp { version: Version::V3, file: lib.join("libxdp.so.1.6.1") };
        assert_eq!(host_libxdp(&root), Some(library));
        fs::write(lib.join("bpf/xdp-dispatcher.o"), "not an object").unwrap();
        assert_eq!(host_version(&root), Version::V3, "a damaged object says nothing");
        let object = super::super::build::object(Version::V2, false);
        fs::write(lib.join("bpf/xdp-dispatcher.o"), object).unwrap();
        assert_eq!(host_version(&root), Version::V2);
        let file = host_libxdp(&root).map(|found| found.file);
        assert_eq!(file, Some(lib.join("bpf/xdp-dispatcher.o")));
        fs::remove_dir_all(&root).unwrap();
    }
}
