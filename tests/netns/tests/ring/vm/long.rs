//! A long chain of programs that do something: 64 members, of which 30 parse packets, look
//! addresses and ports up and count, each with maps or globals of its own.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use pointsman_bpf::{MapHome, Member, Slot, builtin};
use pointsman_model::document::Builtin;
use pointsman_model::{Action, Verdicts};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{fuse, member, member_with, prepare, resolved, rounding, run, slot};
use pointsman_netns::packets::Frame;
use serde_json::{Value, json};
use std::path::Path;

const MEMBERS: usize = 64;
const FILTERS: usize = 3;
const BLOCKLISTS: usize = 6;
const PORTS: usize = 12;
const COUNTING: usize = 9;
/// Bytes of every packet's payload.
const PAYLOAD: usize = 40;

/// What a member does to which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Drops datagrams to a port.
    DropsPort(u16),
    /// Drops packets from 192.0.N.0/24.
    DropsFrom(u8),
    /// Counts packets and bytes.
    Counts,
    /// Something that no packet of this test shows.
    Passes,
}

/// A built-in program with maps of its own, one of which holds an entry.
fn filled(which: Builtin, globals: Value, home: &Path, map: &str, entry: [&[u8]; 2]) -> Member {
    let bytes = builtin(which);
    let program = resolved(bytes, "", globals);
    let pinned = MapHome::Pinned(home.to_owned());
    let member = Member::prepare(bytes, &program, &pinned, rounding(), None)
        .unwrap_or_else(|e| panic!("{which:?}: {e}\n{}", e.log().unwrap_or("")));
    let map = MapHandle::from_pinned_path(home.join(map)).expect("a pinned map");
    map.update(entry[0], entry[1], MapFlags::ANY).expect("an update");
    member
}

/// The 30, in an order that mixes their kinds.
fn real(maps: &Path) -> Vec<(Does, Member)> {
    let mut kinds: [Vec<(Does, Member)>; 4] = Default::default();
    for port in (4000..).take(FILTERS) {
        let globals = json!({"listed": "XDP_DROP", "unlisted": "XDP_PASS"});
        let entry: [&[u8]; 2] = [&u32::from(port).to_ne_bytes(), &[1]];
        let home = maps.join(format!("filter-{port}"));
        let filter = filled(Builtin::UdpPortFilter, globals, &home, "ports", entry);
        kinds[0].push((Does::DropsPort(port), filter));
    }
    for network in (100..).take(BLOCKLISTS) {
        // 24 bits of the prefix, then the address.
        let key = [&24u32.to_ne_bytes()[..], &[192, 0, network, 0]].concat();
        let entry: [&[u8]; 2] = [&key, &1u32.to_ne_bytes()];
        let home = maps.join(format!("blocklist-{network}"));
        let list = filled(Builtin::CidrBlocklist, Value::Null, &home, "blocklist_v4", entry);
        kinds[1].push((Does::DropsFrom(network), list));
    }
    for port in (5000..).take(PORTS) {
        let globals = json!({"port": port, "port_verdict": 1});
        kinds[2].push((Does::DropsPort(port), member_with("verdict", "v_port", globals)));
    }
    for _ in 0..COUNTING {
        let counting = prepare(builtin(Builtin::CountingPass), "", Value::Null);
        kinds[3].push((Does::Counts, counting.expect("it loads")));
    }
    let mut mixed = Vec::new();
    while kinds.iter().any(|kind| !kind.is_empty()) {
        mixed.extend(kinds.iter_mut().filter_map(Vec::pop));
    }
    mixed
}

/// A datagram that a member of this kind drops; for the others one that nobody drops.
fn packet(does: Does) -> Vec<u8> {
    let (network, port) = match does {
        Does::DropsPort(port) => (1, port),
        Does::DropsFrom(network) => (network, 9),
        Does::Counts | Does::Passes => (1, 9),
    };
    let from = format!("192.0.{network}.7:1000").parse().expect("an address");
    let to = format!("198.51.100.7:{port}").parse().expect("an address");
    Frame::udp(from, to).payload(&[0; PAYLOAD]).build()
}

#[test]
fn sixty_four_members_of_which_thirty_are_real_load_and_run() {
    let bpffs = Bpffs::mount().expect("root");
    let mut members = real(bpffs.path());
    assert_eq!(members.len(), 30);
    let others = [
        ("tailcall", "member"),
        ("timer", "arm"),
        ("spinlock", "locked"),
        ("percpu", "percpu"),
        ("mapinmap", "nested"),
        ("subprogs", "s_global"),
    ];
    let mut others = others.iter().cycle().take(6).chain([("verdict", "v_opaque")].iter().cycle());
    // One of the others behind each of the real ones, then the rest of them.
    for at in 0..MEMBERS - members.len() {
        let (object, entry) = others.next().expect("without an end");
        let place = (2 * at + 1).min(members.len());
        members.insert(place, (Does::Passes, member(object, entry)));
    }
    assert_eq!(members.len(), MEMBERS);
    let slots: Vec<Slot<'_>> = members.iter().map(|(_, member)| slot("m", member)).collect();
    let chain = fuse(&slots);

    // One packet for each member that drops, and one that passes them all.
    let enders: Vec<usize> = (0..members.len())
        .filter(|&at| matches!(members[at].0, Does::DropsPort(_) | Does::DropsFrom(_)))
        .collect();
    assert_eq!(enders.len(), FILTERS + BLOCKLISTS + PORTS);
    for &at in &enders {
        let before = packet(members[at].0);
        let ran = run(&chain, &before);
        assert_eq!(ran.verdict, Action::Drop.code(), "{:?} at {at}", members[at].0);
        assert_eq!(ran.packet, before, "the packet changed");
    }
    let passing = packet(Does::Passes);
    assert_eq!(run(&chain, &passing).verdict, Action::Pass.code());

    let exits = chain.counters().expect("counted").read().expect("counters");
    assert_eq!(exits.end, 1);
    for (at, counted) in exits.members.iter().enumerate() {
        let drop = u64::from(enders.contains(&at));
        assert_eq!(*counted, Verdicts { drop, ..Verdicts::default() }, "at {at}");
    }
    // Each counting member saw what the members before it let through.
    for (at, (_, member)) in members.iter().enumerate().filter(|(_, m)| m.0 == Does::Counts) {
        let came = enders.iter().filter(|&&ender| ender > at).count() as u64 + 1;
        let bytes = came * passing.len() as u64;
        assert_eq!(counted(member), [came, bytes], "at {at}");
    }
}

/// Packets and bytes of a counting member, over all CPUs.
fn counted(member: &Member) -> [u64; 2] {
    let values = member.map_value("counts", &0u32.to_ne_bytes()).expect("values");
    let mut sums = [0; 2];
    for value in &values {
        for (sum, word) in sums.iter_mut().zip(value.chunks_exact(8)) {
            *sum += u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        }
    }
    sums
}
