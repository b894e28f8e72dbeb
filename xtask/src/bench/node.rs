//! How fast the daemon is, and how large.

use super::stats::Row;
use crate::lab::{self, Binaries, Daemon, INTERFACE, Lab, Namespace, RECEIVER, SENDER, join};
use crate::workspace::Workspace;
use crate::{interrupt, setup};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PORT: u16 = 20_000;
/// Time between two datagrams: the resolution of "the first packet affected".
const PACE: Duration = Duration::from_micros(50);
/// How long an effect may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// The arrival that is waited for is not armed.
const DISARMED: u64 = u64::MAX;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each figure is taken.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// Takes all figures.
pub(super) fn measure(workspace: &Workspace, options: &Options) -> Result<Vec<Row>> {
    lab::require_root()?;
    setup::ensure(&[setup::BUILD, setup::NETNS])?;
    let binaries = Binaries::build(workspace)?;
    let lab = Lab::new("bench")?;
    let object = lab.path("size_guard.o");
    lab::compile(&workspace.root.join("xtask/objects/size_guard.c"), &object)?;
    let daemon = Daemon::start(lab.site(), &binaries)?;
    let mut documents = Documents { lab: &lab, object: &object, generation: 0 };
    let mut rows = effects(&mut documents, &daemon, options.rounds)?;
    rows.extend(no_ops(&documents, &daemon, options.rounds)?);
    rows.push(memory(&daemon)?);
    Ok(rows)
}

/// A chain of one program that drops everything above a size, in ever new generations.
#[derive(Debug)]
struct Documents<'a> {
    lab: &'a Lab,
    object: &'a Path,
    generation: u64,
}

impl Documents<'_> {
    /// Writes the next generation's document and gives its path.
    fn next(&mut self, largest: u32) -> Result<String> {
        self.generation += 1;
        let document = json!({
            "schema": "pointsman.node/v1", "node": "bench", "generation": self.generation,
            "programs": {"guard": {"object": {"path": self.object},
                                   "globals": {"largest": largest}}},
            "interfaces": {INTERFACE: {"xdp": {"chain": [{"program": "guard"}]}}},
        });
        fs::write(self.lab.path("document.json"), document.to_string())?;
        self.current()
    }

    /// The path of the document written last.
    fn current(&self) -> Result<String> {
        let path = self.lab.path("document.json");
        Ok(path.to_str().context("the temporary directory's name is not UTF-8")?.to_owned())
    }
}

fn apply(daemon: &Daemon, file: &str, outcome: &str) -> Result<Value> {
    if interrupt::pending() {
        bail!("interrupted");
    }
    let report = daemon.ask(&["apply", file])?;
    if report["outcome"] != outcome {
        bail!("expected the document to be {outcome}: {report:#}");
    }
    Ok(report)
}

fn millis(report: &Value, key: &str) -> Result<f64> {
    let micros = report[key].as_f64().with_context(|| format!("the report has no {key}"))?;
    Ok(micros / 1000.0)
}

/// From the start of the command to the first packet that it let through. The chain before drops
/// everything, and every round's chain is a new one for the daemon.
fn effects(documents: &mut Documents<'_>, daemon: &Daemon, rounds: u32) -> Result<Vec<Row>> {
    let probe = Probe::start(documents.lab)?;
    let (mut seen, mut visible) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        apply(daemon, &documents.next(0)?, "applied")?;
        let file = documents.next(1514 + round)?;
        let started = probe.arm();
        let report = apply(daemon, &file, "applied")?;
        seen.push(probe.arrival()?.saturating_sub(started).as_secs_f64() * 1000.0);
        visible.push(millis(&report, "visible_micros")?);
    }
    probe.stop(documents.lab)?;
    Ok(vec![
        Row::new("apply (command) to first packet affected", "ms", seen),
        Row::new("apply (request) to swap confirmed by kernel", "ms", visible),
    ])
}

fn no_ops(documents: &Documents<'_>, daemon: &Daemon, rounds: u32) -> Result<Vec<Row>> {
    let file = documents.current()?;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let started = Instant::now();
        let report = apply(daemon, &file, "unchanged")?;
        outside.push(started.elapsed().as_secs_f64() * 1000.0);
        inside.push(millis(&report, "total_micros")?);
    }
    Ok(vec![
        Row::new("no-op apply (request to answer)", "ms", inside),
        Row::new("no-op apply (whole command)", "ms", outside),
    ])
}

/// The resident memory of keeper and daemon, once a second for five seconds in which nobody asks
/// anything.
fn memory(daemon: &Daemon) -> Result<Row> {
    let mut samples = Vec::new();
    for _ in 0..5 {
        if interrupt::wait(Duration::from_secs(1)) {
            bail!("interrupted");
        }
        samples.push(resident(daemon)?);
    }
    Ok(Row::new("idle resident memory, keeper and daemon", "MiB", samples))
}

/// The resident memory of keeper and daemon together, in MiB.
pub(super) fn resident(daemon: &Daemon) -> Result<f64> {
    let of = |pid| {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        resident_of(&status).with_context(|| format!("{path} has no VmRSS"))
    };
    daemon.processes()?.into_iter().map(of).sum()
}

/// `VmRSS` of a process's status, in MiB.
fn resident_of(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Datagrams at a steady pace, and the moment at which one of them gets through.
#[derive(Debug)]
struct Probe {
    epoch: Instant,
    shared: Arc<Shared>,
    arrivals: Receiver<Duration>,
    threads: [JoinHandle<Result<Result<()>>>; 2],
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Nanoseconds since the epoch. A datagram sent earlier may have met the chain before.
    armed: AtomicU64,
}

impl Probe {
    fn start(lab: &Lab) -> Result<Self> {
        let epoch = Instant::now();
        let shared =
            Arc::new(Shared { stop: AtomicBool::new(false), armed: AtomicU64::new(DISARMED) });
        let (arrived, arrivals) = channel();
        let socket = lab.inside.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        let with = shared.clone();
        let receiver = lab.inside.spawn(move || receive(&socket, epoch, &with, &arrived))?;
        let with = shared.clone();
        let sender = lab.outside.spawn(move || send(epoch, &with))?;
        Ok(Self { epoch, shared, arrivals, threads: [sender, receiver] })
    }

    /// Waits from now on for a datagram that is sent from now on. Gives the moment.
    fn arm(&self) -> Duration {
        let now = self.epoch.elapsed();
        self.shared.armed.store(nanos(now), Ordering::SeqCst);
        now
    }

    /// When it came.
    fn arrival(&self) -> Result<Duration> {
        let arrival = self.arrivals.recv_timeout(PATIENCE);
        arrival.context("no packet came through the chain that lets them through")
    }

    fn stop(self, lab: &Lab) -> Result<()> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let [sender, receiver] = self.threads;
        let sent = join(sender)?;
        wake(&lab.inside)?;
        join(receiver)??;
        sent
    }
}

/// Ends the receiver by a datagram from loopback, which meets no chain.
fn wake(inside: &Namespace) -> Result<()> {
    let wake = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(&[], ("127.0.0.1", PORT));
    inside.run(wake)?.map(drop).context("cannot end the receiver")
}

fn send(epoch: Instant, shared: &Shared) -> Result<()> {
    let socket = UdpSocket::bind((SENDER, 0)).context("cannot bind the sender's socket")?;
    while !shared.stop.load(Ordering::SeqCst) {
        socket
            .send_to(&nanos(epoch.elapsed()).to_be_bytes(), (RECEIVER, PORT))
            .context("cannot send")?;
        // The pace itself, not a wait for something.
        std::thread::sleep(PACE);
    }
    Ok(())
}

fn receive(
    socket: &UdpSocket,
    epoch: Instant,
    shared: &Shared,
    arrived: &Sender<Duration>,
) -> Result<()> {
    let mut buffer = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("cannot receive")?;
        let now = epoch.elapsed();
        if from.ip().is_loopback() {
            return Ok(());
        }
        let Some(sent) = buffer[..length].first_chunk() else { continue };
        let armed = shared.armed.load(Ordering::SeqCst);
        if u64::from_be_bytes(*sent) >= armed {
            shared.armed.store(DISARMED, Ordering::SeqCst);
            // The measurement may have been given up.
            let _ = arrived.send(now);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("invariant: a run is shorter than 500 years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_mebibytes() {
        let status = "Name:\tpointsman-node\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(resident_of(status), Some(10.0));
        assert_eq!(resident_of("Name:\tx\n"), None);
    }
}
