//! `apply` and `plan`: what the node makes of a document.

use crate::args::{ApplyArgs, DocumentArgs};
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::input;
use crate::output::Output;
use crate::render;
use pointsman_model::api::ApplyOutcome;
use pointsman_model::document::MAX_BYTES;

/// The document is sent as it is: the node judges it, and its errors are the same for a document
/// from any source. Only its size is looked at here, because a server that refuses a request by
/// its length may close the connection before its answer is heard.
fn read(args: &DocumentArgs) -> Result<Vec<u8>, CliError> {
    input::read(&args.file, "a node document", MAX_BYTES)
}

pub(super) async fn apply(
    client: &Client,
    output: &Output,
    args: &ApplyArgs,
) -> Result<Exit, CliError> {
    let ApplyArgs { document, confirm_within } = args;
    let report = client.apply(read(document)?, document.allow_gap, *confirm_within).await?;
    output.answer(&report, |report, look| render::apply::apply(look, report))?;
    let refused = match report.outcome {
        ApplyOutcome::Partly | ApplyOutcome::Refused => true,
        ApplyOutcome::Applied | ApplyOutcome::Pending | ApplyOutcome::Unchanged => {
            !report.refusals.is_empty()
        }
    };
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

pub(super) async fn plan(
    client: &Client,
    output: &Output,
    args: &DocumentArgs,
) -> Result<Exit, CliError> {
    let plan = client.plan(read(args)?, args.allow_gap).await?;
    output.answer(&plan, |plan, look| render::plan::plan(look, plan))?;
    Ok(match (plan.refusals.is_empty(), plan.steps.is_empty()) {
        (false, _) => Exit::Refused,
        (true, false) => Exit::Pending,
        (true, true) => Exit::Done,
    })
}
