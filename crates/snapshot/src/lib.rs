//! What a fleet publishes, byte for byte; `docs/snapshot.md` is the reference.
//!
//! * [`cdb`]: constant databases. Bytes in, the value of a key out, over a whole file in memory or
//!   over pieces of one that is somewhere else; and the writer.
//! * [`record`]: a node's document, signed. What was not verified gives nothing away but its
//!   parts.
//! * [`keys`]: the key that a node verifies with. With the feature `sign` also the key that the
//!   control plane signs with, and signing.
//! * [`latest`]: the one name that changes, and the names of what it points to.
//!
//! Everything that comes in was written by somebody else: each decoder is bounded by the bytes
//! that it was given, whatever lengths these declare. Nothing here does I/O but saving and loading
//! a signing key.
#![forbid(unsafe_code)]

pub mod cdb;
pub mod keys;
pub mod latest;
pub mod record;
#[cfg(feature = "sign")]
mod sign;

#[cfg(feature = "sign")]
pub use sign::sign;
