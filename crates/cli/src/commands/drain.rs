//! `drain`: asks first.

use crate::args::DrainArgs;
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::render;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

pub(super) async fn drain(
    client: &Client,
    output: &Output,
    args: &DrainArgs,
) -> Result<Exit, CliError> {
    if !args.yes {
        if !io::stdin().is_terminal() {
            return Err(CliError::NeedsYes);
        }
        confirm(&render::drain::question(&client.status().await?))?;
    }
    let report = client.drain().await?;
    output.answer(&report, |report, look| render::drain::drain(look, report))?;
    Ok(if report.failures.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Asks on standard error: standard output carries the report alone.
fn confirm(question: &str) -> Result<(), CliError> {
    // An error of writing the question leaves the answer out, which declines.
    let _ = write!(io::stderr().lock(), "{question}");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|source| CliError::Read { name: "standard input".into(), source })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Declined),
    }
}
