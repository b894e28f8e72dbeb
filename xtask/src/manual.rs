//! Man pages and completions: what the binaries print of themselves, as files.

use crate::dist::binaries::{self, Binary};
use crate::process::capture;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Where they are written.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The directory to write to. Files there are replaced, others are left alone. [default:
    /// target/man or target/completions]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// What one binary prints.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Manual {
    /// Man pages by file name.
    pub(crate) pages: BTreeMap<String, String>,
    /// Completion scripts by shell.
    pub(crate) completions: BTreeMap<String, String>,
}

impl Manual {
    /// Asks a binary.
    ///
    /// # Errors
    /// It does not run, or prints something else.
    pub(crate) fn of(binary: &Binary, path: &Path) -> Result<Self> {
        let text = capture(Command::new(path).arg("manual"))?;
        let manual = Self::parse(&text)
            .with_context(|| format!("what {} manual prints is no manual", path.display()))?;
        let page = binary.page();
        if !manual.pages.contains_key(&page) {
            let pages: Vec<_> = manual.pages.keys().collect();
            bail!("{} has no page {page} among its own: {pages:?}", binary.name);
        }
        Ok(manual)
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("it is not JSON")?;
        let files = |key: &str| -> Result<BTreeMap<String, String>> {
            let object = value[key].as_object().with_context(|| format!("it has no {key}"))?;
            let file = |(name, text): (&String, &Value)| {
                let is_name = !name.starts_with('.') && !name.contains('/') && !name.is_empty();
                let text = text.as_str().filter(|text| is_name && !text.is_empty());
                Ok((name.clone(), text.with_context(|| format!("{name} is no file"))?.to_owned()))
            };
            object.iter().map(file).collect()
        };
        Ok(Self { pages: files("pages")?, completions: files("completions")? })
    }
}

/// The file of a completion script below its shell's directory.
pub(crate) fn completion_file(shell: &str, binary: &str) -> String {
    match shell {
        "zsh" => format!("_{binary}"),
        "fish" => format!("{binary}.fish"),
        _ => binary.to_owned(),
    }
}

/// `cargo xtask man`.
pub(crate) fn pages(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let files = |_: &str, manual: Manual| manual.pages.into_iter().collect();
    write_all(workspace, "man", options, files)
}

/// `cargo xtask completions`.
pub(crate) fn completions(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let files = |binary: &str, manual: Manual| {
        let file = |(shell, text): (String, String)| {
            (format!("{shell}/{}", completion_file(&shell, binary)), text)
        };
        manual.completions.into_iter().map(file).collect()
    };
    write_all(workspace, "completions", options, files)
}

fn write_all(
    workspace: &Workspace,
    what: &str,
    options: &Options,
    files: impl Fn(&str, Manual) -> Vec<(String, String)>,
) -> Result<ExitCode> {
    setup::ensure(&[setup::BUILD])?;
    let output = options.output.clone().unwrap_or_else(|| workspace.target.join(what));
    for built in binaries::build(workspace, "dev")?.binaries {
        for (name, text) in files(built.binary.name, built.manual) {
            let path = output.join(name);
            let directory = path.parent().context("a file is in a directory")?;
            fs::create_dir_all(directory)
                .and_then(|()| fs::write(&path, text))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    println!("{what}: wrote {}", output.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_is_two_lists_of_files() {
        let manual =
            Manual::parse(r#"{"pages":{"a.1":"A"},"completions":{"bash":"B","zsh":"Z"}}"#).unwrap();
        assert_eq!(manual.pages["a.1"], "A");
        assert_eq!(manual.completions.len(), 2);
        assert_eq!(completion_file("zsh", "a"), "_a");
        assert_eq!(completion_file("fish", "a"), "a.fish");
        assert_eq!(completion_file("bash", "a"), "a");
    }

    #[test]
    fn what_is_no_manual_is_refused_and_nothing_leaves_the_directory() {
        for wrong in [
            "",
            "{}",
            r#"{"pages":{}}"#,
            r#"{"pages":{"a.1":1},"completions":{}}"#,
            r#"{"pages":{"a.1":""},"completions":{}}"#,
            r#"{"pages":{"../a.1":"A"},"completions":{}}"#,
            r#"{"pages":{"a/b":"A"},"completions":{}}"#,
            r#"{"pages":{"..":"A"},"completions":{}}"#,
        ] {
            assert!(Manual::parse(wrong).is_err(), "{wrong}");
        }
    }
}
