//! What the engine is asked, and by whom.

use super::{BypassRequest, EventQuery, GenerationRequest};
use crate::problem;
use pointsman_model::api::{ApplyReport, Doctor, DrainReport, Problem};
use pointsman_model::event::EventKind;
use pointsman_model::glass::{BypassReport, ConfirmReport, EventPage, Generations, RollbackReport};
use pointsman_model::plan::Plan;
use pointsman_model::status::{Counters, Status};
use pointsman_plan::Options;
use pointsman_plan::instances::Demands;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Where a reply goes.
pub type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// What the engine is asked.
#[derive(Debug)]
pub enum Message {
    /// What applying a document would do.
    Plan(Request, Reply<Plan>),
    /// Apply a document.
    Apply(Request, Reply<ApplyReport>),
    /// The watched document was replaced.
    DocumentChanged,
    /// Something was laid down in the drop directory, or the fleet's file was written. Dropped when
    /// it was looked at.
    LaidDown(mpsc::Sender<()>),
    /// Interfaces or network namespaces came, went or changed.
    InterfacesChanged,
    /// Something is not watched any more, and why.
    WatchLost(String),
    /// How everything stands.
    Status(Reply<Status>),
    /// All counters.
    Counters(Reply<Counters>),
    /// Remove all that is ours.
    Drain(Reply<DrainReport>),
    /// Let every packet past the chain of an interface, or end that.
    Bypass(BypassRequest, Reply<BypassReport>),
    /// Return to an earlier generation.
    Rollback(GenerationRequest, Reply<RollbackReport>),
    /// Keep the document in force that waits to be confirmed.
    Confirm(GenerationRequest, Reply<ConfirmReport>),
    /// What can be returned to.
    Generations(Reply<Generations>),
    /// What happened.
    Events(EventQuery, Reply<EventPage>),
    /// Something happened elsewhere in the daemon: for the event log.
    Happened(EventKind, String),
    /// From which interfaces instances want their packets. What comes of it is told by
    /// [`Engine::telling_served`](super::Engine::telling_served), with the same revision.
    Demands {
        /// All that they want.
        demands: Demands,
        /// A number that grows.
        revision: u64,
    },
    /// What this host can do.
    Doctor(Reply<Doctor>),
    /// End. Everything stays attached.
    Stop,
}

/// A document with what the operator allows.
#[derive(Debug)]
pub struct Request {
    /// The document's bytes.
    pub text: Vec<u8>,
    /// What is allowed.
    pub options: Options,
    /// When the request arrived.
    pub arrived: Instant,
    /// Whether an operator asks for this very document; else it was found where it was laid down.
    pub asked: bool,
    /// Who asks, where the socket tells.
    pub uid: Option<u32>,
    /// Return by itself to what was in force before, unless it is confirmed within this time.
    pub confirm_within: Option<Duration>,
}

impl Request {
    /// An operator's request that has just arrived, with nothing allowed.
    #[must_use]
    pub fn new(text: Vec<u8>) -> Self {
        let (options, arrived) = (Options::default(), Instant::now());
        Self { text, options, arrived, asked: true, uid: None, confirm_within: None }
    }
}

/// Sends messages to the engine.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Message>);

impl Handle {
    /// A handle, and where its messages come out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Asks and waits for the reply.
    ///
    /// # Errors
    /// The engine's, or that there is no engine any more.
    pub async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply));
        answer.await.unwrap_or_else(|_| Err(problem::engine_gone()))
    }

    /// Tells and does not wait. An engine that is gone is noticed by who waits for its end.
    pub fn tell(&self, message: Message) {
        let _ = self.0.send(message);
    }
}
