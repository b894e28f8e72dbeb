//! AF_XDP sockets: packets between an application and one queue of a network card, past the kernel's
//! stack.
//!
//! In: an interface, a queue, memory for packets. Out: packets, in that memory, without a copy where
//! the driver can. Called by applications and tests; the daemon never touches a ring.
//!
//! * [`Umem`] is the memory, cut into [`Frame`]s. Whoever holds a frame may read and write it; a
//!   frame that was handed to the kernel comes back by a ring.
//! * [`Socket`] is bound to a queue and has two halves, a [`Receiver`] and a [`Sender`], which may
//!   live on different threads.
//! * An XDP program sends a queue's packets to the socket that an XSKMAP has for it: [`XskMap`] puts
//!   one there, for whoever may.
//! * [`manager`] is how an application comes by queue, map and port where somebody manages them.
//! * [`ring`] is the arithmetic of rings, by itself.
//!
//! Reference: `Documentation/networking/af_xdp.rst`, `linux/if_xdp.h`.
#![deny(unsafe_code)]

mod error;
pub mod manager;
pub mod ring;
mod socket;
#[allow(unsafe_code, reason = "options that rustix has no functions for")]
mod tune;
#[allow(unsafe_code, reason = "memory that is shared with the kernel")]
mod umem;
#[allow(unsafe_code, reason = "the bpf system call")]
mod xskmap;

pub use error::XskError;
pub use socket::{Copying, Outgoing, Received, Receiver, Sender, Settings, Socket, Statistics};
pub use tune::BusyPoll;
pub use umem::{Frame, Umem, UmemSettings};
pub use xskmap::XskMap;
