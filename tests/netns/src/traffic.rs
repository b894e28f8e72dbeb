//! Real UDP over a veth pair, counted on both sides.

use crate::netns::{LEFT, Pair, RIGHT};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
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

/// Datagrams that never stop: pairs of one that every chain drops and one that every chain passes,
/// the next when the last has come through.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    dropped: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Pairs whose second has come through; `None`: one was lost.
    pairs: Mutex<Option<u64>>,
    more: Condvar,
}

impl Watch {
    /// How long a datagram may take.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Between pairs: traffic without an end must leave the CPUs to others.
    const PACE: Duration = Duration::from_micros(100);

    /// Starts, with a chain that drops one port and passes the other.
    ///
    /// # Panics
    /// The sockets cannot be opened.
    #[must_use]
    pub fn start(pair: &Pair, dropped: u16, passed: u16) -> Self {
        let open = |port: u16| pair.right.run(|| UdpSocket::bind((RIGHT, port)));
        let (refused, accepted) =
            (open(dropped).expect("a socket"), open(passed).expect("a socket"));
        refused.set_nonblocking(true).expect("a non-blocking socket");
        accepted.set_read_timeout(Some(Self::PATIENCE)).expect("a timeout");
        let sender = pair.left.run(|| UdpSocket::bind((LEFT, 40_001))).expect("a sender");
        let shared = Arc::new(Shared { pairs: Mutex::new(Some(0)), ..Shared::default() });
        let with = Arc::clone(&shared);
        let work = move || {
            let mut buffer = [0; 64];
            let mut came = true;
            while came && !with.stop.load(Ordering::Acquire) {
                for port in [dropped, passed] {
                    sender.send_to(b"watch", (RIGHT, port)).expect("send");
                }
                came = accepted.recv(&mut buffer).is_ok();
                let mut pairs = with.pairs.lock().expect("nobody panics with it");
                *pairs = if came { pairs.map(|pairs| pairs + 1) } else { None };
                drop(pairs);
                with.more.notify_all();
                std::thread::sleep(Self::PACE);
            }
        };
        Self { shared, dropped: refused, thread: Some(std::thread::spawn(work)) }
    }

    /// Waits for `count` more pairs.
    ///
    /// # Panics
    /// A datagram that should pass was lost, or one that should be dropped came through, now or
    /// at any time before.
    #[track_caller]
    pub fn more(&self, count: u64) {
        let pairs = self.shared.pairs.lock().expect("nobody panics with it");
        let until = pairs.map(|pairs| pairs + count);
        let waiting = |pairs: &mut Option<u64>| pairs.is_some() && *pairs < until;
        let (pairs, _) = self
            .shared
            .more
            .wait_timeout_while(pairs, 2 * Self::PATIENCE, waiting)
            .expect("nobody panics with it");
        assert!(*pairs >= until && until.is_some(), "a datagram that every chain passes was lost");
        assert!(
            self.dropped.recv(&mut [0; 64]).is_err(),
            "a datagram that every chain drops came through"
        );
    }

    /// Ends it, and says how many pairs there were.
    ///
    /// # Panics
    /// As for [`more`](Self::more).
    #[must_use]
    #[track_caller]
    pub fn stop(mut self) -> u64 {
        self.more(1);
        self.end();
        let pairs = *self.shared.pairs.lock().expect("nobody panics with it");
        pairs.expect("every pair came through")
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}
