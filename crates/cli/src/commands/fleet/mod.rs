//! `pointsman fleet`: one function per verb, over the control plane.

mod edit;
mod login;
mod node;
mod overview;
mod policy;
mod program;
mod progress;
mod publish;
mod record;
mod token;
mod wait;

use super::ask;
use crate::args::fleet::{AccessArgs, FleetArgs, FleetVerb, SureArgs, TOKEN};
use crate::control::{self, Control, ControlError, Session};
use crate::error::{CliError, Exit};
use crate::output::{Look, Output};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// What every verb works with.
struct Context<'a> {
    control: Control,
    session: Session,
    output: &'a Output,
}

/// What was taken away, for programs.
#[derive(Debug, Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

pub(super) async fn run(args: FleetArgs, output: &Output) -> Result<Exit, CliError> {
    let FleetArgs { access, verb } = args;
    match verb {
        FleetVerb::Login(args) => return login::login(&access, output, &args).await,
        FleetVerb::Logout => return login::logout(output),
        _ => {}
    }
    let context = Context::new(&access, output)?;
    match verb {
        FleetVerb::Login(_) | FleetVerb::Logout => Ok(Exit::Done),
        FleetVerb::Whoami => login::whoami(&context).await,
        FleetVerb::Status => overview::status(&context).await,
        FleetVerb::Node(verb) => node::run(&context, verb).await,
        FleetVerb::Enroll(args) => node::enroll(&context, args).await,
        FleetVerb::Program(verb) => program::run(&context, verb).await,
        FleetVerb::Policy(verb) => policy::run(&context, verb).await,
        FleetVerb::Publish(args) => publish::publish(&context, &args).await,
        FleetVerb::Snapshots(args) => overview::snapshots(&context, &args).await,
        FleetVerb::Audit(args) => overview::audit(&context, &args).await,
        FleetVerb::Token(verb) => token::run(&context, verb).await,
    }
}

impl<'a> Context<'a> {
    fn new(access: &AccessArgs, output: &'a Output) -> Result<Self, CliError> {
        let session = control::resolve(access, given_token()?, || Session::load(&login_file()?))?;
        let control = Control::new(&session, output.json)?;
        Ok(Self { control, session, output })
    }

    /// Asks, unless it was said that one is sure.
    fn sure(
        &self,
        what: &'static str,
        sure: &SureArgs,
        question: impl FnOnce(Look) -> String,
    ) -> Result<(), CliError> {
        if sure.yes { Ok(()) } else { ask::confirm(what, self.output, question) }
    }

    fn removed(&self, what: &str, name: &str) -> Result<Exit, CliError> {
        self.output
            .answer(&Removed { removed: name }, |_, _| format!("{what} {name} removed\n"))?;
        Ok(Exit::Done)
    }
}

fn login_file() -> Result<std::path::PathBuf, ControlError> {
    control::file(std::env::var_os)
}

/// The token from the environment. One that is set and empty is none, as in scripts that clear it.
fn given_token() -> Result<Option<String>, ControlError> {
    match std::env::var(TOKEN) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => control::token(&text).map(Some),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(ControlError::Token("POINTSMAN_TOKEN is one word of printable characters"))
        }
    }
}

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn absent(what: &'static str, name: &impl ToString) -> CliError {
    CliError::Absent { what, name: name.to_string() }
}
