//! The built-in programs on frames of every shape, as they come and with other verdicts set.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapInfo};
use pointsman_bpf::sockets::Ports;
use pointsman_bpf::{Chain, MapHome, Member, PORTS_OF_INSTANCES, builtin, instance_filter, pins};
use pointsman_model::document::Builtin;
use pointsman_model::{Action, ActionSet};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{any_packet, fuse, resolved, rounding, run, slot, slot_on};
use pointsman_netns::packets::vectors::{
    Class, Vector, blocklist_vectors, filter_vectors, multi_buffer_vectors,
};
use pointsman_netns::random::{Random, full};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

const LISTED: u16 = 20000;
const UNLISTED: u16 = 20001;

/// A built-in program with its maps pinned, where the test can fill them.
struct Prepared {
    member: Member,
    maps: Bpffs,
}

impl Prepared {
    fn new(which: Builtin, globals: Value) -> Self {
        Self::of(builtin(which), globals)
    }

    fn of(bytes: &[u8], globals: Value) -> Self {
        let maps = Bpffs::mount().expect("root");
        let program = resolved(bytes, "", globals);
        let home = MapHome::Pinned(maps.path().to_owned());
        let member = Member::prepare(bytes, &program, &home, rounding(), None)
            .unwrap_or_else(|e| panic!("{e}\n{}", e.log().unwrap_or("")));
        Self { member, maps }
    }

    fn map(&self, name: &str) -> MapHandle {
        MapHandle::from_pinned_path(self.maps.path().join(name)).expect("a pinned map")
    }

    fn set(&self, map: &str, key: &[u8], value: &[u8]) {
        self.map(map).update(key, value, MapFlags::ANY).expect("an update");
    }

    /// The program as the only member of a chain that hands its verdict on.
    fn chain(&self) -> Chain {
        let chain = fuse(&[slot_on("alone", &self.member, &[])]);
        assert!(chain.layout().frags, "built-in programs take packets of several buffers");
        chain
    }
}

fn check(chain: &Chain, vectors: &[Vector], verdict: impl Fn(Class) -> u32) {
    assert!(!vectors.is_empty());
    for vector in vectors {
        let found = run(chain, &vector.frame);
        assert_eq!(found.verdict, verdict(vector.class), "{} ({:?})", vector.name, vector.class);
        assert_eq!(found.packet, vector.frame, "{}: the packet changed", vector.name);
    }
}

fn filter_frames() -> Vec<Vector> {
    let mut vectors = filter_vectors(LISTED, UNLISTED);
    vectors.extend(multi_buffer_vectors(LISTED, UNLISTED));
    for class in [Class::Listed, Class::Unlisted, Class::LaterFragment, Class::Other] {
        assert!(vectors.iter().any(|vector| vector.class == class), "no frame is {class:?}");
    }
    vectors
}

#[test]
fn the_port_filter_decides_every_frame_by_default() {
    let filter = Prepared::new(Builtin::UdpPortFilter, Value::Null);
    filter.set("ports", &u32::from(LISTED).to_ne_bytes(), &[1]);
    check(&filter.chain(), &filter_frames(), Class::default_verdict);
}

#[test]
fn the_port_filter_tells_every_class_of_frames_apart() {
    let frames = filter_frames();
    // Twice, so that a verdict that is right by chance is wrong the other time.
    for [listed, unlisted, later] in
        [[Action::Tx, Action::Drop, Action::Redirect], [Action::Drop, Action::Aborted, Action::Tx]]
    {
        let name = |action: Action| format!("XDP_{}", action.name().to_uppercase());
        let globals = json!({
            "listed": name(listed), "unlisted": name(unlisted), "later_fragments": name(later),
        });
        let filter = Prepared::new(Builtin::UdpPortFilter, globals);
        filter.set("ports", &u32::from(LISTED).to_ne_bytes(), &[1]);
        check(&filter.chain(), &frames, |class| match class {
            Class::Listed => listed.code(),
            Class::Unlisted => unlisted.code(),
            Class::LaterFragment => later.code(),
            Class::Blocked | Class::Other => Action::Pass.code(),
        });
    }
}

#[test]
fn both_port_filters_know_every_port() {
    // Listed are the ports whose bits are odd in number: neighbours and swapped bytes differ.
    let listed = |port: &u16| port.count_ones() % 2 == 1;
    let all: BTreeSet<u16> = (0..=u16::MAX).filter(listed).collect();
    let built_in = Prepared::new(Builtin::UdpPortFilter, Value::Null);
    let instances = Prepared::of(instance_filter(), Value::Null);
    for (filter, map, [on, off]) in [
        (built_in, "ports".to_owned(), [Action::Pass, Action::Drop]),
        (instances, pins::file_name(PORTS_OF_INSTANCES), [Action::Drop, Action::Pass]),
    ] {
        Ports::open(number(&filter.map(&map))).expect("ports").list_all(&all).expect("listed");
        let chain = filter.chain();
        for port in (0..=u16::MAX).step_by(251).chain([1, 255, 256, 257, 65534, 65535]) {
            let to = std::net::SocketAddr::new([198, 51, 100, 7].into(), port);
            let from = "192.0.2.1:9".parse().expect("an address");
            let frame = pointsman_netns::packets::Frame::udp(from, to).build();
            let wanted = if listed(&port) { on } else { off };
            assert_eq!(run(&chain, &frame).verdict, wanted.code(), "{map}: port {port}");
        }
    }
}

/// A map's number.
fn number(map: &MapHandle) -> u32 {
    MapInfo::new(map.as_fd()).expect("a map").info.id
}

/// What becomes of a frame by RFC 791, 8200 and IEEE 802.1Q, read slowly: the verdict for a listed
/// port, for one that is not, or to pass.
fn by_the_book(frame: &[u8], listed: impl Fn(u16) -> bool) -> Class {
    let at = |offset: usize, length: usize| frame.get(offset..offset + length);
    let word = |offset: usize| Some(u16::from_be_bytes(at(offset, 2)?.try_into().ok()?));
    let read = || -> Option<Class> {
        let port = |offset: usize| {
            at(offset, 8)?;
            Some(if listed(word(offset + 2)?) { Class::Listed } else { Class::Unlisted })
        };
        let (mut kind, mut offset) = (word(12)?, 14);
        for _ in 0..2 {
            if kind == 0x8100 || kind == 0x88a8 {
                kind = {
                    at(offset, 4)?;
                    word(offset + 2)?
                };
                offset += 4;
            }
        }
        match kind {
            0x0800 => {
                let ip = at(offset, 20)?;
                let words = usize::from(ip[0] & 15);
                if ip[0] >> 4 != 4 || words < 5 || ip[9] != 17 {
                    return None;
                }
                if (u16::from(ip[6]) << 8 | u16::from(ip[7])) & 0x1fff != 0 {
                    return Some(Class::LaterFragment);
                }
                port(offset + 4 * words)
            }
            0x86dd => {
                let ip = at(offset, 40)?;
                if ip[0] >> 4 != 6 {
                    return None;
                }
                let (mut next, mut headers) = (ip[6], 0);
                offset += 40;
                let may_be_udp = |next: u8| [17, 44, 0, 43, 60].contains(&next);
                while [44, 0, 43, 60].contains(&next) {
                    if headers == 8 {
                        return Some(Class::Unlisted);
                    }
                    headers += 1;
                    if next == 44 {
                        let fragment = at(offset, 8)?;
                        next = fragment[0];
                        if word(offset + 2)? & 0xfff8 != 0 {
                            return may_be_udp(next).then_some(Class::LaterFragment);
                        }
                        offset += 8;
                    } else {
                        let extension = at(offset, 2)?;
                        next = extension[0];
                        offset += (usize::from(extension[1]) + 1) * 8;
                    }
                }
                if next == 17 { port(offset) } else { None }
            }
            _ => None,
        }
    };
    read().unwrap_or(Class::Other)
}

/// Frames that are broken anyhow: one look at a plain datagram decides as the long way does.
#[test]
fn broken_frames_are_decided_by_the_book() {
    let mut random = Random::new("builtins::broken");
    let globals = json!({"listed": "XDP_TX", "unlisted": "XDP_DROP",
                         "later_fragments": "XDP_ABORTED"});
    let built_in = Prepared::new(Builtin::UdpPortFilter, globals);
    built_in.set("ports", &u32::from(LISTED).to_ne_bytes(), &[1]);
    let instances = Prepared::of(instance_filter(), Value::Null);
    let map = instances.map(&pins::file_name(PORTS_OF_INSTANCES));
    Ports::open(number(&map)).expect("ports").list(LISTED, true).expect("listed");
    let (built_in, instances) = (built_in.chain(), instances.chain());
    let vectors = filter_frames();
    let mut seen = BTreeMap::new();
    for _ in 0..if full() { 200_000 } else { 4_000 } {
        let mut frame = vectors[random.below(vectors.len())].frame.clone();
        // What is cut off, and what is another byte or one that means something.
        if random.below(4) == 0 {
            frame.truncate(14 + random.below(frame.len().min(90) - 13));
        }
        for _ in 0..random.below(4) {
            let at = random.below(frame.len().min(90));
            let telling = [0, 1, 0x08, 0x45, 0x46, 0x60, 17, 0x20, 44, 60, 0x4e, 0x81];
            frame[at] = match random.below(2) {
                0 => telling[random.below(telling.len())],
                _ => random.below(256) as u8,
            };
        }
        let class = by_the_book(&frame, |port| port == LISTED);
        *seen.entry(format!("{class:?}")).or_insert(0) += 1;
        let [any, mtl] = match class {
            Class::Listed => [Action::Tx, Action::Drop],
            Class::Unlisted => [Action::Drop, Action::Pass],
            Class::LaterFragment => [Action::Aborted, Action::Pass],
            Class::Blocked | Class::Other => [Action::Pass, Action::Pass],
        };
        for (chain, wanted) in [(&built_in, any), (&instances, mtl)] {
            let found = run(chain, &frame).verdict;
            assert_eq!(found, wanted.code(), "{class:?}: {frame:02x?}");
        }
    }
    assert!(seen.len() == 4 && seen.values().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn both_maps_of_ports_are_read_and_written_alike() {
    let built_in = Prepared::new(Builtin::UdpPortFilter, Value::Null);
    let instances = Prepared::of(instance_filter(), Value::Null);
    let maps = [(&built_in, "ports".to_owned()), (&instances, pins::file_name(PORTS_OF_INSTANCES))];
    for (program, map) in maps {
        let ports = Ports::open(number(&program.map(&map))).expect("ports");
        let all: BTreeSet<u16> = [0, 1, 255, 256, 20_000, 65_534, 65_535].into();
        assert_eq!(ports.listed().expect("read"), BTreeSet::new(), "{map}");
        ports.list_all(&all).expect("listed");
        assert_eq!(ports.listed().expect("read"), all, "{map}");
        let mut fewer = all.clone();
        for port in [0, 256, 65_535] {
            ports.list(port, false).expect("taken out");
            fewer.remove(&port);
        }
        ports.list(7, true).expect("listed");
        fewer.insert(7);
        assert_eq!(ports.listed().expect("read"), fewer, "{map}");
        ports.list_all(&all).expect("listed");
        assert_eq!(ports.listed().expect("read"), all, "{map}");
    }
    // What is none of both is told.
    let sockets = pointsman_netns::sockets::sockets();
    let message = Ports::open(number(&sockets)).expect_err("no ports").to_string();
    assert!(message.contains("it is not one that instances can use"), "{message}");
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn the_blocklist_drops_by_the_longest_prefix_that_holds_the_source() {
    let blocklist = Prepared::new(Builtin::CidrBlocklist, Value::Null);
    let v4 = |bits: u32, octets: [u8; 4], number: u32| {
        let key = [&bits.to_ne_bytes()[..], &octets].concat();
        blocklist.set("blocklist_v4", &key, &number.to_ne_bytes());
    };
    let v6 = |bits: u32, address: &str, number: u32| {
        let address: std::net::Ipv6Addr = address.parse().expect("an address");
        let key = [&bits.to_ne_bytes()[..], &address.octets()].concat();
        blocklist.set("blocklist_v6", &key, &number.to_ne_bytes());
    };
    v4(24, [203, 0, 113, 0], 4711);
    v4(25, [203, 0, 113, 128], 0); // exempt
    v4(32, [203, 0, 113, 200], 1); // and listed again
    v4(8, [10, 0, 0, 0], u32::MAX);
    v6(32, "2001:db8::", 1);
    v6(48, "2001:db8:1::", 0);
    v6(128, "2001:db8:1::7", 0x8000_0000);
    let blocked = addresses(&[
        "203.0.113.0",
        "203.0.113.127",
        "203.0.113.200",
        "10.255.255.255",
        "2001:db8::1",
        "2001:db8:2::",
        "2001:db8:1::7",
    ]);
    let free = addresses(&[
        "203.0.112.255",
        "203.0.113.128",
        "203.0.113.255",
        "203.0.114.0",
        "11.0.0.0",
        "192.0.2.1",
        "2001:db9::1",
        "2001:db8:1::8",
        "::203.0.113.1",
    ]);
    // The peer of the vectors, from which they have answers, is none of the listed.
    v6(48, "2001:db8:ffff::", 0);
    check(&blocklist.chain(), &blocklist_vectors(&blocked, &free), Class::default_verdict);
}

#[test]
fn an_empty_blocklist_drops_nothing() {
    let blocklist = Prepared::new(Builtin::CidrBlocklist, Value::Null);
    let all = addresses(&["0.0.0.0", "203.0.113.1", "255.255.255.255", "::", "2001:db8::1"]);
    let pass = |_| Action::Pass.code();
    check(&blocklist.chain(), &blocklist_vectors(&[], &all), pass);
    // And one that holds everything drops all of its family, but for the peer of the vectors.
    blocklist.set("blocklist_v4", &[0; 8], &1u32.to_ne_bytes());
    let peer = [&32u32.to_ne_bytes()[..], &[198, 51, 100, 7]].concat();
    blocklist.set("blocklist_v4", &peer, &0u32.to_ne_bytes());
    let (v4, v6) = all.split_at(3);
    check(&blocklist.chain(), &blocklist_vectors(v4, v6), Class::default_verdict);
}

#[test]
fn the_counting_pass_counts_packets_and_all_their_bytes() {
    let counting = Prepared::new(Builtin::CountingPass, Value::Null);
    let chain = counting.chain();
    let mut wanted = [0u64; 2];
    for length in [14, 15, 60, 1514, 3000, 4096, 9000, 20_000] {
        let frame = vec![0x5a; length];
        assert_eq!(run(&chain, &frame).verdict, Action::Pass.code(), "{length} bytes");
        wanted = [wanted[0] + 1, wanted[1] + length as u64];
        assert_eq!(counts(&counting), wanted, "after {length} bytes");
    }
}

fn counts(counting: &Prepared) -> [u64; 2] {
    let all = counting.map("counts").lookup_percpu(&[0; 4], MapFlags::ANY).expect("counts");
    let mut sum = [0; 2];
    for value in all.expect("one entry") {
        for (sum, word) in sum.iter_mut().zip(value.chunks_exact(8)) {
            *sum += u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        }
    }
    sum
}

#[test]
fn a_queue_is_redirected_only_while_it_has_a_socket() {
    let redirect = Prepared::new(Builtin::XskmapRedirect, Value::Null);
    let alone = redirect.chain();
    let verdict = |chain: &Chain| run(chain, &any_packet()).verdict;
    assert_eq!(verdict(&alone), Action::Pass.code(), "no socket");
    let family = rustix::net::AddressFamily::XDP;
    let kind = rustix::net::SocketType::RAW;
    let socket = rustix::net::socket(family, kind, None).expect("an AF_XDP socket");
    let register = |queue: u32| {
        redirect.set("xsks_map", &queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes());
    };
    register(1);
    assert_eq!(verdict(&alone), Action::Pass.code(), "a socket for another queue");
    register(0);
    assert_eq!(verdict(&alone), Action::Redirect.code(), "a socket for the queue");
    // In a chain the redirect is final, and the pass of a queue without a socket goes on.
    let counting = Prepared::new(Builtin::CountingPass, Value::Null);
    let chain = fuse(&[slot("sockets", &redirect.member), slot("count", &counting.member)]);
    assert_eq!(verdict(&chain), Action::Redirect.code());
    assert_eq!(counts(&counting)[0], 0);
    drop(socket);
    assert_eq!(verdict(&chain), Action::Pass.code(), "the socket is gone");
    assert_eq!(counts(&counting)[0], 1);
}

#[test]
fn the_chain_of_mtl_works_as_documented() {
    // A listed port goes on to the redirect by DROP, all else to the stack at once.
    let globals = json!({"listed": "XDP_DROP", "unlisted": "XDP_PASS"});
    let built_in = Prepared::new(Builtin::UdpPortFilter, globals);
    built_in.set("ports", &u32::from(LISTED).to_ne_bytes(), &[1]);
    let instances = Prepared::of(instance_filter(), Value::Null);
    let map = instances.map(&pins::file_name(PORTS_OF_INSTANCES));
    Ports::open(number(&map)).expect("ports").list(LISTED, true).expect("listed");
    [built_in, instances].iter().for_each(goes_on_by_drop);
}

fn goes_on_by_drop(filter: &Prepared) {
    let counting = Prepared::new(Builtin::CountingPass, Value::Null);
    let on_drop: ActionSet = [Action::Drop].into_iter().collect();
    let chain = fuse(&[
        pointsman_bpf::Slot { actions: on_drop, ..slot("ports", &filter.member) },
        slot("count", &counting.member),
    ]);
    let mut listed = 0;
    for vector in filter_frames() {
        assert_eq!(run(&chain, &vector.frame).verdict, Action::Pass.code(), "{}", vector.name);
        listed += u64::from(vector.class == Class::Listed);
        assert_eq!(counts(&counting)[0], listed, "{}", vector.name);
    }
}
