//! Real UDP over a veth pair, counted on both sides.

use crate::netns::{LEFT, Pair, RIGHT};
use std::net::UdpSocket;
use std::time::Duration;

/// Sends `count` datagrams to each port and returns how many each received, in the ports' order.
/// A marker after them tells that all that could arrive has arrived: veth keeps the order.
///
/// # Panics
/// The sockets cannot be opened, or the marker port does not pass.
#[must_use]
pub fn received(pair: &Pair, ports: &[u16], marker: u16, count: usize) -> Vec<usize> {
    let open = |port: u16| {
        let socket = UdpSocket::bind((RIGHT, port)).expect("a receiver");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        socket
    };
    let (sockets, end) =
        pair.right.run(|| (ports.iter().map(|&p| open(p)).collect::<Vec<_>>(), open(marker)));
    pair.left.run(|| {
        let sender = UdpSocket::bind((LEFT, 40_000)).expect("a sender");
        for round in 0..count {
            for &port in ports {
                sender.send_to(&round.to_ne_bytes(), (RIGHT, port)).expect("send");
            }
        }
        sender.send_to(b"end", (RIGHT, marker)).expect("send");
    });
    let mut buffer = [0; 64];
    end.recv(&mut buffer).expect("the marker passes");
    let drain = |socket: &UdpSocket| {
        socket.set_nonblocking(true).expect("a non-blocking socket");
        let mut buffer = [0; 64];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
    };
    sockets.iter().map(drain).collect()
}
