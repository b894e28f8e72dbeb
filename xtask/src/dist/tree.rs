//! A tree of files that is made from nothing: what goes into a package or an image.

use anyhow::{Context, Result};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A directory of ours. Paths are relative to it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Makes it empty: what is there goes.
    pub(crate) fn new(root: PathBuf) -> Result<Self> {
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot empty {}", root.display()))?;
            }
            _ => {}
        }
        let tree = Self { root };
        tree.directory("")?;
        Ok(tree)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path of the tree is.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Makes a directory, and those above it, whatever the umask.
    pub(crate) fn directory(&self, path: &str) -> Result<PathBuf> {
        let mut at = self.root.clone();
        let told = |at: &Path| format!("cannot make {}", at.display());
        let below = Path::new(path.trim_start_matches('/'));
        fs::create_dir_all(&at).with_context(|| told(&at))?;
        for part in std::iter::once(Path::new("")).chain(below.iter().map(Path::new)) {
            if !part.as_os_str().is_empty() {
                at.push(part);
            }
            if !at.is_dir() {
                fs::create_dir(&at).with_context(|| told(&at))?;
            }
            fs::set_permissions(&at, Permissions::from_mode(0o755)).with_context(|| told(&at))?;
        }
        Ok(at)
    }

    /// Writes a file.
    pub(crate) fn write(&self, path: &str, mode: u32, bytes: impl AsRef<[u8]>) -> Result<()> {
        let at = self.parent(path)?;
        fs::write(&at, bytes)
            .and_then(|()| fs::set_permissions(&at, Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {}", at.display()))
    }

    /// Copies a file.
    pub(crate) fn copy(&self, from: &Path, path: &str, mode: u32) -> Result<()> {
        let at = self.parent(path)?;
        fs::copy(from, &at)
            .and_then(|_| fs::set_permissions(&at, Permissions::from_mode(mode)))
            .with_context(|| format!("cannot copy {} to {}", from.display(), at.display()))
    }

    /// Makes a symbolic link.
    pub(crate) fn link(&self, path: &str, to: &str) -> Result<()> {
        let at = self.parent(path)?;
        symlink(to, &at).with_context(|| format!("cannot make {}", at.display()))
    }

    /// Copies a directory with all that is in it.
    pub(crate) fn copy_all(&self, from: &Path, path: &str) -> Result<()> {
        let told = || format!("cannot read {}", from.display());
        for entry in fs::read_dir(from).with_context(told)? {
            let entry = entry.with_context(told)?;
            let name = entry.file_name();
            let below = format!("{path}/{}", name.to_str().context("names are UTF-8 here")?);
            if entry.file_type().with_context(told)?.is_dir() {
                self.copy_all(&entry.path(), &below)?;
            } else {
                self.copy(&entry.path(), &below, 0o644)?;
            }
        }
        Ok(())
    }

    fn parent(&self, path: &str) -> Result<PathBuf> {
        let path = path.trim_start_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent)?;
        }
        Ok(self.at(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_anew_with_the_modes_that_are_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("old"), "").unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o700)).unwrap();

        let tree = Tree::new(root.clone()).unwrap();
        tree.write("/usr/share/doc/x", 0o644, "text").unwrap();
        tree.copy(&tree.at("usr/share/doc/x"), "usr/bin/y", 0o755).unwrap();
        tree.link("usr/bin/z", "y").unwrap();
        tree.copy_all(&tree.at("usr/share"), "opt").unwrap();
        assert!(!root.join("old").exists());
        let mode =
            |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(""), mode("usr/share"), mode("usr/bin/z")), (0o755, 0o755, 0o755));
        assert_eq!((mode("usr/share/doc/x"), mode("opt/doc/x")), (0o644, 0o644));
    }
}
