//! `xdp-loader`: the packaged tool's commands, flags, output, messages and exit codes, so that
//! scripts keep working. It needs no node.
//!
//! In: arguments and the environment of the original. Out: what the original prints, and changes
//! of dispatchers by `pointsman_bpf::dispatcher`. What it cannot do is here too: JSON, several
//! interfaces, priority 0, changing and replacing what is attached.

mod clean;
mod environment;
mod features;
mod help;
mod load;
mod modify;
mod options;
mod status;
mod unload;

use self::options::{Bad, Matches};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The name that this tool is called by, and that its messages carry.
pub(crate) const NAME: &str = "xdp-loader";

/// How a command ends: with a number of the kernel's or libxdp's, which is cut to a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    /// The command line makes no sense, or something plain failed.
    Failed,
    /// The negative number of an error.
    Error(i32),
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(match end {
            End::Done => 0,
            End::Failed => 1,
            End::Error(number) => (number.wrapping_neg() & 0xff) as u8,
        })
    }
}

/// Runs the tool with the arguments behind its name.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let Some(text) = arguments.iter().map(|argument| argument.to_str()).collect::<Option<Vec<_>>>()
    else {
        complain("arguments are not UTF-8");
        return End::Failed.into();
    };
    command(&text).into()
}

fn command(arguments: &[&str]) -> End {
    let Some((&name, rest)) = arguments.split_first() else {
        return help::of_all();
    };
    let Some(command) = help::find(name) else {
        complain(&format!("Command '{name}' is unknown, try '{NAME} help'."));
        return End::Failed;
    };
    if command.name == "help" {
        return help::of_all();
    }
    match options::parse(command, rest) {
        Ok(matches) if matches.has("help") => help::of(command),
        Ok(matches) if matches.has("version") => help::version(),
        Ok(_) if !rustix::process::geteuid().is_root() => {
            complain("This program must be run as root.");
            End::Failed
        }
        Ok(matches) => carry_out(command, &matches),
        Err(bad) => refuse(command, &bad),
    }
}

fn carry_out(command: &options::Command, matches: &Matches<'_>) -> End {
    let run = match command.name {
        "load" => load::run,
        "unload" => unload::run,
        "status" => status::run,
        "clean" => clean::run,
        "features" => features::run,
        _ => modify::run,
    };
    match run(matches) {
        Ok(end) => end,
        Err(bad) => refuse(command, &bad),
    }
}

fn refuse(command: &options::Command, bad: &Bad) -> End {
    if !bad.message.is_empty() {
        complain(&bad.message);
    }
    if bad.usage {
        let named = if bad.named { format!(" {}", command.name) } else { String::new() };
        say(&format!(
            "\nUsage: {NAME}{named} [options] {}\nUse --help (or -h) to see full option list.\n",
            command.operands
        ));
    }
    End::Failed
}

/// Writes to standard output.
fn say(text: &str) -> End {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => End::Done,
        Err(_) => End::Failed,
    }
}

/// Writes a line to standard error. An error of writing it has nowhere to go.
fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// What the C library says of an error.
fn strerror(number: i32) -> String {
    let text = io::Error::from_raw_os_error(number).to_string();
    text.rsplit_once(" (os error").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// Looks an interface up.
fn interface(name: &str) -> Result<u32, Bad> {
    pointsman_bpf::interface_index(name)
        .map_err(|_| Bad::operand(format!("Couldn't find network interface '{name}'.")))
}

/// The interfaces that a command is for: the first operand and those of `--also`.
fn interfaces<'a>(first: &'a str, matches: &Matches<'a>) -> Result<Vec<(&'a str, u32)>, Bad> {
    let names = std::iter::once(first).chain(matches.all("also"));
    names.map(|name| Ok((name, interface(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_scripts_know() {
        let code = |end: End| format!("{:?}", ExitCode::from(end));
        for (number, byte) in [(16, 240), (17, 239), (2, 254), (22, 234), (95, 161), (7, 249)] {
            assert_eq!(code(End::Error(number)), format!("{:?}", ExitCode::from(byte)));
        }
        assert_eq!(strerror(16), "Device or resource busy");
    }
}
