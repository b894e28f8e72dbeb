//! Telling the control plane how the node stands.

use crate::control::{Control, Taken};
use crate::node::{Look, Node, NodeError};
use crate::source::SourceError;
use pointsman_model::fleet::{CourierStatus, NodeReport, RefusedSnapshot};
use pointsman_model::status::{Counters, Status};
use std::time::Duration;
use tokio::time::Instant;

/// How often all is reported, changed or not.
pub const FULL_EVERY: Duration = Duration::from_secs(300);

/// Reports for one node. It has no file, socket or thread of its own: many of them run in one
/// process.
#[derive(Debug)]
pub struct Reporter<N, C> {
    node: N,
    control: C,
    /// What the control plane knows.
    known: Option<Known>,
}

/// What the control plane was told last.
#[derive(Debug)]
struct Known {
    look: Option<Look>,
    /// When it was told all.
    full: Instant,
}

/// How a report went. Neither side's trouble keeps the other's part from being done.
#[derive(Debug)]
pub struct Reported {
    /// Why the daemon does not answer.
    pub daemon: Result<(), NodeError>,
    /// Why the control plane does not take it.
    pub control: Result<(), SourceError>,
    /// Whether the status was part of it.
    pub status: bool,
    /// Whether the counters were.
    pub counters: bool,
    /// The snapshot that the daemon refuses.
    pub refused: Option<RefusedSnapshot>,
}

impl<N: Node, C: Control> Reporter<N, C> {
    /// One that has reported nothing yet.
    pub const fn new(node: N, control: C) -> Self {
        Self { node, control, known: None }
    }

    /// Looks at the daemon and reports; what has not changed since the last report is left out.
    pub async fn report_once(&mut self, mut courier: CourierStatus) -> Reported {
        let looked = self.node.look().await;
        let (look, daemon) = match looked {
            Ok(look) => (Some(look), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let refused = look.as_ref().and_then(|look| look.status.fleet.as_ref()?.refused.clone());
        courier.daemon_trouble = daemon.as_ref().err().map(ToString::to_string);
        let mut sent = self.send(&courier, look.as_ref()).await;
        if let (_, Ok(Taken::WantsAll)) = &sent {
            self.known = None;
            sent = self.send(&courier, look.as_ref()).await;
        }
        let ((status, counters), control) = sent;
        let control = match control {
            Ok(Taken::Yes) => Ok(()),
            Ok(Taken::WantsAll) => Err(SourceError::Odd {
                what: "the control plane".into(),
                why: "it was sent everything and wants more".into(),
            }),
            Err(error) => Err(error),
        };
        if control.is_err() {
            // It may have come through, or not: the next one has all of it.
            self.known = None;
        }
        Reported { daemon, control, status, counters, refused }
    }

    async fn send(
        &mut self,
        courier: &CourierStatus,
        look: Option<&Look>,
    ) -> ((bool, bool), Result<Taken, SourceError>) {
        let known = self.known.as_ref().filter(|known| known.full.elapsed() < FULL_EVERY);
        let before = known.and_then(|known| known.look.as_ref());
        let status = look.filter(|look| {
            before.is_none_or(|before| still(&before.status) != still(&look.status))
        });
        let counters = look.filter(|look| {
            before.is_none_or(|before| timeless(&before.counters) != timeless(&look.counters))
        });
        let report = NodeReport {
            courier: courier.clone(),
            status: status.map(|look| look.status.clone()),
            counters: counters.map(|look| look.counters.clone()),
        };
        let parts = (report.status.is_some(), report.counters.is_some());
        let full = known.map_or_else(Instant::now, |known| known.full);
        let taken = self.control.report(&report).await;
        if let Ok(Taken::Yes) = taken {
            // What a daemon that is down now said before is still what is known of it.
            let before = self.known.take().and_then(|known| known.look);
            self.known = Some(Known { look: look.cloned().or(before), full });
        }
        (parts, taken)
    }
}

/// A status without what moves all the time.
fn still(status: &Status) -> Status {
    let mut status = status.clone();
    (status.uptime_seconds, status.checks) = (0, 0);
    for hook in &mut status.hooks {
        hook.passed_end = 0;
        for member in &mut hook.members {
            (member.runs, member.verdicts) = (0, Default::default());
        }
    }
    let dispatchers = status.hooks.iter_mut().filter_map(|hook| hook.dispatcher.as_mut());
    let foreign = status.foreign.iter_mut().filter_map(|foreign| foreign.dispatcher.as_mut());
    for dispatcher in dispatchers.chain(foreign) {
        (dispatcher.runs, dispatcher.run_nanoseconds) = (None, None);
    }
    status
}

fn timeless(counters: &Counters) -> Counters {
    Counters { at_unix_ms: 0, ..counters.clone() }
}
