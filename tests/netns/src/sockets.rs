//! AF_XDP sockets on both sides of a veth pair: numbered datagrams from one, and clients with maps
//! of their own behind a chain on the other.

use crate::members::{resolved, rounding, slot};
use crate::netns::{LEFT, MAC_BYTES, Netns, Pair, RIGHT};
use crate::packets::Frame as Packet;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapInfo, MapType};
use pointsman_bpf::sockets::{Owners, Ports};
use pointsman_bpf::{
    MapHome, Member, PORTS_OF_INSTANCES, Slot, instance_filter, pins, xsk_redirect,
};
use pointsman_model::Action;
use pointsman_xsk::{Copying, Frame, Outgoing, Received, Settings, Socket, Umem, UmemSettings};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Places in a map of sockets, as the redirect has it.
pub const QUEUES: u32 = 1024;
/// Where the number lies in a datagram: behind Ethernet, IPv4 and UDP.
const NUMBER_AT: usize = 14 + 20 + 8;

/// The members that instances have in a chain, with their maps pinned in a directory.
#[derive(Debug)]
pub struct Redirect {
    filter: Member,
    redirect: Member,
    ports: Ports,
    /// The sockets that all share.
    pub shared: MapHandle,
    owners: MapHandle,
}

impl Redirect {
    /// Prepares both.
    ///
    /// # Panics
    /// The kernel takes one of them not.
    #[must_use]
    pub fn prepare(home: &Path) -> Self {
        let member = |bytes: &[u8], directory: &str| {
            let home = MapHome::Pinned(home.join(directory));
            let program = resolved(bytes, "", serde_json::Value::Null);
            Member::prepare(bytes, &program, &home, rounding(), None)
                .unwrap_or_else(|e| panic!("{e}\n{}", e.log().unwrap_or("")))
        };
        let filter = member(instance_filter(), "filter");
        let redirect = member(xsk_redirect(), "redirect");
        let ports = format!("filter/{}", pins::file_name(PORTS_OF_INSTANCES));
        let map = |path: &str| MapHandle::from_pinned_path(home.join(path)).expect("a pinned map");
        Self {
            filter,
            redirect,
            ports: Ports::open(number(&map(&ports))).expect("the map of ports"),
            shared: map("redirect/xsks_map"),
            owners: map("redirect/owners"),
        }
    }

    /// Both as they stand in a chain: a listed port goes on to the redirect.
    #[must_use]
    pub fn slots(&self) -> [Slot<'_>; 2] {
        let on_drop = [Action::Drop].into_iter().collect();
        [Slot { actions: on_drop, ..slot("filter", &self.filter) }, self.alone()]
    }

    /// The redirect without the filter.
    #[must_use]
    pub fn alone(&self) -> Slot<'_> {
        slot("redirect", &self.redirect)
    }

    /// Lists a port, or takes it out.
    ///
    /// # Panics
    /// The kernel says no.
    pub fn list(&self, port: u16, listed: bool) {
        self.ports.list(port, listed).expect("a port");
    }

    /// Says whose sockets get the packets of a queue; `None`: nobody's, so the shared ones.
    ///
    /// # Panics
    /// The kernel says no.
    pub fn own(&self, queue: u32, map: Option<&MapHandle>) {
        let key = queue.to_ne_bytes();
        match map {
            Some(map) => {
                let value = map.as_fd().as_raw_fd().to_ne_bytes();
                self.owners.update(&key, &value, MapFlags::ANY).expect("an owner");
            }
            None => self.owners.delete(&key).expect("an owner"),
        }
    }
}

impl Redirect {
    /// The map of owners, as the daemon opens it.
    ///
    /// # Panics
    /// The kernel says no.
    #[must_use]
    pub fn owners(&self) -> Owners {
        Owners::open(number(&self.owners)).expect("the map of owners")
    }
}

/// The kernel's number for a map.
fn number(map: &MapHandle) -> u32 {
    MapInfo::new(map.as_fd()).expect("a map").info.id
}

/// A map of sockets, as each client gets one.
///
/// # Panics
/// The kernel says no.
#[must_use]
pub fn sockets() -> MapHandle {
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    };
    MapHandle::create(MapType::Xskmap, Some("xsks_map"), 4, 4, QUEUES, &options).expect("a map")
}

/// Puts a socket into a map.
///
/// # Panics
/// The kernel says no.
pub fn put(map: &MapHandle, queue: u32, socket: impl AsFd) {
    let value = socket.as_fd().as_raw_fd().to_ne_bytes();
    map.update(&queue.to_ne_bytes(), &value, MapFlags::ANY).expect("a socket in a map");
}

/// Takes the socket of a queue out of a map.
///
/// # Panics
/// There is none.
pub fn take_out(map: &MapHandle, queue: u32) {
    map.delete(&queue.to_ne_bytes()).expect("a socket in the map");
}

fn settings(index: u32, queue: u32) -> Settings {
    Settings { copying: Copying::Copy, ..Settings::new(index, queue) }
}

/// A socket on a queue of `v1` that takes numbered datagrams.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub socket: Socket,
    frames: Vec<Frame>,
    packets: Vec<Received>,
    /// The numbers that have come, and to which port.
    pub came: Vec<(u16, u64)>,
}

impl Client {
    /// Opens one.
    ///
    /// # Panics
    /// The kernel says no.
    #[must_use]
    pub fn open(pair: &Pair, queue: u32) -> Self {
        Self::on(&pair.right, "v1", queue)
    }

    /// Opens one on a queue of another interface.
    ///
    /// # Panics
    /// The kernel says no.
    #[must_use]
    pub fn on(netns: &Netns, interface: &str, queue: u32) -> Self {
        let index = netns.index(interface);
        let (umem, mut frames) = Umem::new(UmemSettings::default()).expect("memory");
        let settings = Settings { transmit_ring: 0, ..settings(index, queue) };
        let mut socket = netns.run(|| Socket::open(&umem, &settings)).expect("a socket");
        socket.receiver.fill(&mut frames);
        Self { socket, frames, packets: Vec::new(), came: Vec::new() }
    }

    /// Takes what is there.
    ///
    /// # Panics
    /// A packet is no numbered datagram.
    pub fn take(&mut self) -> usize {
        let receiver = &mut self.socket.receiver;
        let count = receiver.receive(&mut self.packets, u32::MAX);
        for packet in self.packets.drain(..) {
            let bytes = receiver.packet(&packet);
            let port = [bytes[NUMBER_AT - 6], bytes[NUMBER_AT - 5]];
            let number = bytes[NUMBER_AT..NUMBER_AT + 8].try_into().expect("eight bytes");
            self.came.push((u16::from_be_bytes(port), u64::from_be_bytes(number)));
            self.frames.push(packet.frame);
        }
        receiver.fill(&mut self.frames);
        receiver.wake().expect("the socket works");
        count
    }

    /// Waits until `count` have come in all.
    ///
    /// # Panics
    /// They do not.
    #[track_caller]
    pub fn wait_for(&mut self, count: usize) {
        let until = Instant::now() + PATIENCE;
        while self.came.len() < count {
            if self.take() == 0 {
                let left = until.saturating_duration_since(Instant::now());
                let found = self.socket.statistics();
                assert!(!left.is_zero(), "{} of {count} came: {found:?}", self.came.len());
                let _ = self.socket.receiver.wait(Some(left));
            }
        }
    }
}

/// A socket on a queue of `v0` that sends numbered datagrams.
#[derive(Debug)]
pub struct Source {
    socket: Socket,
    umem: Umem,
    frames: Vec<Frame>,
    all: usize,
    template: Vec<u8>,
}

impl Source {
    /// Opens one.
    ///
    /// # Panics
    /// The kernel says no.
    #[must_use]
    pub fn open(pair: &Pair, queue: u32) -> Self {
        let index = pair.left.index("v0");
        let (umem, frames) = Umem::new(UmemSettings::default()).expect("memory");
        let settings = Settings { receive_ring: 0, ..settings(index, queue) };
        let socket = pair.left.run(|| Socket::open(&umem, &settings)).expect("a socket");
        let address =
            |text: &str, port| SocketAddr::new(text.parse::<IpAddr>().expect("an address"), port);
        let packet = Packet::udp(address(LEFT, 40_000), address(RIGHT, 1));
        let template = packet.macs(MAC_BYTES[0], MAC_BYTES[1]).payload(&[0; 22]).build();
        Self { socket, umem, all: frames.len(), frames, template }
    }

    /// Sends datagrams, each to a port with a number, and waits until the interface has them.
    ///
    /// # Panics
    /// It does not take them.
    pub fn send(&mut self, datagrams: &[(u16, u64)]) {
        let until = Instant::now() + PATIENCE;
        let mut datagrams = datagrams.iter();
        let mut outgoing = Vec::new();
        let sender = &mut self.socket.sender;
        loop {
            while let Some(mut frame) = self.frames.pop() {
                let Some(&(port, number)) = datagrams.next() else {
                    self.frames.push(frame);
                    break;
                };
                let length = self.template.len();
                let bytes = &mut self.umem.bytes_mut(&mut frame)[..length];
                bytes.copy_from_slice(&self.template);
                bytes[NUMBER_AT - 6..NUMBER_AT - 4].copy_from_slice(&port.to_be_bytes());
                // No checksum (RFC 768).
                bytes[NUMBER_AT - 2..NUMBER_AT].copy_from_slice(&[0, 0]);
                bytes[NUMBER_AT..NUMBER_AT + 8].copy_from_slice(&number.to_be_bytes());
                outgoing.push(Outgoing { frame, offset: 0, length: length as u32 });
            }
            sender.send(&mut outgoing);
            sender.wake().expect("the socket works");
            sender.complete(&mut self.frames, u32::MAX);
            if outgoing.is_empty() && datagrams.len() == 0 && self.frames.len() == self.all {
                return;
            }
            assert!(Instant::now() < until, "the interface sends nothing");
        }
    }
}
