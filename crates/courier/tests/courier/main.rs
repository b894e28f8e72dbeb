//! The courier against real servers, directories, processes and signals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod enrol;
mod faults;
mod fetch;
mod kills;
mod offline;
mod process;
mod report;
mod sources;
mod stage;
mod tls;
