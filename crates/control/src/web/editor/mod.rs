//! The policy editor. Every button sends the whole form; what comes back is the form again, with
//! what the button did, what is wrong, or what would change. Only saving changes anything.

mod entry;
mod form;
mod view;
mod work;

use super::frame::{Oops, page};
use super::session::{Posted, Visitor};
use crate::app::App;
use crate::db::Precondition;
use crate::extract::{Named, Query, Text};
use crate::problem::Failure;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use form::PolicyForm;
use pointsman_model::PolicyName;
use pointsman_model::fleet::{Policy, Role};
use view::{Editor, Programs};
use work::Work;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/new-policy", get(blank).post(create))
        .route("/policies/{name}", get(open).post(change))
}

/// What a button asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Do<'a> {
    Save,
    /// Saves over a revision that somebody else made meanwhile.
    Overwrite(u64),
    Diff,
    Add,
    /// Programs were dragged.
    Order,
    Shift {
        key: u32,
        up: bool,
    },
    Remove(u32),
    Suggest(u32),
    Unknown(&'a str),
}

impl<'a> Do<'a> {
    fn parse(text: &'a str) -> Self {
        let (verb, number) = text.split_once(':').unwrap_or((text, ""));
        let key = || number.parse::<u32>().ok();
        let asked = match verb {
            "save" => Some(Self::Save),
            // A form that is sent by pressing the enter key is not saved by accident.
            "diff" | "" => Some(Self::Diff),
            "add" => Some(Self::Add),
            "order" => Some(Self::Order),
            "up" => key().map(|key| Self::Shift { key, up: true }),
            "down" => key().map(|key| Self::Shift { key, up: false }),
            "remove" => key().map(Self::Remove),
            "suggest" => key().map(Self::Suggest),
            "overwrite" => number.parse().ok().map(Self::Overwrite),
            _ => None,
        };
        asked.unwrap_or(Self::Unknown(text))
    }
}

async fn blank(visitor: Visitor, State(app): State<App>) -> Result<Response, Oops> {
    visitor.caller.expect(Role::Operator)?;
    let programs = Programs::read(&app).await?;
    Ok(page(&Editor::new(&visitor, None, PolicyForm::blank(), &programs)))
}

async fn open(
    visitor: Visitor,
    State(app): State<App>,
    Named(name): Named<PolicyName>,
    mut query: Query,
) -> Result<Response, Oops> {
    let saved = query.one::<Text>("saved")?.is_some();
    query.end()?;
    let Policy { revision, spec, .. } = app.db.policy(&name).await?;
    let programs = Programs::read(&app).await?;
    let form = PolicyForm::of(name.as_str(), &spec);
    let mut editor = Editor::new(&visitor, Some(revision), form, &programs);
    editor.saved = saved;
    Ok(page(&editor))
}

async fn create(State(app): State<App>, posted: Posted) -> Result<Response, Oops> {
    handle(&app, posted, None).await
}

async fn change(
    State(app): State<App>,
    Named(name): Named<PolicyName>,
    posted: Posted,
) -> Result<Response, Oops> {
    handle(&app, posted, Some(name)).await
}

async fn handle(
    app: &App,
    Posted { visitor, fields }: Posted,
    name: Option<PolicyName>,
) -> Result<Response, Oops> {
    visitor.caller.expect(Role::Operator)?;
    let mut form = PolicyForm::sent(&fields);
    let revision = match &name {
        None => None,
        Some(name) => {
            form.name = name.to_string();
            let revision = fields.text("revision").parse::<u64>();
            Some(revision.map_err(|_| Failure::bad_request("the form has no revision"))?)
        }
    };
    let programs = Programs::read(app).await?;
    let mut work = Work { app, visitor: &visitor, revision, form, programs };
    match Do::parse(fields.text("do")) {
        Do::Save => {
            let precondition = revision.map_or(Precondition::Absent, Precondition::Revision);
            return work.save(precondition).await;
        }
        Do::Overwrite(revision) => {
            work.revision = Some(revision);
            return work.save(Precondition::Revision(revision)).await;
        }
        Do::Diff => return work.diff().await,
        Do::Add => return Ok(work.add(fields.text("program"))),
        Do::Order => work.form.renumber(),
        Do::Shift { key, up } => work.form.shift(key, up),
        Do::Remove(key) => work.form.remove(key),
        Do::Suggest(key) => work.suggest(key),
        Do::Unknown(asked) => {
            let title = format!("there is nothing called {asked:?} to do with this form");
            return Err(Oops(Failure::bad_request(title)));
        }
    }
    Ok(work.again())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buttons_say_what_to_do() {
        assert_eq!(Do::parse("save"), Do::Save);
        assert_eq!(Do::parse(""), Do::Diff);
        assert_eq!(Do::parse("up:7"), Do::Shift { key: 7, up: true });
        assert_eq!(Do::parse("overwrite:9"), Do::Overwrite(9));
        for unknown in ["up", "up:x", "remove:", "nonsense", "save!"] {
            assert_eq!(Do::parse(unknown), Do::Unknown(unknown));
        }
    }
}
