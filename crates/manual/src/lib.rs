//! Man pages and shell completions of a binary, out of the command line that it parses.
//!
//! In: a binary's [`Command`]. Out: a [`Manual`], which every binary of Pointsman prints as JSON
//! when it is called with the one word `manual` ([`answer`]); `cargo xtask man`, `completions` and
//! `dist` write it to files. So what is packaged cannot differ from what the binary that is packaged
//! says itself. The word is in no help text: it is for packagers.
#![forbid(unsafe_code)]

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// What a binary is asked with.
pub const WORD: &str = "manual";

/// In which section of the manual a binary's pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// 1: what a person types.
    Commands,
    /// 8: what the system runs.
    Daemons,
}

/// The files of one binary.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manual {
    /// Man pages by file name, such as `pointsman-apply.1`: one of the binary, one of each verb.
    pub pages: BTreeMap<String, String>,
    /// Completion scripts by shell: `bash`, `fish`, `zsh`.
    pub completions: BTreeMap<String, String>,
}

/// Prints the manual of the binary that calls it, if that is what it was asked for: the first thing
/// that its `main` does.
#[must_use]
pub fn answer<Args: CommandFactory>(section: Section) -> Option<ExitCode> {
    if !is_asked(std::env::args_os()) {
        return None;
    }
    match print(Args::command(), section) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            // Not `eprintln`: that would panic where nobody reads.
            let _ = writeln!(io::stderr(), "cannot print the manual: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn is_asked(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments.into_iter().skip(1).eq([WORD])
}

fn print(command: Command, section: Section) -> io::Result<()> {
    let json = serde_json::to_vec(&manual(command, section)?)?;
    let mut out = io::stdout().lock();
    match out.write_all(&json).and_then(|()| out.flush()) {
        // A reader that has seen enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Makes the manual of a command line.
///
/// # Errors
/// Help texts that cannot be rendered.
pub fn manual(command: Command, section: Section) -> io::Result<Manual> {
    let mut manual = Manual::default();
    // Else there were a page and a completion about the verb `help` of every verb.
    let mut command = command.disable_help_subcommand(true);
    let name = command.get_name().to_owned();
    let mut completed = without_hidden_verbs(&command);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut completed, &name, &mut script);
        manual.completions.insert(shell.to_string(), text(script)?);
    }
    command.build();
    let source = format!("{name} {}", command.get_version().unwrap_or_default());
    add_pages(&command, section, source.trim_end(), &mut manual.pages)?;
    Ok(manual)
}

/// What completions are made of. They would offer hidden verbs, and a verb cannot be taken out of a
/// command: where there is one, a new command is made of what completions are made of.
fn without_hidden_verbs(command: &Command) -> Command {
    let mut rest = command.clone();
    if command.get_subcommands().any(Command::is_hide_set) {
        rest = Command::new(command.get_name().to_owned())
            .args(command.get_arguments().cloned())
            .disable_help_subcommand(true);
        if let Some(about) = command.get_about() {
            rest = rest.about(about.clone());
        }
        if let Some(version) = command.get_version() {
            rest = rest.version(version.to_owned());
        }
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        rest = rest.subcommands(verbs.cloned());
    }
    let names: Vec<_> = rest.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    names
        .into_iter()
        .fold(rest, |rest, name| rest.mut_subcommand(name, |verb| without_hidden_verbs(&verb)))
}

fn add_pages(
    command: &Command,
    section: Section,
    source: &str,
    pages: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        add_pages(verb, section, source, pages)?;
    }
    let number = match section {
        Section::Commands => "1",
        Section::Daemons => "8",
    };
    let man = Man::new(command.clone()).section(number).source(source).manual("Pointsman");
    let mut page = Vec::new();
    man.render(&mut page)?;
    pages.insert(man.get_filename(), text(page)?);
    Ok(())
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        Command::new("points")
            .version("1.2.3")
            .about("Works the points")
            .arg(Arg::new("node").long("node").global(true).help("Whose points"))
            .subcommand(Command::new("throw").about("Throw one").arg(Arg::new("which")))
            .subcommand(Command::new("secret").hide(true))
            .subcommand(
                Command::new("track")
                    .subcommand(Command::new("list").about("List tracks"))
                    .subcommand(Command::new("buried").hide(true)),
            )
    }

    #[test]
    fn every_verb_has_a_page_but_hidden_ones() {
        let manual = manual(command(), Section::Daemons).unwrap();
        let names: Vec<_> = manual.pages.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["points-throw.8", "points-track-list.8", "points-track.8", "points.8"],
            "and none of a verb `help`"
        );
        let page = &manual.pages["points.8"];
        for part in [".TH points 8", "points 1.2.3", "Works the points", "Whose points"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for part in ["Throw one", "points 1.2.3"] {
            assert!(manual.pages["points-throw.8"].contains(part), "{part}");
        }
        assert!(manual.pages.values().all(|page| !page.contains("secret")));
    }

    #[test]
    fn every_shell_completes_all_but_hidden_verbs() {
        let manual = manual(command(), Section::Commands).unwrap();
        let shells: Vec<_> = manual.completions.keys().map(String::as_str).collect();
        assert_eq!(shells, ["bash", "fish", "zsh"]);
        for (shell, script) in &manual.completions {
            for offered in ["throw", "track", "list", "node"] {
                assert!(script.contains(offered), "{shell}: {offered}");
            }
            for hidden in ["secret", "buried"] {
                assert!(!script.contains(hidden), "{shell}: {hidden}");
            }
        }
    }

    #[test]
    fn it_is_asked_for_by_one_word_alone() {
        let asked = |line: &str| is_asked(line.split(' ').map(OsString::from));
        assert!(asked("/usr/bin/points manual"));
        for other in ["points", "manual", "points manual more", "points --node manual", "points -h"]
        {
            assert!(!asked(other), "{other}");
        }
    }
}
