//! `instances`, `instance`, `clear` and `lcores`: who holds what.

use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::render;

pub(super) async fn instances(client: &Client, output: &Output) -> Result<Exit, CliError> {
    let all = client.instances().await?;
    output.answer(&all, |all, look| render::instances::instances(look, all))?;
    Ok(Exit::Done)
}

pub(super) async fn instance(client: &Client, output: &Output, id: u64) -> Result<Exit, CliError> {
    let one = client.instance(id).await?;
    output.answer(&one, |one, look| render::instances::instance(look, one))?;
    Ok(Exit::Done)
}

pub(super) async fn clear(client: &Client, output: &Output, id: u64) -> Result<Exit, CliError> {
    let report = client.clear(id).await?;
    output.answer(&report, |report, _| render::instances::cleared(report))?;
    Ok(Exit::Done)
}

pub(super) async fn lcores(client: &Client, output: &Output) -> Result<Exit, CliError> {
    let lcores = client.lcores().await?;
    output.answer(&lcores, |lcores, look| render::lcores::lcores(look, lcores))?;
    Ok(Exit::Done)
}
