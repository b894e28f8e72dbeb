//! Interfaces as the kernel tells of them.
//!
//! In: a network namespace, the calling thread's or one that is entered. Out: its interfaces with
//! what is attached to them, and word that some changed. Called by the node's kernel adapter and
//! its thread that waits for changes. Nothing here keeps a namespace alive longer than one look.
#![forbid(unsafe_code)]

mod events;
mod interfaces;
mod namespace;

pub use events::Events;
pub use interfaces::{Interface, interfaces};
pub use namespace::{Namespace, NamespaceError, NamespaceId};

use std::io;

/// Route netlink did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call failed.
    #[error("route netlink: {0}")]
    Os(#[from] io::Error),
    /// The kernel's answer makes no sense.
    #[error("route netlink: {0}")]
    Malformed(#[from] netlink_packet_core::DecodeError),
}
