//! Tables of frames, and how the built-in programs must class each.

use super::{Extension, Frame, QINQ, VLAN, arp_request};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A frame with a name for the failing test's message.
#[derive(Debug, Clone)]
pub struct Vector {
    /// What is special about it.
    pub name: String,
    /// The bytes.
    pub frame: Vec<u8>,
    /// What it is to the program.
    pub class: Class,
}

/// What a frame is to a filter; the program's globals and defaults make a verdict of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A datagram to a listed port.
    Listed,
    /// A datagram to a port that is not listed, or a packet that is treated like one.
    Unlisted,
    /// A later fragment of what may be a datagram.
    LaterFragment,
    /// From a blocked network.
    Blocked,
    /// None of the program's business.
    Other,
}

impl Class {
    /// The verdict that built-in programs give with their globals as they are, by the numbers of
    /// `enum xdp_action`.
    #[must_use]
    pub const fn default_verdict(self) -> u32 {
        const DROP: u32 = 1;
        const PASS: u32 = 2;
        match self {
            Self::Unlisted | Self::Blocked => DROP,
            Self::Listed | Self::LaterFragment | Self::Other => PASS,
        }
    }
}

const V4: (&str, &str) = ("192.0.2.1", "198.51.100.7");
const V6: (&str, &str) = ("2001:db8::1", "2001:db8:ffff::7");
/// The shortest frame the kernel runs a program on in a test: an Ethernet header.
const SHORTEST: usize = 14;

/// Frames for the UDP port filter when `listed` is the only port of its map.
///
/// By default some classes share a verdict: to see them told apart, load the filter a second time
/// with three different verdicts in its globals, none of them PASS.
#[must_use]
pub fn filter_vectors(listed: u16, unlisted: u16) -> Vec<Vector> {
    let mut vectors = Vec::new();
    let ports = [(listed, Class::Listed), (unlisted, Class::Unlisted)];
    for (port, class) in ports.into_iter().chain([0, 65535].map(|port| (port, Class::Unlisted))) {
        for (shape, frame) in shapes(port) {
            vectors.push(vector(format!("{shape} to port {port}"), frame.build(), class));
        }
    }
    for (port, class) in ports {
        vectors.extend(fragments(port, class));
        vectors.extend(long_chains(port, class));
    }
    for (shape, frame) in shapes(unlisted) {
        vectors.extend(truncations(&shape, &frame, Class::Unlisted));
    }
    vectors.extend(others(unlisted));
    vectors
}

/// Frames for the UDP port filter whose UDP header lies behind the first buffer. They are longer
/// than a page, so only programs loaded with frags take them.
#[must_use]
pub fn multi_buffer_vectors(listed: u16, unlisted: u16) -> Vec<Vector> {
    let frame = |port| {
        let far = Extension::Destination(255);
        udp(V6, port).extension(far).extension(far).extension(far)
    };
    let mut vectors = vec![
        vector("behind the first buffer, listed".into(), frame(listed).build(), Class::Listed),
        vector("behind the first buffer".into(), frame(unlisted).build(), Class::Unlisted),
    ];
    let mut cut = frame(unlisted).build();
    cut.pop();
    vectors.push(vector("cut in the second buffer".into(), cut, Class::Other));
    vectors
}

/// Frames for the CIDR blocklist when its maps block all of `blocked` and none of `free`.
#[must_use]
pub fn blocklist_vectors(blocked: &[IpAddr], free: &[IpAddr]) -> Vec<Vector> {
    let mut vectors = Vec::new();
    let of = |addresses: &[IpAddr], class| {
        addresses.iter().map(move |ip| (*ip, class)).collect::<Vec<_>>()
    };
    for (ip, class) in [of(blocked, Class::Blocked), of(free, Class::Other)].concat() {
        let source = SocketAddr::new(ip, 4000);
        let peer = SocketAddr::new(address(if ip.is_ipv4() { V4.1 } else { V6.1 }), 9);
        let payload = [0; 64];
        let datagram = Frame::udp(source, peer).payload(&payload);
        let mut add = |what: &str, frame| {
            vectors.push(vector(format!("{what} from {ip}"), frame, class));
        };
        add("UDP", datagram.build());
        add("TCP", Frame::tcp(source, peer).build());
        add("ESP", Frame::with_protocol(50, source, peer).payload(&payload).build());
        add("VLAN", datagram.clone().tag(VLAN, 5).build());
        add("QinQ", datagram.clone().tag(QINQ, 6).tag(VLAN, 5).build());
        for (index, fragment) in datagram.fragments(32, 0).into_iter().enumerate() {
            add(&format!("fragment {index}"), fragment);
        }
        // The destination is nobody's business, and three tags are no IP.
        let answer = Frame::udp(peer, source).build();
        vectors.push(vector(format!("to {ip}"), answer, Class::Other));
        let deep = datagram.clone().tag(VLAN, 1).tag(VLAN, 2).tag(VLAN, 3).build();
        vectors.push(vector(format!("three tags from {ip}"), deep, Class::Other));
        for tagged in [datagram.clone(), datagram.tag(QINQ, 6).tag(VLAN, 5)] {
            let frame = tagged.build();
            // Only the fixed header needs to be there, behind the tags.
            let fixed = if ip.is_ipv4() { 20 } else { 40 };
            let header = frame.len() - 8 - payload.len();
            for length in SHORTEST..frame.len() {
                let class = if length < header { Class::Other } else { class };
                let name = format!("{length} of {} bytes from {ip}", frame.len());
                vectors.push(vector(name, frame[..length].to_vec(), class));
            }
            assert!(header > SHORTEST + fixed - 1);
        }
    }
    let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    vectors.push(vector("ARP".into(), arp_request(from, to), Class::Other));
    vectors
}

/// Every way in which a whole datagram may be wrapped.
fn shapes(port: u16) -> Vec<(String, Frame)> {
    use Extension::{AtomicFragment, Destination, HopByHop, Routing};
    let (v4, v6) = (udp(V4, port), udp(V6, port));
    let mut shapes = vec![("IPv4".to_owned(), v4.clone()), ("IPv6".to_owned(), v6.clone())];
    for options in [4, 20, 40] {
        shapes.push((format!("IPv4 with {options} bytes of options"), v4.clone().options(options)));
    }
    for (name, frame) in [("IPv4", &v4), ("IPv6", &v6)] {
        let tagged = frame.clone().tag(VLAN, 5);
        shapes.push((format!("VLAN {name}"), tagged.clone()));
        shapes.push((format!("double VLAN {name}"), tagged.tag(VLAN, 6)));
        shapes.push((format!("QinQ {name}"), frame.clone().tag(QINQ, 100).tag(VLAN, 5)));
        shapes.push((format!("priority tag {name}"), frame.clone().tag(VLAN, 0)));
    }
    let chains: [&[Extension]; 8] = [
        &[HopByHop(0)],
        &[Routing(0)],
        &[Destination(0)],
        &[AtomicFragment],
        &[HopByHop(3), Destination(1), Routing(2), AtomicFragment, Destination(0)],
        &[Destination(31)],
        &[HopByHop(0); 8],
        &[Destination(0); 8],
    ];
    for chain in chains {
        let frame = chain.iter().copied().fold(v6.clone(), Frame::extension);
        shapes.push((format!("IPv6 with {chain:?}"), frame));
    }
    let everything = udp(V6, port).tag(QINQ, 1).tag(VLAN, 2).extension(HopByHop(1));
    shapes.push(("QinQ IPv6 with options".to_owned(), everything));
    shapes
}

/// Fragments: the first is decided by its port. What lies in the later ones at the place of a UDP
/// header is made to look like one to the same port.
fn fragments(port: u16, class: Class) -> Vec<Vector> {
    use Extension::{AtomicFragment, Destination, HopByHop};
    let disguise = [4000_u16, port, 16, 0].map(u16::to_be_bytes).concat().repeat(12);
    let with = |frame: Frame| frame.payload(&disguise);
    let mut vectors = Vec::new();
    let mut add = |name: &str, frames: Vec<Vec<u8>>, later: Class| {
        for (index, frame) in frames.into_iter().enumerate() {
            let class = if index == 0 { class } else { later };
            vectors.push(vector(format!("{name} to port {port}, fragment {index}"), frame, class));
        }
    };
    let (v4, v6) = (with(udp(V4, port)), with(udp(V6, port)));
    add("IPv4", v4.fragments(32, 0), Class::LaterFragment);
    add("IPv4 cut behind the header", v4.fragments(8, 0), Class::LaterFragment);
    add("IPv4 with options", v4.clone().options(12).fragments(32, 0), Class::LaterFragment);
    add("VLAN IPv4", v4.clone().tag(VLAN, 5).fragments(32, 0), Class::LaterFragment);
    add("IPv6", v6.fragments(32, 0), Class::LaterFragment);
    add("QinQ IPv6", v6.clone().tag(QINQ, 5).tag(VLAN, 6).fragments(32, 0), Class::LaterFragment);
    let outside = v6.clone().extension(HopByHop(0));
    add("IPv6 behind options", outside.fragments(32, 1), Class::LaterFragment);
    let inside = v6.clone().extension(Destination(0));
    add("IPv6 with options inside", inside.fragments(32, 0), Class::LaterFragment);
    let twice = v6.extension(AtomicFragment);
    add("IPv6 with a fragment header inside", twice.fragments(32, 0), Class::LaterFragment);

    // The first fragment ends before the UDP header: the stack refuses it (RFC 7112).
    let hidden = with(udp(V6, port)).extension(Destination(0)).fragments(8, 0).swap_remove(0);
    vectors.push(vector(format!("port {port} in the second fragment"), hidden, Class::Other));
    // Later fragments of what is known to be something else.
    for (name, addresses, protocol) in [("ICMP", V4, 1), ("TCP", V4, 6), ("ICMPv6", V6, 58)] {
        let (source, destination) = ends(addresses, port);
        let frame = Frame::with_protocol(protocol, source, destination).payload(&disguise);
        for fragment in frame.fragments(32, 0) {
            vectors.push(vector(format!("fragment of {name}"), fragment, Class::Other));
        }
    }
    vectors
}

/// More extension headers than anybody has use for.
fn long_chains(port: u16, class: Class) -> Vec<Vector> {
    let chain = |length| (0..length).fold(udp(V6, port), |f, _| f.extension(Extension::Routing(0)));
    let mut vectors = Vec::new();
    for (length, class) in [(8, class), (9, Class::Unlisted), (30, Class::Unlisted)] {
        let name = format!("{length} extension headers to port {port}");
        vectors.push(vector(name, chain(length).build(), class));
    }
    vectors
}

/// A frame cut at every length: whole again for the filter once the UDP header is there.
fn truncations(shape: &str, frame: &Frame, class: Class) -> Vec<Vector> {
    let headers = frame.build().len();
    let frame = frame.clone().payload(&[0; 3]).build();
    let cut = |length| {
        let class = if length < headers { Class::Other } else { class };
        let name = format!("{length} of {} bytes of {shape}", frame.len());
        vector(name, frame[..length].to_vec(), class)
    };
    (SHORTEST..frame.len()).map(cut).collect()
}

/// What is no datagram, however much it looks like one.
fn others(port: u16) -> Vec<Vector> {
    let mut frames = vec![
        ("ARP", arp_request(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2))),
        ("three tags", udp(V4, port).tag(VLAN, 1).tag(VLAN, 2).tag(VLAN, 3).build()),
        ("an unknown tag", udp(V4, port).tag(0x9100, 1).build()),
    ];
    for addresses in [V4, V6] {
        let (source, destination) = ends(addresses, port);
        frames.push(("TCP", Frame::tcp(source, destination).build()));
        frames.push(("TCP in a VLAN", Frame::tcp(source, destination).tag(VLAN, 5).build()));
        // UDP inside something else is not looked for.
        let inner = udp(addresses, port).build().split_off(14);
        let wrap = |protocol| Frame::with_protocol(protocol, source, destination);
        let own_family = if source.is_ipv4() { 4 } else { 41 };
        frames.push(("IP in IP", wrap(own_family).payload(&inner).build()));
        frames.push(("ESP", wrap(50).payload(&inner).build()));
        frames.push(("AH", wrap(51).payload(&inner).build()));
        frames.push(("no next header", wrap(59).payload(&inner).build()));
        // Headers that contradict the EtherType or themselves.
        let mut version = udp(addresses, port).build();
        version[14] = version[14] & 0x0f | 0x50;
        frames.push(("version 5", version));
    }
    let mut short = udp(V4, port).build();
    short[14] = 0x44;
    frames.push(("a header of 16 bytes", short));
    let mut length = udp(V4, port).build();
    length[12..14].copy_from_slice(&46_u16.to_be_bytes());
    frames.push(("an 802.3 length", length));
    let tcp = ends(V6, port);
    let behind = Frame::tcp(tcp.0, tcp.1).extension(Extension::HopByHop(0)).build();
    frames.push(("TCP behind options", behind));
    frames.into_iter().map(|(name, frame)| vector(name.into(), frame, Class::Other)).collect()
}

fn udp(addresses: (&str, &str), port: u16) -> Frame {
    let (source, destination) = ends(addresses, port);
    Frame::udp(source, destination)
}

fn ends((source, destination): (&str, &str), port: u16) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(address(source), 4000), SocketAddr::new(address(destination), port))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("invariant: the addresses of this file are well formed")
}

fn vector(name: String, frame: Vec<u8>, class: Class) -> Vector {
    Vector { name, frame, class }
}
