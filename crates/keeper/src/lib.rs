//! The keeper: a small process that owns what a daemon's end must not take away from its clients.
//!
//! In: connections of two local sockets, and signals. Out: the daemon, started and started again,
//! and over an inherited socketpair ([`link`]) everything the clients say. The keeper frames the
//! requests and holds each until its answer has come; it never looks into one. A daemon that starts
//! is told every open connection and every unanswered request, so clients notice nothing.
//!
//! Who calls it: `pointsman-node` is the keeper, and its child, `pointsman-node engine`, is the
//! other end of the link.
#![forbid(unsafe_code)]

pub mod link;
mod wire;
