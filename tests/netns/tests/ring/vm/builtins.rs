//! The built-in programs on frames of every shape, as they come and with other verdicts set.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use pointsman_bpf::{Chain, MapHome, Member, builtin};
use pointsman_model::document::Builtin;
use pointsman_model::{Action, ActionSet};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{any_packet, fuse, resolved, rounding, run, slot, slot_on};
use pointsman_netns::packets::vectors::{
    Class, Vector, blocklist_vectors, filter_vectors, multi_buffer_vectors,
};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

const LISTED: u16 = 20000;
const UNLISTED: u16 = 20001;

/// A built-in program with its maps pinned, where the test can fill them.
struct Prepared {
    member: Member,
    maps: Bpffs,
}

impl Prepared {
    fn new(which: Builtin, globals: Value) -> Self {
        let maps = Bpffs::mount().expect("root");
        let bytes = builtin(which);
        let program = resolved(bytes, "", globals);
        let home = MapHome::Pinned(maps.path().to_owned());
        let member = Member::prepare(bytes, &program, &home, rounding(), None)
            .unwrap_or_else(|e| panic!("{which:?}: {e}\n{}", e.log().unwrap_or("")));
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
fn the_port_filter_knows_every_port() {
    let filter = Prepared::new(Builtin::UdpPortFilter, Value::Null);
    // Listed are the ports whose bits are odd in number: neighbours and swapped bytes differ.
    let listed = |port: u32| port.count_ones() % 2 == 1;
    let ports = filter.map("ports");
    for port in 0..=u32::from(u16::MAX) {
        let value = [u8::from(listed(port))];
        ports.update(&port.to_ne_bytes(), &value, MapFlags::ANY).expect("an update");
    }
    let chain = filter.chain();
    for port in (0..=u16::MAX).step_by(251).chain([1, 255, 256, 257, 65534, 65535]) {
        let to = std::net::SocketAddr::new([198, 51, 100, 7].into(), port);
        let from = "192.0.2.1:9".parse().expect("an address");
        let frame = pointsman_netns::packets::Frame::udp(from, to).build();
        let wanted = if listed(port.into()) { Action::Pass } else { Action::Drop };
        assert_eq!(run(&chain, &frame).verdict, wanted.code(), "port {port}");
    }
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
    let filter = Prepared::new(Builtin::UdpPortFilter, globals);
    filter.set("ports", &u32::from(LISTED).to_ne_bytes(), &[1]);
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
