//! Interfaces as the kernel tells of them.
//!
//! In: a network namespace, the calling thread's or one that is entered. Out: its interfaces with
//! what is attached to them, what is known of their drivers, queues and offloads ([`Nics`]), and
//! word that some changed. Called by the node's kernel adapter and
//! its thread that waits for changes. Beside them the processors of the host ([`topology`]), what
//! procfs tells of a process ([`Roots`]), and who is at the other end of a socket ([`peer`]), for
//! the daemon's leases. Nothing here keeps a namespace alive longer than one look.
#![deny(unsafe_code)]

mod driver;
mod elsewhere;
mod ethtool;
mod events;
mod generic;
mod interfaces;
mod namespace;
mod nics;
#[allow(unsafe_code, reason = "no crate has what the kernel tells of a peer")]
pub mod peer;
mod process;
mod topology;

pub use driver::Device;
pub use ethtool::Ethtool;
pub use events::Events;
pub use interfaces::{Interface, PeerLink, interfaces};
pub use namespace::{Namespace, NamespaceError, NamespaceId};
pub use nics::Nics;
pub use process::{ProcessState, Roots};
pub use topology::{TopologyError, interface_node, topology};

use std::io;

/// Netlink did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call failed.
    #[error("netlink: {0}")]
    Os(#[from] io::Error),
    /// The kernel's answer makes no sense.
    #[error("netlink: {0}")]
    Malformed(#[from] netlink_packet_core::DecodeError),
}
