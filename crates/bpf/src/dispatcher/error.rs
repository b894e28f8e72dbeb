//! What can go wrong with a dispatcher.

use super::config::{MAX_PROGRAMS, Version};
use super::read::Legacy;
use super::recognise::Broken;
use crate::error::Error;
use pointsman_model::observed::AttachMode;
use rustix::io::Errno;
use std::io;
use std::time::Duration;

/// An error that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    /// The kernel or the driver refuses to attach the dispatcher.
    #[error("attach the dispatcher ({mode} mode){hint}{}: {source}", told(without_frags))]
    Attach {
        /// In which mode.
        mode: AttachMode,
        /// What the answer usually means.
        hint: &'static str,
        /// The programs in it that take no packets of several buffers.
        without_frags: Vec<String>,
        /// The answer.
        source: io::Error,
    },
    /// The dispatcher is held by a BPF link, which netlink cannot replace.
    #[error(
        "program {program} is attached by BPF link {link}, which nobody but its owner can change: \
         ask that to detach it"
    )]
    AttachedByLink {
        /// The kernel's id of the dispatcher.
        program: u32,
        /// The kernel's id of the link.
        link: u32,
    },
    /// Programs bound to a device and others do not go together.
    #[error("the programs of a dispatcher are all bound to its device, or none is: {why}")]
    Bound {
        /// Which is which.
        why: &'static str,
    },
    /// The BPF filesystem is none, or cannot be used.
    #[error("{path}: {why}")]
    Bpffs {
        /// The directory.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The dispatcher cannot be read.
    #[error("the dispatcher (program {program}) is broken: {why}")]
    Broken {
        /// The kernel's id.
        program: u32,
        /// What is wrong.
        #[source]
        why: Broken,
    },
    /// A program cannot be put into a slot.
    #[error("program {name:?} cannot be in a dispatcher: {why}")]
    Component {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// Nothing runs any more where something did.
    #[error(
        "no dispatcher runs on interface {interface_index} any more: it is planned again by itself"
    )]
    Gone {
        /// The kernel's number of the interface.
        interface_index: u32,
    },
    /// The interface is gone.
    #[error("there is no interface {interface_index}")]
    NoInterface {
        /// The kernel's number of it.
        interface_index: u32,
    },
    /// Somebody's program came into a dispatcher that was to go.
    #[error(
        "program {name} ({id}) joined the dispatcher, which was to be taken off for a moment, and \
         would have gone with it: it is planned again by itself"
    )]
    Joined {
        /// The kernel's id of the program.
        id: u32,
        /// Its name.
        name: String,
    },
    /// A program that knows nothing of the protocol is attached.
    #[error("program {program} is attached, and nothing can join it: {why}")]
    Legacy {
        /// The kernel's id.
        program: u32,
        /// Why it is none.
        #[source]
        why: Legacy,
    },
    /// The lock is held by another process.
    #[error(
        "{path} is locked by another process for {} s: lsof {path} shows which",
        patience.as_secs_f32()
    )]
    Locked {
        /// The directory.
        path: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The chain runs in another mode.
    #[error(
        "the dispatcher runs in {found} mode, not {wanted}: to change the mode remove it first"
    )]
    Mode {
        /// What was asked for.
        wanted: AttachMode,
        /// What runs.
        found: AttachMode,
    },
    /// The dispatcher speaks a version that is not known here.
    #[error(
        "the dispatcher (program {program}) has version {version} of the protocol, newer than {}: \
         update pointsman, or remove it with the xdp-loader that made it",
        Version::V3
    )]
    Newer {
        /// The kernel's id.
        program: u32,
        /// Its version.
        version: u32,
    },
    /// The kernel does not let programs replace functions of others.
    #[error("this kernel cannot run a dispatcher: {why}")]
    NoFreplace {
        /// What it answered.
        why: String,
    },
    /// There is no such program in the dispatcher.
    #[error("program with id {id} is not in the dispatcher")]
    NotThere {
        /// The kernel's id.
        id: u32,
    },
    /// The dispatcher has an older version, which cannot hold what is asked for.
    #[error(
        "the dispatcher (program {program}) has version {version} of the protocol, which is only \
         read: remove it and load its programs again"
    )]
    Older {
        /// The kernel's id.
        program: u32,
        /// Its version.
        version: Version,
    },
    /// Others changed the dispatcher each time.
    #[error("others changed the dispatcher {tries} times in a row while it was being changed")]
    Race {
        /// How often it was tried.
        tries: u32,
    },
    /// Too many programs.
    #[error(
        "{count} programs, and a dispatcher has room for {MAX_PROGRAMS}: remove one, or let \
         neighbouring programs share a slot"
    )]
    TooMany {
        /// How many it would be.
        count: usize,
    },
    /// Anything about objects, programs and pins.
    #[error(transparent)]
    Other(#[from] Error),
}

impl DispatcherError {
    /// The kernel's or libxdp's number for it: what `xdp-loader` ends with.
    #[must_use]
    pub fn errno(&self) -> i32 {
        let number = match self {
            Self::AttachedByLink { .. }
            | Self::Joined { .. }
            | Self::Legacy { .. }
            | Self::Locked { .. }
            | Self::Mode { .. }
            | Self::Older { .. }
            | Self::Race { .. } => Errno::BUSY,
            Self::Bound { .. } | Self::Broken { .. } => Errno::INVAL,
            Self::Bpffs { .. }
            | Self::Component { .. }
            | Self::Newer { .. }
            | Self::NoFreplace { .. } => Errno::OPNOTSUPP,
            Self::NoInterface { .. } => Errno::NODEV,
            Self::Gone { .. } | Self::NotThere { .. } => Errno::NOENT,
            Self::TooMany { .. } => Errno::TOOBIG,
            Self::Attach { source, .. } | Self::Other(Error::Os { source, .. }) => {
                return errno_of(source);
            }
            Self::Other(_) => Errno::INVAL,
        };
        number.raw_os_error()
    }
}

/// The programs without frags in an error.
fn told(without_frags: &[String]) -> String {
    match without_frags {
        [] => String::new(),
        names => format!("; without frags: {}", names.join(", ")),
    }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| Errno::INVAL.raw_os_error())
}
