//! The demo's end: three hosts that a control plane decides about, one change through its API, and
//! packets on all three.

use super::account::grouped;
use super::burst::{Burst, heading, line};
use super::traffic::{CLOSED, OPEN};
use crate::interrupt;
use crate::lab::fleet::{CONTROL, ETH, Fleet, Plan};
use crate::lab::{Binaries, relay};
use crate::process::shown;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs;
use std::path::Path;

/// How many hosts.
const NODES: u8 = 3;

/// A fleet that did what it was told.
#[derive(Debug)]
pub(super) struct Shown {
    fleet: Fleet,
    /// Whether every packet was where it had to be.
    pub(super) succeeded: bool,
}

/// Starts a fleet, changes a policy, and counts packets before and after.
pub(super) fn show(binaries: &Binaries, object: &Path, postgres: bool) -> Result<Shown> {
    println!("\n== a fleet: a control plane and three hosts ==");
    let plan = Plan { purpose: "fleet", nodes: NODES, postgres, control: &[] };
    let fleet = Fleet::new(plan, binaries)?;
    let database = if postgres { "PostgreSQL" } else { "a file of SQLite" };
    println!("  control plane  http://{CONTROL}  database: {database}; store: a directory");
    for node in &fleet.nodes {
        let (name, inside) = (&node.name, node.inside.name());
        println!("  {name:<13}  enrolled; daemon and courier in network namespace {inside}");
    }
    let object = object.to_str().context("the temporary directory's name is not UTF-8")?;
    fleet.ask(&["program", "upload", "size-guard", object])?;
    put_policy(&fleet, &[OPEN, CLOSED])?;
    println!("  policy guard   meter, ports {OPEN} and {CLOSED}, size-guard observing, on {ETH}");
    publish(&fleet)?;
    let before = bursts(&fleet)?;

    println!("\n== one change through the API: port {CLOSED} is no longer listed ==");
    put_policy(&fleet, &[OPEN])?;
    publish(&fleet)?;
    let after = bursts(&fleet)?;

    println!("\n{}", heading());
    let mut succeeded = true;
    for ((node, before), after) in fleet.nodes.iter().zip(&before).zip(&after) {
        println!("{}", line(&node.name, *before, *after));
        succeeded &= before.closed == before.sent && after.closed == 0;
        succeeded &= before.open == before.sent && after.open == after.sent;
    }
    let dropped: u64 = after.iter().map(|burst| burst.sent - burst.closed).sum();
    let verdict = if succeeded { "ok    " } else { "FAILED" };
    println!("{verdict} {} dropped on {NODES} hosts by what one call changed", grouped(dropped));
    Ok(Shown { fleet, succeeded })
}

fn bursts(fleet: &Fleet) -> Result<Vec<Burst>> {
    fleet.nodes.iter().map(|node| Burst::send(fleet, node)).collect()
}

/// Says what runs, and in which order.
fn put_policy(fleet: &Fleet, ports: &[u16]) -> Result<()> {
    let entries: Vec<_> = ports.iter().map(|port| json!({"key": port, "value": 1})).collect();
    let policy = json!({
        "description": "only what is listed gets through",
        "selector": {"labels": {"role": "edge"}},
        "interface": ETH,
        "chain": [
            {"program": "builtin:counting-pass", "name": "meter", "priority": 10},
            {"program": "builtin:udp-port-filter", "name": "ports", "priority": 20,
             "maps": {"ports": {"entries": entries}}},
            {"program": "size-guard", "priority": 30, "enforce": false,
             "globals": {"largest": 900}},
        ],
    });
    let file = fleet.path("guard.json");
    fs::write(&file, serde_json::to_string_pretty(&policy)?)?;
    let file = file.to_str().context("the temporary directory's name is not UTF-8")?;
    fleet.ask(&["policy", "put", "guard", file]).map(drop)
}

/// Publishes, and waits until it is in force everywhere.
fn publish(fleet: &Fleet) -> Result<()> {
    if interrupt::pending() {
        bail!("interrupted");
    }
    let report = fleet.ask(&["publish", "--wait", "60s"])?;
    let waited = &report["waited"];
    let count = waited["in_force"].as_array().map_or(0, Vec::len);
    if count != usize::from(NODES) {
        bail!("not in force on {NODES} hosts: {waited:#}");
    }
    let seconds = waited["milliseconds"].as_f64().unwrap_or_default() / 1000.0;
    let number = &report["snapshot"]["number"];
    println!("  snapshot {number}     in force on {count} hosts after {seconds:.1} s");
    Ok(())
}

impl Shown {
    /// Tells how to reach it.
    pub(super) fn tell(&self) -> Result<()> {
        let Self { fleet, .. } = self;
        let door = relay::open(&fleet.hub, CONTROL)?;
        let run = |arguments: &[&str]| {
            let mut command = fleet.command();
            shown(command.arg("fleet").args(arguments))
        };
        let (outside, node) = (fleet.outside.name(), &fleet.nodes[0]);
        println!(
            "
The control plane, in a browser or from a shell on this host:
  http://{door}
  token of the administrator: {}
  export POINTSMAN_CONTROL=http://{door} POINTSMAN_TOKEN={}
  {}
  {}
  {}
Send a datagram to {} (as root), and see it counted:
  ip netns exec {outside} bash -c 'echo hello > /dev/udp/{}/{OPEN}'
  {}",
            fleet.admin,
            fleet.admin,
            run(&["status"]),
            run(&["policy", "edit", "guard"]),
            run(&["publish", "--wait"]),
            node.name,
            node.address(),
            shown(node.daemon.command().arg("counters")),
        );
        Ok(())
    }
}
