//! Debian's stock kernel: downloaded once, unpacked into the build directory, never installed.

use crate::interrupt;
use crate::process::{capture, capture_long};
use crate::setup;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The compressed kernel.
    pub(super) image: PathBuf,
    /// The directory of its modules, with `modules.dep`.
    pub(super) modules: PathBuf,
    /// The package, for people.
    pub(crate) package: String,
}

/// Gives the kernel of a Debian series such as `6.1`, from `cache` if it is there.
pub(super) fn fetch(series: &str, cache: &Path) -> Result<Kernel> {
    let directory = cache.join(format!("kernel-{series}"));
    if !directory.join("package").is_file() {
        // Aside and renamed: an interrupted download leaves nothing that looks complete.
        let aside = cache.join(format!("kernel-{series}.{}", std::process::id()));
        fs::create_dir_all(&aside).with_context(|| format!("cannot create {}", aside.display()))?;
        let unpacked = download(series, &aside);
        if let Err(error) = unpacked.and_then(|()| Ok(fs::rename(&aside, &directory)?)) {
            let _ = fs::remove_dir_all(&aside);
            return Err(error);
        }
    }
    open(&directory)
}

/// Gives the headers of a kernel, to build a module against, from `cache` if they are there. They
/// are not installed: what they refer to by its place in the system is changed to where they are.
pub(super) fn headers(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let version = kernel.package.trim_start_matches("linux-image-");
    let directory = cache.join(format!("headers-{version}"));
    if !directory.is_dir() {
        let aside = cache.join(format!("headers-{version}.{}", std::process::id()));
        fs::create_dir_all(&aside).with_context(|| format!("cannot create {}", aside.display()))?;
        let unpacked = download_headers(version, &aside, &directory);
        if let Err(error) = unpacked.and_then(|()| Ok(fs::rename(&aside, &directory)?)) {
            let _ = fs::remove_dir_all(&aside);
            return Err(error);
        }
    }
    Ok(directory.join(format!("usr/src/linux-headers-{version}")))
}

fn download_headers(version: &str, aside: &Path, place: &Path) -> Result<()> {
    let package = format!("linux-headers-{version}");
    let depends = capture(Command::new("apt-cache").args(["depends", &package]))?;
    let packages: Vec<_> = std::iter::once(package.as_str()).chain(needed(&depends)).collect();
    println!("vm: downloading {}", packages.join(" "));
    let mut command = Command::new("apt-get");
    command.args(["-q", "download"]).args(&packages).current_dir(aside);
    capture_long(&mut command)?;
    for archive in archives(aside)? {
        capture_long(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(aside))?;
        fs::remove_file(&archive)?;
    }
    let makefile = aside.join(format!("usr/src/{package}/Makefile"));
    let text = fs::read_to_string(&makefile)
        .with_context(|| format!("{package} has no Makefile where it is expected"))?;
    let there = format!("{}/", place.join("usr/src").display());
    fs::write(&makefile, text.replace("/usr/src/", &there))?;
    Ok(())
}

/// Of what headers depend on, what a module is built with: the headers that all flavours share,
/// and the tools. The compiler is the host's.
fn needed(depends: &str) -> impl Iterator<Item = &str> {
    let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages
        .filter(|name| ["linux-headers-", "linux-kbuild-"].iter().any(|it| name.starts_with(it)))
}

fn open(directory: &Path) -> Result<Kernel> {
    let remedy = || format!("remove {} and try again", directory.display());
    let package = fs::read_to_string(directory.join("package")).with_context(remedy)?;
    let entries = fs::read_dir(directory.join("boot")).with_context(remedy)?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut versions = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    let version = versions.next().with_context(remedy)?;
    Ok(Kernel {
        image: directory.join("boot").join(format!("vmlinuz-{version}")),
        modules: directory.join("lib/modules").join(version),
        package: package.trim().to_owned(),
    })
}

fn download(series: &str, directory: &Path) -> Result<()> {
    let package = match resolve(series)? {
        Some(package) => package,
        None => {
            setup::apt_update()?;
            resolve(series)?.with_context(|| {
                format!("no Debian package of a {series} kernel: see apt-cache search linux-image")
            })?
        }
    };
    println!("vm: downloading {package}");
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.args(["-q", "download", &package]).current_dir(directory);
        command
    };
    if let Err(error) = capture_long(&mut apt_get()) {
        if interrupt::pending() {
            return Err(error);
        }
        // The lists name a version that the mirror no longer has.
        setup::apt_update()?;
        capture_long(&mut apt_get())?;
    }
    let archive = only_archive(directory)?;
    capture_long(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(directory))?;
    fs::remove_file(&archive)?;
    let version = package.trim_start_matches("linux-image-");
    let depmod = setup::find_program("depmod").context("depmod is not there (package kmod)")?;
    capture(Command::new(depmod).arg("-b").arg(directory).arg(version))?;
    fs::write(directory.join("package"), format!("{package}\n"))?;
    Ok(())
}

/// The exact package behind Debian's name for the series' newest kernel.
fn resolve(series: &str) -> Result<Option<String>> {
    for meta in [format!("linux-image-{series}-amd64"), "linux-image-amd64".to_owned()] {
        // A name that apt does not know is an error for it and an answer for us.
        let Ok(text) = capture(Command::new("apt-cache").args(["depends", &meta])) else {
            continue;
        };
        if let Some(package) = image_of(series, &text) {
            return Ok(Some(package));
        }
    }
    Ok(None)
}

/// Finds `linux-image-<series>.…-amd64` among the dependencies that `apt-cache depends` lists.
fn image_of(series: &str, depends: &str) -> Option<String> {
    let prefixes = [format!("linux-image-{series}."), format!("linux-image-{series}+")];
    let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let mut images =
        packages.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())));
    images.next().map(str::to_owned)
}

fn only_archive(directory: &Path) -> Result<PathBuf> {
    let archive = archives(directory)?.into_iter().next();
    archive.with_context(|| format!("apt-get download left no package in {}", directory.display()))
}

fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_decides_which_image() {
        let depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(image_of("6.1", depends).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(image_of("6.12", depends), None);
        let newer = "linux-image-6.12-amd64\n  Depends: linux-image-6.12.57+deb12-amd64\n";
        assert_eq!(image_of("6.1", newer), None);
        assert!(image_of("6.12", newer).is_some());
    }

    #[test]
    fn headers_need_what_a_module_is_built_with() {
        let depends = "linux-headers-6.1.0-56-amd64\n  Depends: linux-headers-6.1.0-56-common\n  \
                       Depends: linux-kbuild-6.1\n  Depends: linux-compiler-gcc-12-x86\n";
        let found: Vec<_> = needed(depends).collect();
        assert_eq!(found, ["linux-headers-6.1.0-56-common", "linux-kbuild-6.1"]);
    }

    #[test]
    fn a_cached_kernel_needs_no_package_manager() {
        let cache = tempfile::tempdir().unwrap();
        let kernel = cache.path().join("kernel-6.1");
        fs::create_dir_all(kernel.join("boot")).unwrap();
        fs::write(kernel.join("boot/vmlinuz-6.1.0-56-amd64"), "").unwrap();
        fs::write(kernel.join("package"), "linux-image-6.1.0-56-amd64\n").unwrap();
        let found = fetch("6.1", cache.path()).unwrap();
        assert_eq!(found.package, "linux-image-6.1.0-56-amd64");
        assert!(found.modules.ends_with("lib/modules/6.1.0-56-amd64"));
    }
}
