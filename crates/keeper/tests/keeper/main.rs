//! The keeper as a process, with the daemon of `examples/echo.rs` and raw clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ends;
mod hangs;
mod kills;
mod limits;
mod poison;
mod scene;
mod serving;
mod store;
mod upgrade;
