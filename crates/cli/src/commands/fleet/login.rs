//! `login`, `logout`, `whoami`.

use super::{Context, given_token, login_file};
use crate::args::fleet::{AccessArgs, LoginArgs};
use crate::control::{self, Control, ControlError, Found, Session};
use crate::error::{CliError, Exit};
use crate::input;
use crate::output::{Output, pretty};
use crate::render::fleet::access;
use crate::render::text::Tone;
use reqwest::Url;
use serde::Serialize;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf, absolute};

/// Longer than any token.
const MAX_TOKEN: usize = 4096;

/// Who one is, and to whom.
#[derive(Debug, Serialize)]
struct Login<'a> {
    #[serde(flatten)]
    found: &'a Found,
    url: &'a str,
}

#[derive(Debug, Serialize)]
struct LoggedOut {
    logged_out: bool,
}

pub(super) async fn login(
    access: &AccessArgs,
    output: &Output,
    args: &LoginArgs,
) -> Result<Exit, CliError> {
    let file = login_file()?;
    let url = match &access.url {
        Some(url) => control::control_url(url)?,
        // Another token for the same control plane.
        None => match Session::load(&file)? {
            Some(session) => control::control_url(&session.url)?,
            None => return Err(ControlError::NoControl.into()),
        },
    };
    if control::is_open(&url) {
        output.say(|look| {
            let head = look.paint(Tone::Warn, "note:");
            format!("{head} {url} is not encrypted: whoever sees the traffic sees the token\n")
        });
    }
    let token = control::token(&token(output, args, &url)?)?;
    let ca = access.ca.as_deref().map(whole_path).transpose()?;
    let session = Session { url: url.to_string(), token, ca };
    let found = Control::new(&session, output.json)?.whoami().await?;
    session.save(&file)?;
    if given_token()?.is_some() {
        output.say(|look| {
            let head = look.paint(Tone::Warn, "note:");
            format!("{head} POINTSMAN_TOKEN is set, and is used instead of the login\n")
        });
    }
    output.answer(&Login { found: &found, url: &session.url }, |_, look| {
        format!("logged in: {}", access::whoami(look, &found, &session.url))
    })?;
    Ok(Exit::Done)
}

/// The login is used from other directories, too.
fn whole_path(path: &Path) -> Result<PathBuf, CliError> {
    absolute(path).map_err(|source| CliError::Read { name: path.display().to_string(), source })
}

fn token(output: &Output, args: &LoginArgs, url: &Url) -> Result<String, CliError> {
    let bytes = match &args.token_file {
        Some(file) => input::read(file, "a token", MAX_TOKEN)?,
        None if io::stdin().is_terminal() => {
            output.say(|_| String::new());
            let asked = rpassword::prompt_password(format!("token for {url}: "));
            return asked.map_err(|source| CliError::Read { name: "the token".into(), source });
        }
        None => input::read(Path::new("-"), "a token", MAX_TOKEN)?,
    };
    String::from_utf8(bytes)
        .map_err(|_| ControlError::Token("a token is one word of printable characters").into())
}

pub(super) fn logout(output: &Output) -> Result<Exit, CliError> {
    let logged_out = Session::remove(&login_file()?)?;
    output.answer(&LoggedOut { logged_out }, |_, _| {
        if logged_out {
            "logged out; the token is good until it is revoked (pointsman fleet token revoke)\n"
        } else {
            "there was no login\n"
        }
        .to_owned()
    })?;
    Ok(Exit::Done)
}

pub(super) async fn whoami(context: &Context<'_>) -> Result<Exit, CliError> {
    let found = context.control.whoami().await?;
    let url = &context.session.url;
    if context.output.json {
        context.output.print(&pretty(&Login { found: &found, url }))?;
    } else {
        context.output.print(&access::whoami(context.output.look(), &found, url))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_the_host_unencrypted_is_warned_of() {
        for (url, open) in [
            ("http://control.example", true),
            ("http://192.0.2.1:8600", true),
            ("http://[2001:db8::1]/", true),
            ("https://control.example", false),
            ("http://localhost:8600", false),
            ("http://127.0.0.1:8600", false),
            ("http://[::1]:8600", false),
            ("http://127.0.0.1.example", true),
        ] {
            assert_eq!(control::is_open(&url.parse().unwrap()), open, "{url}");
        }
    }
}
