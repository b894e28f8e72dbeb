//! One of a fleet's hosts.

use super::as_nobody;
use crate::daemon::{Daemon, Host};
use crate::netns::Pair;
use crate::service::Service;
use anyhow::Result;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// How often couriers ask.
const POLL: &str = "200ms";

/// A host of a fleet.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The daemon, while it runs.
    pub daemon: Option<Daemon>,
    /// The courier, while it runs.
    pub courier: Option<Service>,
    /// Its directories.
    pub host: Host,
    /// The interface whose chain the fleet decides is `v1` on its right.
    pub pair: Pair,
}

impl Node {
    /// Starts the daemon.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.daemon = Some(self.host.start(&self.pair.right)?);
        Ok(())
    }

    /// Starts the courier.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_courier(&mut self) -> Result<()> {
        let mut command = as_nobody("pointsman-courier");
        let host = &self.host;
        command
            .args(["run", "--poll-interval", POLL, "--metrics-listen", "off"])
            .args(["--config".into(), host.path("courier/courier.json")])
            .args(["--cache".into(), host.path("courier/cache")])
            .args(["--node".into(), host.path("run/status.sock")])
            .args(["--node-config".into(), host.path("fleet.json")])
            .args(["--drop".into(), host.path("drop")]);
        let mut courier =
            Service::start("courier", command, &self.pair.right, &self.host.path("."))?;
        courier.ready()?;
        self.courier = Some(courier);
        Ok(())
    }

    /// The daemon.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs")
    }

    /// The documents that came into force whole, with their generations, in that order.
    ///
    /// # Panics
    /// The daemon's state cannot be read.
    #[must_use]
    pub fn documents(&self) -> Vec<(u64, Value)> {
        let read = |path: &Path| -> Value {
            let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_slice(&text).expect("JSON")
        };
        let state = self.host.path("state");
        let good = read(&state.join("accepted.json"))["good"].clone();
        let edition = |good: &Value| {
            let edition = &good["edition"];
            let hash = edition["document"].as_str().expect("a hash");
            let document = read(&state.join("documents").join(hash));
            (edition["generation"].as_u64().expect("a number"), document)
        };
        good.as_array().expect("a list").iter().map(edition).collect()
    }
}
