//! HTTP, without trusting who answers: bounded bodies, bounded patience, and redirects that lead
//! neither a credential nor the courier astray.

mod answer;
mod body;
mod client;
mod store;
mod urls;

pub(crate) use answer::expect;
pub use client::{Client, ClientError, ClientOptions, MAX_REDIRECTS};
pub use store::{HttpBlobs, Web};
pub(crate) use urls::{as_directory, innermost, shown};
