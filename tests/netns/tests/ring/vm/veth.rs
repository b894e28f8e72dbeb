//! Chains attached to a veth pair, with real datagrams between sockets.

use pointsman_bpf::{Link, Slot};
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netns::members::{fuse, member, member_with, prepare, slot, slot_on};
use pointsman_netns::netns::{LEFT, Pair, RIGHT};
use pointsman_netns::traffic::received;
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::time::Duration;

const LENGTHS: [usize; 4] = [1, 2, 5, 10];
/// The port that tests send to, and the one that tells that all has come.
const PORT: u16 = 5001;
const MARKER: u16 = 5999;

fn attach(pair: &Pair, slots: &[Slot<'_>], mode: AttachMode) -> (pointsman_bpf::Chain, Link) {
    let chain = fuse(slots);
    let index = pair.right.index("v1");
    let link = pair.right.run(|| chain.attach(index, mode)).expect("attach");
    (chain, link)
}

#[test]
fn every_mode_and_length_runs_members_in_their_order() {
    let pair = Pair::new().expect("root");
    let marks: Vec<_> =
        (1..=10u8).map(|id| member_with("order", "mark", json!({ "id": id }))).collect();
    for mode in [AttachMode::Native, AttachMode::Skb] {
        for length in LENGTHS {
            // Not the order in which they were opened.
            let order: Vec<_> = (0..length).rev().collect();
            let slots: Vec<_> = order.iter().map(|&at| slot("mark", &marks[at])).collect();
            let (_chain, _link) = attach(&pair, &slots, mode);
            let receiver = pair.right.run(|| UdpSocket::bind((RIGHT, PORT)).expect("a socket"));
            receiver.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            pair.left.run(|| {
                let sender = UdpSocket::bind((LEFT, 0)).expect("a socket");
                sender.send_to(&[0; 32], (RIGHT, PORT)).expect("send");
            });
            let mut payload = [0; 64];
            let got = receiver.recv(&mut payload).expect("the datagram arrives");
            let wanted: Vec<u8> = order.iter().map(|&at| at as u8 + 1).collect();
            assert_eq!((got, payload[0]), (32, length as u8), "{mode}");
            assert_eq!(payload[1..=length], wanted, "{mode}, chain of {length}");
        }
    }
}

/// A member that gives `verdict` to datagrams for `PORT` and passes all else.
fn to_port(verdict: u32) -> pointsman_bpf::Member {
    member_with("verdict", "v_port", json!({"port": PORT, "port_verdict": verdict}))
}

#[test]
fn a_final_verdict_drops_at_every_place_and_is_counted_there() {
    let pair = Pair::new().expect("root");
    let pass = member("verdict", "v_pass");
    for action in [Action::Aborted, Action::Drop, Action::Tx, Action::Redirect] {
        let other = to_port(action.code());
        for length in LENGTHS {
            for at in [0, length / 2, length - 1] {
                let pick = |m: usize| if m == at { &other } else { &pass };
                let slots: Vec<_> = (0..length).map(|m| slot("m", pick(m))).collect();
                let (chain, _link) = attach(&pair, &slots, AttachMode::Native);
                assert_eq!(received(&pair, &[PORT], MARKER, 3), [0], "{action} at {at}/{length}");
                let exits = chain.counters().expect("counted").read().expect("counters");
                assert_eq!((exits.members[at].get(action), exits.members[at].total()), (3, 3));
                assert_eq!(exits.end, 1, "the marker");
            }
        }
    }
}

#[test]
fn after_the_last_continue_and_past_an_observer_everything_arrives() {
    let pair = Pair::new().expect("root");
    for action in [Action::Aborted, Action::Drop, Action::Pass, Action::Tx, Action::Redirect] {
        let other = to_port(action.code());
        for length in LENGTHS {
            let goes_on = [Action::Pass, action];
            let goes_on = &goes_on[..if action == Action::Pass { 1 } else { 2 }];
            let continuing: Vec<_> = (0..length).map(|_| slot_on("m", &other, goes_on)).collect();
            let (_chain, link) = attach(&pair, &continuing, AttachMode::Native);
            assert_eq!(received(&pair, &[PORT], MARKER, 3), [3], "{action} continues, {length}");
            drop(link);
            let observing: Vec<_> =
                (0..length).map(|_| Slot { enforce: false, ..slot("m", &other) }).collect();
            let (chain, _link) = attach(&pair, &observing, AttachMode::Native);
            assert_eq!(received(&pair, &[PORT], MARKER, 3), [3], "{action} observed, {length}");
            let exits = chain.counters().expect("counted").read().expect("counters");
            let markers = u64::from(action == Action::Pass);
            assert!(exits.members.iter().all(|m| m.get(action) == 3 + markers), "{exits:?}");
        }
    }
}

#[test]
fn packaged_programs_of_xdp_tools_pass_and_drop_in_chains() {
    let pair = Pair::new().expect("root");
    let folder = format!("/usr/lib/{}-linux-gnu/bpf", std::env::consts::ARCH);
    // Empty tables: one allows what is not listed, the other denies it.
    for (name, arrives) in [("xdpfilt_alw_all", true), ("xdpfilt_dny_all", false)] {
        let path = format!("{folder}/{name}.o");
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|e| panic!("{path}: {e}: apt-get install xdp-tools libxdp1"));
        let it = prepare(&bytes, "", Value::Null).unwrap_or_else(|e| panic!("{path}: {e}"));
        let marker = to_port(Action::Pass.code());
        for length in LENGTHS {
            let at = length / 2;
            let pick = |m: usize| if m == at { &it } else { &marker };
            let mut slots: Vec<_> = (0..length).map(|m| slot("m", pick(m))).collect();
            let (chain, link) = attach(&pair, &slots, AttachMode::Native);
            if arrives {
                assert_eq!(received(&pair, &[PORT], MARKER, 3), [3], "{name} in {length}");
                continue;
            }
            // It drops the marker as well: its counter tells, and then observing lets it through.
            drop(link);
            slots[at].enforce = false;
            let (observed, _link) = attach(&pair, &slots, AttachMode::Native);
            assert_eq!(received(&pair, &[PORT], MARKER, 3), [3], "{name} observed in {length}");
            let exits = observed.counters().expect("counted").read().expect("counters");
            assert_eq!(exits.members[at].drop, 4, "{name} in {length}");
            let alone = pointsman_bpf::test_run(
                chain.program(),
                &pointsman_netns::members::any_packet(),
                1,
                0,
            );
            assert_eq!(alone.expect("a test run").verdict, Action::Drop.code());
        }
    }
}
