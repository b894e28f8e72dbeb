//! The moment at which a change lets packets through on a host of a fleet.

use crate::lab::fleet::{Fleet, Node};
use crate::lab::join;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two datagrams: how exactly "the first packet affected" is known.
const PACE: Duration = Duration::from_millis(1);

/// How long an effect may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// No arrival is waited for.
const DISARMED: u64 = u64::MAX;

/// Datagrams at a steady pace to the port that the next change opens.
#[derive(Debug)]
pub(super) struct Probe {
    epoch: Instant,
    shared: Arc<Shared>,
    arrivals: Receiver<Instant>,
    threads: [JoinHandle<Result<Result<()>>>; 2],
    name: String,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Where datagrams go.
    port: AtomicU16,
    /// Nanoseconds since the epoch: what was sent earlier does not count.
    armed: AtomicU64,
}

impl Probe {
    pub(super) fn start(fleet: &Fleet, node: &Node, ports: [u16; 2]) -> Result<Self> {
        let epoch = Instant::now();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            port: AtomicU16::new(ports[0]),
            armed: AtomicU64::new(DISARMED),
        });
        let (arrived, arrivals) = channel();
        let bind = |port| node.inside.run(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
        let sockets = [bind(ports[0])??, bind(ports[1])??];
        let with = shared.clone();
        let receiver = node.inside.spawn(move || receive(&sockets, &with, &arrived))?;
        let (with, from, to) = (shared.clone(), node.sender(), node.address());
        let sender = fleet.outside.spawn(move || send(from, to, epoch, &with))?;
        let name = node.name.clone();
        Ok(Self { epoch, shared, arrivals, threads: [sender, receiver], name })
    }

    /// Waits from now on for a datagram to this port that is sent from now on.
    pub(super) fn arm(&self, port: u16) {
        self.shared.port.store(port, Ordering::SeqCst);
        self.shared.armed.store(nanos(self.epoch.elapsed()), Ordering::SeqCst);
    }

    /// When it came.
    pub(super) fn arrival(&self) -> Result<Instant> {
        let arrival = self.arrivals.recv_timeout(PATIENCE);
        arrival.with_context(|| format!("{}: no packet comes through", self.name))
    }

    pub(super) fn stop(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            join(thread)??;
        }
        Ok(())
    }
}

fn send(from: Ipv4Addr, to: Ipv4Addr, epoch: Instant, shared: &Shared) -> Result<()> {
    let socket = UdpSocket::bind((from, 0)).context("cannot bind the sender's socket")?;
    while !shared.stop.load(Ordering::SeqCst) {
        let port = shared.port.load(Ordering::SeqCst);
        let mut payload = [0; 10];
        payload[..8].copy_from_slice(&nanos(epoch.elapsed()).to_be_bytes());
        payload[8..].copy_from_slice(&port.to_be_bytes());
        socket.send_to(&payload, (to, port)).context("cannot send")?;
        // The pace itself, not a wait for something.
        std::thread::sleep(PACE);
    }
    Ok(())
}

fn receive(sockets: &[UdpSocket; 2], shared: &Shared, arrived: &Sender<Instant>) -> Result<()> {
    let mut buffer = [0; 64];
    // So that the end is noticed.
    let limit = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !shared.stop.load(Ordering::SeqCst) {
        let mut events = sockets.each_ref().map(|socket| PollFd::new(socket, PollFlags::IN));
        poll(&mut events, Some(&limit))?;
        let ready = events.each_ref().map(|event| !event.revents().is_empty());
        for (socket, ready) in sockets.iter().zip(ready) {
            if !ready {
                continue;
            }
            let length = socket.recv(&mut buffer).context("cannot receive")?;
            let now = Instant::now();
            let [payload @ .., high, low] = &buffer[..length] else { continue };
            let Some(sent) = payload.first_chunk() else { continue };
            let port = u16::from_be_bytes([*high, *low]);
            let armed = shared.armed.load(Ordering::SeqCst);
            let counts = u64::from_be_bytes(*sent) >= armed;
            if counts && port == shared.port.load(Ordering::SeqCst) {
                shared.armed.store(DISARMED, Ordering::SeqCst);
                // The measurement may have been given up.
                let _ = arrived.send(now);
            }
        }
    }
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("invariant: a run is shorter than 500 years")
}
