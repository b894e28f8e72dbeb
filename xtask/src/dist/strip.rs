//! Binaries without what only a debugger reads, and that in files of its own.

use super::Release;
use super::binaries::Products;
use super::tree::Tree;
use crate::process::capture;
use anyhow::Result;
use std::process::Command;

/// Replaces each binary's path by that of a stripped copy. Gives the tree of debugger's files, which
/// gdb and others find as `NAME.debug` beside the binary.
pub(super) fn all(release: &Release, products: &mut Products) -> Result<Tree> {
    let stripped = Tree::new(release.stage.join("stripped"))?;
    let debug = Tree::new(release.stage.join("debug"))?;
    for built in &mut products.binaries {
        let name = built.binary.name;
        let (copy, file) = (stripped.at(name), debug.at(&format!("{name}.debug")));
        stripped.copy(&built.path, name, 0o755)?;
        let objcopy = |arguments: &[&str]| {
            capture(Command::new("objcopy").args(arguments).arg(&copy)).map(drop)
        };
        let mut split = Command::new("objcopy");
        capture(split.args(["--only-keep-debug"]).arg(&copy).arg(&file))?;
        objcopy(&["--strip-unneeded"])?;
        objcopy(&[&format!("--add-gnu-debuglink={}", file.display())])?;
        built.path = copy;
    }
    Ok(debug)
}
