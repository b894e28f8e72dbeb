//! `fleet policy edit`: an editor between a read and a write.
//!
//! What somebody wrote is in a file until it is saved; whatever fails, the file stays and the
//! error names it.

use super::policy::{find, saved};
use super::{Context, ask};
use crate::args::fleet::EditArgs;
use crate::control::Revision;
use crate::error::{CliError, Exit};
use crate::json;
use crate::render::fleet::policy as render;
use crate::render::text::{Tone, one_line, printable};
use pointsman_model::api::ProblemKind;
use pointsman_model::document::MAX_BYTES;
use pointsman_model::fleet::{Policy, PolicySpec};
use serde_json::Value;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub(super) async fn edit(context: &Context<'_>, args: &EditArgs) -> Result<Exit, CliError> {
    let policy = find(context, &args.name).await?;
    let draft = Draft::new(&policy)?;
    let session = Editing { context, args, base: policy, draft: &draft };
    match session.run().await {
        Ok(exit) => Ok(exit),
        Err(error) => Err(draft.keep(error)),
    }
}

/// A file that is edited.
struct Draft {
    directory: TempDir,
    file: PathBuf,
    first: String,
}

impl Draft {
    fn new(policy: &Policy) -> Result<Self, CliError> {
        let failed = |source| CliError::Write { name: "a file to edit".into(), source };
        // Nobody else gets into it.
        let directory = tempfile::Builder::new().prefix("pointsman-").tempdir().map_err(failed)?;
        let file = directory.path().join(format!("{}.json", policy.name));
        let first = text(&value(&policy.spec));
        let draft = Self { directory, file, first };
        draft.write(&draft.first)?;
        Ok(draft)
    }

    fn write(&self, text: &str) -> Result<(), CliError> {
        std::fs::write(&self.file, text)
            .map_err(|source| CliError::Write { name: self.file.display().to_string(), source })
    }

    fn read(&self) -> Result<String, CliError> {
        let bytes = crate::input::read(&self.file, "a policy", MAX_BYTES)?;
        String::from_utf8(bytes).map_err(|error| {
            let source = io::Error::new(io::ErrorKind::InvalidData, error);
            CliError::Read { name: self.file.display().to_string(), source }
        })
    }

    /// Keeps the file if there is something in it that nobody has anywhere else.
    fn keep(self, error: CliError) -> CliError {
        let untouched = self.read().is_ok_and(|text| text == self.first);
        if untouched || !self.file.exists() {
            return error;
        }
        let name = self.file.file_name().map(ToOwned::to_owned).unwrap_or_default();
        let file = self.directory.keep().join(name);
        CliError::Kept { error: Box::new(error), file }
    }
}

struct Editing<'a> {
    context: &'a Context<'a>,
    args: &'a EditArgs,
    /// What the text is a change of.
    base: Policy,
    draft: &'a Draft,
}

/// What comes next.
enum Next {
    Edit,
    Check,
    End(Exit),
}

impl Editing<'_> {
    async fn run(mut self) -> Result<Exit, CliError> {
        let mut next = Next::Edit;
        loop {
            next = match next {
                Next::End(exit) => return Ok(exit),
                Next::Edit => {
                    run_editor(&self.draft.file)?;
                    Next::Check
                }
                Next::Check => self.check().await?,
            };
        }
    }

    async fn check(&mut self) -> Result<Next, CliError> {
        let written = self.draft.read()?;
        let ours: Value = match serde_json::from_str(&written) {
            Ok(ours) => ours,
            Err(error) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, error);
                return self.again(CliError::Read { name: "what was written".into(), source });
            }
        };
        if ours == value(&self.base.spec) {
            let policy = &self.base;
            self.context.output.answer(policy, |policy, _| {
                format!("policy {} stays as it is (revision {})\n", policy.name, policy.revision)
            })?;
            return Ok(Next::End(Exit::Done));
        }
        let name = &self.args.name;
        let control = &self.context.control;
        if !self.args.yes {
            ask::needs_terminal("save")?;
            let would = match control.diff_policy(name, Some(written.clone().into_bytes())).await {
                Ok(would) => would,
                Err(error) => return self.again(error.into()),
            };
            let answer = ask::ask(self.context.output, |look| {
                let diff = render::diff(look, name, &would);
                format!("{diff}save policy {name}? [y]es, [N]o, [e]dit again ")
            })?;
            match answer.as_str() {
                "y" | "yes" => {}
                "e" | "edit" => return Ok(Next::Edit),
                _ => return Err(CliError::Declined { what: "save" }),
            }
        }
        let only = Revision::At(self.base.revision);
        match control.put_policy(name, only, written.into_bytes()).await {
            Ok(policy) => saved(self.context, &policy, Some(self.base.revision)).map(Next::End),
            Err(error) if error.is(ProblemKind::PreconditionFailed) => self.meanwhile(&ours).await,
            Err(error) => self.again(error.into()),
        }
    }

    /// What was written is no good: the editor comes back, if somebody is there.
    fn again(&self, error: CliError) -> Result<Next, CliError> {
        // An unreachable control plane is nothing that an editor mends.
        let mends = error.problem().is_some_and(|problem| {
            matches!(
                problem.kind,
                ProblemKind::InvalidDocument | ProblemKind::BadRequest | ProblemKind::Conflict
            )
        }) || matches!(error, CliError::Read { .. });
        if !mends || !io::stdin().is_terminal() || self.args.yes {
            return Err(error);
        }
        let answer = ask::ask(self.context.output, |look| {
            let mut text = look.paint(Tone::Bad, &printable(&error.to_string()));
            for error in error.problem().map_or(&[][..], |problem| &problem.errors) {
                text += &format!("\n{}", one_line(&error.to_string()));
            }
            text + "\nedit again? [Y/n] "
        })?;
        match answer.as_str() {
            "" | "y" | "yes" | "e" | "edit" => Ok(Next::Edit),
            _ => Err(error),
        }
    }

    /// Somebody else changed the policy since it was read.
    async fn meanwhile(&mut self, ours: &Value) -> Result<Next, CliError> {
        let name = &self.args.name;
        let Some(theirs) = self.context.control.policy(name).await? else {
            return Err(CliError::Removed { what: "policy", name: name.to_string() });
        };
        let merged = json::merge(&value(&self.base.spec), ours, &value(&theirs.spec));
        let (by, revision) = (one_line(&theirs.updated_by), theirs.revision);
        if merged.conflicts.is_empty() {
            self.draft.write(&text(&merged.value))?;
            self.context.output.say(|look| {
                let head = look.paint(Tone::Warn, "note:");
                format!(
                    "{head} {by} changed it meanwhile (revision {revision}); both changes are \
                     put together\n"
                )
            });
            self.base = theirs;
            return Ok(Next::Check);
        }
        let places = merged.conflicts.join(", ");
        let error = CliError::Conflict { by, revision, places };
        if !io::stdin().is_terminal() || self.args.yes {
            return Err(error);
        }
        self.draft.write(&text(&merged.value))?;
        let (before, after) = (value(&self.base.spec), value(&theirs.spec));
        let answer = ask::ask(self.context.output, |look| {
            let mut question = look.paint(Tone::Bad, &error.to_string()) + "\ntheirs:\n";
            for change in json::changes(Some(&before), Some(&after)) {
                let now = change.after.map_or_else(|| "removed".to_owned(), Value::to_string);
                question += &one_line(&format!("  {}: {now}", change.pointer));
                question.push('\n');
            }
            question + "the editor has yours there, and theirs elsewhere. edit again? [Y/n] "
        })?;
        match answer.as_str() {
            "" | "y" | "yes" | "e" | "edit" => {
                self.base = theirs;
                Ok(Next::Edit)
            }
            _ => Err(error),
        }
    }
}

fn value(spec: &PolicySpec) -> Value {
    serde_json::to_value(spec).expect("invariant: API values have text keys only")
}

/// A policy as it is edited: its fields in the order in which they are documented, if it is one.
fn text(value: &Value) -> String {
    match serde_json::from_value::<PolicySpec>(value.clone()) {
        Ok(spec) => crate::output::pretty(&spec),
        Err(_) => crate::output::pretty(value),
    }
}

/// Runs the user's editor, the way git does: the variable may hold arguments.
fn run_editor(file: &Path) -> Result<(), CliError> {
    let chosen = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()));
    let editor = chosen.unwrap_or_else(|| "vi".to_owned());
    let failed = |why: String| CliError::Editor { editor: editor.clone(), why };
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{editor} \"$@\""))
        .arg(&editor)
        .arg(file)
        .status()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(format!("failed ({status})"))) }
}
