//! One node: what runs on it, and what it answers to packets now.

use super::frame::{Frame, Oops, page, page_of, redirect};
use super::nodes::{back, labels};
use super::rates::{self, ProgramRates};
use super::session::{Posted, Visitor};
use super::text::{When, grouped};
use crate::app::App;
use crate::db::{Precondition, ReportRow};
use crate::extract::Named;
use crate::problem::Failure;
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use pointsman_model::NodeName;
use pointsman_model::fleet::{CourierStatus, Node, NodeHealth};
use pointsman_model::status::{Counters, HookState, HookStatus, Status};
use serde::de::DeserializeOwned;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/nodes/{name}", get(show))
        .route("/nodes/{name}/live", get(live))
        .route("/nodes/{name}/labels", post(label))
        .route("/nodes/{name}/delete", post(delete))
}

#[derive(Template)]
#[template(path = "node.html")]
struct NodePage {
    frame: Frame,
    live: Live,
    labels: String,
    wrong: String,
}

/// The part that is fetched again and again.
#[derive(Template)]
#[template(path = "node_live.html")]
struct Live {
    node: Node,
    enrolled: Option<When>,
    seen: Option<When>,
    reported: Option<When>,
    courier: Option<CourierStatus>,
    status: Option<Status>,
    refused: Vec<Refused>,
    notes: Vec<String>,
    hooks: Vec<Hook>,
    /// Over which time the rates are, such as `10.0 s`; empty: there are none.
    over: String,
}

/// What the node did not take.
struct Refused {
    what: &'static str,
    message: String,
    when: Option<When>,
}

struct Hook {
    status: HookStatus,
    class: &'static str,
    state: &'static str,
    troubles: Vec<String>,
    members: Vec<Member>,
    /// Programs that were in the chain once and still have counters.
    gone: Vec<String>,
    passed_end: String,
}

struct Member {
    at: usize,
    name: String,
    entry: String,
    priority: u32,
    actions: String,
    enforce: bool,
    form: String,
    runs: String,
    rates: Option<[(&'static str, String); 6]>,
}

async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named(name): Named<NodeName>,
) -> Result<Response, Oops> {
    let live = read(&app, &name).await?;
    let labels = written(&live.node);
    let frame = Frame::new(&visitor, "nodes", name.as_str());
    Ok(page(&NodePage { frame, live, labels, wrong: String::new() }))
}

async fn live(
    _: Visitor,
    State(app): State<App>,
    Named(name): Named<NodeName>,
) -> Result<Response, Oops> {
    Ok(page(&read(&app, &name).await?))
}

fn written(node: &Node) -> String {
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
    labels.collect::<Vec<_>>().join(" ")
}

/// Reads the revision of a form.
pub(super) fn revision(text: &str) -> Result<Precondition, Failure> {
    let revision = text.parse().map_err(|_| Failure::bad_request("the form has no revision"))?;
    Ok(Precondition::Revision(revision))
}

async fn label(
    State(app): State<App>,
    Named(name): Named<NodeName>,
    Posted { visitor, fields }: Posted,
) -> Result<Response, Oops> {
    let text = fields.text("labels");
    let precondition = revision(fields.text("revision"))?;
    let wanted = labels(text).map_err(Failure::bad_request);
    let result = match wanted {
        Ok(labels) => app.label(&visitor.caller, &name, &labels, precondition).await,
        Err(failure) => Err(failure),
    };
    match result {
        Ok(_) => Ok(back(&visitor, &name)),
        Err(failure) if matches!(failure.problem.status, 400 | 412 | 422) => {
            let live = read(&app, &name).await?;
            let frame = Frame::new(&visitor, "nodes", name.as_str());
            let wrong = failure.problem.title.clone();
            Ok(page_of(&failure.problem, &NodePage { frame, live, labels: text.into(), wrong }))
        }
        Err(failure) => Err(Oops(failure)),
    }
}

async fn delete(
    State(app): State<App>,
    Named(name): Named<NodeName>,
    Posted { visitor, fields }: Posted,
) -> Result<Response, Oops> {
    let precondition = revision(fields.text("revision"))?;
    app.delete_node(&visitor.caller, &name, precondition).await?;
    Ok(redirect(visitor.htmx, "/nodes"))
}

async fn read(app: &App, name: &NodeName) -> Result<Live, Failure> {
    let node = app.node(name).await?;
    let report = app.db.report(name).await?;
    Ok(build(node, report.as_ref(), app.clock.now()))
}

/// What a node of another version reports may not be understood: then it is left out.
fn parsed<T: DeserializeOwned>(json: Option<&String>) -> Option<T> {
    json.and_then(|json| serde_json::from_str(json).ok())
}

fn build(node: Node, report: Option<&ReportRow>, now: u64) -> Live {
    let courier = parsed(report.map(|report| &report.courier));
    let status: Option<Status> = parsed(report.and_then(|report| report.status.as_ref()));
    let counters: Option<Counters> = parsed(report.and_then(|report| report.counters.as_ref()));
    let before: Option<Counters> =
        parsed(report.and_then(|report| report.counters_before.as_ref()));
    let rates = counters.as_ref().map(|now| rates::rates(before.as_ref(), now));
    let rates = rates.unwrap_or_default();
    let passed = before.zip(counters.as_ref()).and_then(|(before, now)| {
        now.at_unix_ms.checked_sub(before.at_unix_ms).filter(|&ms| ms > 0)
    });
    let hooks = status.iter().flat_map(|status| &status.hooks);
    Live {
        enrolled: When::maybe(node.enrolled_unix_ms, now),
        seen: When::maybe(node.seen_unix_ms, now),
        reported: When::maybe(report.and_then(|report| report.counters_ms), now),
        refused: status.as_ref().map_or_else(Vec::new, |status| refused(status, now)),
        notes: status.as_ref().map_or_else(Vec::new, notes),
        hooks: hooks.map(|hook| self::hook(hook, &rates)).collect(),
        over: passed.map_or(String::new(), |ms| format!("{:.1} s", ms as f64 / 1000.0)),
        node,
        courier,
        status,
    }
}

fn refused(status: &Status, now: u64) -> Vec<Refused> {
    let mut all = Vec::new();
    if let Some(it) = status.fleet.as_ref().and_then(|fleet| fleet.refused.as_ref()) {
        let when = Some(When::new(it.at_unix_ms, now));
        let message = format!("{} ({})", it.message, it.kind);
        all.push(Refused { what: "refused a snapshot", message, when });
    }
    if let Some(it) = &status.refused_document {
        let when = Some(When::new(it.at_unix_ms, now));
        let errors: Vec<_> = it.errors.iter().map(ToString::to_string).collect();
        let message = format!("{}: {}", it.source, errors.join("; "));
        all.push(Refused { what: "refused a document", message, when });
    }
    for it in &status.refusals {
        all.push(Refused { what: "refused", message: it.message.clone(), when: None });
    }
    all
}

fn notes(status: &Status) -> Vec<String> {
    let warnings = status.warnings.iter();
    let warnings = warnings.map(|it| format!("{}: {}", it.hook.interface, it.message));
    let notes = status.notes.iter().map(|note| match &note.hook {
        Some(hook) => format!("{}: {}", hook.interface, note.message),
        None => note.message.clone(),
    });
    warnings.chain(notes).collect()
}

fn hook(status: &HookStatus, rates: &[ProgramRates]) -> Hook {
    let (state, class) = match status.state {
        HookState::Running => ("running", "well"),
        HookState::Outdated => ("an older chain runs", "failing"),
        HookState::Absent => ("nothing runs", "silent"),
        HookState::Pending => ("waits for its interface", "behind"),
        HookState::Drifted => ("changed by somebody else", "failing"),
        HookState::Bypassed => ("bypassed by an operator", "failing"),
    };
    let refusals = status.refusals.iter().map(|refusal| refusal.message.clone());
    let drift = status.drift.iter().map(|drift| drift.message.clone());
    let troubles = refusals.chain(drift).chain(status.pending.iter().cloned());
    let here: Vec<_> = rates.iter().filter(|rates| rates.hook == status.hook).collect();
    let members = status.members.iter().enumerate().map(|(at, member)| {
        let counted = here.iter().find(|rates| rates.program == member.program);
        Member {
            at: at + 1,
            name: member.program.to_string(),
            entry: member.entry.to_string(),
            priority: member.priority,
            actions: member.chain_call_actions.to_string(),
            enforce: member.enforce,
            form: member.form.to_string(),
            runs: grouped(counted.map_or(member.runs, |counted| counted.total.runs)),
            rates: counted.and_then(|counted| counted.rates).map(|rates| {
                [
                    ("packets", rates.runs),
                    ("pass", rates.pass),
                    ("drop", rates.drop),
                    ("tx", rates.tx),
                    ("redirect", rates.redirect),
                    ("aborted", rates.aborted),
                ]
                .map(|(verdict, rate)| (verdict, rates::shown(rate)))
            }),
        }
    });
    Hook {
        class,
        state,
        troubles: troubles.collect(),
        members: members.collect(),
        gone: here.iter().filter(|it| !it.running).map(|it| it.program.to_string()).collect(),
        passed_end: grouped(status.passed_end),
        status: status.clone(),
    }
}

impl Live {
    /// One line for who listens: read out when it changes.
    fn line(&self) -> String {
        let why = if self.node.trouble.is_empty() {
            String::new()
        } else {
            format!(": {}", self.node.trouble)
        };
        format!("{} is {}{why}", self.node.name, self.node.health)
    }

    fn is_silent(&self) -> bool {
        self.node.health == NodeHealth::Silent
    }
}
