//! What a client of libmtl's socket waits for, and how many it can be: keeper and daemon together.

use crate::lab::{self, Binaries, Daemon, Lab};
use crate::workspace::Workspace;
use crate::{interrupt, setup};
use anyhow::{Context as _, Result, bail};
use pointsman_imtl_client::{Client, Dialect, RECORD, parse, request};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use serde_json::json;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each number of connections asks.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many connections ask, each one request after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000])]
    connections: Vec<u16>,
}

/// One number of connections.
#[derive(Debug)]
struct Row {
    connections: u16,
    requests_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    rss_kb: u64,
}

/// Takes all figures and prints them.
pub(super) fn run(workspace: &Workspace, options: &Options, as_json: bool) -> Result<()> {
    lab::require_root()?;
    setup::ensure(&[setup::BUILD, setup::NETNS])?;
    let binaries = Binaries::build(workspace)?;
    let lab = Lab::new("bench")?;
    let daemon = Daemon::start(lab.site(), &binaries)?;
    if !as_json {
        println!("connections  requests/s   p50 us   p99 us   rss kB");
    }
    for &connections in &options.connections {
        let time = Duration::from_secs(options.seconds);
        let row = measure(&lab.path("run"), &daemon, connections, time)?;
        let Row { connections, requests_per_s, p50_us, p99_us, rss_kb } = row;
        if as_json {
            let row = json!({"connections": connections, "requests_per_s": requests_per_s.round(),
                "p50_us": p50_us, "p99_us": p99_us, "rss_kb": rss_kb});
            println!("{row}");
        } else {
            println!(
                "{connections:>11} {requests_per_s:>11.0} {p50_us:>8.1} {p99_us:>8.1} {rss_kb:>8}"
            );
        }
    }
    Ok(())
}

/// One connection: it gets an lcore of its own and gives it back, again and again.
#[derive(Debug)]
struct Asker {
    client: Client,
    requests: [request::Record; 2],
    turn: usize,
    sent: Instant,
}

impl Asker {
    fn new(socket: &Path, lcore: u16) -> Result<Self> {
        let client = Client::register(socket, Dialect::Libmtl).context("connect and register")?;
        let requests = [request::get_lcore(lcore), request::put_lcore(Dialect::Libmtl, lcore)];
        Ok(Self { client, requests, turn: 0, sent: Instant::now() })
    }

    fn ask(&mut self) -> Result<()> {
        self.sent = Instant::now();
        self.client.send(&self.requests[self.turn])?;
        self.turn ^= 1;
        Ok(())
    }

    /// Takes the answer that is there; how long it took.
    fn take(&mut self) -> Result<Duration> {
        let mut bytes = [0; RECORD];
        self.client.stream().read_exact(&mut bytes)?;
        let took = self.sent.elapsed();
        let reply = parse(&bytes)?;
        if reply.kind != 201 || reply.value != 0 {
            bail!("the daemon refused: {reply:?}");
        }
        Ok(took)
    }
}

fn measure(run_dir: &Path, daemon: &Daemon, connections: u16, time: Duration) -> Result<Row> {
    let socket = run_dir.join("mtl_manager.sock");
    let mut askers =
        (1..=connections).map(|lcore| Asker::new(&socket, lcore)).collect::<Result<Vec<_>>>()?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, asker) in askers.iter().enumerate() {
        let data = EventData::new_u64(index as u64);
        epoll::add(&epoll, &asker.client, data, EventFlags::IN)?;
    }
    // Connections are warm when each has asked twice; then it counts.
    let mut samples = Vec::new();
    let counts_from = Instant::now() + time / 10;
    let end = counts_from + time;
    for asker in &mut askers {
        asker.ask()?;
    }
    let mut waiting = askers.len();
    let mut events = Vec::with_capacity(256);
    while waiting > 0 {
        if interrupt::pending() {
            bail!("interrupted");
        }
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let asker = &mut askers[event.data.u64() as usize];
            let took = asker.take()?;
            let now = asker.sent + took;
            if now >= counts_from && now < end {
                samples.push(took);
            }
            if now < end || asker.turn == 1 {
                asker.ask()?;
            } else {
                waiting -= 1;
            }
        }
    }
    if samples.is_empty() {
        bail!("no request was answered within {time:?}; take more --seconds");
    }
    samples.sort_unstable();
    let at = |percent: usize| {
        let rank = (samples.len() * percent).div_ceil(100).saturating_sub(1);
        samples[rank].as_nanos() as f64 / 1000.0
    };
    let rss_kb = (super::node::resident(daemon)? * 1024.0) as u64;
    let requests_per_s = samples.len() as f64 / time.as_secs_f64();
    Ok(Row { connections, requests_per_s, p50_us: at(50), p99_us: at(99), rss_kb })
}
