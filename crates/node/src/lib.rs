//! The daemon of a host: documents in, chains in the kernel, status out.
//!
//! * [`engine`]: one plain thread owns the kernel and everything remembered, and takes messages.
//! * [`http`] (over [`serve`]) and [`watch`]: the socket and the watched document, on threads of
//!   their own, which only send messages. [`daemon`] starts and ends all of it.
//! * [`fleet`]: what comes from a fleet, by files that somebody without any rights laid down.
//! * [`keep`]: the keeper, which starts the daemon and has its clients' sockets; [`leases`]: their
//!   requests in the daemon, on one plain thread that owns who holds what.
//! * [`host`]: the kernel as the engine sees it; [`kernel`]: the one of this host; [`chainless`]: of a
//!   host on which no chain can run.
//! * [`store`], [`state`], [`disk`], [`lock`]: what is kept on disk, whole or not at all;
//!   [`history`]: what of it is there to return to. [`events`]: what happened, for people.
//! * [`clock`]: the clocks that deadlines go by.
#![forbid(unsafe_code)]

pub mod args;
pub mod chainless;
pub mod clock;
pub mod daemon;
pub mod disk;
mod dispatchers;
pub mod engine;
pub mod events;
pub mod fleet;
pub mod group;
pub mod health;
pub mod history;
pub mod host;
pub mod http;
pub mod keep;
pub mod kernel;
pub mod leases;
pub mod lock;
mod look;
pub mod notify;
pub mod problem;
mod renamed;
pub mod resolve;
pub mod serve;
pub mod state;
pub mod store;
pub mod watch;
