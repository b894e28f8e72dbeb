//! The counter as the keeper and the API see it, on a host that is a directory.

mod bad;
mod defects;
mod restart;

use super::counter::Counter;
use super::{Config, Handle, Message, Messages};
use crate::engine;
use pointsman_keeper::link::{FromKeeper, Kind, ToKeeper};
use pointsman_model::lease::{Instance, Lcores, Place};
use pointsman_netdev::Roots;
use pointsman_plan::instances::Demands;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc;

/// A frame of a journal, as it lies in the file.
pub(super) fn frame(payload: &str) -> Vec<u8> {
    let hash = pointsman_model::Sha256::of(payload.as_bytes()).to_string();
    let byte = |at: usize| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap();
    let check: Vec<u8> = (0..8).map(byte).collect();
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..], &check, payload.as_bytes()].concat()
}

/// A host with 16 CPUs in two nodes, whose clients are this process.
struct Host {
    directory: tempfile::TempDir,
    engine: engine::Handle,
    events: Rc<mpsc::Receiver<engine::Message>>,
    /// What was told of what happened, and not asked for yet.
    happened: Rc<RefCell<Vec<String>>>,
    /// Why the engine serves no interface; `None`: it does.
    no_chains: Rc<RefCell<Option<String>>>,
}

impl Host {
    fn new() -> Self {
        let (engine, events) = engine::Handle::new();
        let host = Self {
            directory: tempfile::tempdir().unwrap(),
            engine,
            events: Rc::new(events),
            happened: Rc::default(),
            no_chains: Rc::default(),
        };
        fs::create_dir(host.path("run")).unwrap();
        host.write("sys/devices/system/cpu/present", "0-15");
        host.write("sys/devices/system/cpu/online", "0-15");
        host.write("sys/devices/system/node/node0/cpulist", "0-7");
        host.write("sys/devices/system/node/node1/cpulist", "8-15");
        host.write("sys/class/net/eth0/device/numa_node", "1");
        host.cpuset("0-15");
        host.process("S");
        host
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What this process may run on.
    fn cpuset(&self, cpus: &str) {
        let me = std::process::id();
        self.write(&format!("proc/{me}/cgroup"), "0::/media\n");
        self.write("sys/fs/cgroup/media/cpuset.cpus.effective", cpus);
    }

    /// How this process stands.
    fn process(&self, state: &str) {
        let me = std::process::id();
        self.write(&format!("proc/{me}/stat"), &format!("{me} (x) {state} 1"));
        self.write(&format!("proc/{me}/comm"), "me\n");
    }

    fn open(&self, epoch: &str) -> Desk {
        let roots = Roots { proc: self.path("proc"), sys: self.path("sys") };
        let run_dir = self.path("run");
        let config = Config { run_dir, fresh: false, roots, original_lines: true };
        let (own, messages) = Handle::new().unwrap();
        let counter = Counter::open(config, epoch, self.engine.clone(), own);
        let mut desk = Desk {
            counter,
            next: BTreeMap::new(),
            peers: Vec::new(),
            messages,
            events: Rc::clone(&self.events),
            happened: Rc::clone(&self.happened),
            no_chains: Rc::clone(&self.no_chains),
        };
        let demands = desk.counter.demands().unwrap_or_default();
        desk.serve(demands, 0);
        desk
    }

    fn events(&self) -> Vec<String> {
        let told = self.events.try_iter().filter_map(told);
        self.happened.borrow_mut().drain(..).chain(told).collect()
    }
}

fn told(message: engine::Message) -> Option<String> {
    match message {
        engine::Message::Happened(kind, text) => Some(format!("{kind}: {text}")),
        _ => None,
    }
}

/// A daemon's counter with the clients that stand at it.
struct Desk {
    counter: Counter,
    /// The next request's number, by connection.
    next: BTreeMap<u64, u64>,
    /// The clients' ends: a connection whose other end is closed is one that has ended.
    peers: Vec<UnixStream>,
    /// What the counter is told beside what clients ask.
    messages: Messages,
    events: Rc<mpsc::Receiver<engine::Message>>,
    happened: Rc<RefCell<Vec<String>>>,
    no_chains: Rc<RefCell<Option<String>>>,
}

/// What a client gets: bytes, and how many descriptors.
type Got = (Vec<u8>, usize);

impl Desk {
    fn connect(&mut self, connection: u64, kind: Kind) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.peers.push(theirs);
        self.counter.keeper(FromKeeper::Connected { connection, kind, socket: ours.into() });
    }

    /// A client that has registered, in dialect 1.1.
    fn client(&mut self, connection: u64) {
        self.connect(connection, Kind::Imtl);
        assert_eq!(self.ask(connection, register(&[0, 0, 0, 106], 0, &[])), reply(201, 0));
    }

    /// A request's answer; `None`: the connection is closed instead.
    fn send(&mut self, connection: u64, bytes: Vec<u8>) -> Option<Got> {
        let sequence = self.next.entry(connection).or_insert(1);
        let number = *sequence;
        *sequence += 1;
        self.send_as(connection, number, bytes)
    }

    /// The answer to a request that the keeper says to refuse.
    fn refuse(&mut self, connection: u64, bytes: Vec<u8>) -> Option<Got> {
        let sequence = self.next.entry(connection).or_insert(1);
        let number = *sequence;
        *sequence += 1;
        self.refuse_as(connection, number, bytes)
    }

    fn refuse_as(&mut self, connection: u64, sequence: u64, bytes: Vec<u8>) -> Option<Got> {
        let descriptors = Vec::new();
        self.counter.keeper(FromKeeper::Refuse { connection, sequence, bytes, descriptors });
        self.answer(connection, sequence)
    }

    /// The same for a request that may have come before.
    fn send_as(&mut self, connection: u64, sequence: u64, bytes: Vec<u8>) -> Option<Got> {
        let descriptors = Vec::new();
        self.counter.keeper(FromKeeper::Request { connection, sequence, bytes, descriptors });
        self.answer(connection, sequence)
    }

    /// The engine's part: it serves every interface, or none.
    fn serve(&mut self, demands: Demands, revision: u64) {
        let serve = |place: Place| {
            let maps = match &*self.no_chains.borrow() {
                Some(why) => Err(why.clone()),
                None => Ok(engine::Maps {
                    interface: "eth0".parse().unwrap(),
                    namespace: None,
                    ports: None,
                    owners: None,
                }),
            };
            (place, maps)
        };
        let places = demands.into_keys().map(serve).collect();
        self.counter.message(Message::Served(engine::Served { revision, places }));
    }

    /// Lets the engine and the cards do what they were asked.
    fn settle(&mut self) {
        for message in self.events.clone().try_iter() {
            match message {
                engine::Message::Demands { demands, revision } => self.serve(demands, revision),
                message => self.happened.borrow_mut().extend(told(message)),
            }
        }
        while let Ok(message) = self.messages.messages.try_recv() {
            self.counter.message(message);
        }
    }

    fn answer(&mut self, connection: u64, sequence: u64) -> Option<Got> {
        let mut answers = self.counter.answers();
        let start = std::time::Instant::now();
        while answers.is_empty() {
            assert!(start.elapsed().as_secs() < 60, "no answer");
            self.settle();
            answers = self.counter.answers();
            if answers.is_empty() {
                let wait = std::time::Duration::from_millis(5);
                if let Ok(message) = self.messages.messages.recv_timeout(wait) {
                    self.counter.message(message);
                }
                answers.extend(self.counter.answers());
            }
        }
        assert_eq!(answers.len(), 1, "each request has one answer: {answers:?}");
        match answers.pop() {
            Some(ToKeeper::Reply { connection: to, sequence: of, bytes, descriptors }) => {
                assert_eq!((to, of), (connection, sequence));
                Some((bytes, descriptors.len()))
            }
            _ => None,
        }
    }

    fn ask(&mut self, connection: u64, record: Vec<u8>) -> Got {
        self.send(connection, record).expect("the connection goes on")
    }

    fn get(&mut self, connection: u64, lcore: u16) -> i32 {
        code(&self.ask(connection, record(103, &lcore.to_be_bytes())))
    }

    fn put(&mut self, connection: u64, lcore: u16) -> i32 {
        code(&self.ask(connection, record(104, &lcore.to_be_bytes())))
    }

    fn end(&mut self, connection: u64) {
        self.counter.keeper(FromKeeper::Closed { connection });
    }

    fn instance(&self, connection: u64) -> Instance {
        super::view::instance(&self.counter, connection).expect("it is connected")
    }

    fn lcores(&mut self) -> Lcores {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.counter.message(Message::Lcores(reply));
        answer.blocking_recv().unwrap().unwrap()
    }

    fn held(&self) -> usize {
        self.counter.desk.held()
    }
}

/// A request as the tables of docs/imtl.md have it, with a stack's rest behind it.
fn record(number: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"IMTL".to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(118, 0xa5);
    bytes
}

/// A REGISTER that claims to be pid 1 of `root`.
fn register(body_len: &[u8; 4], count: u16, interfaces: &[u32]) -> Vec<u8> {
    named(body_len, b"host", count, interfaces)
}

fn named(body_len: &[u8; 4], name: &[u8], count: u16, interfaces: &[u32]) -> Vec<u8> {
    let mut bytes = b"IMTL\x00\x00\x00\x65".to_vec();
    bytes.extend_from_slice(body_len);
    bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    bytes.extend_from_slice(name);
    bytes.resize(84, 0);
    bytes.extend_from_slice(&count.to_be_bytes());
    interfaces.iter().for_each(|index| bytes.extend_from_slice(&index.to_be_bytes()));
    bytes.resize(118, 0xa5);
    bytes
}

/// A whole answer: zero behind its last field.
fn reply(number: u32, code: i32) -> Got {
    let mut bytes = b"IMTL".to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&4_u32.to_be_bytes());
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.resize(118, 0);
    (bytes, 0)
}

fn code((bytes, _): &Got) -> i32 {
    i32::from_be_bytes(bytes[12..16].try_into().unwrap())
}
