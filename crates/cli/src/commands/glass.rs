//! `bypass`, `rollback`, `confirm` and `generations`: an operator breaks the glass.

use crate::args::{BypassArgs, ConfirmArgs, RollbackArgs};
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::render;

pub(super) async fn bypass(
    client: &Client,
    output: &Output,
    args: &BypassArgs,
) -> Result<Exit, CliError> {
    let report = client.bypass(&args.interface, args.length, args.off).await?;
    output.answer(&report, |report, look| render::glass::bypass(look, report))?;
    Ok(ended(report.refusals.is_empty()))
}

pub(super) async fn rollback(
    client: &Client,
    output: &Output,
    args: &RollbackArgs,
) -> Result<Exit, CliError> {
    let report = client.rollback(args.to, args.allow_gap).await?;
    output.answer(&report, |report, look| render::glass::rollback(look, report))?;
    Ok(ended(report.report.refusals.is_empty()))
}

pub(super) async fn confirm(
    client: &Client,
    output: &Output,
    args: &ConfirmArgs,
) -> Result<Exit, CliError> {
    let report = client.confirm(args.generation).await?;
    output.answer(&report, |report, look| render::glass::confirm(look, report))?;
    Ok(Exit::Done)
}

pub(super) async fn generations(client: &Client, output: &Output) -> Result<Exit, CliError> {
    let answer = client.generations().await?;
    output.answer(&answer, |answer, look| render::glass::generations(look, answer))?;
    Ok(Exit::Done)
}

fn ended(whole: bool) -> Exit {
    if whole { Exit::Done } else { Exit::Refused }
}
