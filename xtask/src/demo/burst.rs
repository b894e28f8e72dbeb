//! A burst of datagrams to one host of a fleet, each of them accounted for.
//!
//! They are sent in batches that end with a datagram to the port that every chain here lets
//! through; the next batch waits for it. A veth pair keeps the order: when it has arrived, whatever
//! else got through the chain has arrived too.

use super::account::grouped;
use super::traffic::{CLOSED, OPEN};
use crate::lab::fleet::{Fleet, Node};
use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// How many datagrams a batch has for each of the ports.
const BATCH: u64 = 32;
/// How many batches a burst has.
const BATCHES: u64 = 32;
/// How long the last datagram of a batch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of a burst: to each port as many were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Burst {
    /// Sent to each port.
    pub(super) sent: u64,
    /// Received of those to the port that stays listed.
    pub(super) open: u64,
    /// Received of those to the other one.
    pub(super) closed: u64,
}

impl Burst {
    /// Sends one.
    pub(super) fn send(fleet: &Fleet, node: &Node) -> Result<Self> {
        let bind = |port| -> Result<UdpSocket> {
            let socket = node.inside.run(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
            socket.with_context(|| format!("cannot bind UDP port {port} on {}", node.name))
        };
        let (open, closed) = (bind(OPEN)?, bind(CLOSED)?);
        open.set_read_timeout(Some(PATIENCE))?;
        closed.set_nonblocking(true)?;
        let (from, to) = (node.sender(), node.address());
        let sender = fleet.outside.run(move || UdpSocket::bind((from, 0)))?;
        let sender = sender.context("cannot bind the sender's socket")?;
        let mut burst = Self::default();
        for _ in 0..BATCHES {
            for port in [CLOSED, OPEN] {
                for _ in 0..BATCH {
                    sender.send_to(b"burst", (to, port)).context("cannot send")?;
                }
            }
            burst.sent += BATCH;
            while burst.open < burst.sent {
                receive(&open).with_context(|| {
                    format!("{}: a datagram to port {OPEN} does not arrive", node.name)
                })?;
                burst.open += 1;
            }
            burst.closed += drained(&closed)?;
        }
        Ok(burst)
    }
}

fn receive(socket: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    if &buffer[..length] != b"burst" {
        bail!("a datagram of {length} bytes is not of this demo");
    }
    Ok(())
}

fn drained(socket: &UdpSocket) -> Result<u64> {
    let mut count = 0;
    loop {
        match receive(socket) {
            Ok(()) => count += 1,
            Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::WouldBlock) => return Ok(count),
                _ => return Err(error),
            },
        }
    }
}

/// A line of the table.
pub(super) fn line(name: &str, before: Burst, after: Burst) -> String {
    let numbers = [before.sent, before.open, before.closed, after.sent, after.open, after.closed];
    let [sent, open, closed, then, open_then, closed_then] = numbers.map(grouped);
    format!(
        "  {name:<8}{sent:>10}{open:>10}{closed:>10}   {then:>10}{open_then:>10}{closed_then:>10}"
    )
}

/// What the columns are.
pub(super) fn heading() -> String {
    let (open, closed) = (format!("to {OPEN}"), format!("to {CLOSED}"));
    format!(
        "  {:<8}{:>10}{open:>10}{closed:>10}   {:>10}{open:>10}{closed:>10}\n  {:<8}{:>30}   {:>30}",
        "", "sent each", "sent each", "node", "before", "after"
    )
}
