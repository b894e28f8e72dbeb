//! `pointsman-node`: the daemon of a host, and its keeper.
#![forbid(unsafe_code)]

use clap::{CommandFactory as _, FromArgMatches as _};
use pointsman_keeper::link::Link;
use pointsman_logging as logging;
use pointsman_manual::Section;
use pointsman_node::args::{Args, Command};
use pointsman_node::{chainless, daemon, health, http, keep};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = pointsman_manual::answer::<Args>(Section::Daemons) {
        return code;
    }
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let original = keep::is_original(arguments.first().map(AsRef::as_ref));
    let args = match parse(&arguments, original) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    if args.keeper.print_sock_path {
        println!("{}", args.imtl_socket().display());
        return ExitCode::SUCCESS;
    }
    match args.command {
        Some(Command::Openapi) => {
            // A reader that has seen enough is no failure.
            let _ = std::io::stdout().write_all(http::openapi_json().as_bytes());
            ExitCode::SUCCESS
        }
        Some(Command::Health) => health(&args),
        Some(Command::Engine) => engine(&args),
        None => {
            arguments.drain(..1);
            keeper(&args, arguments, original)
        }
    }
}

/// Says whether the daemon lives, in one line.
fn health(args: &Args) -> ExitCode {
    let (line, code) = match health::check(&args.imtl_socket(), health::PATIENCE) {
        Ok(health) => (health.to_string(), ExitCode::SUCCESS),
        Err(error) => (error.to_string(), ExitCode::FAILURE),
    };
    // Container engines keep what a check prints, from either.
    let _ = writeln!(std::io::stdout(), "{line}");
    code
}

fn parse(arguments: &[std::ffi::OsString], original: bool) -> Result<Args, clap::Error> {
    let mut command = Args::command();
    if original {
        // What scripts look for in it.
        let version = concat!("version: ", env!("CARGO_PKG_VERSION"), " (Pointsman)");
        command = command.name(keep::ORIGINAL).bin_name(keep::ORIGINAL).version(version);
    }
    Args::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn keeper(args: &Args, arguments: Vec<std::ffi::OsString>, original: bool) -> ExitCode {
    if original {
        // Whatever the file is called. Both fail only for names that are too long.
        let _ = rustix::thread::set_name(c"MtlManager");
        // The original logs to standard output, and scripts keep that.
        let _ = rustix::stdio::dup2_stderr(std::io::stdout());
    }
    let _log = match logging::start(keep::log_format(args, original), args.log_level) {
        Ok(log) => log,
        Err(error) => return no_log(&error),
    };
    if original {
        tracing::info!("MTL Manager version: {} (Pointsman)", env!("CARGO_PKG_VERSION"));
    }
    match keep::run(args, arguments, original) {
        Ok(code) => {
            if original {
                tracing::info!("MTL Manager exited.");
            }
            ExitCode::from(code)
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(keep::exit_code(&error, original))
        }
    }
}

fn engine(args: &Args) -> ExitCode {
    // Only the keeper may be taken for the original.
    let _ = rustix::thread::set_name(c"pointsman-node");
    let _log = match logging::start(args.log_format.unwrap_or_default(), args.log_level) {
        Ok(log) => log,
        Err(error) => return no_log(&error),
    };
    let result = Link::from_stdin()
        .map_err(daemon::DaemonError::from)
        .and_then(|link| daemon::run(args, Some(link), chainless::open));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn no_log(error: &std::io::Error) -> ExitCode {
    // Not `eprintln`: that would panic where nobody reads.
    let _ = writeln!(std::io::stderr(), "cannot start the thread that writes the log: {error}");
    ExitCode::FAILURE
}
