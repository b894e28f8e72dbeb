//! docs/openapi-*.json: the APIs of the services as their code says they are.

use crate::process::capture;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// A service with an API, and the file that describes it.
#[derive(Debug, Clone, Copy)]
struct Service {
    /// Its package, and the name of its program.
    package: &'static str,
    /// Where its description is, in the workspace.
    file: &'static str,
}

const SERVICES: [Service; 2] = [
    Service { package: "pointsman-node", file: "docs/openapi-node.json" },
    Service { package: "pointsman-control", file: "docs/openapi-control.json" },
];

/// `cargo xtask openapi`.
pub(crate) fn rewrite(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(&[setup::BUILD])?;
    for service in SERVICES {
        let file = service.file(workspace);
        let text = service.as_coded(workspace)?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("openapi: wrote {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares the files with the code.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    SERVICES.into_iter().try_for_each(|service| service.check(workspace))
}

impl Service {
    fn check(self, workspace: &Workspace) -> Result<()> {
        let file = self.file(workspace);
        let written = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}: run cargo xtask openapi", file.display()))?;
        match first_difference(&written, &self.as_coded(workspace)?) {
            None => Ok(()),
            Some(line) => bail!(
                "{}:{line} is not what the code of {} says; run cargo xtask openapi and commit it",
                file.display(),
                self.package
            ),
        }
    }

    fn file(self, workspace: &Workspace) -> PathBuf {
        workspace.root.join(self.file)
    }

    fn as_coded(self, workspace: &Workspace) -> Result<String> {
        let Self { package, file: _ } = self;
        let built = workspace.build(&["build", "--package", package, "--bin", package])?;
        let program = built.first().with_context(|| format!("cargo built no {package}"))?;
        let text = capture(Command::new(program).arg("openapi"))?;
        // However the service ends its output, a text file ends with one newline.
        Ok(format!("{}\n", text.trim_end()))
    }
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
