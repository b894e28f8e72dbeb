//! Clients of the manager's socket, the Rust and the C one, against managers that are made of
//! literal bytes: no codec of ours makes what they are tried with.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod c;
mod conversation;
mod examples;
mod fake;
