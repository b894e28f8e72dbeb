//! The wire protocol that libmtl speaks with the MTL Manager, in both its dialects.
//!
//! In: bytes as a stream socket delivers them, however split. [`Reader`] makes records of them, and
//! a [`Session`] makes of each record something that is asked ([`Intent`]) or refused. Out: the
//! answers to it, as [`Frame`]s in the order of the requests. Whoever owns the socket moves the
//! bytes and the descriptors; whoever owns the resources answers. Nothing here does I/O, and what
//! one connection takes of memory has a constant bound.
//!
//! Facts are of Media-Transport-Library: `manager/mtl_mproto.h` for the layout, `mt_instance.c` of
//! its library for what clients of dialect 1.0 send and take, `mtlm_client.c` for those of 1.1. The
//! tables are in `docs/imtl.md`.
#![forbid(unsafe_code)]

mod dialect;
mod fault;
mod kind;
pub mod layout;
mod reader;
mod record;
mod register;
mod reply;
mod request;
mod session;

pub use dialect::{Dialect, WireAddress};
pub use fault::{Oddity, ReplyError, RequestError, StreamError};
pub use kind::{ReplyKind, RequestKind};
pub use reader::Reader;
pub use record::Record;
pub use register::{Hostname, Interfaces, Registration};
pub use reply::{Descriptor, Frame, Refusal, Reply};
pub use request::{Flow, Request};
pub use session::{
    Answer, AnswerError, DEFAULT_IN_FLIGHT, Event, Intent, InvalidLocation, Learned, Location,
    NoRoom, Position, Session,
};
