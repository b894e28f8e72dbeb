//! The root file system of the container image: a directory of `manager/`, which is all that an
//! image build sees.

use super::binaries::Products;
use super::needed::{libraries, library_directories};
use super::tree::Tree;
use crate::process::capture;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the directory's name begins with. An image build without it fails at a line that has this
/// name in it, and so says what to run.
pub(crate) const PREFIX: &str = "built-by-cargo-xtask-dist-";

/// The name under which the daemon is the original.
const ORIGINAL: &str = "MtlManager";

/// Lays it out in `manager`. Those of other versions go.
pub(super) fn lay(
    root: &Path,
    manager: &Path,
    version: &str,
    products: &Products,
    notices: &str,
) -> Result<PathBuf> {
    remove_old(manager)?;
    let tree = Tree::new(manager.join(format!("{PREFIX}{version}")))?;
    let shipped: Vec<_> = products.binaries.iter().filter(|built| built.binary.in_image).collect();
    for built in &shipped {
        tree.copy(&built.path, &format!("usr/bin/{}", built.binary.name), 0o755)?;
    }
    tree.link(&format!("usr/bin/{ORIGINAL}"), "pointsman-node")?;
    let programs: Vec<_> = shipped.iter().map(|built| built.path.as_path()).collect();
    for (at, file) in libraries(&programs, &library_directories(Path::new("/")))? {
        let at = at.to_str().context("paths of libraries are UTF-8")?;
        tree.copy(&file, at, 0o755)?;
        copyright(&tree, &file)?;
    }
    for object in &products.objects {
        let name = object.file_name().and_then(|name| name.to_str());
        tree.copy(
            object,
            &format!("usr/lib/bpf/{}", name.context("an object has a name")?),
            0o644,
        )?;
    }
    // Where volumes are mounted, and what the daemon makes files in.
    for directory in
        ["var/run/imtl", "run/pointsman", "var/lib/pointsman", "sys/fs/bpf", "proc", "tmp"]
    {
        tree.directory(directory)?;
    }
    // Names of the owner, for whom a log line or a mode is meant.
    tree.write("etc/passwd", 0o644, "root:x:0:0:root:/:/nonexistent\n")?;
    tree.write("etc/group", 0o644, "root:x:0:\n")?;
    let documents = "usr/share/doc/pointsman";
    for (from, to) in [
        ("LICENSE-MIT", "LICENSE-MIT"),
        ("LICENSE-APACHE", "LICENSE-APACHE"),
        ("bpf/LICENSE.GPL-2.0-only", "bpf/LICENSE.GPL-2.0-only"),
        ("bpf/LICENSE.BSD-2-Clause", "bpf/LICENSE.BSD-2-Clause"),
    ] {
        tree.copy(&root.join(from), &format!("{documents}/{to}"), 0o644)?;
    }
    tree.write(&format!("{documents}/THIRD-PARTY"), 0o644, notices)?;
    Ok(tree.root().to_owned())
}

fn remove_old(manager: &Path) -> Result<()> {
    let told = || format!("cannot clean {}", manager.display());
    for entry in fs::read_dir(manager).with_context(told)? {
        let entry = entry.with_context(told)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir_all(entry.path()).with_context(told)?;
        }
    }
    Ok(())
}

/// Takes along what Debian says of a library's authors and licence.
fn copyright(tree: &Tree, library: &Path) -> Result<()> {
    let path = library.to_str().context("paths of libraries are UTF-8")?;
    // Debian 12's lists have libraries of before the merge of / and /usr without the /usr.
    let names = [Some(path), path.strip_prefix("/usr")];
    let owner = names.into_iter().flatten().find_map(|name| {
        let text = capture(Command::new("dpkg-query").args(["--search", "--", name])).ok()?;
        // "libc6:amd64: /lib/..."
        Some(text.split([':', ',']).next()?.to_owned())
    });
    let owner = owner.with_context(|| {
        format!("no Debian package has {path}: its licence, which has to go with it, is not known")
    })?;
    let documents = format!("usr/share/doc/{owner}/copyright");
    tree.copy(&Path::new("/").join(&documents), &documents, 0o644)
}
