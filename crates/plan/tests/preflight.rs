//! What plans warn of, and what they do not.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, chain, host, interface};
use pointsman_model::nic::{Channels, Driver, NicFacts, Offload, Offloads, Peer, XdpFeatures};
use pointsman_model::plan::{HookChange, Plan};
use pointsman_model::preflight::{PreflightKind, Severity, Warning};
use pointsman_plan::simulator::Simulator;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write as _;

const ON: Offload = Offload { on: true, changeable: true };
const FIXED: Offload = Offload { on: true, changeable: false };
const OFF: Offload = Offload { on: false, changeable: true };

fn driver(name: &str) -> NicFacts {
    NicFacts { driver: Some(Driver { name: name.into(), version: None }), ..NicFacts::default() }
}

fn show(warnings: &[Warning]) -> String {
    let mut text = String::new();
    for Warning { kind, severity, hook, program, message } in warnings {
        let program = program.as_ref().map_or("-", |program| program.as_str());
        writeln!(text, "{severity:?} {kind:?} {hook} {program}: {message}").unwrap();
    }
    text
}

/// A chain with a mode, on `eth0`.
fn with_mode(members: &[&str], mode: &str) -> Value {
    let mut interfaces = chain("eth0", members);
    interfaces["eth0"]["xdp"]["mode"] = json!(mode);
    interfaces
}

/// The plan of attaching `members` to an interface like that.
fn attach(bench: &Bench, mtu: u32, nic: NicFacts, members: &[&str]) -> Plan {
    let mut host = host();
    host.set_nic(&interface("eth0"), mtu, nic);
    bench.plan(&bench.document(1, &chain("eth0", members)), &host)
}

#[test]
fn a_veth_whose_peer_sends_large_packets_refuses_a_chain_of_one_buffer() {
    let mut bench = Bench::with(&["a", "b"]);
    bench.program("b", 1).frags = false;
    let veth = |mtu| {
        let peer = Some(Peer { mtu: Some(mtu), tx_queues: Some(1) });
        NicFacts { peer, ..driver("veth") }
    };
    let plan = attach(&bench, 1500, veth(9000), &["1 a", "2 b"]);
    insta::assert_snapshot!(show(&plan.warnings), @"Failure MtuTooLarge eth0/xdp b: its peer's MTU is 9000, and packets of more than 3506 bytes take several buffers, which the chain does not take: b is not built as xdp.frags; the kernel refuses the chain; set the MTU to 3506 or less, build every member as xdp.frags, or use `\"mode\": \"skb\"`");
    // It is the kernel that refuses: the plan tries.
    assert_eq!(plan.hooks[0].change, HookChange::Attach);
    assert!(attach(&bench, 9000, veth(3506), &["1 a", "2 b"]).warnings.is_empty());
    assert!(attach(&bench, 9000, veth(9000), &["1 a"]).warnings.is_empty());
}

#[test]
fn a_veth_whose_peer_is_out_of_sight_is_judged_by_its_own_mtu() {
    let mut bench = Bench::with(&["a"]);
    bench.program("a", 1).frags = false;
    let plan = attach(&bench, 9000, driver("veth"), &["1 a"]);
    let [warning] = plan.warnings.as_slice() else { panic!("{}", show(&plan.warnings)) };
    assert_eq!((warning.kind, warning.severity), (PreflightKind::MtuTooLarge, Severity::Warning));
    assert!(warning.message.contains("its peer's counts"), "{}", warning.message);
}

#[test]
fn offloads_are_named_with_what_the_driver_makes_of_them() {
    let bench = Bench::with(&["a"]);
    let offloads = |lro, gro_hw| Offloads { lro, gro_hw, ..Offloads::default() };
    let mut all = String::new();
    for (name, offloads) in [
        ("mlx5_core", offloads(ON, Offload::default())),
        ("bnxt_en", offloads(Offload::default(), ON)),
        ("virtio_net", offloads(Offload::default(), FIXED)),
        ("veth", Offloads { vlan: ON, service_vlan: FIXED, ..Offloads::default() }),
        ("veth", Offloads { vlan: FIXED, ..Offloads::default() }),
    ] {
        let nic = NicFacts { offloads: Some(offloads), ..driver(name) };
        let plan = attach(&bench, 1500, nic, &["1 a"]);
        let merging = plan.warnings.into_iter().filter(|w| w.kind != PreflightKind::Disruptive);
        all += &show(&merging.collect::<Vec<_>>());
    }
    insta::assert_snapshot!(all, @"
    Failure ReceiveMerging eth0/xdp -: LRO is on: driver mlx5_core refuses XDP with it; turn it off first: `ethtool -K eth0 lro off`
    Info ReceiveMerging eth0/xdp -: GRO-HW is on: driver bnxt_en turns it off while a chain is attached, which costs the host's own connections throughput
    Warning ReceiveMerging eth0/xdp -: GRO-HW is on: driver virtio_net may refuse XDP with it, or programs see packets merged from several; it cannot be turned off here: use `\"mode\": \"skb\"`
    Info VlanStripped eth0/xdp -: VLAN tags are taken out of packets before programs see them, so a filter sees tagged packets as untagged ones; `ethtool -K eth0 rxvlan off rx-vlan-stag-hw-parse off` leaves them in
    Info VlanStripped eth0/xdp -: VLAN tags are taken out of packets before programs see them, so a filter sees tagged packets as untagged ones; and it cannot be turned off here
    ");
}

#[test]
fn queues_are_counted_where_the_drivers_rule_is_known() {
    let bench = Bench::with(&["a"]);
    let channels = |combined, max_combined, rx| {
        Some(Channels { combined, max_combined, rx, ..Channels::default() })
    };
    let mut all = String::new();
    for (name, channels, tx_queues) in [
        ("ena", channels(8, 8, 0), None),
        ("ena", channels(4, 8, 0), None),
        ("bnxt_en", channels(0, 8, 8), None),
        ("virtio_net", channels(4, 4, 0), None),
        ("virtio_net", channels(4, 8, 0), None),
        ("veth", channels(0, 0, 1), Some(2)),
        ("veth", channels(0, 0, 2), Some(2)),
        ("nobody", channels(1, 1, 1), None),
    ] {
        let peer = Some(Peer { mtu: None, tx_queues });
        let plan = attach(&bench, 1500, NicFacts { channels, peer, ..driver(name) }, &["1 a"]);
        let queues = plan.warnings.into_iter().filter(|w| w.kind == PreflightKind::Queues);
        all += &show(&queues.collect::<Vec<_>>());
    }
    insta::assert_snapshot!(all, @"
    Failure Queues eth0/xdp -: driver ena needs as many spare channels as are in use, and 8 of 8 are: it refuses XDP; use 4 channels at most (`ethtool -L eth0`), or `\"mode\": \"skb\"`
    Failure Queues eth0/xdp -: driver bnxt_en takes XDP on combined channels only, and there are none: it refuses XDP; `ethtool -L eth0 rx 0 tx 0 combined 8`
    Warning Queues eth0/xdp -: driver virtio_net wants a queue pair for each of 4 CPUs beside the 4 in use, and there are 4: the verdicts tx and redirect take a lock and are slower; give the guest 8 queue pairs
    Failure Queues eth0/xdp -: its peer sends through 2 queues, and it receives through 1: the kernel refuses native XDP; `ethtool -L eth0 rx 2`, or fewer on the peer
    ");
}

#[test]
fn features_are_missed_by_chains_that_use_them() {
    let mut bench = Bench::with(&["plain", "sends"]);
    bench.program("sends", 1).redirects = true;
    let basic = Some(XdpFeatures { basic: true, ..XdpFeatures::default() });
    let nic = || NicFacts { xdp: basic, ..driver("sfc") };
    let plan = attach(&bench, 9000, nic(), &["1 plain", "2 sends"]);
    insta::assert_snapshot!(show(&plan.warnings), @"
    Warning FeatureMissing eth0/xdp -: its MTU is 9000, and driver sfc gives programs one buffer a packet, of 3506 bytes at most: it may refuse the chain, or drop larger packets; set the MTU to 3506 or less, or use `\"mode\": \"skb\"`
    Warning FeatureMissing eth0/xdp sends: sends redirects packets, and driver sfc does not: they are dropped; use `\"mode\": \"skb\"`
    ");
    assert!(attach(&bench, 1500, nic(), &["1 plain"]).warnings.is_empty());
    // What a kernel does not say is only warned of where it matters.
    assert!(attach(&bench, 1500, driver("sfc"), &["2 sends"]).warnings.is_empty());
    assert!(attach(&bench, 9000, driver("veth"), &["1 plain"]).warnings.is_empty());
    let plan = attach(&bench, 9000, driver("sfc"), &["1 plain"]);
    assert_eq!(plan.warnings.len(), 1, "{}", show(&plan.warnings));
    assert!(plan.warnings[0].message.contains("the kernel does not say"), "{plan:?}");
}

#[test]
fn what_a_change_costs_is_said_per_driver_and_change() {
    let mut all = String::new();
    for name in ["ixgbe", "virtio_net", "bnxt_en", "veth", "nobody"] {
        let bench = Bench::with(&["a", "b"]);
        let mut host = host();
        host.set_nic(&interface("eth0"), 1500, driver(name));
        for (generation, document) in [
            chain("eth0", &["1 a"]),
            chain("eth0", &["1 a", "2 b"]),
            chain("eth0", &["1 a", "2 b"]),
            json!({}),
        ]
        .iter()
        .enumerate()
        {
            let plan = bench.apply(generation as u64 + 1, document, &mut host);
            write!(all, "{:?} ", plan.hooks[0].change).unwrap();
            all += if plan.warnings.is_empty() { "-\n" } else { "" };
            all += &show(&plan.warnings);
        }
    }
    insta::assert_snapshot!(all, @"
    Attach Warning Disruptive eth0/xdp -: attaching the first chain with driver ixgbe takes the interface down and up: packets are lost, and the link may be gone for seconds
    Swap -
    Unchanged -
    Detach Warning Disruptive eth0/xdp -: taking the chain off with driver ixgbe takes the interface down and up: packets are lost, and the link may be gone for seconds
    Attach Warning Disruptive eth0/xdp -: attaching the first chain with driver virtio_net makes the rings anew: packets are lost for milliseconds
    Swap Info Disruptive eth0/xdp -: exchanging chains with driver virtio_net stops the queues for a moment; packets wait, and are lost in floods
    Unchanged -
    Detach Warning Disruptive eth0/xdp -: taking the chain off with driver virtio_net makes the rings anew: packets are lost for milliseconds
    Attach Warning Disruptive eth0/xdp -: attaching the first chain with driver bnxt_en makes the rings anew: packets are lost for milliseconds
    Swap Warning Disruptive eth0/xdp -: exchanging chains with driver bnxt_en makes the rings anew: packets are lost for milliseconds; this driver does so for every program
    Unchanged -
    Detach Warning Disruptive eth0/xdp -: taking the chain off with driver bnxt_en makes the rings anew: packets are lost for milliseconds
    Attach -
    Swap -
    Unchanged -
    Detach -
    Attach Warning Disruptive eth0/xdp -: what attaching the first chain costs with driver nobody is not known: it may reset its rings or its link: expect lost packets
    Swap Info Disruptive eth0/xdp -: what exchanging chains costs with driver nobody is not known: it may lose packets
    Unchanged -
    Detach Warning Disruptive eth0/xdp -: what taking the chain off costs with driver nobody is not known: it may reset its rings or its link: expect lost packets
    ");
}

#[test]
fn a_chain_that_takes_half_of_the_verifiers_limit_is_warned_of() {
    let mut bench = Bench::with(&["large", "small"]);
    bench.program("large", 1).verified_instructions = 499_989;
    let plan = attach(&bench, 1500, driver("veth"), &["1 large", "2 small"]);
    assert!(plan.warnings.is_empty(), "{}", show(&plan.warnings));
    let budget = &plan.budgets[0];
    assert_eq!((budget.processed, budget.limit, budget.members.len()), (499_999, 1_000_000, 2));
    bench.program("large", 1).verified_instructions = 499_990;
    let plan = attach(&bench, 1500, driver("veth"), &["1 large", "2 small"]);
    insta::assert_snapshot!(show(&plan.warnings), @"Warning VerifierBudget eth0/xdp large: the verifier walks 500000 instructions for the members alone, of 1000000 for a whole chain: it may not load, or not with another member; the largest is large with 499990: bound its loops, or split the chain");
}

#[test]
fn the_doctor_sums_up_interfaces_that_are_alike() {
    let mut host = Simulator::new();
    let veth = || NicFacts {
        xdp: Some(XdpFeatures::from_bits(0b10_0111)),
        offloads: Some(Offloads { vlan: ON, ..Offloads::default() }),
        ..driver("veth")
    };
    for at in 0..500 {
        let name = interface(&format!("veth{at:03}"));
        host.add_interface(&name, Some(true));
        host.set_nic(&name, 1500, veth());
    }
    let card = NicFacts {
        channels: Some(Channels { combined: 8, max_combined: 63, ..Channels::default() }),
        offloads: Some(Offloads { lro: ON, ntuple: ON, ..Offloads::default() }),
        xdp: Some(XdpFeatures::from_bits(0b1101)),
        driver: Some(Driver { name: "ixgbe".into(), version: Some("5.19.6".into()) }),
        ..NicFacts::default()
    };
    host.add_interface(&interface("eth0"), Some(true));
    host.set_nic(&interface("eth0"), 9000, card);
    host.add_interface(&interface("br0"), Some(false));
    host.set_nic(&interface("br0"), 9000, driver("bridge"));
    host.add_interface(&interface("odd"), None);
    let virtio = NicFacts {
        offloads: Some(Offloads { gro_hw: FIXED, lro: ON, ntuple: OFF, ..Offloads::default() }),
        ..driver("virtio_net")
    };
    host.add_interface(&interface("ens3"), Some(true));
    host.set_nic(&interface("ens3"), 1500, virtio);
    let large = Some(Peer { mtu: Some(9000), tx_queues: None });
    host.add_interface(&interface("veth999"), Some(true));
    host.set_nic(&interface("veth999"), 1500, NicFacts { peer: large, ..veth() });
    host.add_loopback(&interface("lo"));
    let checks = pointsman_plan::examine(&host.observe().interfaces, 4096);
    let lines = checks.iter().map(|check| {
        let (name, health) = (&check.name, check.health);
        format!("{name} {health:?}: {}: {}\n", check.found, check.consequence)
    });
    insta::assert_snapshot!(lines.collect::<String>(), @"
    br0 Ok: bridge; no native XDP; MTU 9000: chains run in skb mode
    ens3 Limited: virtio_net; native XDP; MTU 1500; ntuple off: GRO-HW is on and cannot be turned off here; the first chain makes the rings anew; rules can send flows to queues after `ethtool -K DEV ntuple on`
    eth0 Limited: ixgbe 5.19.6; native XDP (basic, ndo-xmit, xsk-zerocopy); MTU 9000; 8 of 63 queue pairs; ntuple on: MTU above 3050: every program must be built as xdp.frags; LRO is on: `ethtool -K DEV lro off` before a chain comes; the first chain takes the link down and up; no program can redirect from here; AF_XDP sockets share memory with the card; rules can send flows to queues
    odd Ok: driver unknown; the kernel does not say whether it has native XDP; MTU 1500: nothing is in a chain's way
    veth000, veth001, veth002 and 497 more Ok: veth; native XDP (basic, redirect, ndo-xmit, rx-sg); MTU 1500; no ntuple: programs see no VLAN tags (rxvlan is on); AF_XDP sockets get copies; no rule can send a flow to a queue
    veth999 Limited: veth; native XDP (basic, redirect, ndo-xmit, rx-sg); MTU 1500; no ntuple: its peer's MTU is above 3506: every program must be built as xdp.frags; programs see no VLAN tags (rxvlan is on); AF_XDP sockets get copies; no rule can send a flow to a queue
    ");
}

fn offload() -> impl Strategy<Value = Offload> {
    any::<(bool, bool)>().prop_map(|(on, changeable)| Offload { on, changeable })
}

fn nic() -> impl Strategy<Value = NicFacts> {
    let name = prop_oneof![
        proptest::sample::select(vec![
            "veth",
            "virtio_net",
            "ixgbe",
            "ice",
            "ena",
            "bnxt_en",
            "mlx5_core",
            "tun",
            "igc",
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,8}",
    ];
    let driver = name.prop_map(|name| Driver { name, version: None });
    let channels =
        any::<[u32; 6]>().prop_map(|[rx, tx, combined, max_rx, max_tx, max_combined]| Channels {
            rx,
            tx,
            combined,
            max_rx,
            max_tx,
            max_combined,
        });
    let offloads = [offload(), offload(), offload(), offload(), offload()].prop_map(
        |[lro, gro_hw, vlan, service_vlan, ntuple]| Offloads {
            lro,
            gro_hw,
            vlan,
            service_vlan,
            ntuple,
        },
    );
    let peer =
        any::<(Option<u32>, Option<u32>)>().prop_map(|(mtu, tx_queues)| Peer { mtu, tx_queues });
    let xdp = any::<u64>().prop_map(XdpFeatures::from_bits);
    let all = (option::of(driver), option::of(xdp), option::of(channels));
    (all, option::of(offloads), option::of(peer)).prop_map(
        |((driver, xdp, channels), offloads, peer)| NicFacts {
            driver,
            xdp,
            channels,
            offloads,
            peer,
        },
    )
}

proptest! {
    /// Whatever an interface is like: warnings are data beside a plan that is the same without
    /// them, they are the same each time, and each says something.
    #[test]
    fn warnings_never_change_what_is_done(
        mtu: u32, nic in nic(), page_size: u32, cpus: u32, verified: u32,
        frags: bool, redirects: bool, skb: bool,
    ) {
        let mut bench = Bench::with(&["a", "b"]);
        (bench.caps.page_size, bench.caps.cpus) = (page_size, cpus);
        bench.options.allow_gap = true;
        let facts = bench.program("a", 1);
        (facts.frags, facts.redirects, facts.verified_instructions) = (frags, redirects, verified);
        let (mut host, mut plain) = (host(), host());
        host.set_nic(&interface("eth0"), mtu, nic);
        let mode = if skb { "skb" } else { "auto" };
        let documents = [
            with_mode(&["1 a"], mode),
            with_mode(&["1 a", "2 b"], mode),
            with_mode(&["1 a"], if skb { "native" } else { "skb" }),
            json!({}),
        ];
        for (generation, document) in (1..).zip(&documents) {
            let again = bench.plan(&bench.document(generation, document), &host);
            let plan = bench.apply(generation, document, &mut host);
            prop_assert_eq!(&again, &plan);
            let bare = bench.apply(generation, document, &mut plain);
            prop_assert_eq!((&plan.steps, &plan.hooks), (&bare.steps, &bare.hooks));
            for warning in &plan.warnings {
                prop_assert!(!warning.message.is_empty() && !warning.message.contains('\n'));
            }
            let severities: Vec<_> = plan.warnings.iter().map(|w| w.severity).collect();
            prop_assert!(severities.is_sorted());
        }
        let checks = pointsman_plan::examine(&host.observe().interfaces, page_size);
        prop_assert_eq!(checks.len(), 1);
    }

    /// In skb mode nothing is asked of the driver.
    #[test]
    fn skb_mode_is_neither_refused_nor_disruptive(mtu: u32, nic in nic(), redirects: bool) {
        let mut bench = Bench::with(&["a", "b"]);
        bench.program("a", 1).redirects = redirects;
        let mut host = host();
        host.set_nic(&interface("eth0"), mtu, nic);
        for (generation, members) in (1..).zip([&["1 a"][..], &["1 a", "2 b"]]) {
            let plan = bench.apply(generation, &with_mode(members, "skb"), &mut host);
            for warning in &plan.warnings {
                prop_assert_eq!(warning.severity, Severity::Info);
                prop_assert_ne!(warning.kind, PreflightKind::Disruptive);
            }
        }
    }

    /// A chain that stays loses no packets, and nothing refuses what is not asked for.
    #[test]
    fn what_stays_is_neither_refused_nor_disruptive(mtu: u32, nic in nic(), frags: bool) {
        let mut bench = Bench::with(&["a"]);
        bench.program("a", 1).frags = frags;
        let mut host = host();
        host.set_nic(&interface("eth0"), mtu, nic);
        bench.apply(1, &chain("eth0", &["1 a"]), &mut host);
        let plan = bench.apply(2, &chain("eth0", &["1 a"]), &mut host);
        for warning in &plan.warnings {
            prop_assert_ne!(warning.severity, Severity::Failure);
            prop_assert_ne!(warning.kind, PreflightKind::Disruptive);
        }
    }
}
