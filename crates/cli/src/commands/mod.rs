//! One function per verb: asks the node or the control plane, prints the answer, says how it ended.

mod ask;
mod counters;
mod doctor;
mod document;
mod drain;
mod events;
mod fleet;
mod glass;
mod inspect;
mod leases;

use crate::args::{Args, Verb};
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::render;
use clap::CommandFactory as _;

/// Runs the command line.
pub(crate) fn run(args: Args) -> Result<Exit, CliError> {
    let Args { node, json, verb } = args;
    let output = Output::new(json);
    let client = Client::new(&node, json);
    match verb {
        Verb::Apply(args) => wait(document::apply(&client, &output, &args)),
        Verb::Plan(args) => wait(document::plan(&client, &output, &args)),
        Verb::Confirm(args) => wait(glass::confirm(&client, &output, &args)),
        Verb::Bypass(args) => wait(glass::bypass(&client, &output, &args)),
        Verb::Rollback(args) => wait(glass::rollback(&client, &output, &args)),
        Verb::Generations => wait(glass::generations(&client, &output)),
        Verb::Events(args) => wait(events::events(&client, &output, &args)),
        Verb::Instances => wait(leases::instances(&client, &output)),
        Verb::Instance(args) => wait(leases::instance(&client, &output, args.id)),
        Verb::Clear(args) => wait(leases::clear(&client, &output, args.id)),
        Verb::Lcores => wait(leases::lcores(&client, &output)),
        Verb::Status => wait(status(&client, &output)),
        Verb::Counters(args) => wait(counters::counters(&client, &output, &args)),
        Verb::Inspect(args) => inspect::inspect(&output, &args),
        Verb::Drain(args) => wait(drain::drain(&client, &output, &args)),
        Verb::Doctor(args) => wait(doctor::doctor(&client, &output, &args)),
        Verb::Fleet(args) => wait(fleet::run(*args, &output)),
        Verb::Schema => {
            output.print(&crate::output::pretty(&pointsman_model::document::json_schema()))?;
            Ok(Exit::Done)
        }
        Verb::Completions { shell } => {
            // Into memory first: the generator panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "pointsman", &mut script);
            output.print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
    }
}

/// Runs a verb that talks to somebody.
fn wait(verb: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::Runtime)?.block_on(verb)
}

async fn status(client: &Client, output: &Output) -> Result<Exit, CliError> {
    let status = client.status().await?;
    output.answer(&status, |status, look| render::status::status(look, status))?;
    Ok(Exit::Done)
}
