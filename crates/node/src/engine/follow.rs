//! Those who follow the event log: each is answered when something happens.

use super::{Engine, Reply};
use crate::problem;
use pointsman_model::HookId;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::event::EventKind;
use pointsman_model::glass::EventPage;

/// The most who may wait at a time. Each holds a connection.
pub(super) const MAX_FOLLOWERS: usize = 32;

/// Which events somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct EventQuery {
    /// Those after this number; `None`: the last ones.
    pub after: Option<u64>,
    /// How many at most.
    pub limit: usize,
    /// Wait until there is one. Who waits no longer drops the reply.
    pub wait: bool,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Follower {
    query: EventQuery,
    reply: Reply<EventPage>,
}

impl Engine {
    /// Writes down that something happened, and tells who waits for it.
    pub(super) fn event(&mut self, kind: EventKind, hook: Option<&HookId>, message: &str) {
        tracing::info!(event = %kind, hook = hook.map(ToString::to_string), "{message}");
        let generation = self.state.state().current.as_ref().map(|edition| edition.generation);
        self.events.add(self.clock.now().unix_ms, kind, hook, generation, message);
        let events = &self.events;
        for Follower { query, reply } in self.followers.drain(..) {
            // Who waits no longer does not matter.
            let _ = reply.send(Ok(events.page(query.after, query.limit)));
        }
    }

    /// Answers with events, now or when there are some.
    pub(super) fn tell_events(&mut self, query: EventQuery, reply: Reply<EventPage>) {
        // Who has seen more than there is followed a log that is gone: he must start anew.
        let nothing_new = query.after == Some(self.events.last());
        if !query.wait || !nothing_new {
            drop(reply.send(Ok(self.events.page(query.after, query.limit))));
            return;
        }
        self.followers.retain(|follower| !follower.reply.is_closed());
        if self.followers.len() < MAX_FOLLOWERS {
            self.followers.push(Follower { query, reply });
        } else {
            drop(reply.send(Err(too_many())));
        }
    }
}

fn too_many() -> Problem {
    let title = format!(
        "{MAX_FOLLOWERS} clients follow the events already; ask without waiting, or end one of them"
    );
    problem::plain(ProblemKind::Busy, 503, title)
}
