//! What is shipped: the binaries, and the BPF objects for users of libxdp.

use crate::manual::Manual;
use crate::process::stream;
use crate::workspace::Workspace;
use crate::{interrupt, process};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One binary. A new one needs its line in [`BINARIES`], a call of `pointsman_manual::answer` in its
/// `main`, and `packaging/debian/DEB/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binary {
    /// Its file.
    pub(crate) name: &'static str,
    /// The package of the workspace.
    pub(crate) package: &'static str,
    /// The Debian package, a directory of `packaging/debian`.
    pub(crate) deb: &'static str,
    /// The section of its man pages.
    pub(crate) section: u8,
    /// Whether the container image has it.
    pub(crate) in_image: bool,
}

/// All binaries.
pub(crate) const BINARIES: &[Binary] = &[
    Binary {
        name: "pointsman",
        package: "pointsman-cli",
        deb: "pointsman",
        section: 1,
        in_image: true,
    },
    Binary {
        name: "pointsman-node",
        package: "pointsman-node",
        deb: "pointsman-node",
        section: 8,
        in_image: true,
    },
    Binary {
        name: "pointsman-control",
        package: "pointsman-control",
        deb: "pointsman-control",
        section: 8,
        in_image: false,
    },
    Binary {
        name: "pointsman-courier",
        package: "pointsman-courier",
        deb: "pointsman-courier",
        section: 8,
        in_image: false,
    },
];

/// The BPF objects that are files of their own; all others are inside the binaries.
pub(crate) const OBJECTS: [&str; 2] = ["mtl.xdp.o", "xsk_def_prog.o"];

/// The package whose build script compiles them.
const OBJECTS_OF: &str = "pointsman-bpf";

impl Binary {
    /// The name of its first man page.
    pub(crate) fn page(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }
}

/// One binary, built.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// Which.
    pub(crate) binary: Binary,
    /// Where.
    pub(crate) path: PathBuf,
    /// What it says of itself.
    pub(crate) manual: Manual,
}

/// All that was built.
#[derive(Debug, Clone)]
pub(crate) struct Products {
    /// The binaries, in the order of [`BINARIES`].
    pub(crate) binaries: Vec<Built>,
    /// The BPF objects, in the order of [`OBJECTS`].
    pub(crate) objects: Vec<PathBuf>,
}

/// Builds everything with one of cargo's profiles.
///
/// # Errors
/// Something does not build, or cargo does not say where it put it.
pub(crate) fn build(workspace: &Workspace, profile: &str) -> Result<Products> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--locked", "--message-format=json-render-diagnostics", "--profile", profile]);
    for Binary { package, name, .. } in BINARIES {
        cargo.args(["--package", package, "--bin", name]);
    }
    let mut messages = Vec::new();
    let ended = stream(&mut cargo, None, |line| {
        messages.extend(serde_json::from_str::<Value>(line).ok());
    })?;
    if interrupt::pending() {
        bail!("interrupted");
    }
    if !ended.is_success() {
        bail!("{} failed: see above", process::shown(&cargo));
    }
    let binaries = BINARIES.iter().map(|binary| {
        let path = executable(&messages, binary.name)
            .with_context(|| format!("cargo does not say where {} is", binary.name))?;
        Ok(Built { binary: *binary, manual: Manual::of(binary, &path)?, path })
    });
    let binaries = binaries.collect::<Result<_>>()?;
    let directory = out_dir(&messages, OBJECTS_OF)
        .with_context(|| format!("cargo does not say where {OBJECTS_OF} compiled its objects"))?;
    let objects = OBJECTS.iter().map(|name| {
        let path = directory.join(name);
        if !path.is_file() {
            bail!("{OBJECTS_OF} compiled no {}", path.display());
        }
        Ok(path)
    });
    Ok(Products { binaries, objects: objects.collect::<Result<_>>()? })
}

fn executable(messages: &[Value], name: &str) -> Option<PathBuf> {
    let mut executables = messages.iter().filter_map(|message| message["executable"].as_str());
    executables.find(|path| Path::new(path).file_name() == Some(name.as_ref())).map(PathBuf::from)
}

/// Where the build script of a package wrote to, as cargo's messages say it.
fn out_dir(messages: &[Value], package: &str) -> Option<PathBuf> {
    let executed = messages.iter().filter(|message| message["reason"] == "build-script-executed");
    // A path's identifier ends with "#0.1.0", or "#name@0.1.0" where the directory has another name.
    let of_package = |id: &str| {
        let (path, version) = id.rsplit_once('#').unwrap_or_default();
        match version.split_once('@') {
            Some((name, _)) => name == package,
            None => path.rsplit('/').next() == Some(package),
        }
    };
    let mut directories =
        executed.filter(|message| message["package_id"].as_str().is_some_and(of_package));
    directories.find_map(|message| message["out_dir"].as_str()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cargo_says_where_things_are() {
        let messages = [
            json!({"reason": "compiler-artifact", "executable": "/t/release/pointsman-node"}),
            json!({"reason": "compiler-artifact", "executable": null}),
            json!({"reason": "build-script-executed", "out_dir": "/t/other/out",
                   "package_id": "path+file:///w/crates/bpf-other#pointsman-bpf-other@0.1.0"}),
            json!({"reason": "build-script-executed", "out_dir": "/t/out",
                   "package_id": "path+file:///w/crates/bpf#pointsman-bpf@0.1.0"}),
        ];
        assert_eq!(executable(&messages, "pointsman"), None, "a name is more than its beginning");
        assert_eq!(
            executable(&messages, "pointsman-node").unwrap(),
            Path::new("/t/release/pointsman-node")
        );
        assert_eq!(out_dir(&messages, "pointsman-bpf").unwrap(), Path::new("/t/out"));
        assert_eq!(out_dir(&messages, "bpf"), None);
    }

    #[test]
    fn each_binary_goes_into_a_package_that_is_described() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for binary in BINARIES {
            let control = root.join("packaging/debian").join(binary.deb).join("control");
            assert!(control.is_file(), "{}", control.display());
        }
    }
}
