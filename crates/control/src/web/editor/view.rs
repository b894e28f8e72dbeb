//! The editor's page.

use super::super::diff::{Line, Shown, lines, shown};
use super::super::frame::Frame;
use super::super::publisher;
use super::super::session::Visitor;
use super::super::text::When;
use super::super::tokens::wrong_at;
use super::entry::Entry;
use super::form::PolicyForm;
use crate::app::App;
use crate::problem::Failure;
use crate::service::{builtin_summary, is_xdp};
use askama::Template;
use pointsman_model::Action;
use pointsman_model::api::Problem;
use pointsman_model::document::{Builtin, DocumentError};
use pointsman_model::fleet::{ObjectSummary, Policy, PolicyDiff, PolicySpec};
use std::collections::BTreeMap;

/// All programs that there are, by what a policy calls them.
pub(super) struct Programs(BTreeMap<String, ObjectSummary>);

impl Programs {
    pub(super) async fn read(app: &App) -> Result<Self, Failure> {
        let library = app.db.all_programs().await?.into_iter();
        let library = library.map(|program| (program.name.to_string(), program.summary));
        let builtin = Builtin::ALL
            .into_iter()
            .map(|which| (format!("builtin:{which}"), builtin_summary(which).clone()));
        Ok(Self(library.chain(builtin).collect()))
    }

    pub(super) fn summary(&self, program: &str) -> Option<&ObjectSummary> {
        self.0.get(program)
    }
}

#[derive(Template)]
#[template(path = "editor.html")]
pub(super) struct Editor {
    frame: Frame,
    form: PolicyForm,
    /// The revision that the form was opened with; `None`: the policy is new.
    revision: Option<u64>,
    entries: Vec<View>,
    choices: Vec<String>,
    errors: Vec<DocumentError>,
    /// What is wrong as a whole.
    trouble: String,
    pub(super) saved: bool,
    pub(super) diff: Option<PolicyDiff>,
    pub(super) conflict: Option<Conflict>,
}

/// A program of the form, and what is known of it.
struct View {
    at: usize,
    entry: Entry,
    actions: Vec<(&'static str, bool)>,
    /// The XDP programs that it can start at.
    starts: Vec<String>,
    suggestion: Option<String>,
    globals: String,
    maps: String,
    /// Whether the library has it.
    known: bool,
}

/// What somebody else saved meanwhile, and what this form says.
pub(super) struct Conflict {
    revision: u64,
    by: String,
    at: When,
    theirs: String,
    mine: String,
    diff: String,
}

impl Conflict {
    pub(super) fn new(theirs: &Policy, mine: &PolicySpec, now: u64) -> Self {
        let text = |spec: &PolicySpec| {
            serde_json::to_string_pretty(spec).expect("invariant: policies have string keys")
        };
        Self {
            revision: theirs.revision,
            by: theirs.updated_by.clone(),
            at: When::new(theirs.updated_unix_ms, now),
            diff: publisher::difference(Some(&theirs.spec), Some(mine)),
            theirs: text(&theirs.spec),
            mine: text(mine),
        }
    }

    fn lines(&self) -> Vec<Line<'_>> {
        lines(&self.diff)
    }
}

impl Editor {
    pub(super) fn new(
        visitor: &Visitor,
        revision: Option<u64>,
        form: PolicyForm,
        programs: &Programs,
    ) -> Self {
        let title = if revision.is_some() { form.name.clone() } else { "New policy".into() };
        let entries = form.entries.iter().enumerate();
        Self {
            frame: Frame::new(visitor, "policies", title),
            entries: entries.map(|(at, entry)| View::new(at, entry, programs)).collect(),
            choices: programs.0.keys().cloned().collect(),
            form,
            revision,
            errors: Vec::new(),
            trouble: String::new(),
            saved: false,
            diff: None,
            conflict: None,
        }
    }

    /// Shows what is wrong: at the fields where there are such, and above.
    pub(super) fn tell(&mut self, problem: &Problem) {
        self.errors.clone_from(&problem.errors);
        self.trouble.clone_from(&problem.title);
    }

    fn action(&self) -> String {
        match self.revision {
            Some(_) => format!("/policies/{}", self.form.name),
            None => "/new-policy".into(),
        }
    }

    /// What is wrong with a field, or within it.
    fn wrong(&self, pointer: &str) -> String {
        let here =
            self.errors.iter().filter_map(|error| match error.pointer.strip_prefix(pointer)? {
                "" => Some(error.message.clone()),
                within => Some(format!("{}: {}", within.strip_prefix('/')?, error.message)),
            });
        here.collect::<Vec<_>>().join("; ")
    }

    fn wrong_of(&self, view: &View, field: &str) -> String {
        self.wrong(&format!("/chain/{}/{field}", view.at))
    }

    /// What is wrong with the selector as a whole.
    fn wrong_selector(&self) -> String {
        wrong_at(&self.errors, "/selector")
    }

    fn policy_lines(&self) -> Vec<Line<'_>> {
        self.diff.as_ref().map_or_else(Vec::new, |diff| lines(&diff.policy))
    }

    fn nodes(&self) -> Vec<Shown<'_>> {
        self.diff.as_ref().map_or_else(Vec::new, |diff| shown(&diff.nodes))
    }

    fn is_last(&self, view: &View) -> bool {
        view.at + 1 == self.entries.len()
    }
}

impl View {
    fn new(at: usize, entry: &Entry, programs: &Programs) -> Self {
        let summary = programs.summary(&entry.program);
        let usable = |summary: &ObjectSummary| {
            let usable = summary.programs.iter().filter(|program| is_xdp(program));
            usable.map(|program| program.name.clone()).collect::<Vec<_>>()
        };
        let mut starts = summary.map(usable).unwrap_or_default();
        if !entry.entry.is_empty() && !starts.contains(&entry.entry) {
            starts.push(entry.entry.clone());
        }
        let globals = summary.into_iter().flat_map(|summary| &summary.globals);
        let globals = globals.map(|global| format!("{} ({})", global.name, global.kind));
        let maps = summary.into_iter().flat_map(|summary| &summary.maps);
        let maps = maps.map(|map| format!("{} ({})", map.name, map.kind));
        Self {
            at,
            actions: Action::ALL.map(|it| (it.name(), entry.actions.contains(it))).into(),
            starts,
            suggestion: summary.and_then(|summary| suggestion(entry, summary)),
            globals: globals.collect::<Vec<_>>().join(", "),
            maps: maps.collect::<Vec<_>>().join(", "),
            known: summary.is_some(),
            entry: entry.clone(),
        }
    }
}

/// What the author of a program suggests, in words.
fn suggestion(entry: &Entry, summary: &ObjectSummary) -> Option<String> {
    let program = entry.chosen(summary)?;
    let priority = program.suggested_priority.map(|priority| format!("priority {priority}"));
    let actions = program.suggested_actions.map(|actions| format!("going on after {actions}"));
    let parts: Vec<_> = priority.into_iter().chain(actions).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
