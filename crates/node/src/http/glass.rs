//! Breaking the glass over the socket: bypass, rollback, confirm, and what there is to know for it.

use super::{Answer, Failure, Peer, understood};
use crate::engine::{BypassRequest, EventQuery, GenerationRequest, Handle, Message};
use crate::problem;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::glass::{
    BypassReport, ConfirmReport, EventPage, Generations, LONGEST_SECONDS, RollbackReport,
    SHORTEST_SECONDS,
};
use pointsman_plan::Options;
use serde::Deserialize;
use std::time::{Duration, Instant};
use utoipa::IntoParams;

/// The most events of one answer.
const MOST_EVENTS: usize = 1000;

/// The longest time that a request waits for an event.
const LONGEST_WAIT: u64 = 60;

type Asked<T> = Result<Query<T>, QueryRejection>;

/// A bypass.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BypassQuery {
    /// The interface: `NAME`, or `NAMESPACE/NAME`.
    interface: String,
    /// How long, from 1 second to a day; without it until it is ended.
    for_seconds: Option<u64>,
    /// End the bypass instead of beginning it.
    #[serde(default)]
    off: bool,
}

/// Which generation.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GenerationQuery {
    /// Confirm only if this generation waits.
    generation: Option<u64>,
}

/// Which generation, and what an operator allows on the way there.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RollbackQuery {
    /// The generation; without it the newest good one before the one in force.
    generation: Option<u64>,
    /// Whether a hook may be without a chain for a moment where there is no other way.
    #[serde(default)]
    allow_gap: bool,
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Those after this number; without it the last ones.
    after: Option<u64>,
    /// How many at most, from 1 to 1000; 100 without it.
    limit: Option<usize>,
    /// How long to wait where there is none yet, from 0 to 60 seconds.
    #[serde(default)]
    wait_seconds: u64,
}

/// Lets every packet past the chain on an interface, or ends that. One swap each way.
#[utoipa::path(post, path = "/v1/bypass", params(BypassQuery), responses(
    (status = 200, body = BypassReport),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn bypass(
    State(engine): State<Handle>,
    Extension(Peer(uid)): Extension<Peer>,
    query: Asked<BypassQuery>,
) -> Result<Answer<BypassReport>, Failure> {
    let arrived = Instant::now();
    let expected = "interface=NAME with for_seconds=SECONDS or off=true";
    let BypassQuery { interface, for_seconds, off } = understood(query, expected)?;
    let interface = interface.parse().map_err(|error| bad(&format!("interface: {error}")))?;
    if off && for_seconds.is_some() {
        return Err(bad("for_seconds and off=true do not go together"));
    }
    let length = for_seconds.map(|seconds| bounded("for_seconds", seconds)).transpose()?;
    let request = BypassRequest { interface, off, length, uid, arrived };
    Ok(Answer(engine.ask(|reply| Message::Bypass(request, reply)).await?))
}

/// Returns to an earlier generation, with the objects it had.
#[utoipa::path(post, path = "/v1/rollback", params(RollbackQuery), responses(
    (status = 200, body = RollbackReport),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn rollback(
    State(engine): State<Handle>,
    Extension(Peer(uid)): Extension<Peer>,
    query: Asked<RollbackQuery>,
) -> Result<Answer<RollbackReport>, Failure> {
    let arrived = Instant::now();
    let expected = "generation=NUMBER, allow_gap=true or allow_gap=false";
    let RollbackQuery { generation, allow_gap } = understood(query, expected)?;
    let request = GenerationRequest { generation, options: Options { allow_gap }, uid, arrived };
    Ok(Answer(engine.ask(|reply| Message::Rollback(request, reply)).await?))
}

/// Keeps the document in force that was applied with `confirm_within_seconds`.
#[utoipa::path(post, path = "/v1/confirm", params(GenerationQuery), responses(
    (status = 200, body = ConfirmReport),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
    (status = 507, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn confirm(
    State(engine): State<Handle>,
    Extension(Peer(uid)): Extension<Peer>,
    query: Asked<GenerationQuery>,
) -> Result<Answer<ConfirmReport>, Failure> {
    let arrived = Instant::now();
    let GenerationQuery { generation } = understood(query, "generation=NUMBER")?;
    let request = GenerationRequest { generation, options: Options::default(), uid, arrived };
    Ok(Answer(engine.ask(|reply| Message::Confirm(request, reply)).await?))
}

/// The generations that the node can return to.
#[utoipa::path(get, path = "/v1/generations", responses(
    (status = 200, body = Generations),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn generations(
    State(engine): State<Handle>,
) -> Result<Answer<Generations>, Failure> {
    Ok(Answer(engine.ask(Message::Generations).await?))
}

/// What happened; with `wait_seconds` it is answered as soon as something does.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery), responses(
    (status = 200, body = EventPage),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn events(
    State(engine): State<Handle>,
    query: Asked<EventsQuery>,
) -> Result<Answer<EventPage>, Failure> {
    let expected = "after=NUMBER, limit=COUNT and wait_seconds=SECONDS";
    let EventsQuery { after, limit, wait_seconds } = understood(query, expected)?;
    let limit = limit.unwrap_or(100);
    if !(1..=MOST_EVENTS).contains(&limit) {
        return Err(bad(&format!("limit: expected 1 to {MOST_EVENTS}, found {limit}")));
    }
    if wait_seconds > LONGEST_WAIT {
        let message = format!("wait_seconds: expected 0 to {LONGEST_WAIT}, found {wait_seconds}");
        return Err(bad(&message));
    }
    let ask = |wait| {
        let query = EventQuery { after, limit, wait };
        engine.ask(move |reply| Message::Events(query, reply))
    };
    if wait_seconds > 0
        && let Ok(page) = tokio::time::timeout(Duration::from_secs(wait_seconds), ask(true)).await
    {
        return Ok(Answer(page?));
    }
    Ok(Answer(ask(false).await?))
}

/// A time after which something is undone.
pub(super) fn bounded(name: &str, seconds: u64) -> Result<Duration, Failure> {
    if (SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    Err(bad(&format!(
        "{name}: expected {SHORTEST_SECONDS} to {LONGEST_SECONDS} seconds, found {seconds}"
    )))
}

fn bad(title: &str) -> Failure {
    Failure(problem::plain(ProblemKind::BadRequest, 400, format!("{title}; nothing was changed")))
}
