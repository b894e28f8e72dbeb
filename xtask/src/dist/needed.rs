//! The shared libraries that a program needs, and the loader that finds them: what a file system
//! has to hold for it to run.
//!
//! As ld.so(8) looks for them: by the name in `DT_NEEDED`, in the loader's own directories, taking
//! only files of the program's machine. No program is run for it.

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

type Header = FileHeader64<Endianness>;

/// What an ELF file says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    /// `e_machine`.
    machine: u16,
    /// The loader, of a program.
    interpreter: Option<PathBuf>,
    /// The names of libraries.
    needed: Vec<String>,
}

/// Where Debian's loader looks, below `root`, and others' do.
pub(crate) fn library_directories(root: &Path) -> Vec<PathBuf> {
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let directories = [
        format!("lib/{multiarch}"),
        format!("usr/lib/{multiarch}"),
        "lib64".into(),
        "usr/lib64".into(),
        "lib".into(),
        "usr/lib".into(),
    ];
    directories.iter().map(|directory| root.join(directory)).collect()
}

/// Finds everything that `programs` load, the loader too: by the path under which the loader finds
/// it, the file.
///
/// # Errors
/// A file is no 64-bit ELF file, a library is nowhere, or a program looks in places of its own.
pub(crate) fn libraries(
    programs: &[&Path],
    directories: &[PathBuf],
) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut open: VecDeque<_> = programs.iter().map(|path| path.to_path_buf()).collect();
    while let Some(path) = open.pop_front() {
        let facts = facts(&path)?;
        if let Some(loader) = facts.interpreter
            && !found.contains_key(&loader)
        {
            let file = fs::canonicalize(&loader).with_context(|| {
                format!("{} needs the loader {}", path.display(), loader.display())
            })?;
            found.insert(loader, file);
        }
        for name in facts.needed {
            let at = directories.iter().map(|directory| directory.join(&name)).find(|candidate| {
                self::facts(candidate).is_ok_and(|library| library.machine == facts.machine)
            });
            let Some(at) = at else {
                bail!("{} needs {name}, which is in none of {directories:?}", path.display());
            };
            // Of directories that are one by a symbolic link, the first names it.
            if found.contains_key(&at) {
                continue;
            }
            let file = fs::canonicalize(&at)?;
            // The loader is a library too, under its path as a loader.
            if !found.values().any(|other| *other == file) {
                found.insert(at.clone(), file);
                open.push_back(at);
            }
        }
    }
    Ok(found)
}

fn facts(path: &Path) -> Result<Facts> {
    let told = || format!("{} is no 64-bit ELF file that can be read", path.display());
    let bytes = fs::read(path).with_context(told)?;
    read(&bytes).with_context(told)
}

fn read(bytes: &[u8]) -> Result<Facts> {
    let header = Header::parse(bytes)?;
    let endian = header.endian()?;
    let mut facts = Facts { machine: header.e_machine(endian).0, ..Facts::default() };
    for segment in header.program_headers(endian, bytes)? {
        if let Some(path) = segment.interpreter(endian, bytes)? {
            facts.interpreter = Some(PathBuf::from(std::str::from_utf8(path)?));
        }
    }
    let sections = header.sections(endian, bytes)?;
    let Some((entries, link)) = sections.dynamic(endian, bytes)? else { return Ok(facts) };
    let strings = sections.strings(endian, bytes, link)?;
    for entry in entries {
        let tag = entry.tag(endian);
        if tag == DT_NEEDED {
            facts.needed.push(String::from_utf8(entry.string(endian, strings)?.to_vec())?);
        } else if tag == DT_RUNPATH || tag == DT_RPATH {
            // It names directories of the machine that built it.
            bail!(
                "it looks for libraries in {}",
                String::from_utf8_lossy(entry.string(endian, strings)?)
            );
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this() -> PathBuf {
        std::env::current_exe().unwrap()
    }

    #[test]
    fn a_programs_loader_and_libraries_are_found_where_the_loader_looks() {
        let found = libraries(&[&this()], &library_directories(Path::new("/"))).unwrap();
        let loaded = fs::read_to_string("/proc/self/maps").unwrap();
        for (at, file) in &found {
            assert!(file.is_file(), "{at:?} {file:?}");
            // What is found is what was loaded into this very process.
            assert!(loaded.contains(file.to_str().unwrap()), "{file:?} is not loaded: {loaded}");
        }
        let names: Vec<_> = found.keys().filter_map(|at| at.file_name()?.to_str()).collect();
        assert!(names.iter().any(|name| name.starts_with("ld-linux-")), "{names:?}");
        assert!(names.contains(&"libc.so.6"), "{names:?}");
    }

    #[test]
    fn what_is_missing_or_of_another_machine_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let here = [directory.path().to_owned()];
        let error = format!("{:#}", libraries(&[&this()], &here).unwrap_err());
        assert!(error.contains("needs lib") && error.contains("in none of"), "{error}");

        // A library of another machine is passed over, as the loader does.
        let real = libraries(&[&this()], &library_directories(Path::new("/"))).unwrap();
        for (at, file) in &real {
            let mut bytes = fs::read(file).unwrap();
            bytes[18] ^= 0xff;
            fs::write(directory.path().join(at.file_name().unwrap()), bytes).unwrap();
        }
        let error = format!("{:#}", libraries(&[&this()], &here).unwrap_err());
        assert!(error.contains("in none of"), "{error}");

        let script = directory.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = format!("{:#}", libraries(&[&script], &here).unwrap_err());
        assert!(error.contains("script is no 64-bit ELF file"), "{error}");
    }

    #[test]
    fn truncated_files_are_errors() {
        let bytes = fs::read(this()).unwrap();
        for length in [0, 1, 16, 63, 64, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(read(&bytes).is_ok());
    }
}
