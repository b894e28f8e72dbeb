//! `pointsman`: what an operator types.
//!
//! In: arguments, a document, answers of the node's API. Out: text for people or JSON for
//! programs on standard output, errors on standard error, and an exit code. Nothing here changes
//! the host: the node does. [`client`] is the only module that talks to it, [`control`] the only one
//! that talks to a fleet's control plane, `render` turns answers into text without any I/O,
//! `commands` has one function per verb.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod control;
mod error;
mod input;
mod json;
mod output;
mod render;
mod xdp_loader;

use clap::Parser as _;
use pointsman_manual::Section;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(arguments) = as_xdp_loader(std::env::args_os().collect()) {
        return xdp_loader::run(&arguments);
    }
    if let Some(code) = pointsman_manual::answer::<args::Args>(Section::Commands) {
        return code;
    }
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

/// The arguments of `xdp-loader`, if that is what this was called as: by its name, or as a verb.
fn as_xdp_loader(arguments: Vec<OsString>) -> Option<Vec<OsString>> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next()?;
    if Path::new(&program).file_name()? == xdp_loader::NAME {
        return Some(arguments.collect());
    }
    (arguments.next()? == xdp_loader::NAME).then(|| arguments.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_another_tool_by_its_name_and_as_a_verb() {
        let arguments = |line: &[&str]| {
            let found = as_xdp_loader(line.iter().map(OsString::from).collect());
            found.map(|rest| rest.len())
        };
        assert_eq!(arguments(&["/usr/sbin/xdp-loader", "status"]), Some(1));
        assert_eq!(arguments(&["pointsman", "xdp-loader", "load", "eth0"]), Some(2));
        assert_eq!(arguments(&["pointsman", "status"]), None);
        assert_eq!(arguments(&["pointsman"]), None);
        assert_eq!(arguments(&[]), None);
    }
}
