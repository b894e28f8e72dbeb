//! The machine's first file system: busybox, the modules that reach the host's files, and a
//! script that mounts them, runs the tests and switches off.

use super::cpio::Archive;
use super::kernel::Kernel;
use super::modules::Modules;
use super::systemd;
use crate::setup::find_program;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What reaches the host's files, and what the tests use.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "veth"];

/// Who runs the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Userland {
    /// The first process itself, in the host's root as it is.
    Plain,
    /// systemd as the first process, in the host's root with memory over it.
    Systemd,
}

/// The directories that tests may write to. Whatever the host has there is hidden.
const SCRATCH: &[&str] = &["/tmp", "/run", "/var/tmp", "/dev/shm"];

/// What stands before everything that the machine itself says on the tests' line.
pub(super) const VOICE: &str = "pointsman-vm: ";

/// Builds the archive. `more` of the kernel's modules go in, and after them `own`. `script` runs in
/// the host's root file system, where `visible` directories are there even if they lie below one
/// that tests may write to.
pub(super) fn build(
    kernel: &Kernel,
    userland: Userland,
    more: &[&str],
    own: &[PathBuf],
    script: &str,
    visible: &[PathBuf],
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let directories = ["bin", "modules", "proc", "sys", "dev", "host", "upper", "sysroot"];
    directories.into_iter().for_each(|directory| archive.directory(directory));
    let busybox = find_program("busybox").context("busybox is not there (busybox-static)")?;
    archive.file("bin/busybox", &read(&busybox)?);
    let dep = kernel.modules.join("modules.dep");
    let builtin = kernel.modules.join("modules.builtin");
    let (dep, builtin) = (read_text(&dep)?, read_text(&builtin)?);
    let mut order = String::new();
    let modules = match userland {
        Userland::Plain => [MODULES, more].concat(),
        Userland::Systemd => [MODULES, systemd::MODULES, more].concat(),
    };
    for (at, file) in Modules::parse(&dep, &builtin).order(&modules)?.into_iter().enumerate() {
        // Numbered: a flat directory, in which the order is plain to see.
        let name = format!("modules/{at:02}.ko");
        archive.file(&name, &module(&kernel.modules.join(file))?);
        order += &format!("/{name}\n");
    }
    for (at, file) in own.iter().enumerate() {
        let name = format!("modules/own-{at:02}.ko");
        archive.file(&name, &module(file)?);
        order += &format!("/{name}\n");
    }
    archive.file("modules/order", order.as_bytes());
    archive.file("script", script.as_bytes());
    archive.file("init", init(userland, visible)?.as_bytes());
    Ok(archive.finish())
}

/// Reads a module, unpacked: busybox's insmod takes plain ones.
fn module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return read(path);
    }
    if path.extension().is_none_or(|extension| extension != "xz") {
        bail!("{} is compressed in a way that is not known here", path.display());
    }
    let mut xz = Command::new("xz");
    let output = xz.args(["--decompress", "--stdout"]).arg(path).stderr(Stdio::inherit()).output();
    let output = output.context("cannot run xz")?;
    if !output.status.success() {
        bail!("cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

fn init(userland: Userland, visible: &[PathBuf]) -> Result<String> {
    let mut scratch = String::new();
    for directory in SCRATCH {
        scratch += &format!("need mount -t tmpfs tmpfs /sysroot{directory}\n");
    }
    for path in visible {
        let path = quoted(path)?;
        scratch +=
            &format!("$b mkdir -p /sysroot{path}\nneed mount --bind /host{path} /sysroot{path}\n");
    }
    let (root, run) = match userland {
        Userland::Plain => (ROOT, RUN),
        Userland::Systemd => (systemd::ROOT, systemd::RUN),
    };
    let script = INIT.replace("@ROOT@", root).replace("@RUN@", run);
    Ok(script.replace("@VOICE@", VOICE.trim_end()).replace("@SCRATCH@", &scratch))
}

/// The first process. The tests' line is ttyS0, the kernel's ttyS1, so that neither disturbs the
/// other.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
say() { echo "@VOICE@ $*" > /dev/ttyS0; }
off() { $b sync; $b poweroff -f; }
need() { $b "$@" || { say "failed: $*"; off; }; }
$b mount -t devtmpfs devtmpfs /dev
need mount -t proc proc /proc
need mount -t sysfs sysfs /sys
while read -r module; do need insmod "$module"; done < /modules/order
# Nobody writes to these files while the machine runs, so the guest may cache them.
need mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576,cache=loose host /host
@ROOT@@SCRATCH@need ip link set lo up
need cp /script /sysroot/run/script
say "kernel $($b uname -r)"
@RUN@"#;

/// The host's root as it is, and what belongs into it.
const ROOT: &str = r"# The host's root without what is mounted in it, to mount the machine's own there.
need mount --bind /host /sysroot
need mount -t proc proc /sysroot/proc
need mount -t sysfs sysfs /sysroot/sys
need mount -t devtmpfs devtmpfs /sysroot/dev
$b mkdir -p /sysroot/dev/shm /sysroot/dev/pts
need mount -t devpts devpts /sysroot/dev/pts
need mount -t bpf bpf /sysroot/sys/fs/bpf
need mount -t cgroup2 cgroup2 /sysroot/sys/fs/cgroup
$b mount -t debugfs debugfs /sysroot/sys/kernel/debug
$b mount -t tracefs tracefs /sysroot/sys/kernel/tracing
";

/// Runs the script and switches off.
const RUN: &str = r#"$b chroot /sysroot /bin/sh /run/script < /dev/null > /dev/ttyS0 2>&1
say "exit $?"
off
"#;

/// A path between single quotes, for a shell.
pub(crate) fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(quoted_text(text))
}

/// A text between single quotes, for a shell.
pub(super) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_below_scratch_are_bound_back() {
        for userland in [Userland::Plain, Userland::Systemd] {
            let script = init(userland, &[PathBuf::from("/tmp/it's here")]).unwrap();
            assert!(script.contains("need mount -t tmpfs tmpfs /sysroot/tmp\n"), "{script}");
            let bound = r"need mount --bind /host'/tmp/it'\''s here' /sysroot'/tmp/it'\''s here'";
            assert!(script.contains(bound), "{script}");
            for left in ["@VOICE@", "@SCRATCH@", "@ROOT@", "@RUN@"] {
                assert!(!script.contains(left), "{script}");
            }
        }
    }
}
