//! Real datagrams through the chain, numbered, and every one of them accounted for.
//!
//! They are sent in batches whose last datagram always gets through, and the next batch waits for
//! it: a veth pair keeps the order, so its arrival proves that the whole batch went through the
//! chain. So no queue on the way is ever full, and whatever is missing at the end was dropped by a
//! program or is a fault.

use crate::lab::{Lab, OTHER_SENDER, RECEIVER, SENDER, join};
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The port that the port filter lists.
pub(super) const OPEN: u16 = 20_000;
/// A port that it does not.
pub(super) const CLOSED: u16 = 20_009;

/// How long the last datagram of a batch may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes at the start of every payload: number, kind, whether it ends a batch.
const HEADER: usize = 10;

/// What is special about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: every program passes it.
    Good,
    /// From a network that the blocklist lists.
    Listed,
    /// To a port that the port filter does not list.
    Unlisted,
    /// Both: whichever of the two programs comes first drops it.
    Both,
    /// Larger than the size guard allows.
    Large,
}

impl Kind {
    const COUNT: usize = 5;
    const ALL: [Self; Self::COUNT] =
        [Self::Good, Self::Listed, Self::Unlisted, Self::Both, Self::Large];

    fn source(self) -> Ipv4Addr {
        match self {
            Self::Listed | Self::Both => OTHER_SENDER,
            Self::Good | Self::Unlisted | Self::Large => SENDER,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Unlisted | Self::Both => CLOSED,
            Self::Good | Self::Listed | Self::Large => OPEN,
        }
    }

    fn payload(self) -> usize {
        if self == Self::Large { 1000 } else { HEADER }
    }
}

/// A batch: far below the 256 frames that a veth queue holds. Its last one gets through.
const BATCH: [Kind; 8] = {
    use Kind::{Both, Good, Large, Listed, Unlisted};
    [Good, Listed, Large, Unlisted, Good, Both, Large, Good]
};
const REPEATS: usize = 8;
/// Time between the starts of two batches: 64,000 datagrams a second leave the daemon, on a
/// machine of two cores, enough of them to show what a change takes.
const PACE: Duration = Duration::from_millis(1);

/// Counts that both ends keep.
#[derive(Debug, Default)]
struct Ledger {
    stop: AtomicBool,
    /// The number of the next datagram: all that were ever sent.
    next: AtomicU64,
    received: [AtomicU64; Kind::COUNT],
    /// Arrivals whose number was not above all before.
    disordered: AtomicU64,
    /// One more than the highest number for which a large datagram may still get through.
    large_until: AtomicU64,
    /// Large datagrams that got through above that.
    late_large: AtomicU64,
}

impl Ledger {
    fn totals(&self) -> Totals {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let received = Kind::ALL.map(|kind| count(&self.received[kind as usize]));
        Totals {
            sent: count(&self.next),
            received: received.iter().sum(),
            leaked: [Kind::Listed, Kind::Unlisted, Kind::Both]
                .map(|kind| received[kind as usize])
                .iter()
                .sum(),
            disordered: count(&self.disordered),
            late_large: count(&self.late_large),
        }
    }
}

/// Traffic under way.
#[derive(Debug)]
pub(super) struct Traffic {
    ledger: Arc<Ledger>,
    sender: JoinHandle<Result<Result<()>>>,
    receivers: Vec<JoinHandle<Result<Result<()>>>>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Datagrams sent.
    pub(super) sent: u64,
    /// Datagrams received.
    pub(super) received: u64,
    /// Of those, such as the blocklist or the port filter must not let through.
    pub(super) leaked: u64,
    /// Of those, arrivals twice or out of order.
    pub(super) disordered: u64,
    /// Of those, large ones after the size guard was in force.
    pub(super) late_large: u64,
}

impl Traffic {
    /// Starts to send and to receive.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let ledger = Arc::new(Ledger::default());
        ledger.large_until.store(u64::MAX, Ordering::SeqCst);
        let (arrived, arrivals) = channel();
        let bind = |port| lab.inside.run(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
        let mut receivers = Vec::new();
        for port in [OPEN, CLOSED] {
            let socket = bind(port)?.with_context(|| format!("cannot bind UDP port {port}"))?;
            let (ledger, arrived) = (ledger.clone(), arrived.clone());
            receivers.push(lab.inside.spawn(move || receive(&socket, &ledger, &arrived))?);
        }
        let shared = ledger.clone();
        let sender = lab.outside.spawn(move || send(&shared, &arrivals))?;
        Ok(Self { ledger, sender, receivers })
    }

    /// Whether the sender has given up.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_finished()
    }

    /// From now on no large datagram may get through.
    pub(super) fn large_ends_here(&self) {
        let next = self.ledger.next.load(Ordering::SeqCst);
        self.ledger.large_until.store(next, Ordering::SeqCst);
    }

    /// The counts so far.
    pub(super) fn totals(&self) -> Totals {
        self.ledger.totals()
    }

    /// Ends the traffic; every datagram that got through is counted afterwards. Beside the counts:
    /// why the sender gave up, if it did.
    pub(super) fn stop(self, lab: &Lab) -> Result<(Totals, Result<()>)> {
        let Self { ledger, sender, receivers } = self;
        ledger.stop.store(true, Ordering::SeqCst);
        let sent = join(sender)?;
        // Over loopback, past the chain: a socket's queue is in order, so what got through the
        // chain is read before this.
        lab.inside.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            for port in [OPEN, CLOSED] {
                socket.send_to(&[], (Ipv4Addr::LOCALHOST, port))?;
            }
            std::io::Result::Ok(())
        })??;
        for receiver in receivers {
            join(receiver)??;
        }
        Ok((ledger.totals(), sent))
    }
}

fn send(ledger: &Ledger, arrivals: &Receiver<u64>) -> Result<()> {
    let bind = |source| UdpSocket::bind((source, 0)).context("cannot bind the sender's socket");
    let (sender, other) = (bind(SENDER)?, bind(OTHER_SENDER)?);
    let mut payload = [0; 1000];
    let mut next_batch = Instant::now();
    while !ledger.stop.load(Ordering::SeqCst) {
        let mut last = 0;
        for at in 0..BATCH.len() * REPEATS {
            let kind = BATCH[at % BATCH.len()];
            last = ledger.next.fetch_add(1, Ordering::SeqCst);
            payload[..8].copy_from_slice(&last.to_be_bytes());
            payload[8] = kind as u8;
            payload[9] = u8::from(at + 1 == BATCH.len() * REPEATS);
            let socket = if kind.source() == SENDER { &sender } else { &other };
            socket
                .send_to(&payload[..kind.payload()], (RECEIVER, kind.port()))
                .with_context(|| format!("cannot send datagram {last}"))?;
        }
        if arrivals.recv_timeout(PATIENCE) != Ok(last) {
            bail!("datagram {last} is let through by every program and did not arrive");
        }
        // The pace itself, not a wait for something. What was missed is not made up for.
        next_batch = (next_batch + PACE).max(Instant::now());
        std::thread::sleep(next_batch.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn receive(socket: &UdpSocket, ledger: &Ledger, arrived: &Sender<u64>) -> Result<()> {
    let mut buffer = [0; 2048];
    let mut expected = 0;
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("cannot receive")?;
        if from.ip().is_loopback() {
            return Ok(());
        }
        let Some((number, kind, ends_batch)) = parse(&buffer[..length]) else {
            bail!("a datagram of {length} bytes from {from} is not of this demo");
        };
        if number < expected {
            ledger.disordered.fetch_add(1, Ordering::SeqCst);
        }
        expected = number + 1;
        if kind == Kind::Large && number >= ledger.large_until.load(Ordering::SeqCst) {
            ledger.late_large.fetch_add(1, Ordering::SeqCst);
        }
        ledger.received[kind as usize].fetch_add(1, Ordering::SeqCst);
        if ends_batch {
            // The sender may have ended: then nobody waits.
            let _ = arrived.send(number);
        }
    }
}

/// Number, kind and whether it ends a batch.
fn parse(payload: &[u8]) -> Option<(u64, Kind, bool)> {
    let (number, rest) = payload.split_first_chunk()?;
    let [kind, ends_batch, ..] = rest else { return None };
    Some((u64::from_be_bytes(*number), *Kind::ALL.get(usize::from(*kind))?, *ends_batch == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_what_gets_through_and_fits_the_queue() {
        assert_eq!(BATCH[BATCH.len() - 1], Kind::Good);
        assert!(BATCH.len() * REPEATS <= 128);
        for kind in Kind::ALL {
            assert!(BATCH.contains(&kind), "{kind:?}");
            assert_eq!(Kind::ALL[kind as usize], kind);
        }
    }

    #[test]
    fn payloads_are_read_back() {
        let mut payload = [0; HEADER];
        payload[..8].copy_from_slice(&7_u64.to_be_bytes());
        payload[8] = Kind::Large as u8;
        payload[9] = 1;
        assert_eq!(parse(&payload), Some((7, Kind::Large, true)));
        payload[8] = 5;
        assert_eq!(parse(&payload), None);
        assert_eq!(parse(&payload[..9]), None);
    }
}
