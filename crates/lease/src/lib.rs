//! Who holds which lcore, and who may have the next one.
//!
//! In: connections with what the kernel says of their peers, requests in either protocol, what an
//! administrator decides. Out: answers, and [`Record`]s. Nothing here does I/O.
//!
//! * [`Desk`] holds the leases. It decides without changing itself; a [`Record`] is the only thing
//!   that changes it. So whoever writes each record down before applying it can be killed at any
//!   moment: the desk that reads the records back gives a request that comes again the answer that
//!   it had, and does nothing twice.
//! * [`place`] says which CPU an lcore id is, [`choose`] picks CPUs for those who do not care.
//! * [`imtl`] and [`native`] are the two protocols on top of it.
//! * [`journal`] is how records lie in a file, and what is left of a torn one.
#![forbid(unsafe_code)]

pub mod choose;
mod client;
mod desk;
pub mod imtl;
pub mod journal;
pub mod native;
pub mod place;
mod record;
mod tell;
mod why;

pub use client::{Claim, Client, Lease, Peer};
pub use desk::{Ask, Decision, Desk, Holding, Kept, MOST_FLOWS, MOST_PORTS, Policy};
pub use record::{Change, Record};
pub use tell::{Line, Told};
pub use why::Why;
