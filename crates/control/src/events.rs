//! What happens, for those who watch: the web pages, and what publishes changes.

use pointsman_model::NodeName;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use utoipa::ToSchema;

/// How many events wait for one who is slow. Who misses some is told that.
const QUEUE: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A node reported, enrolled, or was changed.
    Node {
        /// Which.
        #[schema(value_type = String)]
        name: NodeName,
    },
    /// Programs, policies, nodes or labels were changed: there may be something to publish.
    Changed {
        /// What, as the audit trail calls it.
        object: String,
    },
    /// Something was published.
    Published {
        /// The snapshot's number.
        snapshot: u64,
    },
}

/// Where events are told.
#[derive(Debug, Clone)]
pub struct Events {
    told: broadcast::Sender<Event>,
    ending: watch::Sender<bool>,
}

impl Default for Events {
    fn default() -> Self {
        Self { told: broadcast::Sender::new(QUEUE), ending: watch::Sender::new(false) }
    }
}

impl Events {
    /// Tells those who listen.
    pub fn tell(&self, event: Event) {
        // Nobody listens: nobody has to know.
        let _ = self.told.send(event);
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener { told: self.told.subscribe(), ending: self.ending.subscribe() }
    }

    /// Tells those who listen that there will be no more.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    told: broadcast::Receiver<Event>,
    ending: watch::Receiver<bool>,
}

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Something happened.
    Event(Event),
    /// More happened than could be told.
    Missed,
    /// The service ends.
    End,
}

impl Listener {
    /// Waits for the next. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            biased;
            _ = self.ending.wait_for(|&ending| ending) => Told::End,
            told = self.told.recv() => match told {
                Ok(event) => Told::Event(event),
                Err(RecvError::Lagged(_)) => Told::Missed,
                Err(RecvError::Closed) => Told::End,
            },
        }
    }
}
