//! Publishing: what would change, doing it, and how far nodes have come.

use super::diff::{Shown, shown};
use super::frame::{Frame, Oops, page};
use super::session::{Posted, Visitor};
use super::text::{When, size};
use crate::app::App;
use crate::db::{NodeRow, PageRequest};
use crate::health::judge;
use crate::problem::Failure;
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use pointsman_model::fleet::{NodeHealth, NodeOutcome, PublishReport, PublishRequest, Snapshot};

/// How many snapshots, and how many nodes that are late, are shown.
const SHOWN: usize = 20;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/publish", get(show).post(publish))
        .route("/publish/progress", get(progress))
}

#[derive(Template)]
#[template(path = "publish.html")]
struct PublishPage<'a> {
    frame: Frame,
    snapshots: Vec<(Snapshot, When, String)>,
    progress: Progress,
    report: Option<Told<'a>>,
    allow_empty: bool,
    /// What records are signed with: its id, and the public key itself.
    key: (String, String),
    /// That publishing fails: since when, the last time, how often, and why.
    trouble: Option<(When, When, u64, String)>,
}

/// What was, or would be, published.
struct Told<'a> {
    report: &'a PublishReport,
    dry: bool,
    nodes: Vec<Shown<'a>>,
    would_empty: usize,
}

#[derive(Template)]
#[template(path = "publish_progress.html")]
struct Progress {
    /// How many nodes have a record.
    nodes: usize,
    /// On how many of them it is in force.
    done: usize,
    /// Those that it is not in force on, the first of them: their name, health and why.
    late: Vec<(String, NodeHealth, String)>,
    more: usize,
}

async fn show(visitor: Visitor, State(app): State<App>) -> Result<Response, Oops> {
    Ok(page(&build(&app, &visitor, None, false).await?))
}

async fn progress(_: Visitor, State(app): State<App>) -> Result<Response, Oops> {
    Ok(page(&look(&app).await?))
}

async fn publish(
    State(app): State<App>,
    Posted { visitor, fields }: Posted,
) -> Result<Response, Oops> {
    let dry_run = fields.text("do") != "publish";
    let allow_empty = fields.has("allow_empty");
    let request = PublishRequest { dry_run, allow_empty };
    let report = super::publisher::publish(&app, &visitor.caller, request).await?;
    let told = Told {
        dry: dry_run,
        nodes: shown(&report.nodes),
        would_empty: report
            .nodes
            .iter()
            .filter(|node| node.outcome == NodeOutcome::WouldEmpty)
            .count(),
        report: &report,
    };
    Ok(page(&build(&app, &visitor, Some(told), allow_empty).await?))
}

async fn build<'a>(
    app: &App,
    visitor: &Visitor,
    report: Option<Told<'a>>,
    allow_empty: bool,
) -> Result<PublishPage<'a>, Failure> {
    let now = app.clock.now();
    let limit = u32::try_from(SHOWN).unwrap_or(u32::MAX);
    let key = app.publisher.public_key();
    let trouble = app.publisher.standing().trouble;
    let snapshots = app.db.snapshots(&PageRequest { limit, after: None }).await?.items.into_iter();
    let snapshots = snapshots.map(|snapshot| {
        let (at, bytes) = (When::new(snapshot.at_unix_ms, now), size(snapshot.bytes_written));
        (snapshot, at, bytes)
    });
    Ok(PublishPage {
        frame: Frame::new(visitor, "publish", "Publish"),
        snapshots: snapshots.collect(),
        progress: look(app).await?,
        report,
        allow_empty,
        key: (key.key_id(), key.to_base64().to_owned()),
        trouble: trouble.map(|trouble| {
            let when = |at| When::new(at, now);
            let (since, last) = (when(trouble.since_unix_ms), when(trouble.last_unix_ms));
            (since, last, trouble.times, trouble.message)
        }),
    })
}

async fn look(app: &App) -> Result<Progress, Failure> {
    Ok(count(&app.db.all_nodes().await?, app.clock.now()))
}

fn count(nodes: &[NodeRow], now: u64) -> Progress {
    let mut progress = Progress { nodes: 0, done: 0, late: Vec::new(), more: 0 };
    for node in nodes.iter().filter(|node| node.published.is_some()) {
        progress.nodes += 1;
        let in_force = node.standing.as_ref().and_then(|standing| standing.in_force);
        if in_force == node.published {
            progress.done += 1;
        } else if progress.late.len() < SHOWN {
            let (health, why) = judge(node, now);
            progress.late.push((node.name.to_string(), health, why));
        } else {
            progress.more += 1;
        }
    }
    progress
}

impl Progress {
    fn is_done(&self) -> bool {
        self.done == self.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Standing;
    use pointsman_model::NodeName;

    #[test]
    fn nodes_are_done_when_what_was_published_is_in_force() {
        let node = |number: usize, published, in_force| NodeRow {
            name: NodeName::new(format!("n{number}")).unwrap(),
            revision: 1,
            labels: Default::default(),
            enrolled_ms: Some(1),
            invited_until_ms: None,
            seen_ms: None,
            standing: Some(Standing { in_force, ..Standing::default() }),
            courier: None,
            published,
        };
        let mut nodes = vec![node(0, None, None), node(1, Some(2), Some(2))];
        let progress = count(&nodes, 0);
        assert_eq!((progress.nodes, progress.done, progress.is_done()), (1, 1, true));
        nodes.extend((2..30).map(|number| node(number, Some(2), Some(1))));
        let progress = count(&nodes, 0);
        assert_eq!((progress.nodes, progress.done, progress.is_done()), (29, 1, false));
        assert_eq!((progress.late.len(), progress.more), (SHOWN, 8));
    }
}
