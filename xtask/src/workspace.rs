//! Where the workspace and its build directory are, and how cargo is called.

use crate::interrupt;
use crate::process::stream;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace this xtask was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Its root.
    pub(crate) root: PathBuf,
    /// Where cargo builds: honours `CARGO_TARGET_DIR` and cargo's configuration.
    pub(crate) target: PathBuf,
}

impl Workspace {
    pub(crate) fn locate() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let output = cargo()
            .args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"])
            .arg(&manifest)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed for {}", manifest.display());
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("cannot read cargo metadata")?;
        let path = |key: &str| {
            let path = metadata[key].as_str();
            path.map(PathBuf::from).with_context(|| format!("cargo metadata has no {key}"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// A cargo command that runs in the root.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        let mut command = cargo();
        command.arg(verb).current_dir(&self.root);
        command
    }

    /// Builds with `--message-format=json` and gives the executables that came of it.
    ///
    /// `arguments` begin with cargo's verb. Progress and compiler messages go to stderr.
    pub(crate) fn build(&self, arguments: &[&str]) -> Result<Vec<PathBuf>> {
        let mut command = cargo();
        command.args(arguments).arg("--message-format=json-render-diagnostics");
        let mut built = Vec::new();
        let ended = stream(command.current_dir(&self.root), None, |message| {
            built.extend(executable(message));
        })?;
        if interrupt::pending() {
            bail!("interrupted");
        }
        if !ended.is_success() {
            bail!("cargo {} failed: see above", arguments.join(" "));
        }
        Ok(built)
    }
}

fn cargo() -> Command {
    // Set by `cargo run`: the same cargo again, whatever rustup override chose it.
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The `executable` of an artifact message; a line that is no such message has none.
fn executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_artifact = message["reason"] == "compiler-artifact";
    is_artifact.then(|| message["executable"].as_str().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\nnot a message\n",
            r#"{"reason":"compiler-artifact","executable":"/t/debug/deps/chains-1f"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let built: Vec<_> = messages.lines().filter_map(executable).collect();
        assert_eq!(built, [PathBuf::from("/t/debug/deps/chains-1f")]);
    }
}
