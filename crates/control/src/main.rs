//! `pointsman-control`: the control plane of a fleet.
#![forbid(unsafe_code)]

use clap::Parser as _;
use pointsman_control::args::{Args, Command};
use pointsman_control::{api, command, inspect, serve};
use pointsman_manual::Section;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = pointsman_manual::answer::<Args>(Section::Daemons) {
        return code;
    }
    let args = Args::parse();
    match &args.command {
        // Before any thread is started: it gives up what it has.
        Some(Command::InspectChild) => inspect::child::run(),
        Some(Command::Openapi) => {
            // A reader that has seen enough is no failure.
            let _ = std::io::stdout().write_all(api::openapi_json().as_bytes());
            ExitCode::SUCCESS
        }
        Some(Command::Token { name, role, ttl }) => {
            told(on_runtime(command::token(&args, name.clone(), *role, *ttl)))
        }
        Some(Command::ExportRecord { node, to }) => {
            told(on_runtime(command::export_record(&args, node, to)))
        }
        Some(Command::ReplaceKey { every_node_enrols_again: _ }) => {
            told(on_runtime(command::replace_key(&args)))
        }
        Some(Command::Serve) | None => service(&args),
    }
}

fn service(args: &Args) -> ExitCode {
    let _log = match pointsman_logging::start(args.log_format, args.log_level) {
        Ok(log) => log,
        Err(error) => return told(Err(format!("cannot start the thread that logs: {error}"))),
    };
    match on_runtime(serve::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("invariant: the kernel gives threads and an epoll").block_on(work)
}

fn told(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`: that would panic where nobody reads.
            let _ = writeln!(std::io::stderr(), "pointsman-control: {error}");
            ExitCode::FAILURE
        }
    }
}
