//! The control plane of a fleet.
//!
//! In: requests of operators and couriers over HTTP. Out: what is wanted, in a database; what is
//! published, in a blob store; and how the nodes stand.
//!
//! [`api`] and [`web`] are the doors; both do what they do through the functions of [`service`] on
//! [`app::App`], which use [`db`]. [`health`] decides how a node stands, and nothing else.
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod args;
pub mod auth;
pub mod blobs;
pub mod clock;
pub mod command;
pub mod connections;
pub mod db;
pub mod events;
pub mod extract;
pub mod health;
pub mod inspect;
pub mod intake;
pub mod metrics;
pub mod problem;
pub mod publish;
pub mod secret;
pub mod serve;
pub mod service;
pub mod store;
pub mod web;
