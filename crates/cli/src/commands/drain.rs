//! `drain`: asks first.

use super::ask;
use crate::args::DrainArgs;
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::render;

pub(super) async fn drain(
    client: &Client,
    output: &Output,
    args: &DrainArgs,
) -> Result<Exit, CliError> {
    if !args.yes {
        ask::needs_terminal("drain")?;
        let question = render::drain::question(&client.status().await?);
        ask::confirm("drain", output, |_| question)?;
    }
    let report = client.drain().await?;
    output.answer(&report, |report, look| render::drain::drain(look, report))?;
    Ok(if report.failures.is_empty() { Exit::Done } else { Exit::Refused })
}
