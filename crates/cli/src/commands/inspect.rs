//! `inspect`: what an object holds. The node is not asked.

use crate::args::InspectArgs;
use crate::error::{CliError, Exit};
use crate::input;
use crate::output::Output;
use crate::render;
use pointsman_model::document::Builtin;
use std::borrow::Cow;

/// The largest object that the node takes.
const MAX_OBJECT: usize = 16 << 20;

pub(super) fn inspect(output: &Output, args: &InspectArgs) -> Result<Exit, CliError> {
    let InspectArgs { object, entry } = args;
    let name = object.display().to_string();
    let bytes = match name.strip_prefix("builtin:") {
        Some(builtin) => Cow::Borrowed(pointsman_bpf::builtin(find(builtin)?)),
        None => Cow::Owned(input::read(object, "an object", MAX_OBJECT)?),
    };
    let mut report = pointsman_bpf::inspect_object(&bytes)
        .map_err(|source| CliError::Inspect { name: name.clone(), source })?;
    if let Some(entry) = entry {
        let names: Vec<_> = report.programs.iter().map(|program| program.name.clone()).collect();
        report.programs.retain(|program| program.name == *entry);
        if report.programs.is_empty() {
            let available = if names.is_empty() { "none".into() } else { names.join(", ") };
            return Err(CliError::NoEntry { name, entry: entry.clone(), available });
        }
    }
    output.answer(&report, |report, look| render::inspect::inspect(look, &name, report))?;
    Ok(Exit::Done)
}

fn find(name: &str) -> Result<Builtin, CliError> {
    Builtin::ALL.into_iter().find(|builtin| builtin.name() == name).ok_or_else(|| {
        let available = Builtin::ALL.map(Builtin::name).join(", ");
        CliError::NoBuiltin { name: name.to_owned(), available }
    })
}
