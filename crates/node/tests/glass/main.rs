//! Breaking the glass: bypass, rollback, confirmation; over time, restarts, reboots and kills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod bypass;
mod kills;
mod rollback;
mod window;

use common::{Node, TestHost, document, hook, inline};
use pointsman_model::Sha256;
use pointsman_model::api::{ApplyOutcome, ProblemKind, StepOutcome};
use pointsman_model::event::EventKind;
use pointsman_model::status::HookState;
use pointsman_plan::simulator::Fault;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NONE: [&str; 0] = [];

fn state(node: &Node, name: &str) -> HookState {
    let status = node.status();
    status.hooks.iter().find(|status| status.hook == hook(name)).unwrap().state
}

fn link(host: &TestHost, name: &str) -> Option<u32> {
    let observed = host.shared.sim().observe();
    Some(observed.hooks.get(&hook(name))?.link.as_ref()?.interface_index)
}

/// The document that was applied, for the daemon to find.
fn lay_down(host: &TestHost, document: &serde_json::Value) {
    fs::write(host.document(), document.to_string()).unwrap();
}
