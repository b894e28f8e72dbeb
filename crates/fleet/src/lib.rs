//! From policies and nodes to one document for each node.
//!
//! In: what policies say, which nodes there are with which labels, which programs the library
//! has, and what was published before. Out: documents, or why there is none; what a publish does
//! with each node; differences for people. The control plane calls all of it; nothing here does
//! I/O, and equal input gives equal output, in whatever order it came.
//!
//! * [`Composer`] joins the policies that select a node: entries for one interface become one
//!   chain, and what does not go together is an error that names both sides.
//! * [`judge`] says whether a node needs a new generation, and whether that would empty it.
//! * [`shards`] says into how many files a snapshot is split.
//! * `diff` shows what changes, [`preview`] whom a selector finds.
#![forbid(unsafe_code)]

mod compose;
mod diff;
mod judge;
mod library;
mod merge;
mod policies;
mod preview;
mod shards;

pub use compose::{Composer, Selection, compose};
pub use diff::{diff_documents, diff_policies, unified};
pub use judge::{Verdict, judge};
pub use library::Library;
pub use merge::Composed;
pub use policies::{NamedPolicy, Policies};
pub use preview::{Preview, preview};
pub use shards::{NODES_PER_SHARD, shards};
