//! `pointsman`: what an operator types.
//!
//! In: arguments, a document, answers of the node's API. Out: text for people or JSON for
//! programs on standard output, errors on standard error, and an exit code. Nothing here changes
//! the host: the node does. [`client`] is the only module that talks to it, `render` turns its
//! answers into text without any I/O, `commands` has one function per verb.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod error;
mod input;
mod output;
mod render;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let json = args.json;
    match commands::run(args) {
        Ok(exit) => exit.into(),
        Err(error) => {
            error.report(json);
            error.exit().into()
        }
    }
}
