//! A later xdp-tools than this Debian's: what speaks the third version of the dispatcher protocol.
//!
//! Downloaded once from a later Debian, with the libraries that it needs, unpacked into the build
//! directory and run from there by its own dynamic loader. The host's package manager and packages
//! stay as they are: apt gets lists, state and cache of its own.

use crate::process::capture_long;
use crate::setup::find_program;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Debian that has xdp-tools 1.6.
const SUITE: &str = "forky";
/// Whose keys its lists are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What proves that everything was unpacked, and names the package.
const COMPLETE: &str = "package";

/// The directory of the later xdp-tools, if it was fetched.
pub(crate) fn fetched(workspace: &Workspace) -> Option<PathBuf> {
    let directory = directory(workspace);
    directory.join(COMPLETE).is_file().then_some(directory)
}

/// Fetches it, unless it is there.
///
/// # Errors
/// No network, no such package, or nothing of Debian's here.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    if fetched(workspace).is_some() {
        return Ok(());
    }
    let directory = directory(workspace);
    // Aside and renamed: an interrupted download leaves nothing that looks complete.
    let aside = directory.with_extension(std::process::id().to_string());
    let unpacked = download(&aside).and_then(|package| {
        fs::write(aside.join(COMPLETE), package)?;
        Ok(fs::rename(&aside, &directory)?)
    });
    if unpacked.is_err() {
        let _ = fs::remove_dir_all(&aside);
    }
    unpacked.with_context(|| format!("cannot get xdp-tools of Debian {SUITE}"))
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("xdp-tools-later")
}

/// Downloads and unpacks into `directory`. Gives the name of the package's file.
fn download(directory: &Path) -> Result<String> {
    let apt_get = find_program("apt-get").context("there is no apt-get here")?;
    let apt = directory.join("apt");
    for part in ["lists/partial", "archives/partial"] {
        let part = apt.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let list = format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {SUITE} main\n");
    fs::write(apt.join("sources.list"), list)?;
    // Nothing is installed there, so that all of what xdp-tools needs comes with it.
    fs::write(apt.join("status"), "")?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&apt_get);
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
        for (option, value) in options(&apt) {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        capture_long(command.args(arguments)).map(drop)
    };
    println!("xtask: downloading xdp-tools of Debian {SUITE}");
    run(&["update"])?;
    let install = ["install", "--yes", "--no-install-recommends", "--download-only", "xdp-tools"];
    run(&install)?;
    let mut package = None;
    for entry in fs::read_dir(apt.join("archives"))? {
        let archive = entry?.path();
        if archive.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let root = directory.join("root");
        capture_long(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root))?;
        let name = archive.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("xdp-tools_") {
            package = Some(format!("{name}\n"));
        }
    }
    fs::remove_dir_all(&apt)?;
    let Some(package) = package else { bail!("apt-get downloaded no xdp-tools") };
    Ok(package)
}

/// Keeps apt away from the host's lists, state and cache.
fn options(apt: &Path) -> [(&'static str, String); 7] {
    let at = |part: &str| apt.join(part).display().to_string();
    [
        ("Dir::Etc::sourcelist", at("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::State", at("")),
        ("Dir::State::status", at("status")),
        ("Dir::Cache", at("")),
        // The build directory may be closed to the user that apt downloads as.
        ("APT::Sandbox::User", "root".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_download_is_none() {
        let target = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: PathBuf::new(), target: target.path().to_owned() };
        assert_eq!(fetched(&workspace), None);
        let directory = directory(&workspace);
        fs::create_dir_all(directory.join("root")).unwrap();
        assert_eq!(fetched(&workspace), None);
        fs::write(directory.join(COMPLETE), "xdp-tools_1.6.3-1_amd64\n").unwrap();
        assert_eq!(fetched(&workspace), Some(directory));
        fetch(&workspace).unwrap();
    }

    #[test]
    fn apt_is_kept_away_from_the_host() {
        for (option, value) in options(Path::new("/t/apt")) {
            if option.starts_with("Dir::") {
                assert!(value.starts_with("/t/apt") || value == "/dev/null", "{option}={value}");
            }
        }
    }
}
