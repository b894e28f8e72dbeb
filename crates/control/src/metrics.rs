//! What is counted, in the text format of Prometheus.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

/// The content type of the text that is given.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Of which kind a request was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method.
    pub method: String,
    /// The route, as it was declared: never what somebody made up.
    pub route: String,
    /// The HTTP status.
    pub status: u16,
}

/// A health's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HealthLabels {
    /// The name.
    pub health: Health,
}

/// How nodes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Health(pub pointsman_model::fleet::NodeHealth);

impl prometheus_client::encoding::EncodeLabelValue for Health {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.name())
    }
}

/// All that is counted. Cheap to count with; the registry is locked to read it and to add to it.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Requests that were answered.
    pub requests: Family<RequestLabels, Counter>,
    /// How long answers took, in seconds.
    pub seconds: Histogram,
    /// Reports that were kept.
    pub reports: Counter,
    /// Requests with a secret that is unknown, void or missing.
    pub unauthorized: Counter,
    /// Objects that were inspected.
    pub inspections: Counter,
    /// How many nodes stand how, at the last look.
    pub nodes: Family<HealthLabels, Gauge>,
    /// How often publishing has failed in a row, at the last look.
    pub publish_failures: Gauge,
    /// When a publish went well last, in seconds since the Unix epoch, at the last look; 0: not as
    /// long as this process runs.
    pub publish_success: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pointsman_control");
        let seconds = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
        let metrics = Self {
            registry: Mutex::default(),
            requests: Family::default(),
            seconds: Histogram::new(seconds),
            reports: Counter::default(),
            unauthorized: Counter::default(),
            inspections: Counter::default(),
            nodes: Family::default(),
            publish_failures: Gauge::default(),
            publish_success: Gauge::default(),
        };
        let Self { registry: _, requests, seconds, reports, unauthorized, .. } = &metrics;
        let Self { inspections, nodes, publish_failures, publish_success, .. } = &metrics;
        registry.register("requests", "Requests that were answered", requests.clone());
        registry.register("request_seconds", "How long answers took", seconds.clone());
        registry.register("reports", "Reports of nodes that were kept", reports.clone());
        registry.register(
            "unauthorized",
            "Requests whose secret is missing, unknown or void",
            unauthorized.clone(),
        );
        registry.register("inspections", "Objects that were inspected", inspections.clone());
        registry.register("nodes", "Nodes by how they stand", nodes.clone());
        registry.register(
            "publish_failures",
            "How often publishing has failed in a row",
            publish_failures.clone(),
        );
        registry.register(
            "publish_success_timestamp_seconds",
            "When a publish went well last; 0: not since the start",
            publish_success.clone(),
        );
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Adds what another part counts.
    pub fn add(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything, as text.
    ///
    /// # Errors
    /// Something cannot be written as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}
