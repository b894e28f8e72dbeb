//! Interfaces as the kernel tells of them.
//!
//! In: a network namespace, the calling thread's or one that is entered. Out: its interfaces with
//! what is attached to them, what is known of their drivers, queues and offloads ([`Nics`]), and
//! word that some changed. Called by the node's kernel adapter and
//! its thread that waits for changes. Beside them the processors of the host ([`topology`]), what
//! procfs tells of a process ([`Roots`]), and who is at the other end of a socket ([`peer`]), for
//! the daemon's leases. What is changed: numbers of queues ([`Ethtool`]), flow rules and receive side
//! scaling ([`Control`]), polling ([`Sysfs`]) and [`interrupts`]; always one thing that was named, and
//! what it was before is the caller's to keep. Nothing here keeps a namespace alive longer than one look.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "no crate has this call")]
mod control;
mod driver;
mod elsewhere;
mod ethtool;
mod events;
#[allow(unsafe_code, reason = "it hands structures to that call")]
mod flow;
mod generic;
mod interfaces;
pub mod interrupts;
mod namespace;
mod napi;
mod nics;
#[allow(unsafe_code, reason = "no crate has what the kernel tells of a peer")]
pub mod peer;
mod process;
#[allow(unsafe_code, reason = "it hands structures to that call")]
mod rss;
mod sysfs;
mod topology;

pub use control::{Control, ControlError, interface_index};
pub use driver::Device;
pub use ethtool::{ChannelsError, Ethtool};
pub use events::Events;
pub use flow::{FlowTable, ListedRule};
pub use interfaces::{Interface, PeerLink, interfaces};
pub use namespace::{Namespace, NamespaceError, NamespaceId};
pub use napi::{Napi, NapiError};
pub use nics::Nics;
pub use process::{ProcessState, Roots};
pub use sysfs::{Sysfs, TuneError};
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
