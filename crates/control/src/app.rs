//! What all requests share.

use crate::auth::Throttle;
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::db::Db;
use crate::events::{Event, Events};
use crate::inspect::Inspector;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use pointsman_model::FleetName;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

/// The running service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// Its parts.
#[derive(Debug)]
pub struct Parts {
    /// What is wanted and known.
    pub db: Db,
    /// What time it is.
    pub clock: Clock,
    /// The fleet.
    pub fleet: FleetName,
    /// Makes what is published, and knows the key that it is signed with.
    pub publisher: Publisher,
    /// Serves what is published.
    pub blobs: Blobs,
    /// Where couriers fetch snapshots, if not here.
    pub source: Option<String>,
    /// Whether it is reached by TLS, here or at a proxy, so that cookies are kept to it.
    pub secure: bool,
    /// Who is believed when he says for whom he asks.
    pub proxies: Vec<IpAddr>,
    /// What happens.
    pub events: Events,
    /// Who has presented too many wrong secrets.
    pub throttle: Throttle,
    /// Opens objects, in a process apart.
    pub inspector: Inspector,
    /// Takes reports.
    pub intake: Intake,
    /// What is counted.
    pub metrics: Metrics,
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Tells that something was changed that may have to be published. Called when the change is
    /// committed.
    pub fn changed(&self, object: impl Into<String>) {
        self.publisher.changed();
        self.events.tell(Event::Changed { object: object.into() });
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
