//! A form on its way through a request.

use super::super::frame::{Oops, page, page_of, page_with, redirect};
use super::super::publisher;
use super::super::session::Visitor;
use super::form::PolicyForm;
use super::view::{Conflict, Editor, Programs};
use crate::app::App;
use crate::db::Precondition;
use crate::problem::Failure;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use pointsman_model::PolicyName;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::PolicySpec;

pub(super) struct Work<'a> {
    pub(super) app: &'a App,
    pub(super) visitor: &'a Visitor,
    /// The revision that the form was opened with; `None`: the policy is new.
    pub(super) revision: Option<u64>,
    pub(super) form: PolicyForm,
    pub(super) programs: Programs,
}

impl Work<'_> {
    fn editor(self) -> Editor {
        Editor::new(self.visitor, self.revision, self.form, &self.programs)
    }

    /// The form as it is now.
    pub(super) fn again(self) -> Response {
        page(&self.editor())
    }

    fn wrong(self, errors: Vec<DocumentError>) -> Response {
        let failure = Failure::invalid("the policy", errors);
        let mut editor = self.editor();
        editor.tell(&failure.problem);
        shown_from(page_of(&failure.problem, &editor), TOP)
    }

    /// What the form says, or what is wrong with it.
    fn read(&self) -> Result<(PolicyName, PolicySpec), Vec<DocumentError>> {
        let name = self
            .form
            .name
            .parse::<PolicyName>()
            .map_err(|error| DocumentError { pointer: "/name".into(), message: error.to_string() });
        match (name, self.form.spec()) {
            (Ok(name), Ok(spec)) => Ok((name, spec)),
            (Ok(_), Err(errors)) => Err(errors),
            (Err(error), Ok(_)) => Err(vec![error]),
            (Err(error), Err(errors)) => Err(std::iter::once(error).chain(errors).collect()),
        }
    }

    pub(super) fn suggest(&mut self, key: u32) {
        let program = self.form.program(key);
        if let Some(summary) = program.and_then(|program| self.programs.summary(program)) {
            self.form.suggest(key, summary);
        }
    }

    pub(super) fn add(mut self, program: &str) -> Response {
        if let Some(summary) = self.programs.summary(program) {
            self.form.add(program, summary);
            return self.again();
        }
        let message = if program.is_empty() {
            "choose a program to add".to_owned()
        } else {
            format!("there is no program {program} in the library")
        };
        self.wrong(vec![DocumentError { pointer: "/add".into(), message }])
    }

    pub(super) async fn diff(self) -> Result<Response, Oops> {
        let (name, spec) = match self.read() {
            Ok(read) => read,
            Err(errors) => return Ok(self.wrong(errors)),
        };
        match publisher::diff(self.app, &name, spec).await {
            Ok(diff) => {
                let mut editor = self.editor();
                editor.diff = Some(diff);
                Ok(shown_from(page(&editor), "outerHTML show:#changes:top"))
            }
            Err(failure) if failure.problem.errors.is_empty() => Err(Oops(failure)),
            Err(failure) => Ok(self.wrong(failure.problem.errors)),
        }
    }

    pub(super) async fn save(self, precondition: Precondition) -> Result<Response, Oops> {
        let (name, spec) = match self.read() {
            Ok(read) => read,
            Err(errors) => return Ok(self.wrong(errors)),
        };
        let put = self.app.put_policy(&self.visitor.caller, &name, spec.clone(), precondition);
        match put.await {
            Ok(_) => Ok(redirect(self.visitor.htmx, &format!("/policies/{name}?saved=yes"))),
            Err(failure) if failure.problem.status == 412 => {
                self.conflict(&name, &spec, failure).await
            }
            Err(failure) if failure.problem.errors.is_empty() => Err(Oops(failure)),
            Err(failure) => Ok(self.wrong(failure.problem.errors)),
        }
    }

    /// Somebody else was faster: both versions, and a way on for each.
    async fn conflict(
        self,
        name: &PolicyName,
        mine: &PolicySpec,
        failure: Failure,
    ) -> Result<Response, Oops> {
        if self.revision.is_none() {
            let message =
                format!("there is a policy {name} already: open it, or choose another name");
            return Ok(self.wrong(vec![DocumentError { pointer: "/name".into(), message }]));
        }
        let theirs = match self.app.db.policy(name).await.map_err(Failure::from) {
            Ok(policy) => policy,
            Err(gone) if gone.problem.status == 404 => return Err(Oops(failure)),
            Err(other) => return Err(Oops(other)),
        };
        let now = self.app.clock.now();
        let mut editor = self.editor();
        editor.conflict = Some(Conflict::new(&theirs, mine, now));
        Ok(shown_from(page_with(StatusCode::PRECONDITION_FAILED, &editor), TOP))
    }
}

/// What is wrong is told above the form.
const TOP: &str = "outerHTML show:#editor:top";

/// Has htmx scroll to where the news is.
fn shown_from(mut response: Response, swap: &'static str) -> Response {
    response.headers_mut().insert("hx-reswap", HeaderValue::from_static(swap));
    response
}
