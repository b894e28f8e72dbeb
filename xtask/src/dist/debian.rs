//! Debian packages, by dpkg-deb from trees of files. `packaging/debian` says what they are.
//!
//! A package is a directory there: `control`, maintainer scripts, `default` for `/etc/default`,
//! `files/` with more of what is installed, `lintian-overrides`. To it come the binaries that name
//! it, with man pages and completions, and the systemd unit of its name, whose handling takes the
//! place of `#UNIT#` in the scripts.

use super::binaries::{BINARIES, Built, Products};
use super::tree::Tree;
use super::{Release, gzip};
use crate::manual::completion_file;
use crate::process::capture;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that has the BPF objects, and the name under which the daemon is the original.
const DAEMON: &str = "pointsman-node";

/// The maintainer, unless `DEBFULLNAME` and `DEBEMAIL` name one.
const MAINTAINER: [&str; 2] = ["Pointsman maintainers", "maintainers@pointsman.example"];

/// Makes all packages.
pub(super) fn packages(
    workspace: &Workspace,
    release: &Release,
    products: &Products,
    notices: &str,
) -> Result<Vec<PathBuf>> {
    let mut names: Vec<_> = BINARIES.iter().map(|binary| binary.deb).collect();
    names.dedup();
    let debian = Debian {
        sources: workspace.root.clone(),
        release,
        products,
        notices,
        architecture: word(Command::new("dpkg").arg("--print-architecture"))?,
        multiarch: word(Command::new("dpkg-architecture").arg("-qDEB_HOST_MULTIARCH"))?,
        maintainer: maintainer(|name| std::env::var(name).ok()),
    };
    names.into_iter().map(|name| debian.package(name)).collect()
}

fn maintainer(variable: impl Fn(&str) -> Option<String>) -> String {
    let [name, email] =
        ["DEBFULLNAME", "DEBEMAIL"].map(|name| variable(name).filter(|v| !v.is_empty()));
    let [default_name, default_email] = MAINTAINER;
    format!(
        "{} <{}>",
        name.as_deref().unwrap_or(default_name),
        email.as_deref().unwrap_or(default_email)
    )
}

fn word(command: &mut Command) -> Result<String> {
    Ok(capture(command)?.trim().to_owned())
}

struct Debian<'a> {
    sources: PathBuf,
    release: &'a Release,
    products: &'a Products,
    notices: &'a str,
    architecture: String,
    multiarch: String,
    maintainer: String,
}

impl Debian<'_> {
    fn package(&self, name: &str) -> Result<PathBuf> {
        let described = self.sources.join("packaging/debian").join(name);
        let tree = Tree::new(self.release.stage.join("debian").join(name))?;
        let binaries: Vec<_> =
            self.products.binaries.iter().filter(|built| built.binary.deb == name).collect();
        for built in &binaries {
            binary(&tree, built)?;
        }
        if name == DAEMON {
            self.daemon(&tree)?;
        }
        if described.join("files").is_dir() {
            tree.copy_all(&described.join("files"), "")?;
        }
        if described.join("default").is_file() {
            tree.copy(&described.join("default"), &format!("etc/default/{name}"), 0o644)?;
        }
        let overrides = described.join("lintian-overrides");
        if overrides.is_file() {
            tree.copy(&overrides, &format!("usr/share/lintian/overrides/{name}"), 0o644)?;
        }
        let unit = format!("{name}.service");
        let unit_file = self.sources.join("packaging/systemd").join(&unit);
        let has_unit = unit_file.is_file();
        if has_unit {
            tree.copy(&unit_file, &format!("lib/systemd/system/{unit}"), 0o644)?;
        }
        self.documents(&tree, name)?;
        let libraries = self.libraries(&binaries)?;
        self.control(&tree, name, &described, &libraries)?;
        for script in ["preinst", "postinst", "prerm", "postrm"] {
            let path = described.join(script);
            if path.is_file() {
                let fragment = self.sources.join("packaging/debian/unit").join(script);
                let text = script_text(&path, has_unit.then_some(&fragment), &unit)?;
                tree.write(&format!("DEBIAN/{script}"), 0o755, text)?;
            } else if has_unit && script != "preinst" {
                bail!("{} is missing: it has to handle {unit}", path.display());
            }
        }
        self.build(&tree, name)
    }

    /// What goes with the daemon beside its binary.
    fn daemon(&self, tree: &Tree) -> Result<()> {
        tree.link("usr/bin/MtlManager", "pointsman-node")?;
        tree.link("usr/share/man/man8/MtlManager.8.gz", "pointsman-node.8.gz")?;
        for (file, to) in [
            ("include/pointsman.h", "usr/include/pointsman.h"),
            ("examples/receiver.c", "usr/share/doc/pointsman-node/examples/receiver.c"),
        ] {
            tree.copy(&self.sources.join(file), to, 0o644)?;
        }
        for object in &self.products.objects {
            let name = object.file_name().and_then(|name| name.to_str());
            let name = name.context("an object has a name")?;
            // Where Debian's libxdp looks.
            tree.copy(object, &format!("usr/lib/{}/bpf/{name}", self.multiarch), 0o644)?;
        }
        Ok(())
    }

    fn documents(&self, tree: &Tree, name: &str) -> Result<()> {
        let debian = self.sources.join("packaging/debian");
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let directory = format!("usr/share/doc/{name}");
        let changelog = read(&debian.join("changelog"))?;
        let first = format!("pointsman ({}) ", self.release.version);
        if !changelog.starts_with(&first) {
            bail!("packaging/debian/changelog has no entry of version {}", self.release.version);
        }
        let date = word(Command::new("date").args([
            "--utc",
            "-R",
            "-d",
            &format!("@{}", self.release.epoch),
        ]))?;
        let changelog =
            changelog.replace("@MAINTAINER@", &self.maintainer).replace("@DATE@", &date);
        let licence = |file: &str| Ok::<_, anyhow::Error>(folded(&read(&self.sources.join(file))?));
        let copyright = read(&debian.join("copyright"))?
            .replace("@LICENSE_MIT@", &licence("LICENSE-MIT")?)
            .replace("@LICENSE_BSD@", &licence("bpf/LICENSE.BSD-2-Clause")?);
        tree.write(&format!("{directory}/copyright"), 0o644, copyright)?;
        for (file, text) in [("changelog", changelog.as_str()), ("THIRD-PARTY", self.notices)] {
            let file = format!("{directory}/{file}");
            tree.write(&file, 0o644, text)?;
            gzip(&tree.at(&file))?;
        }
        Ok(())
    }

    /// The packages whose libraries the binaries need, in the versions that have what they use.
    fn libraries(&self, binaries: &[&Built]) -> Result<String> {
        let tree = Tree::new(self.release.stage.join("shlibs"))?;
        // dpkg-shlibdeps wants to be in a source package.
        tree.write(
            "debian/control",
            0o644,
            "Source: pointsman\n\nPackage: pointsman\nArchitecture: any\n",
        )?;
        let mut command = Command::new("dpkg-shlibdeps");
        command.arg("-O").args(binaries.iter().map(|built| &built.path)).current_dir(tree.root());
        let text = capture(&mut command)?;
        let list = text.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        Ok(list.with_context(|| format!("dpkg-shlibdeps says {text:?}"))?.to_owned())
    }

    fn control(&self, tree: &Tree, name: &str, described: &Path, libraries: &str) -> Result<()> {
        let path = described.join("control");
        let control =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let files = files(tree.root())?;
        let size: u64 = files.values().map(|bytes| bytes.div_ceil(1024)).sum();
        let control = control
            .replace("@VERSION@", &self.release.version)
            .replace("@ARCHITECTURE@", &self.architecture)
            .replace("@MAINTAINER@", &self.maintainer)
            .replace("@INSTALLED_SIZE@", &size.to_string())
            .replace("@SHLIBS@", libraries);
        if !control.starts_with(&format!("Package: {name}\n"))
            || control.contains('@') && unfilled(&control)
        {
            bail!("{} is not the control file of {name}, or has unknown fields", path.display());
        }
        let configuration: String = files
            .keys()
            .filter(|path| path.starts_with("etc"))
            .map(|path| format!("/{}\n", path.display()))
            .collect();
        let mut md5sum = Command::new("md5sum");
        let listed = files.keys().filter(|path| !path.starts_with("etc"));
        let sums = capture(md5sum.arg("--").args(listed).current_dir(tree.root()))?;
        tree.write("DEBIAN/control", 0o644, control)?;
        tree.write("DEBIAN/md5sums", 0o644, sums)?;
        if !configuration.is_empty() {
            tree.write("DEBIAN/conffiles", 0o644, configuration)?;
        }
        Ok(())
    }

    fn build(&self, tree: &Tree, name: &str) -> Result<PathBuf> {
        let file = format!("{name}_{}_{}.deb", self.release.version, self.architecture);
        let path = self.release.output.join(file);
        let mut command = Command::new("dpkg-deb");
        command.args(["--root-owner-group", "--build"]).arg(tree.root()).arg(&path);
        // Files of a later time get this one.
        capture(command.env("SOURCE_DATE_EPOCH", self.release.epoch.to_string()))?;
        Ok(path)
    }
}

fn binary(tree: &Tree, built: &Built) -> Result<()> {
    let name = built.binary.name;
    tree.copy(&built.path, &format!("usr/bin/{name}"), 0o755)?;
    for (page, text) in &built.manual.pages {
        let path = format!("usr/share/man/man{}/{page}", built.binary.section);
        tree.write(&path, 0o644, text)?;
        gzip(&tree.at(&path))?;
    }
    for (shell, script) in &built.manual.completions {
        let directory = match shell.as_str() {
            "bash" => "usr/share/bash-completion/completions",
            "fish" => "usr/share/fish/vendor_completions.d",
            _ => "usr/share/zsh/vendor-completions",
        };
        tree.write(&format!("{directory}/{}", completion_file(shell, name)), 0o644, script)?;
    }
    Ok(())
}

/// Whether a field is left that nobody filled in: an @ not of an address.
fn unfilled(control: &str) -> bool {
    control
        .split_whitespace()
        .any(|word| word.len() > 2 && word.starts_with('@') && word.ends_with('@'))
}

/// A maintainer script, with the handling of the unit in it.
fn script_text(path: &Path, fragment: Option<&PathBuf>, unit: &str) -> Result<String> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let text = read(path)?;
    let Some(fragment) = fragment else { return Ok(text) };
    if !fragment.is_file() {
        return Ok(text);
    }
    if text.matches("#UNIT#").count() != 1 {
        bail!("{} does not say once where {unit} is handled: #UNIT#", path.display());
    }
    Ok(text.replace("#UNIT#", read(fragment)?.replace("@UNIT@", unit).trim_end()))
}

/// A text as a field of a control file: each line begins with a space, empty ones have a dot.
fn folded(text: &str) -> String {
    let line = |line: &str| match line.trim_end() {
        "" => " .".to_owned(),
        line => format!(" {line}"),
    };
    text.trim().lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The files of a tree with their sizes, without symbolic links.
fn files(root: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let told = || format!("cannot list {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(told)? {
            let entry = entry.with_context(told)?;
            let path = entry.path();
            let below = path.strip_prefix(root)?.to_owned();
            if below.as_os_str().as_bytes().contains(&b'\n') {
                bail!("{} has a newline in its name", path.display());
            }
            let metadata = entry.metadata().with_context(told)?;
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file() {
                found.insert(below, metadata.len());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_begins_with_this_version() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/debian");
        let changelog = fs::read_to_string(root.join("changelog")).unwrap();
        let first = concat!("pointsman (", env!("CARGO_PKG_VERSION"), ") ");
        assert!(changelog.starts_with(first), "{changelog}");
    }

    #[test]
    fn maintainer_scripts_are_shell_that_parses_with_their_unit_in_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/debian");
        let directory = tempfile::tempdir().unwrap();
        let mut seen = 0;
        for binary in BINARIES {
            for script in ["preinst", "postinst", "prerm", "postrm"] {
                let path = root.join(binary.deb).join(script);
                if !path.is_file() {
                    continue;
                }
                let text =
                    script_text(&path, Some(&root.join("unit").join(script)), "x.service").unwrap();
                assert!(text.contains("'x.service'") && !text.contains("#UNIT#"), "{text}");
                let file = directory.path().join(script);
                fs::write(&file, text).unwrap();
                capture(Command::new("sh").arg("-n").arg(file)).unwrap();
                seen += 1;
            }
        }
        assert!(seen >= 3, "{seen} scripts");
        let stray = directory.path().join("stray");
        fs::write(&stray, "#!/bin/sh\n").unwrap();
        let error =
            script_text(&stray, Some(&root.join("unit/postinst")), "x.service").unwrap_err();
        assert!(error.to_string().contains("#UNIT#"), "{error}");
    }

    #[test]
    fn the_maintainer_is_whom_the_environment_names() {
        let email = |name: &str| (name == "DEBEMAIL").then(|| "a@b.example".to_owned());
        assert_eq!(maintainer(email), "Pointsman maintainers <a@b.example>");
        assert_eq!(maintainer(|_| Some(String::new())), maintainer(|_| None));
    }

    #[test]
    fn texts_are_folded_into_fields() {
        assert_eq!(folded("a\n\n b  \n"), " a\n .\n  b");
        assert!(unfilled("Version: @VERSION@\n"));
        assert!(!unfilled("Maintainer: a <b@c.example>\n"));
    }
}
