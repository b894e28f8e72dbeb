//! docs/openapi-node.json: the daemon's API as its code says it is.

use crate::process::capture;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// `cargo xtask openapi`.
pub(crate) fn rewrite(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(&[setup::BUILD])?;
    let file = file(workspace);
    let text = from_code(workspace)?;
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("openapi: wrote {}", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Compares the file with the code.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let file = file(workspace);
    let written = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}: run cargo xtask openapi", file.display()))?;
    match first_difference(&written, &from_code(workspace)?) {
        None => Ok(()),
        Some(line) => bail!(
            "{}:{line} is not what the daemon's code says; run cargo xtask openapi and commit it",
            file.display()
        ),
    }
}

fn file(workspace: &Workspace) -> PathBuf {
    workspace.root.join("docs/openapi-node.json")
}

fn from_code(workspace: &Workspace) -> Result<String> {
    let node = ["build", "--package", "pointsman-node", "--bin", "pointsman-node"];
    let built = workspace.build(&node)?;
    let node = built.first().context("cargo built no pointsman-node")?;
    let text = capture(Command::new(node).arg("openapi"))?;
    // However the daemon ends its output, a text file ends with one newline.
    Ok(format!("{}\n", text.trim_end()))
}

/// The first line, from 1, in which two texts differ.
fn first_difference(left: &str, right: &str) -> Option<usize> {
    if left == right {
        return None;
    }
    let same = left.lines().zip(right.lines()).take_while(|(left, right)| left == right).count();
    Some(same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_a_line_number() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("a", "a\n"), Some(2));
    }
}
