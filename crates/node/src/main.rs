//! `pointsman-node`: the daemon of a host.
#![forbid(unsafe_code)]

use clap::Parser as _;
use pointsman_node::args::{Args, Command};
use pointsman_node::host::{Kernel, KernelError};
use pointsman_node::kernel::LinuxKernel;
use pointsman_node::{daemon, http, logging};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Openapi) = args.command {
        // A reader that has seen enough is no failure.
        let _ = std::io::stdout().write_all(http::openapi_json().as_bytes());
        return ExitCode::SUCCESS;
    }
    logging::start(args.log_format, args.log_level);
    let kernel = |bpffs: &Path| match LinuxKernel::open(bpffs) {
        Ok(kernel) => Ok(Box::new(kernel) as Box<dyn Kernel>),
        Err(error) => Err(KernelError(error.to_string())),
    };
    match daemon::run(&args, kernel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
