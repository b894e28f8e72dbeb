//! The codec from outside: bytes in, bytes out.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;
mod conversation;
mod defects;
mod golden;
mod session;
mod stream;
