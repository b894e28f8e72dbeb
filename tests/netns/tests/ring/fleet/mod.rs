//! A fleet from its control plane to packets on its hosts, and what goes wrong between them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bucket;
mod database;
mod forged;
mod kills;
mod path;
mod store;

use pointsman_netns::fleet::{Fleet, Node, filter};
use pointsman_netns::traffic::received;
use serde_json::{Value, json};

/// A port that every chain here lets through.
const MARKER: u16 = 20_000;

/// How many datagrams go to each port.
const EACH: usize = 20;

/// A policy for one node that lets one port through, beside the marker's.
fn lets(node: &str, port: u16) -> Value {
    filter(&json!({"nodes": [node]}), &[MARKER, port])
}

/// Which of these ports packets get through.
#[track_caller]
fn open(node: &Node, ports: &[u16]) -> Vec<u16> {
    let counts = received(&node.pair, ports, MARKER, EACH);
    for (port, count) in ports.iter().zip(&counts) {
        assert!([0, EACH].contains(count), "{}: {count} to port {port}", node.name);
    }
    ports.iter().zip(counts).filter(|&(_, count)| count > 0).map(|(port, _)| *port).collect()
}

/// The port of a node's first policy; the next ones follow.
fn first_port(at: usize) -> u16 {
    let at = u16::try_from(at).expect("few nodes");
    21_000 + 1_000 * at
}

/// Gives each node a policy of its own, and waits until it is in force.
#[track_caller]
fn settle(fleet: &Fleet, edition: u16) {
    for (at, node) in fleet.nodes.iter().enumerate() {
        fleet.put_policy(&format!("of-{}", node.name), &lets(&node.name, first_port(at) + edition));
    }
    fleet.publish();
    fleet.converge();
}

/// Sends packets to every host: each lets through its own port of this edition, and neither the
/// one of the edition before nor another host's.
#[track_caller]
fn assert_edition(fleet: &Fleet, edition: u16) {
    for (at, node) in fleet.nodes.iter().enumerate() {
        let own = first_port(at) + edition;
        let others = (0..fleet.nodes.len()).filter(|&other| other != at);
        let mut ports = vec![own, own - 1, own + 1];
        ports.extend(others.map(|other| first_port(other) + edition));
        assert_eq!(open(node, &ports), [own], "{}, edition {edition}", node.name);
    }
}

/// What a node has from the fleet: its generation in force, and the kind of the snapshot that it
/// refused last.
fn taken(node: &Node) -> (Option<u64>, Option<String>) {
    let status = node.daemon().peek();
    let refused = status["fleet"]["refused"]["kind"].as_str().map(str::to_owned);
    (status["generation"].as_u64(), refused)
}
