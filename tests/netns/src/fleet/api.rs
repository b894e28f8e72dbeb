//! What an administrator asks the control plane.

use super::CONTROL;
use crate::daemon::{Answer, binary, run};
use crate::http::{Response, call};
use crate::netns::Netns;
use serde_json::Value;
use std::io;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long may pass until a fleet is as it should be.
const PATIENCE: Duration = Duration::from_secs(120);

/// An administrator, who asks the control plane whether it is there or not.
#[derive(Debug)]
pub struct Api {
    pub(super) hub: Netns,
    pub(super) token: OnceLock<String>,
}

impl Api {
    fn token(&self) -> &str {
        self.token.get().map_or("", String::as_str)
    }

    /// Runs `pointsman --json fleet ...`.
    ///
    /// # Panics
    /// The command cannot be run.
    #[must_use]
    pub fn cli(&self, arguments: &[&str], input: &[u8]) -> Answer {
        let mut command = Command::new(binary("pointsman"));
        command
            .env("POINTSMAN_CONTROL", format!("http://{CONTROL}"))
            .env("POINTSMAN_TOKEN", self.token())
            .args(["--json", "fleet"])
            .args(arguments);
        self.hub.run(|| run(&mut command, input))
    }

    /// One request to the control plane.
    ///
    /// # Errors
    /// It is not there, or broke off.
    pub fn ask(
        &self,
        request: &str,
        header: Option<(&str, &str)>,
        body: &[u8],
    ) -> io::Result<Response> {
        let authorization = format!("Bearer {}", self.token());
        let kind = if request.contains("/programs/") { "octet-stream" } else { "json" };
        let kind = format!("application/{kind}");
        let mut headers = vec![("Authorization", &*authorization), ("Content-Type", &*kind)];
        headers.extend(header);
        self.hub.run(|| call(CONTROL, request, &headers, body))
    }

    /// What is at a path.
    ///
    /// # Panics
    /// The control plane does not give it.
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let response =
            self.ask(&format!("GET {path}"), None, b"").expect("the control plane answers");
        assert!(response.is_good(), "{path}: {} {}", response.status, response.json());
        response.json()
    }

    /// Puts something there, over whatever is there, however often the control plane breaks off.
    ///
    /// # Panics
    /// It refuses, or is away for long.
    #[track_caller]
    pub fn put(&self, path: &str, body: &[u8]) {
        self.persist(path, || {
            let there = self.ask(&format!("GET {path}"), None, b"")?;
            let condition = match (there.status, &there.tag) {
                (404, _) => ("If-None-Match", "*"),
                (_, Some(tag)) => ("If-Match", tag.as_str()),
                _ => return Ok(there),
            };
            self.ask(&format!("PUT {path}"), Some(condition), body)
        });
    }

    /// Publishes, however often the control plane breaks off; gives its report.
    ///
    /// # Panics
    /// It refuses, or is away for long.
    #[track_caller]
    pub fn publish(&self) -> Value {
        self.persist("publish", || self.ask("POST /v1/publish", None, b"{}")).json()
    }

    #[track_caller]
    fn persist(&self, what: &str, request: impl Fn() -> io::Result<Response>) -> Response {
        let start = Instant::now();
        loop {
            let told = match request() {
                Ok(response) if response.is_good() => return response,
                // Somebody was faster: perhaps we were, before the answer was cut off.
                Ok(response) if response.status >= 500 || response.status == 412 => {
                    response.json().to_string()
                }
                Ok(response) => panic!("{what}: {} {}", response.status, response.json()),
                Err(error) => error.to_string(),
            };
            assert!(start.elapsed() < PATIENCE, "{what}: {told}");
            pause();
        }
    }

    /// Puts a policy.
    ///
    /// # Panics
    /// As [`Api::put`].
    #[track_caller]
    pub fn put_policy(&self, name: &str, spec: &Value) {
        self.put(&format!("/v1/policies/{name}"), spec.to_string().as_bytes());
    }

    /// Waits until every node says that what is published is in force there.
    ///
    /// # Panics
    /// It does not become so.
    #[track_caller]
    pub fn converge(&self) {
        self.until("in force everywhere", |node| {
            node["health"] == "well" && node["in_force"] == node["published"]
        });
    }

    /// Waits until every node is as wanted; gives them by name.
    ///
    /// # Panics
    /// They do not become so.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let told = match self.ask("GET /v1/nodes", None, b"") {
                Ok(response) if response.is_good() => {
                    let nodes = response.json()["items"].as_array().cloned().unwrap_or_default();
                    if nodes.iter().all(&is) {
                        return nodes;
                    }
                    format!("{nodes:#?}")
                }
                Ok(response) => response.json().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(start.elapsed() < PATIENCE, "not {what}: {told}");
            pause();
        }
    }
}

/// Nothing tells when a fleet is as it should be, but the fleet when it is asked.
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
