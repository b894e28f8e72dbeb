//! `pointsman-courier`: brings a node what its fleet's control plane published.
#![forbid(unsafe_code)]

use clap::Parser as _;
use pointsman_courier::args::{Args, Command};
use pointsman_courier::{commands, run};
use pointsman_manual::Section;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = pointsman_manual::answer::<Args>(Section::Daemons) {
        return code;
    }
    let args = Args::parse();
    let _log = match pointsman_logging::start(args.log_format, args.log_level) {
        Ok(log) => log,
        Err(error) => {
            // Not `eprintln`: that would panic where nobody reads.
            let _ =
                writeln!(std::io::stderr(), "cannot start the thread that writes the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match &args.command {
        Command::Run(args) => run::run(args).map_err(|error| error.to_string()),
        Command::Enroll(args) => commands::enroll(args),
        Command::Forget(args) => commands::forget(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
