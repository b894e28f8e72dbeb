//! Publishing: from what the database says to files that couriers fetch.
//!
//! In: policies, programs, labels of nodes, and what was published before. Out: signed records in
//! the database, and shards, objects and `latest` in the blob store. `docs/publishing.md` tells
//! operators what happens when.
//!
//! * `plan` decides, and does nothing.
//! * `run` does it, in steps of which each leaves everything right.
//! * `preview` tells what would be done.
//! * [`Publisher`] is how the rest of the control plane calls it.

mod adopt;
mod before;
mod collect;
mod error;
pub mod key;
mod looking;
mod make;
mod mark;
mod plan;
mod preview;
mod publisher;
mod report;
mod routes;
mod run;
mod shard;
mod standing;
mod step;
mod view;

pub use error::PublishError;
pub use key::KeyError;
pub use publisher::{Automatic, Publisher, Publishing};
pub(crate) use routes::{publishing, router};
pub use standing::{PublishStanding, PublishTrouble};
