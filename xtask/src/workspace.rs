//! Where the workspace and its build directory are, and how cargo is called.

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
        let output = cargo()
            .args(arguments)
            .arg("--message-format=json-render-diagnostics")
            .current_dir(&self.root)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!("cargo {} failed: see above", arguments.join(" "));
        }
        Ok(executables(&String::from_utf8_lossy(&output.stdout)))
    }
}

fn cargo() -> Command {
    // Set by `cargo run`: the same cargo again, whatever rustup override chose it.
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The `executable` of every artifact message; lines that are no messages are left out.
fn executables(messages: &str) -> Vec<PathBuf> {
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = parsed.filter(|message| message["reason"] == "compiler-artifact");
    artifacts.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()
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
        assert_eq!(executables(messages), [PathBuf::from("/t/debug/deps/chains-1f")]);
    }
}
