//! The keeper: a small process that owns what a daemon's end must not take away from its clients.
//!
//! In: connections of two local sockets, and signals. Out: the daemon, started and started again,
//! and over an inherited socketpair ([`link`]) everything the clients say. The keeper frames the
//! requests and holds each until its answer has come; it never looks into one. A daemon that starts
//! is told every open connection and every unanswered request, so clients notice nothing.
//!
//! Who calls it: `pointsman-node` is the keeper ([`run`]), and its child, `pointsman-node engine`,
//! is the other end of the link.
//!
//! One thread, epoll, nothing that waits for a client or for the daemon. What one client takes of
//! memory has a constant bound; one that does not read, floods or sends garbage holds up itself.
#![deny(unsafe_code)]

mod backoff;
mod binary;
mod bound;
mod client;
mod clients;
mod closer;
mod engine;
mod handover;
mod keeper;
mod ledger;
pub mod link;
mod listen;
mod notice;
mod peer;
mod quarantine;
mod shares;
mod systemd;
mod trial;
mod wire;

pub use engine::Program;
pub use keeper::{
    Config, DEFAULT_LONGEST_DELAY, DEFAULT_LONGEST_END, DEFAULT_LONGEST_SILENCE,
    DEFAULT_MAX_CLIENTS, KeeperError, Signals, run,
};
pub use listen::{Listen, ListenError};
pub use notice::{Level, Notice};
