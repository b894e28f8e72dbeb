//! The courier of one node: fetches what the control plane published, hands it to the daemon as
//! files, and reports back. Unprivileged, and the only part of a host that has a network.
//!
//! ```text
//! source --latest, shard, objects--> Courier --files--> sink       poll_once()
//! node   --status, counters------> Reporter ----------> control    report_once()
//! ```
//!
//! [`Courier`] and [`Reporter`] have no file, socket, thread or clock of their own but tokio's: the
//! process ([`run`]) gives them those, a simulation of a fleet gives ten thousand of each something
//! else. [`Courier::status`] is what goes into [`Reporter::report_once`].
//!
//! ```no_run
//! # use pointsman_courier::*;
//! # use pointsman_courier::source::*;
//! # use std::time::Duration;
//! # async fn simulate(client: Client, url: url::Url, credential: Secret, key: pointsman_snapshot::keys::PublicKey, node: impl Node) {
//! let config = Config {
//!     fleet: "lab".parse().unwrap(),
//!     node: "node-17".parse().unwrap(),
//!     trust: Trust::Key(Box::new(key)),
//!     interval: Duration::from_secs(10),
//! };
//! let traffic = Traffic::default();
//! // Clones share their connections; a client of its own makes a node of its own connections.
//! let blobs = url.join("blobs/").unwrap();
//! let blobs = HttpBlobs::new(client.clone(), blobs, Some(credential.clone()), traffic.clone());
//! let source = Sources::new(Blobs::Http(blobs), Web::new(client.clone(), traffic.clone()));
//! let mut courier = Courier::new(config, source, MemorySink::default());
//! let mut reporter = Reporter::new(node, HttpControl::new(client, url, credential));
//!
//! let outcome = courier.poll_once().await;
//! let reported = reporter.report_once(courier.status()).await;
//! println!("{outcome:?} {reported:?} {:?}", traffic.counted());
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod args;
mod checked;
pub mod commands;
mod control;
mod courier;
mod drop_dir;
pub mod enrol;
mod enrolled;
mod fetch;
mod files;
mod hash;
mod memory;
mod metrics;
mod node;
mod notify;
mod report;
pub mod run;
pub mod schedule;
mod secret;
mod serve;
mod sink;
pub mod source;
mod trouble;
mod trust;

pub use control::{Control, HttpControl, Taken};
pub use courier::{Config, Courier, Doubt, MAX_OBJECT, Outcome, PollError};
pub use drop_dir::{Cache, DropDir, FilePart, OpenError};
pub use enrolled::{COURIER_SCHEMA, Enrolled, EnrolledError, client_options};
pub use files::StorageError;
pub use memory::Memory;
pub use node::{Look, Node, NodeError, NodeSocket};
pub use report::{FULL_EVERY, Reported, Reporter};
pub use secret::Secret;
pub use sink::{Kept, MemorySink, Part, Sink, SinkError};
pub use trust::{Membership, Trust};
