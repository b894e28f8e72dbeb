//! `pointsman fleet` as an operator and a script see it, against a control plane made from the
//! types of its API.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod fake_control;
#[path = "../fake_node/mod.rs"]
mod fake_node;
mod hostile;
mod login;
mod nodes;
mod policies;
mod programs;
mod publish;
mod samples;
mod terminals;
