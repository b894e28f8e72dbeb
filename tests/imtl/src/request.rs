//! Requests, byte by byte.

use crate::{Dialect, RECORD};
use std::net::Ipv4Addr;

/// A request.
pub type Record = [u8; RECORD];

/// A flow rule, as ADD_FLOW says it.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// The queue it leads to.
    pub queue: u16,
    /// Where from; 0.0.0.0: from anywhere.
    pub source: Ipv4Addr,
    /// Where to; 0.0.0.0: anywhere.
    pub destination: Ipv4Addr,
    /// From which port; 0: any.
    pub source_port: u16,
    /// To which port; 0: any.
    pub destination_port: u16,
}

/// Any type, with a body from offset 12 on; what is not given is zero.
#[must_use]
pub fn raw(kind: u32, body_len: [u8; 4], body: &[u8]) -> Record {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(b"IMTL");
    record[4..8].copy_from_slice(&kind.to_be_bytes());
    record[8..12].copy_from_slice(&body_len);
    record[12..12 + body.len()].copy_from_slice(body);
    record
}

/// libmtl writes the length of these two in the host's order.
fn odd_len(dialect: Dialect, length: u32) -> [u8; 4] {
    match dialect {
        Dialect::Libmtl => length.to_ne_bytes(),
        Dialect::Mtlm => length.to_be_bytes(),
    }
}

fn plain(kind: u32, body: &[u8], length: u32) -> Record {
    raw(kind, length.to_be_bytes(), body)
}

/// 101: who we are, and at most 8 interfaces.
#[must_use]
pub fn register(dialect: Dialect, pid: u32, hostname: &str, interfaces: &[u32]) -> Record {
    let mut body = [0; 106];
    body[..4].copy_from_slice(&pid.to_be_bytes());
    let name = &hostname.as_bytes()[..hostname.len().min(63)];
    body[8..8 + name.len()].copy_from_slice(name);
    body[72..74].copy_from_slice(&(interfaces.len() as u16).to_be_bytes());
    for (index, interface) in interfaces.iter().take(8).enumerate() {
        let at = 74 + 4 * index;
        body[at..at + 4].copy_from_slice(&interface.to_be_bytes());
    }
    raw(101, odd_len(dialect, 106), &body)
}

/// 102: we are alive.
#[must_use]
pub fn heartbeat(sequence: u32) -> Record {
    plain(102, &sequence.to_be_bytes(), 4)
}

/// 103: this lcore.
#[must_use]
pub fn get_lcore(lcore: u16) -> Record {
    plain(103, &lcore.to_be_bytes(), 2)
}

/// 104: this lcore no more.
#[must_use]
pub fn put_lcore(dialect: Dialect, lcore: u16) -> Record {
    raw(104, odd_len(dialect, 2), &lcore.to_be_bytes())
}

/// 105: this UDP port.
#[must_use]
pub fn add_port(interface: u32, port: u16) -> Record {
    plain(105, &[&interface.to_be_bytes()[..], &port.to_be_bytes()].concat(), 6)
}

/// 106: this UDP port no more.
#[must_use]
pub fn delete_port(interface: u32, port: u16) -> Record {
    plain(106, &[&interface.to_be_bytes()[..], &port.to_be_bytes()].concat(), 6)
}

/// 107: the map. Answered by a byte: see [`crate::Client::map`].
#[must_use]
pub fn xsk_map(interface: u32) -> Record {
    plain(107, &interface.to_be_bytes(), 26)
}

/// 108: a queue.
#[must_use]
pub fn get_queue(interface: u32) -> Record {
    plain(108, &interface.to_be_bytes(), 26)
}

/// 109: this queue no more.
#[must_use]
pub fn put_queue(interface: u32, queue: u16) -> Record {
    plain(109, &[&interface.to_be_bytes()[..], &queue.to_be_bytes()].concat(), 26)
}

/// 110: this flow.
#[must_use]
pub fn add_flow(dialect: Dialect, interface: u32, flow: Flow) -> Record {
    let address = |address: Ipv4Addr| {
        let mut bytes = address.octets();
        if dialect == Dialect::Libmtl && cfg!(target_endian = "little") {
            bytes.reverse();
        }
        bytes
    };
    let mut body = [0; 26];
    body[..4].copy_from_slice(&interface.to_be_bytes());
    body[4..6].copy_from_slice(&flow.queue.to_be_bytes());
    // UDP_V4_FLOW, as libmtl always says.
    body[10..14].copy_from_slice(&2_u32.to_be_bytes());
    body[14..18].copy_from_slice(&address(flow.source));
    body[18..22].copy_from_slice(&address(flow.destination));
    body[22..24].copy_from_slice(&flow.source_port.to_be_bytes());
    body[24..26].copy_from_slice(&flow.destination_port.to_be_bytes());
    plain(110, &body, 26)
}

/// 111: the flow at this location no more.
#[must_use]
pub fn delete_flow(interface: u32, location: u32) -> Record {
    let mut body = [0; 10];
    body[..4].copy_from_slice(&interface.to_be_bytes());
    body[6..10].copy_from_slice(&location.to_be_bytes());
    plain(111, &body, 26)
}
