//! `cargo xtask demo`: a chain of four programs on real packets, re-ordered and upgraded while
//! they flow, and every packet accounted for; then a fleet of three hosts, changed by one call.

mod account;
mod burst;
mod fleet;
mod traffic;

use self::account::{Chain, checks, grouped};
use self::traffic::{CLOSED, OPEN, Traffic};
use crate::lab::{self, Binaries, Daemon, INTERFACE, Lab, OTHER_NETWORK, RECEIVER};
use crate::process::shown;
use crate::workspace::Workspace;
use crate::{interrupt, setup};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Time between two tables.
const TABLE: Duration = Duration::from_millis(1500);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave everything running after the traffic, until Ctrl-C, and say how to send packets.
    #[arg(long)]
    hold: bool,
    /// How long traffic flows.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=3600))]
    seconds: u64,
    /// Keep the fleet's database in a PostgreSQL server of its own, instead of a file of SQLite.
    #[arg(long)]
    postgres: bool,
}

/// What the document of one generation differs in.
#[derive(Debug, Clone, Copy)]
struct Generation {
    number: u64,
    title: &'static str,
    /// The port filter's priority: below the blocklist's 10 it comes first.
    ports_priority: u32,
    /// The size guard's limit in bytes, and whether it is in force.
    largest: u32,
    enforce: bool,
}

const GENERATIONS: [Generation; 3] = [
    Generation {
        number: 1,
        title: "blocklist, meter, ports, and size-guard observing",
        ports_priority: 30,
        largest: 900,
        enforce: false,
    },
    Generation {
        number: 2,
        title: "re-ordered: ports runs first",
        ports_priority: 5,
        largest: 900,
        enforce: false,
    },
    Generation {
        number: 3,
        title: "upgraded: size-guard allows 512 bytes and is in force",
        ports_priority: 5,
        largest: 512,
        enforce: true,
    },
];

/// Why programs drop packets, in the demo's words.
const REASONS: [(&str, &str); 3] = [
    ("blocklist", "source network listed"),
    ("ports", "port not listed"),
    ("size-guard", "too large"),
];

/// `cargo xtask demo`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    lab::require_root()?;
    setup::ensure(&[setup::BUILD, setup::NETNS])?;
    if options.postgres {
        setup::ensure(&[setup::SERVICES])?;
    }
    println!("demo: building");
    let binaries = Binaries::build_fleet(workspace)?;
    let lab = Lab::new("demo")?;
    let object = lab.path("size_guard.o");
    lab::compile(&workspace.root.join("xtask/objects/size_guard.c"), &object)?;
    let daemon = Daemon::start(lab.site(), &binaries)?;
    println!("demo: the daemon runs in network namespace {}", lab.inside.name());

    apply(&lab, &daemon, &GENERATIONS[0], &object)?;
    let before = Chain::read(&daemon.ask(&["counters"])?)?;
    if before.programs.iter().any(|program| program.runs > 0) {
        bail!("packets that the demo did not send reach its chain:\n{}", before.table());
    }
    let traffic = Traffic::start(&lab)?;
    let shown = show(&lab, &daemon, &traffic, &object, options.seconds);
    // Whatever was shown: packets that are on their way are counted first.
    let (totals, sent) = traffic.stop(&lab)?;
    let chain = Chain::read(&daemon.ask(&["counters"])?)?;
    println!("\n== traffic has ended ==\n{}", chain.table());
    let mut succeeded = true;
    for check in checks(&totals, &chain, &REASONS) {
        println!("{} {}", if check.holds { "ok    " } else { "FAILED" }, check.text);
        succeeded &= check.holds;
    }
    sent?;
    shown?;
    let fleet = fleet::show(&binaries, &object, options.postgres)?;
    succeeded &= fleet.succeeded;
    if options.hold {
        tell(&lab, &daemon);
        fleet.tell()?;
        interrupt::wait_for_signal();
    }
    println!("\ndemo: cleaning up");
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the chain at work, generation by generation.
fn show(lab: &Lab, daemon: &Daemon, traffic: &Traffic, object: &Path, seconds: u64) -> Result<()> {
    let started = Instant::now();
    let share = Duration::from_secs(seconds) / u32::try_from(GENERATIONS.len())?;
    for generation in &GENERATIONS {
        if generation.number > 1 {
            apply(lab, daemon, generation, object)?;
        }
        if generation.enforce {
            traffic.large_ends_here();
        }
        let until = Instant::now() + share;
        while !until.saturating_duration_since(Instant::now()).is_zero() {
            let left = until.saturating_duration_since(Instant::now());
            if interrupt::wait(left.min(TABLE)) {
                bail!("interrupted");
            }
            if traffic.is_over() {
                return Ok(());
            }
            let chain = Chain::read(&daemon.ask(&["counters"])?)?;
            let totals = traffic.totals();
            println!(
                "{:>5.1} s  generation {}  sent {}  received {}\n{}",
                started.elapsed().as_secs_f64(),
                generation.number,
                grouped(totals.sent),
                grouped(totals.received),
                chain.table()
            );
        }
    }
    Ok(())
}

fn apply(lab: &Lab, daemon: &Daemon, generation: &Generation, object: &Path) -> Result<()> {
    let file = lab.path(&format!("generation-{}.json", generation.number));
    let text = serde_json::to_string_pretty(&document(generation, object))?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let file = file.to_str().context("the temporary directory's name is not UTF-8")?;
    let report = daemon.ask(&["apply", file])?;
    if report["outcome"] != "applied" {
        bail!("generation {} was not applied: {report:#}", generation.number);
    }
    println!("\n== generation {}: {} ==", generation.number, generation.title);
    for result in report["results"].as_array().into_iter().flatten() {
        let step = result["step"].as_str().unwrap_or("?");
        println!("  {:>7} ms  {step}", milliseconds(&result["micros"]));
    }
    println!("  {:>7} ms  from request to in force\n", milliseconds(&report["visible_micros"]));
    Ok(())
}

fn milliseconds(micros: &Value) -> String {
    micros.as_f64().map_or_else(|| "?".to_owned(), |micros| format!("{:.1}", micros / 1000.0))
}

fn document(generation: &Generation, object: &Path) -> Value {
    let Generation { number, ports_priority, largest, enforce, .. } = *generation;
    json!({
        "schema": "pointsman.node/v1",
        "node": "demo",
        "generation": number,
        "programs": {
            "blocklist": {
                "builtin": "cidr-blocklist",
                "maps": {"blocklist_v4": {"entries": [{"key": OTHER_NETWORK, "value": 1}]}},
            },
            "meter": {"builtin": "counting-pass"},
            "ports": {
                "builtin": "udp-port-filter",
                "maps": {"ports": {"entries": [{"key": OPEN, "value": 1}]}},
            },
            "size-guard": {
                "object": {"path": object},
                "globals": {"largest": largest},
            },
        },
        "interfaces": {INTERFACE: {"xdp": {"chain": [
            {"program": "blocklist", "priority": 10},
            {"program": "meter", "priority": 20},
            {"program": "ports", "priority": ports_priority},
            {"program": "size-guard", "priority": 40, "enforce": enforce},
        ]}}},
    })
}

/// Tells how to send packets of one's own.
fn tell(lab: &Lab, daemon: &Daemon) {
    let show = |arguments: &[&str]| {
        let mut command: Command = daemon.command();
        shown(command.args(arguments))
    };
    let outside = lab.outside.name();
    println!(
        "
== everything keeps running until Ctrl-C ==
Send a datagram to the listed port, then one to another, then a large one (as root):
  ip netns exec {outside} bash -c 'echo hello > /dev/udp/{RECEIVER}/{OPEN}'
  ip netns exec {outside} bash -c 'echo hello > /dev/udp/{RECEIVER}/{CLOSED}'
  ip netns exec {outside} bash -c 'printf %900s . > /dev/udp/{RECEIVER}/{OPEN}'
See what became of them:
  {}
  {}
Change the chain: copy and edit {}, raise its generation, then:
  {}",
        show(&["counters"]),
        show(&["status"]),
        lab.path("generation-3.json").display(),
        show(&["apply", "FILE"]),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_rise_and_the_last_is_in_force() {
        assert!(GENERATIONS.is_sorted_by_key(|generation| generation.number));
        assert!(GENERATIONS.last().unwrap().enforce);
        let document = document(&GENERATIONS[1], Path::new("/o"));
        let chain = document["interfaces"][INTERFACE]["xdp"]["chain"].as_array().unwrap();
        assert_eq!(chain.len(), 4);
        for entry in chain {
            let name = entry["program"].as_str().unwrap();
            assert!(document["programs"][name].is_object(), "{name}");
        }
    }
}
