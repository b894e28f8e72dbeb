//! What tests of AF_XDP stand on: a host with a pair of several queues, and clients that hold one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::super::clients::{DONE, socket};
use pointsman_imtl_client::request::{add_port, get_queue, register, xsk_map};
use pointsman_imtl_client::{Client, Dialect, Reply};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::netns::{Pair, RIGHT};
use pointsman_netns::sockets;
use pointsman_xsk::XskMap;
use rustix::process::Signal;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

pub(in super::super) struct Stage {
    pub(in super::super) daemon: Daemon,
    pub(in super::super) host: Host,
    pub(in super::super) pair: Pair,
    pub(in super::super) index: u32,
}

impl Stage {
    pub(in super::super) fn set() -> Self {
        Self::with_queues(5)
    }

    pub(super) fn with_queues(queues: u32) -> Self {
        let host = Host::new().expect("root").with(&["--restart-delay", "0"]);
        let pair = Pair::with_queues(queues).expect("root");
        let daemon = host.start(&pair.right).unwrap();
        let index = pair.right.index("v1");
        Self { daemon, host, pair, index }
    }

    /// Ends the daemon by a signal and starts it again.
    pub(in super::super) fn restarted(self, signal: Signal) -> Self {
        let Self { daemon, host, pair, index } = self;
        drop(daemon.stop(signal));
        let daemon = host.start(&pair.right).unwrap();
        Self { daemon, host, pair, index }
    }

    pub(in super::super) fn connect(&self, dialect: Dialect) -> Client {
        let path = socket(&self.host);
        self.pair.right.run(move || Client::connect(&path, dialect).unwrap())
    }

    /// Registers with `v1`.
    pub(in super::super) fn ask_register(&self, client: &mut Client) -> Reply {
        self.ask_register_as(client, "tests")
    }

    fn ask_register_as(&self, client: &mut Client, name: &str) -> Reply {
        let pid = std::process::id();
        client.ask(&register(client.dialect(), pid, name, &[self.index])).unwrap()
    }

    pub(in super::super) fn client(&self, dialect: Dialect) -> Client {
        let mut client = self.connect(dialect);
        assert_eq!(self.ask_register(&mut client), DONE);
        client
    }

    /// The entries of the chain on `v1`, in their order.
    pub(in super::super) fn entries(&self) -> Vec<String> {
        let status = self.daemon.peek();
        let hooks = status["hooks"].as_array().unwrap();
        let hook = hooks.iter().find(|hook| hook["hook"]["interface"] == "v1");
        let Some(hook) = hook else { return Vec::new() };
        let members = hook["members"].as_array().unwrap();
        members.iter().map(|member| member["entry"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub(in super::super) fn until_entries(&self, expected: &[&str]) {
        let start = Instant::now();
        loop {
            let found = self.entries();
            if found == expected {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{found:?}");
        }
    }

    pub(in super::super) fn stack(&self, port: u16) -> UdpSocket {
        let socket = self.pair.right.run(|| UdpSocket::bind((RIGHT, port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }
}

/// A client with a queue, a socket in its map, and a port.
pub(in super::super) struct Holder {
    pub(in super::super) client: Client,
    pub(in super::super) queue: u32,
    pub(in super::super) sockets: sockets::Client,
    pub(super) map: XskMap,
}

impl Holder {
    pub(in super::super) fn new(stage: &Stage, dialect: Dialect, port: u16) -> Self {
        Self::named(stage, dialect, port, "tests")
    }

    /// The same by a name, which the daemon tells of it.
    pub(super) fn named(stage: &Stage, dialect: Dialect, port: u16, name: &str) -> Self {
        let mut client = stage.connect(dialect);
        assert_eq!(stage.ask_register_as(&mut client, name), DONE);
        let reply = client.ask(&get_queue(stage.index)).unwrap();
        assert!(reply.kind == 202 && reply.value > 0, "{reply:?}");
        let queue = u32::try_from(reply.value).unwrap();
        let sockets = sockets::Client::open(&stage.pair, queue);
        let mut map = client.ask_map(&xsk_map(stage.index)).unwrap();
        assert_eq!((map.byte, map.descriptors.len()), (b' ', 1));
        let map = XskMap::from(map.descriptors.pop().unwrap());
        map.insert(queue, &sockets.socket).unwrap();
        assert_eq!(client.ask(&add_port(stage.index, port)).unwrap(), DONE);
        Self { client, queue, sockets, map }
    }
}

pub(in super::super) fn numbered(port: u16, from: u64, count: u64) -> Vec<(u16, u64)> {
    (from..from + count).map(|number| (port, number)).collect()
}

pub(in super::super) fn next(socket: &UdpSocket) -> u64 {
    let mut bytes = [0; 64];
    let got = loop {
        match socket.recv(&mut bytes) {
            // A receive with a timeout is interrupted by a stop of the process, too (signal(7)).
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            got => break got,
        }
    };
    assert_eq!(got.expect("a datagram"), 22);
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}
