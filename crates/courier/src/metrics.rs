//! What a courier counts, in the text format that Prometheus reads.

use crate::courier::{Outcome, PollError};
use crate::report::Reported;
use crate::source::Traffic;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// No value of a label comes from outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    part: &'static str,
    kind: String,
}

/// All counters of a courier.
#[derive(Debug)]
pub(crate) struct Metrics {
    traffic: Traffic,
    polls: Family<ByOutcome, Counter>,
    reports: Family<ByOutcome, Counter>,
    errors: Family<ByKind, Counter>,
    generation: Gauge,
    snapshot: Gauge,
    /// The last poll that found the source as it should be.
    success: Mutex<Option<Instant>>,
    started: Instant,
}

impl Metrics {
    /// None yet; requests and bytes are those of `traffic`.
    #[must_use]
    pub(crate) fn new(traffic: Traffic) -> Self {
        Self {
            traffic,
            polls: Family::default(),
            reports: Family::default(),
            errors: Family::default(),
            generation: Gauge::default(),
            snapshot: Gauge::default(),
            success: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Counts a poll.
    pub(crate) fn polled(&self, result: &Result<Outcome, PollError>) {
        let outcome = match result {
            Ok(Outcome::Unchanged) => "unchanged",
            Ok(Outcome::NothingNew) => "nothing_new",
            Ok(Outcome::NoRecord) => "no_record",
            Ok(Outcome::Stale { .. }) => "stale",
            Ok(Outcome::Fetching { .. }) => "fetching",
            Ok(Outcome::Incomplete { .. }) => "incomplete",
            Ok(Outcome::HandedOver { .. }) => "handed_over",
            Err(_) => "error",
        };
        self.polls.get_or_create(&ByOutcome { outcome }).inc();
        match result {
            Err(error) | Ok(Outcome::Incomplete { error, .. }) => {
                self.error("source", error.kind());
            }
            Ok(_) => {}
        }
        if result.is_ok() {
            *self.success.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Counts a report.
    pub(crate) fn reported(&self, reported: &Reported) {
        let outcome = match &reported.control {
            Ok(()) if reported.status => "full",
            Ok(()) => "small",
            Err(_) => "error",
        };
        self.reports.get_or_create(&ByOutcome { outcome }).inc();
        if let Err(error) = &reported.control {
            self.error("control", error.kind());
        }
        if let Err(error) = &reported.daemon {
            self.error("daemon", error.kind());
        }
    }

    /// Notes what was seen and handed over last.
    pub(crate) fn stands(&self, generation: Option<u64>, snapshot: Option<u64>) {
        let number = |n: Option<u64>| i64::try_from(n.unwrap_or(0)).unwrap_or(i64::MAX);
        self.generation.set(number(generation));
        self.snapshot.set(number(snapshot));
    }

    /// Since when the source was last found as it should be; since the start, if it never was.
    pub(crate) fn age(&self) -> Duration {
        let success = *self.success.lock().unwrap_or_else(PoisonError::into_inner);
        success.unwrap_or(self.started).elapsed()
    }

    fn error(&self, part: &'static str, kind: &str) {
        self.errors.get_or_create(&ByKind { part, kind: kind.to_owned() }).inc();
    }

    /// All of them.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut registry = Registry::with_prefix("pointsman_courier");
        let counted = self.traffic.counted();
        let requests = ConstCounter::new(counted.requests);
        let bytes = ConstCounter::new(counted.bytes);
        let age = Gauge::<f64, AtomicU64>::default();
        age.set(self.age().as_secs_f64());
        registry.register("polls", "Polls by how they ended", self.polls.clone());
        registry.register("reports", "Reports by how they went", self.reports.clone());
        registry.register("errors", "Errors by part and kind", self.errors.clone());
        registry.register(
            "requests",
            "Requests sent to sources of snapshots and objects",
            requests,
        );
        registry.register_with_unit(
            "received",
            "Bytes of answers from them, without heads",
            Unit::Bytes,
            bytes,
        );
        registry.register_with_unit(
            "last_success_age",
            "Time since the source of snapshots was found as it should be",
            Unit::Seconds,
            age,
        );
        let generation = self.generation.clone();
        registry.register("generation", "The generation handed over last", generation);
        registry.register("snapshot", "The snapshot seen last", self.snapshot.clone());
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("invariant: writing to a string cannot fail");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;

    #[test]
    fn everything_is_counted_where_it_belongs() {
        let traffic = Traffic::default();
        let metrics = Metrics::new(traffic.clone());
        traffic.request();
        traffic.bytes(100);
        metrics.polled(&Ok(Outcome::Unchanged));
        metrics.polled(&Ok(Outcome::HandedOver { generation: 7 }));
        metrics.polled(&Err(SourceError::Missing { what: "x".into() }.into()));
        metrics.stands(Some(7), Some(3));
        let text = metrics.text();
        for line in [
            r#"pointsman_courier_polls_total{outcome="unchanged"} 1"#,
            r#"pointsman_courier_polls_total{outcome="error"} 1"#,
            r#"pointsman_courier_errors_total{part="source",kind="missing"} 1"#,
            "pointsman_courier_requests_total 1",
            "pointsman_courier_received_bytes_total 100",
            "pointsman_courier_generation 7",
            "pointsman_courier_snapshot 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.contains("pointsman_courier_last_success_age_seconds 0."), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
