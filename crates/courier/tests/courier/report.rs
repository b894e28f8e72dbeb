//! What the control plane is told, and what it costs.

use crate::stage::daemon::{counters, status};
use pointsman_courier::source::SourceError;
use pointsman_courier::{Control, FULL_EVERY, Look, Node, NodeError, Reporter, Taken};
use pointsman_model::fleet::{CourierStatus, NodeReport};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone)]
struct Simulated(Arc<Mutex<State>>);

struct State {
    look: Result<Look, NodeError>,
    answer: Result<Taken, SourceError>,
    reports: Vec<NodeReport>,
}

impl Node for Simulated {
    async fn look(&mut self) -> Result<Look, NodeError> {
        let mut state = self.0.lock().unwrap();
        // What moves all the time.
        if let Ok(look) = &mut state.look {
            look.status.uptime_seconds += 1;
            look.status.checks += 1;
            look.counters.at_unix_ms += 1;
        }
        state.look.clone()
    }

    async fn event(&mut self, _after: Option<u64>) -> Result<u64, NodeError> {
        std::future::pending().await
    }
}

impl Control for Simulated {
    async fn report(&mut self, report: &NodeReport) -> Result<Taken, SourceError> {
        let mut state = self.0.lock().unwrap();
        state.reports.push(report.clone());
        state.answer.clone()
    }
}

impl Simulated {
    fn new() -> (Self, Reporter<Self, Self>) {
        let look = Look { status: status(Some(1)), counters: counters(0) };
        let state = State { look: Ok(look), answer: Ok(Taken::Yes), reports: Vec::new() };
        let both = Self(Arc::new(Mutex::new(state)));
        (both.clone(), Reporter::new(both.clone(), both))
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn change(&self, change: impl FnOnce(&mut Look)) {
        self.set(|state| change(state.look.as_mut().unwrap()));
    }

    /// Which parts the reports since the last call had: status, counters.
    fn parts(&self) -> Vec<(bool, bool)> {
        let reports = std::mem::take(&mut self.0.lock().unwrap().reports);
        reports.iter().map(|report| (report.status.is_some(), report.counters.is_some())).collect()
    }
}

fn courier() -> CourierStatus {
    CourierStatus {
        version: "0.1.0".into(),
        poll_interval_ms: 1000,
        snapshot: Some(1),
        handed_over: Some(1),
        source_trouble: None,
        daemon_trouble: None,
    }
}

const ALL: (bool, bool) = (true, true);
const NOTHING: (bool, bool) = (false, false);

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_left_out() {
    let (sim, mut reporter) = Simulated::new();
    for _ in 0..3 {
        reporter.report_once(courier()).await;
    }
    assert_eq!(sim.parts(), [ALL, NOTHING, NOTHING]);
    sim.change(|look| look.counters = counters(7));
    reporter.report_once(courier()).await;
    sim.change(|look| look.status.generation = Some(2));
    reporter.report_once(courier()).await;
    reporter.report_once(courier()).await;
    assert_eq!(sim.parts(), [(false, true), (true, false), NOTHING]);
    // All of it now and then, so that nothing is wrong for ever.
    tokio::time::advance(FULL_EVERY + Duration::from_secs(1)).await;
    reporter.report_once(courier()).await;
    reporter.report_once(courier()).await;
    assert_eq!(sim.parts(), [ALL, NOTHING]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_taken_is_sent_again_whole() {
    let (sim, mut reporter) = Simulated::new();
    reporter.report_once(courier()).await;
    let down = SourceError::Unreachable { what: "control".into(), why: "refused".into() };
    sim.set(|state| state.answer = Err(down.clone()));
    let reported = reporter.report_once(courier()).await;
    assert_eq!(reported.control, Err(down));
    assert_eq!(reported.daemon, Ok(()), "the other side is not concerned");
    sim.set(|state| state.answer = Ok(Taken::Yes));
    reporter.report_once(courier()).await;
    reporter.report_once(courier()).await;
    assert_eq!(sim.parts(), [ALL, NOTHING, ALL, NOTHING]);
    // A control plane that has forgotten what was before gets it at once, and is not asked for ever.
    sim.set(|state| state.answer = Ok(Taken::WantsAll));
    let reported = reporter.report_once(courier()).await;
    assert!(reported.control.unwrap_err().to_string().contains("everything"));
    assert_eq!(sim.parts(), [NOTHING, ALL]);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_down_is_reported_and_what_it_said_before_still_counts() {
    let (sim, mut reporter) = Simulated::new();
    reporter.report_once(courier()).await;
    sim.parts();
    let look = sim.0.lock().unwrap().look.clone();
    let down = NodeError::Down { socket: "/run/node.sock".into() };
    sim.set(|state| state.look = Err(down.clone()));
    let reported = reporter.report_once(courier()).await;
    assert_eq!(reported.daemon, Err(down));
    assert_eq!(reported.control, Ok(()));
    let report = sim.0.lock().unwrap().reports.pop().unwrap();
    assert_eq!((report.status, report.counters), (None, None));
    assert!(report.courier.daemon_trouble.unwrap().contains("/run/node.sock"));
    sim.set(|state| state.look = look);
    reporter.report_once(courier()).await;
    let report = sim.0.lock().unwrap().reports.pop().unwrap();
    assert_eq!(report.courier.daemon_trouble, None);
    assert_eq!(report.status, None, "it is as it was");
}
