//! Applications of AF_XDP that have their queue and their map from a manager, in Rust and in C.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::clients::socket;
use super::scene;
use libbpf_rs::MapHandle;
use pointsman_model::observed::AttachMode;
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::fuse;
use pointsman_netns::netns::Pair;
use pointsman_netns::peer_path;
use pointsman_netns::sockets::{Client, Redirect, Source, sockets};
use pointsman_xsk::manager::{Manager, ManagerError, Reason};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{BufRead as _, BufReader, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

const PORT: u16 = 20_000;
const QUEUE: u32 = 1;
const PACKETS: u64 = 100;

#[test]
fn the_daemon_answers_both_clients() {
    let (host, pair) = scene();
    let _daemon = host.start(&pair.right).unwrap();
    pair.right.run(|| {
        let mut manager = Manager::connect(&socket(&host)).unwrap();
        manager.heartbeat().unwrap();
        let reason = |error| match error {
            ManagerError::Refused { reason, .. } => reason,
            other => panic!("{other}"),
        };
        // It has no dialect to give reasons in before.
        assert_eq!(reason(manager.take_queue(1).unwrap_err()), Reason::NotPermitted);
        manager.register(&[]).unwrap();
        assert_eq!(reason(manager.register(&[9999]).unwrap_err()), Reason::NoInterface);
        assert_eq!(reason(manager.map(9999).unwrap_err()), Reason::NoMap);
        manager.heartbeat().unwrap();
    });
    let mut exchange = Command::new(peer_path("exchange"));
    exchange.arg(socket(&host)).args(["0", "10000"]);
    let output = pair.right.run(move || exchange.output().unwrap());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("connect 0 done\nheartbeat 0 done\nregister 0 done\n"), "{said}");
    assert!(said.contains("\nmap -61 the manager has none for this client\n"), "{said}");
    assert!(said.ends_with("\nheartbeat 0 done\n"), "it stayed in step: {said}");
}

/// An interface with a chain of its own, and whoever manages it.
struct Managed {
    redirect: Redirect,
    own: MapHandle,
    pair: Pair,
    _maps: Bpffs,
}

impl Managed {
    fn new() -> Self {
        let maps = Bpffs::mount().unwrap();
        let redirect = Redirect::prepare(maps.path());
        let own = sockets();
        redirect.own(QUEUE, Some(&own));
        redirect.list(PORT, true);
        Self { redirect, own, pair: Pair::with_queues(5).unwrap(), _maps: maps }
    }

    /// Runs an application beside its manager.
    fn beside<T: Send>(&self, application: impl FnOnce(&Path) -> T + Send) -> T {
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("manager.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let Self { own, pair, .. } = self;
        std::thread::scope(|scope| {
            scope.spawn(move || manage(&listener, own));
            pair.right.run(|| application(&path))
        })
    }
}

/// Does for one client what a manager does, until it ends. The port is listed already.
fn manage(listener: &UnixListener, own: &MapHandle) {
    let (mut client, _) = listener.accept().unwrap();
    let mut request = [0; 118];
    while client.read_exact(&mut request).is_ok() {
        match request[7] {
            101 => record(&client, 201, 0),
            105 => {
                assert_eq!(request[16..18], PORT.to_be_bytes());
                record(&client, 201, 0);
            }
            107 => put(&client, b" ", Some(own)),
            108 => record(&client, 202, QUEUE as i32),
            // A card without rules.
            110 => record(&client, 203, -95),
            other => panic!("request {other}"),
        }
    }
}

fn record(client: &UnixStream, kind: u8, value: i32) {
    let mut bytes = [0; 118];
    bytes[..4].copy_from_slice(b"IMTL");
    (bytes[7], bytes[11]) = (kind, 4);
    bytes[12..16].copy_from_slice(&value.to_be_bytes());
    put(client, &bytes, None);
}

fn put(client: &UnixStream, bytes: &[u8], map: Option<&MapHandle>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = map.iter().map(|map| map.as_fd()).collect();
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    sendmsg(client, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn applications_receive_with_what_a_manager_gives_them() {
    let managed = Managed::new();
    let Managed { redirect, pair, .. } = &managed;
    let chain = fuse(&redirect.slots());
    let index = pair.right.index("v1");
    let _link = pair.right.run(|| chain.attach(index, AttachMode::Native).unwrap());
    let numbered: Vec<_> = (0..PACKETS).map(|number| (PORT, number)).collect();

    managed.beside(|path| {
        let mut manager = Manager::connect(path).unwrap();
        manager.register(&[index]).unwrap();
        let queue = manager.take_queue(index).unwrap();
        let mut client = Client::open(pair, queue);
        manager.map(index).unwrap().insert(queue, &client.socket).unwrap();
        let rule = manager.steer(index, PORT, queue).unwrap_err();
        let none = matches!(rule, ManagerError::Refused { reason: Reason::Unsupported, .. });
        assert!(none, "{rule}");
        manager.add_port(index, PORT).unwrap();
        Source::open(pair, queue).send(&numbered);
        client.wait_for(numbered.len());
        assert_eq!(client.came, numbered);
    });

    managed.beside(|path| {
        let mut command = Command::new(peer_path("receiver"));
        command.args(["v1", &PORT.to_string(), &PACKETS.to_string()]);
        command.env("MTL_MANAGER_SOCK_PATH", path).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = said.next().expect("a line").unwrap();
        assert_eq!(first, "queue 1 of v1: receiving");
        Source::open(pair, QUEUE).send(&numbered);
        // 14 of Ethernet, 20 of IPv4, 8 of UDP and 22 of payload each.
        assert_eq!(said.next().expect("a line").unwrap(), "100 packets, 6400 bytes");
        assert!(child.wait().unwrap().success());
    });
    let exits = chain.counters().unwrap().read().unwrap();
    assert_eq!(exits.members[1].get(pointsman_model::Action::Redirect), 2 * PACKETS);
}
