//! What can go wrong with objects, programs and maps.

use crate::dispatcher::DispatcherError;
use crate::value::ValueError;
use pointsman_model::observed::AttachMode;
use rustix::io::Errno;
use std::io;

/// An error that names the thing it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no BPF object.
    #[error("not a BPF object: {why}")]
    NotAnObject {
        /// What they are instead.
        why: String,
    },
    /// libbpf refuses the object.
    #[error("libbpf cannot open the object: {message}")]
    Open {
        /// What libbpf says.
        message: String,
    },
    /// There is no program of that name.
    #[error("no program {wanted:?} in the object; it has {available}")]
    NoSuchEntry {
        /// The name.
        wanted: String,
        /// The programs there are.
        available: String,
    },
    /// Several programs could be meant.
    #[error("the object has several programs, name one as `entry`: {available}")]
    AmbiguousEntry {
        /// The programs there are.
        available: String,
    },
    /// The program is for another hook.
    #[error("program {entry:?} (section {section:?}) is not an XDP program")]
    NotXdp {
        /// The program.
        entry: String,
        /// Its section, which says what it is for.
        section: String,
    },
    /// There is no such global variable.
    #[error("global {name:?}: the object has no such variable; it has {available}")]
    NoSuchGlobal {
        /// The name.
        name: String,
        /// The variables there are.
        available: String,
    },
    /// A value does not fit its variable.
    #[error("global {name:?}{source}")]
    Global {
        /// The variable.
        name: String,
        /// What does not fit.
        #[source]
        source: ValueError,
    },
    /// There is no such map.
    #[error("map {name:?}: the object has no such map; it has {available}")]
    NoSuchMap {
        /// The name.
        name: String,
        /// The maps there are.
        available: String,
    },
    /// An entry does not fit its map.
    #[error("map {map:?}, entry {index}, {part}{source}")]
    Entry {
        /// The map.
        map: String,
        /// The entry's place in the document's list.
        index: usize,
        /// `key` or `value`.
        part: &'static str,
        /// What does not fit.
        #[source]
        source: ValueError,
    },
    /// A map cannot be filled from a document.
    #[error("map {map:?}: {why}")]
    Map {
        /// The map.
        map: String,
        /// Why not.
        why: String,
    },
    /// libbpf or the kernel refuses the object's maps, relocations or BTF.
    #[error("cannot prepare the object: {message}")]
    Prepare {
        /// What libbpf says.
        message: String,
    },
    /// The verifier refuses a program.
    #[error("the verifier refuses program {program:?}: {summary}")]
    Verifier {
        /// The program to blame.
        program: String,
        /// The last words of the log.
        summary: String,
        /// The log, with source lines; its end where it is very long.
        log: String,
    },
    /// The members of a chain do not go together.
    #[error(transparent)]
    DoesNotFit(#[from] pointsman_fuse::layout::DoesNotFit),
    /// The members of a chain cannot be assembled.
    #[error(transparent)]
    Assemble(#[from] pointsman_fuse::assemble::AssembleError),
    /// A system call failed.
    #[error("{what}: {source}")]
    Os {
        /// What was tried, naming the thing.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The dispatcher of an interface is not what it should be, or cannot be changed.
    #[error("interface {interface}: {source}")]
    Dispatcher {
        /// The interface.
        interface: String,
        /// What is wrong, and what to do.
        #[source]
        source: Box<DispatcherError>,
    },
    /// A pin is not what it should be.
    #[error("{path}: {why}")]
    Pin {
        /// The pin.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// A system call on `what` that failed with `source`.
    pub(crate) fn os(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Os { what: what.into(), source: source.into() }
    }

    /// The error of a libbpf function that returned `code`, negative.
    pub(crate) fn code(what: impl Into<String>, code: i32) -> Self {
        Self::os(what, io::Error::from_raw_os_error(-code))
    }

    /// The verifier's log, where there is one.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        match self {
            Self::Verifier { log, .. } => Some(log),
            Self::Dispatcher { source, .. } => match source.as_ref() {
                DispatcherError::Other(inner) => inner.log(),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What the kernel's answer to an attach usually means.
pub(crate) fn attach_hint(error: &io::Error, mode: AttachMode) -> &'static str {
    match (Errno::from_io_error(error), mode) {
        (Some(Errno::BUSY | Errno::EXIST), _) => ": another XDP program is attached there",
        (Some(Errno::OPNOTSUPP), AttachMode::Native) => {
            ": its driver has no native XDP, `\"mode\": \"skb\"` works on any interface"
        }
        (Some(Errno::RANGE | Errno::INVAL), AttachMode::Native) => {
            ": the driver refuses, often because the MTU is too large for a program without frags"
        }
        _ => "",
    }
}
