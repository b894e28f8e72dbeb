//! The nodes of the fleet, and letting new ones in.

use super::frame::{Frame, Oops, page, page_of, redirect};
use super::session::{Posted, Visitor};
use super::text::{When, query};
use crate::app::App;
use crate::db::PageRequest;
use crate::extract::Query;
use crate::problem::Failure;
use crate::service::NodeFilter;
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{Enrolment, EnrolmentRequest, Labels, Node, NodeHealth, Page};
use pointsman_model::{LabelKey, LabelValue};

/// How many nodes are on a page.
const LIMIT: u32 = 50;

pub(super) fn router() -> Router<App> {
    Router::new().route("/nodes", get(list)).route("/nodes/enrol", post(enrol))
}

#[derive(Template)]
#[template(path = "nodes.html")]
struct NodesPage {
    frame: Frame,
    rows: Vec<Row>,
    sought: Sought,
    healths: [NodeHealth; 5],
    /// The address of this list, for polling.
    here: String,
    first: Option<String>,
    next: Option<String>,
    trouble: String,
    enrolment: Option<(Enrolment, When)>,
    /// When the node that has the name already was heard of last.
    taken: Option<When>,
    wrong: Vec<DocumentError>,
    asked: Asked,
}

/// What somebody asked to enrol.
#[derive(Default)]
struct Asked {
    node: String,
    labels: String,
}

struct Row {
    node: Node,
    seen: Option<When>,
}

/// What is looked for, as it was written.
#[derive(Debug, Default)]
struct Sought {
    name: String,
    label: String,
    health: String,
    after: String,
}

impl Sought {
    fn take(query: &mut Query) -> Result<Self, Failure> {
        let mut one = |name| {
            let text = query.one::<crate::extract::Text>(name);
            text.map(|text| text.map_or(String::new(), |text| text.0.trim().to_owned()))
        };
        Ok(Self {
            name: one("name")?,
            label: one("label")?,
            health: one("health")?,
            after: one("after")?,
        })
    }

    fn filter(&self) -> Result<NodeFilter, Failure> {
        let labels = labels(&self.label).map_err(Failure::bad_request)?;
        let health = match self.health.as_str() {
            "" => None,
            text => Some(text.parse().map_err(Failure::bad_request)?),
        };
        Ok(NodeFilter { labels: labels.into_iter().collect(), health, name: self.name.clone() })
    }

    fn place(&self, after: &str) -> String {
        let parameters = [
            ("name", self.name.as_str()),
            ("label", &self.label),
            ("health", &self.health),
            ("after", after),
        ];
        format!("/nodes{}", query(&parameters))
    }
}

/// Labels as people write them: `KEY=VALUE`, with blanks or commas between.
pub(super) fn labels(text: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    for word in words {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("{word:?}: expected KEY=VALUE"))?;
        let key = LabelKey::new(key).map_err(|error| error.to_string())?;
        let value = LabelValue::new(value).map_err(|error| error.to_string())?;
        if labels.insert(key, value).is_some() {
            return Err(format!("the label of {word:?} is given twice"));
        }
    }
    Ok(labels)
}

async fn list(
    visitor: Visitor,
    State(app): State<App>,
    mut query: Query,
) -> Result<Response, Oops> {
    let sought = Sought::take(&mut query)?;
    query.end()?;
    Ok(page(&build(&app, &visitor, sought).await?))
}

async fn build(app: &App, visitor: &Visitor, sought: Sought) -> Result<NodesPage, Failure> {
    let after = Some(sought.after.clone()).filter(|after| !after.is_empty());
    let (found, trouble) = match sought.filter() {
        Ok(filter) => {
            (app.nodes(&filter, &PageRequest { limit: LIMIT, after }).await?, String::new())
        }
        Err(failure) => (Page { items: Vec::new(), next: None }, failure.problem.title),
    };
    let now = app.clock.now();
    let row = |node: Node| Row { seen: When::maybe(node.seen_unix_ms, now), node };
    Ok(NodesPage {
        frame: Frame::new(visitor, "nodes", "Nodes"),
        rows: found.items.into_iter().map(row).collect(),
        healths: NodeHealth::ALL,
        here: sought.place(&sought.after),
        first: (!sought.after.is_empty()).then(|| sought.place("")),
        next: found.next.map(|next| sought.place(&next)),
        sought,
        trouble,
        enrolment: None,
        taken: None,
        wrong: Vec::new(),
        asked: Asked::default(),
    })
}

async fn enrol(State(app): State<App>, posted: Posted) -> Result<Response, Oops> {
    let Posted { visitor, fields } = posted;
    let asked = Asked { node: fields.text("node").into(), labels: fields.text("labels").into() };
    let result = invite(&app, &visitor, &asked).await;
    let mut nodes = build(&app, &visitor, Sought::default()).await?;
    nodes.here = "/nodes".into();
    match result {
        Ok(enrolment) => {
            let ends = When::new(enrolment.expires_unix_ms, app.clock.now());
            let heard = enrolment.seen_unix_ms.max(enrolment.enrolled_unix_ms);
            nodes.taken = When::maybe(heard, app.clock.now());
            nodes.enrolment = Some((enrolment, ends));
            Ok(page(&nodes))
        }
        Err(failure) if failure.problem.errors.is_empty() => Err(Oops(failure)),
        Err(failure) => {
            nodes.wrong = failure.problem.errors.clone();
            nodes.asked = asked;
            Ok(page_of(&failure.problem, &nodes))
        }
    }
}

async fn invite(app: &App, visitor: &Visitor, asked: &Asked) -> Result<Enrolment, Failure> {
    let wrong = |pointer: &str, message: String| {
        Failure::invalid("the form", vec![DocumentError { pointer: pointer.into(), message }])
    };
    let node = asked.node.parse().map_err(|error| wrong("/node", format!("{error}")))?;
    let labels = labels(&asked.labels).map_err(|error| wrong("/labels", error))?;
    let labels = (!labels.is_empty()).then_some(labels);
    app.invite(&visitor.caller, EnrolmentRequest { node, labels, ttl_seconds: None }).await
}

/// Sends whoever changed a node back to it.
pub(super) fn back(visitor: &Visitor, node: &pointsman_model::NodeName) -> Response {
    redirect(visitor.htmx, &format!("/nodes/{node}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_people_write_them() {
        let told = |text| labels(text).map(|labels| labels.len());
        assert_eq!(told(""), Ok(0));
        assert_eq!(told(" a=1, b=2\nc=3 "), Ok(3));
        assert!(told("a").unwrap_err().contains("KEY=VALUE"));
        assert!(told("a=1 a=2").unwrap_err().contains("twice"));
        assert!(told("<b>=1").is_err());
    }
}
