//! An archive for distributions that are not Debian, and checksums of everything.

use super::binaries::Products;
use super::tree::Tree;
use super::{Release, gzip};
use crate::manual::completion_file;
use crate::process::capture;
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Packs the binaries and their files, laid out as below `/usr`.
pub(super) fn binaries(
    workspace: &Workspace,
    release: &Release,
    products: &Products,
    notices: &str,
) -> Result<PathBuf> {
    let tree = Tree::new(release.stage.join("archive"))?;
    for built in &products.binaries {
        let name = built.binary.name;
        tree.copy(&built.path, &format!("bin/{name}"), 0o755)?;
        for (page, text) in &built.manual.pages {
            tree.write(&format!("share/man/man{}/{page}", built.binary.section), 0o644, text)?;
        }
        for (shell, script) in &built.manual.completions {
            let directory = match shell.as_str() {
                "bash" => "share/bash-completion/completions",
                "fish" => "share/fish/vendor_completions.d",
                _ => "share/zsh/site-functions",
            };
            let file = completion_file(shell, name);
            tree.write(&format!("{directory}/{file}"), 0o644, script)?;
        }
    }
    for object in &products.objects {
        let name = object.file_name().and_then(|name| name.to_str());
        tree.copy(object, &format!("lib/bpf/{}", name.context("an object has a name")?), 0o644)?;
    }
    let root = &workspace.root;
    tree.copy(&root.join("include/pointsman.h"), "include/pointsman.h", 0o644)?;
    let example = "share/doc/pointsman/examples/receiver.c";
    tree.copy(&root.join("examples/receiver.c"), example, 0o644)?;
    tree.copy_all(&root.join("packaging/systemd"), "lib/systemd/system")?;
    let courier = root.join("packaging/debian/pointsman-courier/files/usr/lib");
    tree.copy_all(&courier, "lib")?;
    tree.copy_all(&root.join("packaging/kubernetes"), "share/pointsman/kubernetes")?;
    tree.copy_all(&root.join("docs"), "share/doc/pointsman/docs")?;
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        tree.copy(&root.join(file), &format!("share/doc/pointsman/{file}"), 0o644)?;
    }
    for file in ["LICENSE.GPL-2.0-only", "LICENSE.BSD-2-Clause"] {
        let to = format!("share/doc/pointsman/bpf/{file}");
        tree.copy(&root.join("bpf").join(file), &to, 0o644)?;
    }
    tree.write("share/doc/pointsman/THIRD-PARTY", 0o644, notices)?;
    pack(release, &tree, "")
}

/// Packs a tree into an archive that has the same bytes each time.
pub(super) fn pack(release: &Release, tree: &Tree, suffix: &str) -> Result<PathBuf> {
    let dash = if suffix.is_empty() { "" } else { "-" };
    let arch = std::env::consts::ARCH;
    let name = format!("pointsman-{}-linux-{arch}{dash}{suffix}", release.version);
    let path = release.output.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"]);
    tar.args(["--owner=0", "--group=0", &format!("--mtime=@{}", release.epoch)]);
    // All below one directory, which has the archive's name.
    tar.arg(format!("--transform=s,^\\.,{name},S")).arg("--file").arg(&path);
    capture(tar.arg("--directory").arg(tree.root()).arg("."))?;
    gzip(&path)
}

/// Writes the checksums of all files made so far.
pub(super) fn checksums(release: &Release) -> Result<PathBuf> {
    let told = || format!("cannot list {}", release.output.display());
    let mut names = fs::read_dir(&release.output)
        .and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>()
        })
        .with_context(told)?;
    names.sort();
    let mut sha256sum = Command::new("sha256sum");
    let text = capture(sha256sum.arg("--").args(&names).current_dir(&release.output))?;
    let path = release.output.join("SHA256SUMS");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tree_gives_the_same_bytes_whoever_made_it_and_when() {
        let directory = tempfile::tempdir().unwrap();
        let pack = |name: &str, files: [&str; 2]| {
            let release = Release {
                version: "1.2.3".into(),
                epoch: 1_700_000_000,
                stage: directory.path().join("stage"),
                output: directory.path().join(name),
            };
            fs::create_dir(&release.output).unwrap();
            let tree = Tree::new(release.stage.join(name)).unwrap();
            files.iter().for_each(|file| tree.write(file, 0o644, "text").unwrap());
            let archive = super::pack(&release, &tree, "debug").unwrap();
            let sums = fs::read_to_string(checksums(&release).unwrap()).unwrap();
            (fs::read(&archive).unwrap(), sums, archive)
        };
        let (first, sums, path) = pack("a", ["x/1", "x/2"]);
        let (second, same, _) = pack("b", ["x/2", "x/1"]);
        assert_eq!((&first, &sums), (&second, &same));
        assert_eq!(sums.lines().count(), 1, "{sums}");
        let listed = capture(Command::new("tar").arg("-tzf").arg(path)).unwrap();
        let top = format!("pointsman-1.2.3-linux-{}-debug/", std::env::consts::ARCH);
        assert!(listed.lines().all(|line| line.starts_with(&top)), "{listed}");
        assert!(listed.contains(&format!("{top}x/1\n")), "{listed}");
    }
}
