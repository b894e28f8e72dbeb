//! The API over HTTP, as clients see it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod auth;
mod blobs;
mod borders;
mod cut;
mod hostile;
mod nodes;
mod policies;
mod programs;
mod publishing;
mod system;
