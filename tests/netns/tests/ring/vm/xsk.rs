//! AF_XDP end to end: a port filter and a redirect with a map of sockets for each client, in a fused
//! chain on a veth pair of five queues.

use pointsman_bpf::sockets::{Bound, Found, Looker};
use pointsman_bpf::{Chain, Link, release_at_least};
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netdev::Namespace;
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{any_packet, fuse, member, run, slot};
use pointsman_netns::netns::{Pair, RIGHT};
use pointsman_netns::random::full;
use pointsman_netns::sockets::{Client, QUEUES, Redirect, Source, put, sockets, take_out};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// The port that goes to sockets, and one that does not.
const LISTED: u16 = 20_000;
const OTHER: u16 = 30_000;
/// More than this are never under way at once: an interface of the pair holds 256.
const WINDOW: u64 = 128;

/// Everything that a test needs, in the order in which it ends.
struct Stage {
    link: Link,
    chain: Chain,
    redirect: Redirect,
    pair: Pair,
    _maps: Bpffs,
}

impl Stage {
    fn set(mode: AttachMode) -> Self {
        let maps = Bpffs::mount().expect("root");
        let pair = Pair::with_queues(5).expect("root");
        let redirect = Redirect::prepare(maps.path());
        redirect.list(LISTED, true);
        let chain = fuse(&redirect.slots());
        let index = pair.right.index("v1");
        let link = pair.right.run(|| chain.attach(index, mode)).expect("attach");
        Self { link, chain, redirect, pair, _maps: maps }
    }

    /// A socket of the kernel's stack behind the chain.
    fn stack(&self, port: u16) -> UdpSocket {
        let socket = self.pair.right.run(|| UdpSocket::bind((RIGHT, port)).expect("a socket"));
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        socket
    }
}

/// This thread on the CPU where it is, until dropped.
struct OneCpu(CpuSet);

impl OneCpu {
    fn stay() -> Self {
        let before = sched_getaffinity(None).expect("the CPUs");
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).expect("one CPU");
        Self(before)
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        // A second panic would end the process; the next test only has one CPU.
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// The number of the datagram that comes next.
#[track_caller]
fn next(socket: &UdpSocket) -> u64 {
    let mut bytes = [0; 64];
    assert_eq!(socket.recv(&mut bytes).expect("a datagram"), 22);
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// Numbers `from` on, each to a port.
fn numbered(port: u16, from: u64, count: u64) -> Vec<(u16, u64)> {
    (from..from + count).map(|number| (port, number)).collect()
}

#[test]
fn numbered_packets_reach_the_socket_of_their_queue_and_other_ports_the_stack() {
    // A million in a long run.
    let rounds = if full() { 1_000_000_u64.div_ceil(3 * (WINDOW - 2)) } else { 60 };
    // In skb mode each CPU has a backlog of its own (`enqueue_to_backlog`, net/core/dev.c): if this
    // thread were moved while it sends, what it sent before could come after.
    let _one = OneCpu::stay();
    for mode in [AttachMode::Native, AttachMode::Skb] {
        let mut stage = Stage::set(mode);
        // Queues 1 and 2 are held, 3 is fed from the map that all share.
        let queues = [1, 2, 3];
        let mut clients = queues.map(|queue| Client::open(&stage.pair, queue));
        let maps = [sockets(), sockets()];
        for (at, queue) in queues.into_iter().enumerate() {
            match maps.get(at) {
                Some(map) => {
                    put(map, queue, &clients[at].socket);
                    stage.redirect.own(queue, Some(map));
                }
                None => put(&stage.redirect.shared, queue, &clients[at].socket),
            }
        }
        let other = stage.stack(OTHER);
        // In skb mode the number of the transmit queue is read as one more than that of the receive
        // queue (`skb_rx_queue_recorded`, linux/skbuff.h): veth leaves it in the packet.
        let off = u32::from(mode == AttachMode::Skb);
        let mut sources = queues.map(|queue| Source::open(&stage.pair, queue + off));
        let pass = member("verdict", "v_pass");
        for round in 0..rounds {
            for source in &mut sources {
                let mut batch = numbered(LISTED, round * (WINDOW - 2), WINDOW - 2);
                batch.insert(60, (OTHER, round));
                source.send(&batch);
            }
            for client in &mut clients {
                client.wait_for(((round + 1) * (WINDOW - 2)) as usize);
            }
            for _ in &queues {
                assert_eq!(next(&other), round, "another port reaches the stack");
            }
            // The operator's programs come and go meanwhile.
            if round % 20 == 0 {
                let [filter, redirect] = stage.redirect.slots();
                let slots = [slot("pass", &pass), filter, redirect];
                let first = usize::from(round % 40 == 0);
                let chain = fuse(&slots[first..]);
                chain.swap_into(&mut stage.link).expect("swapped");
                stage.chain = chain;
            }
        }
        for (client, queue) in clients.iter_mut().zip(queues) {
            client.take();
            let wanted = numbered(LISTED, 0, rounds * (WINDOW - 2));
            assert!(client.came == wanted, "queue {queue} in {mode} mode: each once, in order");
            assert_eq!(client.socket.statistics().expect("statistics"), Default::default());
        }
    }
}

#[test]
fn queues_with_an_owner_are_told_from_those_without() {
    let maps = Bpffs::mount().expect("root");
    let redirect = Redirect::prepare(maps.path());
    let (owners, map) = (redirect.owners(), sockets());
    assert!(owners.held().expect("none").is_empty());
    for queue in [0, 7, QUEUES - 1] {
        redirect.own(queue, Some(&map));
    }
    assert_eq!(owners.held().expect("three"), [0, 7, QUEUES - 1].into());
    assert!(owners.number(7).expect("a number").is_some());
    // Taken from whoever has it, and from nobody.
    for queue in [7, 8] {
        owners.set(queue, None).expect("nobody's");
        assert_eq!(owners.number(queue).expect("none"), None);
    }
    assert_eq!(owners.held().expect("two"), [0, QUEUES - 1].into());
}

#[test]
fn a_client_cannot_touch_the_packets_of_another() {
    let stage = Stage::set(AttachMode::Native);
    let Stage { pair, redirect, .. } = &stage;
    let (mut one, mut other) = (Client::open(pair, 1), Client::open(pair, 2));
    let (map, others) = (sockets(), sockets());
    put(&map, 1, &one.socket);
    put(&others, 2, &other.socket);
    let mut source = Source::open(pair, 1);
    // Without owners the last who writes to the map that all share has the queue: the kernel drops
    // what goes to a socket of another queue.
    put(&redirect.shared, 1, &one.socket);
    source.send(&numbered(LISTED, 0, 3));
    one.wait_for(3);
    put(&redirect.shared, 1, &other.socket);
    source.send(&numbered(LISTED, 3, 3));
    put(&redirect.shared, 1, &one.socket);
    source.send(&numbered(LISTED, 6, 1));
    one.wait_for(4);
    assert_eq!(one.came[3], (LISTED, 6), "three were lost to the other's entry");
    // With them, neither the map of another nor the shared one matters.
    redirect.own(1, Some(&map));
    redirect.own(2, Some(&others));
    put(&redirect.shared, 1, &other.socket);
    put(&others, 1, &other.socket);
    source.send(&numbered(LISTED, 7, 50));
    one.wait_for(54);
    assert_eq!(one.came[4..], numbered(LISTED, 7, 50));
    other.take();
    assert_eq!(other.came, []);
}

#[test]
fn a_queue_without_a_socket_passes_to_the_stack_whoever_holds_it() {
    let stage = Stage::set(AttachMode::Native);
    let Stage { pair, redirect, .. } = &stage;
    let stack = stage.stack(LISTED);
    let mut source = Source::open(pair, 1);
    let mut number = 0;
    let mut passes = |what: &str| {
        source.send(&[(LISTED, number)]);
        assert_eq!(next(&stack), number, "{what}");
        number += 1;
    };
    passes("nobody holds it, and nobody shares");
    let map = sockets();
    redirect.own(1, Some(&map));
    passes("its owner has no socket");
    // The owner's map is asked alone: a socket in the shared one does not get what is not its own.
    let foreign = Client::open(pair, 2);
    put(&redirect.shared, 1, &foreign.socket);
    passes("its owner has no socket, and somebody shares");
    take_out(&redirect.shared, 1);
    let client = Client::open(pair, 1);
    put(&map, 1, &client.socket);
    drop(client);
    passes("its owner's socket is closed");
    redirect.own(1, None);
    passes("it was given back");
    // A port that is not listed any more.
    let mut client = Client::open(pair, 1);
    put(&map, 1, &client.socket);
    redirect.own(1, Some(&map));
    redirect.list(LISTED, false);
    passes("the port is not listed");
    client.take();
    assert_eq!(client.came, []);
}

#[test]
fn every_verdict_of_the_redirect_is_counted_in_the_chain() {
    let stage = Stage::set(AttachMode::Native);
    let Stage { pair, redirect, chain, .. } = &stage;
    let (map, mut client) = (sockets(), Client::open(pair, 1));
    put(&map, 1, &client.socket);
    redirect.own(1, Some(&map));
    Source::open(pair, 1).send(&numbered(LISTED, 0, 100));
    client.wait_for(100);
    let exits = chain.counters().expect("counted").read().expect("counters");
    // The filter's DROP goes on, so it is no exit of the chain.
    assert_eq!(exits.members[1].get(Action::Redirect), 100, "{exits:?}");
    assert_eq!(exits.members[0].get(Action::Drop), 0, "{exits:?}");
    // A test run is on queue 0, which nobody ever holds.
    assert_eq!(run(chain, &any_packet()).verdict, Action::Pass.code());
}

/// What a daemon looks at before it puts somebody's socket into a map.
#[test]
fn the_kernel_tells_what_each_socket_is_bound_to() {
    let looker = match Looker::new() {
        // Any that everything has to run on can.
        Err(error) if !release_at_least(6, 1) => {
            return pointsman_netns::skip("what a socket is bound to", &error.to_string());
        }
        looker => looker.expect("a kernel with BTF"),
    };
    let pairs = [(); 2].map(|()| Pair::with_queues(4).expect("root"));
    let clients: Vec<_> =
        pairs.iter().flat_map(|pair| [3, 1, 2].map(|queue| (pair, queue))).collect();
    let clients: Vec<_> =
        clients.iter().map(|(pair, queue)| (*pair, *queue, Client::open(pair, *queue))).collect();
    for (pair, queue, client) in &clients {
        let namespace = pair.right.run(|| Namespace::own().and_then(|own| own.id()));
        let namespace = namespace.expect("a namespace").inode();
        let bound = Bound { index: pair.right.index("v1"), queue: *queue, namespace };
        let found = looker.look(client.socket.receiver.as_fd()).expect("an answer");
        assert_eq!(found, Found::Bound(bound));
    }
    let unbound = socket(AddressFamily::XDP, SocketType::RAW, None).expect("a socket");
    assert_eq!(looker.look(unbound.as_fd()).expect("an answer"), Found::Unbound);
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    assert_eq!(looker.look(datagrams.as_fd()).expect("an answer"), Found::NoSocket);
}
