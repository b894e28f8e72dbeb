//! `doctor`: what this host can do, from the node or, without it, from here.

use crate::args::DoctorArgs;
use crate::client::{Client, ClientError};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::render;
use pointsman_bpf::Places;
use pointsman_model::api::{Check, Doctor, Health};
use pointsman_netdev::Nics;
use std::path::Path;

pub(super) async fn doctor(
    client: &Client,
    output: &Output,
    args: &DoctorArgs,
) -> Result<Exit, CliError> {
    let doctor = match client.doctor().await {
        Err(error) if error.is_unreachable() || error.is_denied() => from_here(&error, args),
        other => other?,
    };
    output.answer(&doctor, |doctor, look| render::doctor::doctor(look, doctor))?;
    Ok(if render::doctor::is_broken(&doctor) { Exit::Refused } else { Exit::Done })
}

/// The same checks with this process's privileges, headed by why the node did not make them.
fn from_here(error: &ClientError, args: &DoctorArgs) -> Doctor {
    let facts = pointsman_bpf::host_facts(&Places::of_host(&args.bpffs));
    let host = pointsman_plan::examine_host(&facts);
    let node = Check {
        name: "node".into(),
        health: Health::Broken,
        found: render::text::printable(&error.to_string()),
        consequence: "the other checks were made by this command, with its own privileges".into(),
    };
    let checks = std::iter::once(node).chain(host).chain(interfaces()).collect();
    Doctor { kernel: facts.kernel, checks }
}

fn interfaces() -> Vec<Check> {
    let page_size = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
    match pointsman_netdev::interfaces() {
        Ok(all) => {
            let observed = Nics::new(Path::new("/sys")).examine(&all);
            pointsman_plan::examine(&observed, page_size)
        }
        Err(error) => vec![pointsman_plan::unseen(&error.to_string())],
    }
}
