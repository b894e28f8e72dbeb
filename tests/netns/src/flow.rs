//! Datagrams that go on whatever becomes of their way.

use crate::netns::{Pair, RIGHT};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Datagrams to one port, sent all the time until it is stopped, and how many arrived.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    receiver: UdpSocket,
}

impl Flow {
    /// Starts one from the left to the right side of a pair. It goes on while there is no way to
    /// send.
    ///
    /// # Panics
    /// The sockets cannot be opened.
    #[must_use]
    pub fn start(pair: &Pair, port: u16) -> Self {
        let receiver = pair.right.run(|| UdpSocket::bind(("0.0.0.0", port)).expect("a receiver"));
        receiver.set_nonblocking(true).expect("a non-blocking socket");
        let sender = pair.left.run(|| UdpSocket::bind(("0.0.0.0", 0)).expect("a sender"));
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ended, count) = (stop.clone(), sent.clone());
        let send = move || {
            while !ended.load(Ordering::Relaxed) {
                if sender.send_to(b"flow", (RIGHT, port)).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // Some thousand a second: the machine has other tests to run.
                std::thread::sleep(Duration::from_micros(100));
            }
        };
        Self { stop, sent, thread: Some(std::thread::spawn(send)), receiver }
    }

    /// How many were sent so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many arrived since this was asked last.
    #[must_use]
    pub fn arrived(&self) -> usize {
        let mut buffer = [0; 64];
        std::iter::from_fn(|| self.receiver.recv(&mut buffer).ok()).count()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A sender that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
