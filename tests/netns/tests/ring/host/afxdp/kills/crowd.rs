//! Clients that receive, and clients that ask: each on its own account.

use super::super::{Holder, Stage, next, numbered};
use super::{CLIENTS, WANTED_BY_ALL};
use crate::host::clients::DONE;
use pointsman_imtl_client::request::{
    add_port, delete_port, get_queue, heartbeat, put_queue, xsk_map,
};
use pointsman_imtl_client::{Client, DIALECTS, Dialect};
use pointsman_netns::random::Random;
use pointsman_netns::sockets::{self, Source};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;

/// Each client's own port is this and its number, and it holds it all the time.
const OWN: u16 = 20_000;
/// Further ports of each client: this, and its number times `EACH`.
const FURTHER: u16 = 21_000;
const EACH: u16 = 10;
/// A port that all take and give back.
const SHARED: u16 = 22_000;
/// Nobody lists it: it is the stack's.
const UNLISTED: u16 = 30_000;
/// Packets for each client a round, beside the one that is the stack's.
const BATCH: u64 = 12;

/// What a client was told that it holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) queues: BTreeSet<u32>,
    pub(super) ports: BTreeSet<u16>,
}

/// Twenty clients, each asking on a thread of its own.
pub(super) struct Crowd {
    clients: Vec<Arc<Mutex<Held>>>,
    common: Arc<Common>,
    threads: Vec<JoinHandle<(u64, Client)>>,
}

struct Common {
    stop: AtomicBool,
    /// Read while a request is under way.
    gate: RwLock<()>,
    /// How many hold the queue that all want.
    holders: AtomicU64,
}

impl Crowd {
    /// Has all of them register, each with a queue, its map, a port, and a socket at its place.
    pub(super) fn gather(stage: &Stage, random: &mut Random) -> (Self, Vec<sockets::Client>) {
        let (stop, gate, holders) = Default::default();
        let common = Arc::new(Common { stop, gate, holders });
        let (mut clients, mut askers, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..CLIENTS {
            let (name, port) = (format!("client-{number}"), OWN + number);
            let dialect = DIALECTS[usize::from(number % 2)];
            let holder = Holder::named(stage, dialect, port, &name);
            assert_eq!(holder.queue, u32::from(number) + 1);
            sockets.push(holder.sockets);
            let held = Held { name, queues: [holder.queue].into(), ports: [port].into() };
            let held = Arc::new(Mutex::new(held));
            clients.push(Arc::clone(&held));
            askers.push(Asker { client: holder.client, index: stage.index, number, held });
        }
        // None of them takes the queue of another one that has yet to come.
        let start = |asker: Asker| {
            let (common, random) = (Arc::clone(&common), random.fork());
            std::thread::spawn(move || asker.run(&common, random))
        };
        let threads = askers.into_iter().map(start).collect();
        (Self { clients, common, threads }, sockets)
    }

    /// Shows what all of them hold, while none of them asks for anything.
    pub(super) fn at_rest(&self, look: impl FnOnce(&[Held])) {
        let _rest = self.common.gate.write().expect("no client noticed anything");
        let held = self.clients.iter().map(|client| client.lock().unwrap().clone());
        look(&held.collect::<Vec<_>>());
    }

    /// Ends them, and tells how much they asked.
    pub(super) fn stop(self) -> u64 {
        self.common.stop.store(true, Ordering::Relaxed);
        // What one held is not to be another's before all have stopped asking.
        let ended = self.threads.into_iter().map(JoinHandle::join);
        let ended: Vec<_> = ended.map(|it| it.expect("no client noticed anything")).collect();
        ended.iter().map(|(asked, _)| asked).sum()
    }
}

struct Asker {
    client: Client,
    index: u32,
    number: u16,
    held: Arc<Mutex<Held>>,
}

impl Asker {
    /// Asks until it is told to stop: how often, and its connection, which goes on.
    fn run(mut self, common: &Common, mut random: Random) -> (u64, Client) {
        let mut asked = 0;
        while !common.stop.load(Ordering::Relaxed) {
            let _busy = common.gate.read().expect("no other client noticed anything");
            match random.below(8) {
                0 => {
                    let sent = random.next() as u32 >> 1;
                    let reply = self.client.ask(&heartbeat(sent)).unwrap();
                    assert_eq!((reply.kind, reply.value as u32), (204, sent));
                }
                1 => {
                    let map = self.client.ask_map(&xsk_map(self.index)).unwrap();
                    assert_eq!((map.byte, map.descriptors.len()), (b' ', 1));
                }
                2 | 3 => self.queue(&common.holders),
                4 => self.port(SHARED),
                _ => {
                    let further = random.below(EACH.into()) as u16;
                    self.port(FURTHER + self.number * EACH + further);
                }
            }
            asked += 1;
        }
        (asked, self.client)
    }

    /// Takes a port that it does not have, or gives it back.
    fn port(&mut self, port: u16) {
        let mut held = self.held.lock().unwrap();
        if held.ports.remove(&port) {
            assert_eq!(self.client.ask(&delete_port(self.index, port)).unwrap(), DONE);
        } else {
            assert_eq!(self.client.ask(&add_port(self.index, port)).unwrap(), DONE);
            held.ports.insert(port);
        }
    }

    /// Takes the queue that all want, if it is free, or gives it back.
    fn queue(&mut self, holders: &AtomicU64) {
        let mut held = self.held.lock().unwrap();
        if held.queues.remove(&WANTED_BY_ALL) {
            holders.fetch_sub(1, Ordering::SeqCst);
            let put = put_queue(self.index, WANTED_BY_ALL as u16);
            assert_eq!(self.client.ask(&put).unwrap(), DONE);
            return;
        }
        let reply = self.client.ask(&get_queue(self.index)).unwrap();
        let none_left = if self.client.dialect() == Dialect::Libmtl { -1 } else { -28 };
        if (reply.kind, reply.value) != (202, none_left) {
            assert_eq!((reply.kind, reply.value), (202, WANTED_BY_ALL as i32));
            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "granted twice");
            held.queues.insert(WANTED_BY_ALL);
        }
    }
}

/// Numbered packets to all sockets, one round after the other.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Traffic {
    pub(super) fn start(stage: &Stage, mut sockets: Vec<sockets::Client>) -> Self {
        let mut sources: Vec<_> =
            (1..=WANTED_BY_ALL).map(|queue| Source::open(&stage.pair, queue)).collect();
        // What is no client's: a port that nobody lists, and a queue where no socket is, whoever
        // holds it.
        let (unlisted, no_socket) = (stage.stack(UNLISTED), stage.stack(OWN));
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            let mut packets = 0;
            while !ends.load(Ordering::Relaxed) {
                let round = counts.load(Ordering::Relaxed);
                for (number, source) in (0..).zip(&mut sources) {
                    if number == CLIENTS {
                        source.send(&[(OWN, round)]);
                        continue;
                    }
                    let mut batch = numbered(OWN + number, round * BATCH, BATCH);
                    batch.insert(5, (UNLISTED, round));
                    source.send(&batch);
                }
                for (number, socket) in (0..).zip(&mut sockets) {
                    socket.wait_for(BATCH as usize);
                    let wanted = numbered(OWN + number, round * BATCH, BATCH);
                    assert_eq!(socket.came, wanted, "client {number}: each once, in order");
                    socket.came.clear();
                    assert_eq!(next(&unlisted), round, "another port reaches the stack");
                }
                assert_eq!(next(&no_socket), round, "without a socket it reaches the stack");
                packets += u64::from(CLIENTS) * (BATCH + 1) + 1;
                counts.store(round + 1, Ordering::Relaxed);
            }
            for (number, socket) in sockets.iter_mut().enumerate() {
                assert_eq!((socket.take(), number), (0, number), "one came that was not sent");
                assert_eq!(socket.socket.statistics().unwrap(), Default::default());
            }
            packets
        });
        Self { stop, rounds, thread }
    }

    /// Waits until `more` whole rounds have come.
    pub(super) fn more(&self, more: u64) {
        let until = self.rounds.load(Ordering::Relaxed) + more + 1;
        while self.rounds.load(Ordering::Relaxed) < until {
            assert!(!self.thread.is_finished(), "a packet was lost");
            std::thread::yield_now();
        }
    }

    /// Ends it, and tells how many packets went.
    pub(super) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no packet was lost")
    }
}
