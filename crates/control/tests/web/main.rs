//! The web pages, as browsers without scripts see them, and once in a real one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod browser;
mod editor;
mod pages;
mod session;
mod visitor;
