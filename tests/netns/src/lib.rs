//! What the tests of the netns and VM rings share: objects, packets, namespaces, pins.
//!
//! Everything is made under names of this process and removed when dropped, also when a test
//! fails. Traffic stays on interfaces that the test made itself.
#![forbid(unsafe_code)]

pub mod bpffs;
pub mod census;
pub mod daemon;
pub mod dispatcher;
pub mod fleet;
pub mod flow;
pub mod foreign;
pub mod http;
pub mod members;
pub mod netns;
pub mod packets;
pub mod pool;
pub mod random;
pub mod service;
pub mod shelf;
pub mod sockets;
pub mod tracer;
pub mod traffic;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The bytes of a test object.
///
/// # Panics
/// There is no such object.
#[must_use]
pub fn object(name: &str) -> Vec<u8> {
    let path = object_path(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Where a test object lies.
#[must_use]
pub fn object_path(name: &str) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(name).with_extension("o")
}

/// Where a program lies that tests run beside ours.
#[must_use]
pub fn peer_path(name: &str) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(name)
}

/// A number that no other caller in this process gets.
#[must_use]
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Says in the summary that a test, or a part of it, could not run here and why.
pub fn skip(test: &str, reason: &str) {
    println!("SKIP {test}: {reason}");
}
