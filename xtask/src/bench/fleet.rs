//! A fleet: what a control plane takes with many nodes, which are simulated around it, and how long
//! a change takes from the API to packets on real ones.

use super::affected::Probe;
use crate::http::{Client, Response};
use crate::lab::fleet::{CONTROL, ETH, Fleet, Plan};
use crate::lab::{self, Binaries};
use crate::workspace::Workspace;
use crate::{interrupt, setup};
use anyhow::{Context, Result, bail};
use pointsman_services::Postgres;
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How many real hosts a change is timed on.
const NODES: u8 = 3;

/// How often couriers ask: the demo's fleet has it so, too.
const POLL: Duration = Duration::from_secs(1);

/// The ports that a change opens, in turns.
const PORTS: [u16; 2] = [20_001, 20_002];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many simulated nodes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    nodes: u32,
    /// How often each publish is repeated.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time changes from the API to packets on three real hosts instead. Needs root.
    #[arg(long)]
    latency: bool,
    /// How many changes are timed.
    #[arg(long, default_value_t = 100, requires = "latency",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// Keep the database in a PostgreSQL server of its own, instead of a file of SQLite.
    #[arg(long)]
    postgres: bool,
}

/// `cargo xtask bench fleet`.
pub(super) fn run(workspace: &Workspace, options: &Options, as_json: bool) -> Result<ExitCode> {
    setup::ensure(&[setup::BUILD])?;
    if options.postgres {
        setup::ensure(&[setup::SERVICES])?;
    }
    if options.latency {
        latency(workspace, options, as_json)?;
        return Ok(ExitCode::SUCCESS);
    }
    swarm(workspace, options, as_json)
}

/// The simulation is a program of its own, because it has the courier's code in it.
fn swarm(workspace: &Workspace, options: &Options, as_json: bool) -> Result<ExitCode> {
    let packages = ["--package", "pointsman-control", "--package", "pointsman-swarm"];
    let built =
        workspace.build(&[&["build", "--release", "--bins"], packages.as_slice()].concat())?;
    let find = |name: &str| {
        let found = built.iter().find(|path| path.file_name().is_some_and(|file| file == name));
        found.with_context(|| format!("cargo built no {name}"))
    };
    let server = options.postgres.then(Postgres::start).transpose();
    let server = server.map_err(|why| anyhow::anyhow!("{why}"))?;
    let mut command = std::process::Command::new(find("pointsman-swarm")?);
    command
        .args(["--control".as_ref(), find("pointsman-control")?.as_os_str()])
        .args(["--nodes", &options.nodes.to_string(), "--rounds", &options.rounds.to_string()])
        .args(as_json.then_some("--json"))
        .env_remove("POINTSMAN_DATABASE");
    if let Some(server) = &server {
        command.env("POINTSMAN_DATABASE", server.database());
    }
    let status = command.status().context("run the simulation")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// From the moment at which a change is sent to the API to the first packet that it lets through on
/// the last of the hosts. What is changed is published at once.
fn latency(workspace: &Workspace, options: &Options, as_json: bool) -> Result<()> {
    lab::require_root()?;
    setup::ensure(&[setup::NETNS])?;
    let binaries = Binaries::build_fleet(workspace)?;
    let plan = Plan {
        purpose: "bench",
        nodes: NODES,
        postgres: options.postgres,
        control: &["--publish-on-change"],
    };
    let fleet = Fleet::new(plan, &binaries)?;
    let api = Client::new(CONTROL, &fleet.admin);
    put(&fleet, &api, PORTS[0])?;
    wait(&fleet, &api)?;
    let probes: Vec<_> =
        fleet.nodes.iter().map(|node| Probe::start(&fleet, node, PORTS)).collect::<Result<_>>()?;
    let mut samples = Vec::new();
    for change in 0..options.changes as usize {
        if interrupt::pending() {
            bail!("interrupted");
        }
        // Anywhere in the couriers' intervals: what follows at once would always find them at the
        // same place.
        std::thread::sleep(POLL.mul_f64(chance()));
        let port = PORTS[(change + 1) % 2];
        probes.iter().for_each(|probe| probe.arm(port));
        let started = Instant::now();
        put(&fleet, &api, port)?;
        let mut last = started;
        for probe in &probes {
            last = last.max(probe.arrival()?);
        }
        samples.push((last - started).as_secs_f64() * 1000.0);
        // The next change is a new publish, and not part of this one.
        wait(&fleet, &api)?;
    }
    for probe in probes {
        probe.stop()?;
    }
    tell(samples, as_json);
    Ok(())
}

fn tell(mut samples: Vec<f64>, as_json: bool) {
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| samples[(samples.len() * percent).div_ceil(100).saturating_sub(1)];
    let (n, p50, p99, max) = (samples.len(), at(50), at(99), samples[samples.len() - 1]);
    if as_json {
        let row = json!({"figure": "API change to packets on three hosts", "unit": "ms", "n": n,
            "p50": p50, "p99": p99, "max": max});
        println!("{row}");
    } else {
        println!("{:<44} {:<5}{:>5}{:>10}{:>10}{:>10}", "figure", "unit", "n", "p50", "p99", "max");
        let name = "API change to packets on three hosts";
        println!("{name:<44} {:<5}{n:>5}{p50:>10.1}{p99:>10.1}{max:>10.1}", "ms");
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    // Each has new random keys.
    (RandomState::new().hash_one(()) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Lets one port through, beside nothing else.
fn put(fleet: &Fleet, api: &Client, port: u16) -> Result<()> {
    let policy = json!({"selector": {"all": true}, "interface": ETH, "chain": [
        {"program": "builtin:udp-port-filter", "name": "ports",
         "maps": {"ports": {"entries": [{"key": port, "value": 1}]}}}]});
    let path = "/v1/policies/guard";
    let there = call(fleet, api, format!("GET {path}"), None, &Value::Null)?;
    let condition = match there.tag {
        Some(tag) => ("If-Match", tag),
        None => ("If-None-Match", "*".to_owned()),
    };
    let answer = call(fleet, api, format!("PUT {path}"), Some(condition), &policy)?;
    if !(200..300).contains(&answer.status) {
        bail!("the policy is not taken: {} {}", answer.status, answer.text());
    }
    Ok(())
}

/// Waits until what is published is in force everywhere, and said to be.
fn wait(fleet: &Fleet, api: &Client) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = call(fleet, api, "GET /v1/nodes".to_owned(), None, &Value::Null)?;
        let nodes: Value = serde_json::from_slice(&answer.bytes)?;
        let settled = |node: &Value| {
            node["published"].is_u64()
                && node["published"] == node["in_force"]
                && node["health"] == "well"
        };
        if nodes["items"].as_array().is_some_and(|nodes| nodes.iter().all(settled)) {
            return Ok(());
        }
        if Instant::now() > deadline || interrupt::wait(Duration::from_millis(20)) {
            bail!("not in force everywhere: {nodes:#}");
        }
    }
}

/// One request, made where the control plane can be reached.
fn call(
    fleet: &Fleet,
    api: &Client,
    request: String,
    header: Option<(&'static str, String)>,
    body: &Value,
) -> Result<Response> {
    let api = api.clone();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    fleet.hub.run(move || api.call(&request, header, body.as_bytes()))?.context("ask the API")
}
