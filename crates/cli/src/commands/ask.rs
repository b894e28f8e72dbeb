//! Asking before something is taken away. Questions go to standard error: standard output carries
//! the report alone.

use crate::error::CliError;
use crate::output::{Look, Output};
use std::io::{self, BufRead as _, IsTerminal as _};

/// Fails where there is nobody to ask.
pub(super) fn needs_terminal(what: &'static str) -> Result<(), CliError> {
    if io::stdin().is_terminal() { Ok(()) } else { Err(CliError::NeedsYes { what }) }
}

/// Asks, and fails unless the answer is yes.
pub(super) fn confirm(
    what: &'static str,
    output: &Output,
    question: impl FnOnce(Look) -> String,
) -> Result<(), CliError> {
    needs_terminal(what)?;
    match ask(output, question)?.as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Declined { what }),
    }
}

/// Asks; gives the answer in small letters. One that cannot be asked has the empty answer.
pub(super) fn ask(
    output: &Output,
    question: impl FnOnce(Look) -> String,
) -> Result<String, CliError> {
    output.say(question);
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|source| CliError::Read { name: "standard input".into(), source })?;
    Ok(answer.trim().to_ascii_lowercase())
}
