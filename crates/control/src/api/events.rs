//! What happens, as it happens, for the web pages.

use crate::app::App;
use crate::auth::Onlooker;
use crate::events::{Event as Happened, Listener, Told};
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use pointsman_model::NodeName;
use pointsman_model::api::Problem;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What happens within this time is told at once, and each thing once: a large fleet reports
/// thousands of times a second, and nobody reads that fast.
const TOGETHER: Duration = Duration::from_millis(500);

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// What happens, as server-sent events: `node` with its name, `changed` with what was changed,
/// `published` with the snapshot's number; `missed` if there was more than could be told. Ends
/// when the token or the session does.
#[utoipa::path(get, path = "/v1/events", tag = "service", responses(
    (status = 200, body = String, content_type = "text/event-stream"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn events(
    onlooker: Onlooker,
    State(app): State<App>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let listener = app.events.listen();
    let batches = stream::unfold((listener, onlooker), |(mut listener, onlooker)| async move {
        let batch = batch(&mut listener).await?;
        onlooker.check().await.ok()?;
        Some((stream::iter(batch.into_iter().map(Ok)), (listener, onlooker)))
    });
    Sse::new(futures_util::StreamExt::flatten(batches)).keep_alive(KeepAlive::default())
}

/// Waits for something to happen, and then for what follows it closely. `None`: nothing will.
async fn batch(listener: &mut Listener) -> Option<Vec<Event>> {
    let mut batch = Batch::default();
    if !batch.take(listener.next().await) {
        return None;
    }
    let end = tokio::time::sleep(TOGETHER);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            told = listener.next() => if !batch.take(told) { break },
        }
    }
    Some(batch.events())
}

/// What happened, each thing once.
#[derive(Debug, Default)]
struct Batch {
    nodes: BTreeSet<NodeName>,
    changed: BTreeSet<String>,
    published: Option<u64>,
    missed: bool,
}

impl Batch {
    /// Whether there may be more.
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::Event(Happened::Node { name }) => drop(self.nodes.insert(name)),
            Told::Event(Happened::Changed { object }) => drop(self.changed.insert(object)),
            Told::Event(Happened::Published { snapshot }) => self.published = Some(snapshot),
            Told::Missed => self.missed = true,
            Told::End => return false,
        }
        true
    }

    fn events(self) -> Vec<Event> {
        let event = |kind: &str, data: &str| Event::default().event(kind).data(data);
        let mut events: Vec<_> =
            self.changed.iter().map(|object| event("changed", object)).collect();
        events.extend(self.published.map(|number| event("published", &number.to_string())));
        events.extend(self.nodes.iter().map(|name| event("node", name.as_str())));
        if self.missed {
            events.push(event("missed", ""));
        }
        events
    }
}
