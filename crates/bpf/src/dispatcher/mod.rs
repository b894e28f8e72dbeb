//! libxdp's dispatcher protocol: several programs on one interface, each visible by itself, added
//! and removed by whoever speaks the protocol.
//!
//! In: an interface and what its list of programs shall be. Out: what runs there now, and one
//! netlink REPLACE that changes it. The programs of peers keep their ids, maps and places.
//! [`config`], [`order`], [`names`] and [`recognise`] are pure; the rest are calls.
//!
//! Facts about libxdp are from xdp-tools 1.3.1 and 1.6.3: `lib/libxdp/libxdp.c` and
//! `lib/libxdp/protocol.org`.

mod build;
mod change;
mod clean;
pub mod config;
mod error;
mod lock;
mod look;
pub mod names;
mod namespaces;
mod netlink;
pub mod order;
mod pins;
mod place;
mod probe;
mod program;
mod read;
pub mod recognise;
mod running;
mod sys;
mod version;

pub use change::{Changed, Lone, Mode, Options, Source, Wanted};
pub use clean::Cleaned;
pub(crate) use config::FLAG_FRAGS;
pub use config::{Actions, Config, MAX_PROGRAMS, SlotConfig, Version};
pub use error::DispatcherError;
pub use lock::Dispatcher;
pub use namespaces::interfaces;
pub use netlink::{Hook, attach_alone, detach_alone, hook};
pub use probe::{freplace, try_dispatcher};
pub use program::{PASS_NAME, Pick, Program, XSK_NAME, xsk_program};
pub use read::{Attached, AttachedBy, Attachment, Chain, Component, Legacy};
pub use running::Holder;
pub use version::{HostLibxdp, host_libxdp, host_version};

/// The name of every dispatcher.
pub const DISPATCHER_NAME: &str = "xdp_dispatcher";
