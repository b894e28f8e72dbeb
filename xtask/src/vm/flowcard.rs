//! A network card for the emulated machine: a kernel module of the tests, built against the headers of
//! its kernel. It is never loaded on the host.

use super::kernel::{self, Kernel};
use crate::process::capture_long;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where its source is, and what of it a build needs.
const SOURCE: &str = "tests/netns/kernel/flowcard";
const FILES: [&str; 2] = ["flowcard.c", "Kbuild"];

/// Gives the module, from `cache` if it was built of the same source.
///
/// # Errors
/// The headers cannot be had, or it does not compile.
pub(super) fn build(workspace: &Workspace, kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let source = workspace.root.join(SOURCE);
    let directory = cache.join(kernel.package.replace("linux-image-", "flowcard-"));
    let module = directory.join("flowcard.ko");
    if module.is_file() && is_built_of(&source, &directory) {
        return Ok(module);
    }
    let headers = kernel::headers(kernel, cache)?;
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for file in FILES {
        fs::copy(source.join(file), directory.join(file))
            .with_context(|| format!("cannot copy {SOURCE}/{file}"))?;
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(&headers).arg(format!("M={}", directory.display())).arg("modules");
    // Types of its own would take pahole, and nobody asks for them.
    make.arg("CONFIG_DEBUG_INFO_BTF_MODULES=");
    // What a cargo above set is for cargo's own builds.
    make.env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS");
    capture_long(&mut make).context("the module for tests of flow rules does not build")?;
    ensure!(module.is_file(), "make left no {}", module.display());
    Ok(module)
}

fn is_built_of(source: &Path, directory: &Path) -> bool {
    FILES.iter().all(|file| match (fs::read(source.join(file)), fs::read(directory.join(file))) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    })
}
