//! What plans warn of, beside what the kernel then does.

use super::{document, program, scene};
use pointsman_model::InterfaceName;
use pointsman_model::nic::NicFacts;
use pointsman_netdev::Nics;
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::netns::{Netns, Pair};
use pointsman_netns::skip;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// A chain of one program of the object `frags`, attached natively on `v1`.
fn native(generation: u64, entry: &str) -> Value {
    let programs = json!({"it": program("frags", entry)});
    let mut document = document(generation, &programs, &json!([{"program": "it"}]));
    document["interfaces"]["v1"]["xdp"]["mode"] = json!("native");
    document
}

#[track_caller]
fn plan(daemon: &Daemon, document: &Value) -> Value {
    let answer = daemon.ask(&["plan", "-"], document.to_string().as_bytes());
    // 3: something is refused, 4: something would be done.
    assert!([0, 3, 4].contains(&answer.code), "{answer:#?}");
    answer.value
}

/// The warnings of a kind, as severity and message.
fn warnings(plan: &Value, kind: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = plan["warnings"].as_array().expect("warnings").iter();
    let of_kind = all.filter(|warning| warning["kind"] == kind);
    of_kind.map(|warning| (text(&warning["severity"]), text(&warning["message"]))).collect()
}

/// The largest MTU that the kernel allows an interface.
fn max_mtu(netns: &Netns, interface: &str) -> u64 {
    let arguments = ["-n", netns.name(), "-d", "-j", "link", "show", interface];
    let output = Command::new("ip").args(arguments).output().expect("run ip");
    let links: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    links[0]["max_mtu"].as_u64().expect("max_mtu")
}

#[test]
fn an_mtu_that_is_too_large_is_named_and_refused_and_frags_take_it() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).expect("the daemon starts");
    // The kernel's own figure: a chain of one buffer limits what its peer may send.
    daemon.apply_whole(&native(1, "f_plain"));
    let limit = max_mtu(&pair.left, "v0");
    daemon.apply_whole(&native(2, "f_frags"));
    pair.left.ip(&["link", "set", "v0", "mtu", &(limit + 1).to_string()]).expect_err("too large");

    assert_eq!(daemon.ask(&["drain", "--yes"], b"").code, 0);
    pair.left.ip(&["link", "set", "v0", "mtu", &(limit + 1).to_string()]).expect("no chain");
    let planned = plan(&daemon, &native(3, "f_plain"));
    let [(severity, message)] = &warnings(&planned, "mtu_too_large")[..] else {
        panic!("{planned:#}")
    };
    assert_eq!(severity, "failure");
    let parts = [format!("MTU is {}", limit + 1), format!("more than {limit} bytes")];
    for part in parts.iter().map(String::as_str).chain(["it is not built as xdp.frags"]) {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let answer = daemon.apply(&native(3, "f_plain"));
    let refusal = &answer.value["refusals"][0];
    assert_eq!((answer.code, &refusal["reason"]), (3, &json!("step_failed")), "{answer:#?}");
    let why = refusal["message"].as_str().expect("a message");
    assert!(why.contains("out of range"), "ERANGE of veth_xdp_set: {why}");

    // The other two ways out: members that take several buffers, and a smaller MTU.
    let planned = plan(&daemon, &native(4, "f_frags"));
    assert_eq!(warnings(&planned, "mtu_too_large"), [], "{planned:#}");
    daemon.apply_whole(&native(4, "f_frags"));
    // A swap is asked for the same, and the chain that runs stays.
    let before = daemon.hook()["fused"].clone();
    let planned = plan(&daemon, &native(5, "f_plain"));
    assert_eq!(warnings(&planned, "mtu_too_large").len(), 1, "{planned:#}");
    assert_eq!(daemon.apply(&native(5, "f_plain")).code, 3);
    assert_eq!(daemon.hook()["fused"], before);
    assert_eq!(warnings(&daemon.status(), "mtu_too_large").len(), 1, "the status keeps it");
    pair.left.ip(&["link", "set", "v0", "mtu", &limit.to_string()]).expect("smaller");
    let planned = plan(&daemon, &native(6, "f_plain"));
    assert_eq!(warnings(&planned, "mtu_too_large"), [], "{planned:#}");
    daemon.apply_whole(&native(6, "f_plain"));
}

#[test]
fn too_few_queues_are_named_and_refused() {
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let queues = |count| ["numtxqueues", count, "numrxqueues", count];
    let add = [
        &["link", "add", "v0"][..],
        &queues("2"),
        &["type", "veth", "peer", "name", "v1"],
        &queues("1"),
    ];
    netns.ip(&add.concat()).expect("a pair");
    let daemon = host.start(&netns).expect("the daemon starts");
    let planned = plan(&daemon, &native(1, "f_plain"));
    let [(_, message)] = &warnings(&planned, "queues")[..] else { panic!("{planned:#}") };
    assert!(message.contains("sends through 2 queues, and it receives through 1"), "{message}");
    // Kernels from 6.3 on say beforehand that there is no native XDP, others when it is attached.
    assert_eq!(daemon.apply(&native(1, "f_plain")).code, 3);
    // What the kernel says changes with the queues.
    netns.ip(&["link", "delete", "v0"]).expect("a pair");
    let add = [&["link", "add", "v0", "type", "veth", "peer", "name", "v1"][..], &queues("1")];
    netns.ip(&add.concat()).expect("a pair");
    daemon.apply_whole(&native(1, "f_plain"));
}

#[test]
fn a_veth_swaps_without_a_warning_and_says_once_that_tags_are_gone() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).expect("the daemon starts");
    let planned = plan(&daemon, &native(1, "f_plain"));
    let [(_, message)] = &warnings(&planned, "vlan_stripped")[..] else { panic!("{planned:#}") };
    assert_eq!(warnings(&planned, "disruptive"), [], "{planned:#}");
    daemon.apply_whole(&native(1, "f_plain"));
    let planned = plan(&daemon, &native(2, "f_frags"));
    assert_eq!(planned["warnings"], json!([]), "{planned:#}");
    // The advice works, and what can change at any time is read for each plan.
    assert_eq!(daemon.ask(&["drain", "--yes"], b"").code, 0);
    let advice = message.split('`').nth(1).expect("a command").split(' ');
    let inside = ["netns", "exec", pair.right.name()].into_iter().chain(advice);
    let output = Command::new("ip").args(inside).output().expect("run ip");
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("exec of") {
        return skip("turning rxvlan off", "there is no ethtool");
    }
    assert!(output.status.success(), "{said}");
    let planned = plan(&daemon, &native(3, "f_plain"));
    assert_eq!(warnings(&planned, "vlan_stripped"), [], "{planned:#}");
}

#[test]
fn what_the_verifier_walks_is_told_before_and_after() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).expect("the daemon starts");
    let programs = json!({
        "blocked": {"builtin": "cidr-blocklist"}, "meter": {"builtin": "counting-pass"},
        "ports": {"builtin": "udp-port-filter"}
    });
    let names = ["blocked", "meter", "ports"];
    let chain: Vec<_> = names.iter().map(|name| json!({"program": name})).collect();
    let document = document(1, &programs, &json!(chain));
    let planned = plan(&daemon, &document);
    let budget = &planned["budgets"][0];
    assert_eq!(budget["limit"], 1_000_000);
    let members = budget["members"].as_array().expect("members").iter();
    let each: Vec<_> = members.map(|m| m["processed"].as_u64().expect("a number")).collect();
    assert!(each.len() == 3 && each.iter().all(|&processed| processed > 0), "{budget:#}");
    let sum: u64 = each.iter().sum();
    assert_eq!(budget["processed"], sum);
    daemon.apply_whole(&document);
    let fused = daemon.hook()["fused"]["verified_instructions"].as_u64().expect("a number");
    // That the sum tells how much the chain takes is what the warning rests on.
    assert!(fused > sum / 2 && fused < sum * 2, "{fused} of {sum}");
}

/// What is known of an interface of `netns`.
fn facts(netns: &Netns, name: &str) -> NicFacts {
    netns.run(|| {
        let all = pointsman_netdev::interfaces().expect("interfaces");
        let interface = &all[&InterfaceName::new(name).expect("a name")];
        Nics::new(Path::new("/sys")).facts(interface, &all)
    })
}

#[test]
fn drivers_queues_and_offloads_are_read() {
    let pair = Pair::new().expect("root");
    pair.left.ip(&["link", "set", "v0", "mtu", "1400"]).expect("an MTU");
    let veth = facts(&pair.right, "v1");
    assert_eq!(veth.driver.as_ref().map(|driver| driver.name.as_str()), Some("veth"));
    let channels = veth.channels.expect("channels");
    assert!(channels.rx >= 1 && channels.tx >= 1 && channels.combined == 0, "{channels:?}");
    let offloads = veth.offloads.expect("offloads");
    assert!(offloads.vlan.on && offloads.vlan.changeable, "{offloads:?}");
    assert!(!offloads.lro.on && !offloads.gro_hw.on, "{offloads:?}");
    // The other end is in another namespace.
    let peer = veth.peer.expect("a peer");
    assert_eq!((peer.mtu, peer.tx_queues), (Some(1400), None));

    let lo = facts(&pair.right, "lo");
    assert!(lo.offloads.is_some_and(|all| !all.vlan.on), "{lo:?}");
    assert_eq!((lo.driver, lo.channels, lo.peer), (None, None, None));
    if !pointsman_bpf::probe().expect("root").tells_features {
        assert_eq!((veth.xdp, lo.xdp), (None, None));
        return skip("XDP features", "the kernel is older than 6.3");
    }
    assert!(veth.xdp.is_some_and(|xdp| xdp.basic && xdp.redirect && xdp.rx_sg), "{veth:?}");
    assert!(lo.xdp.is_some_and(|xdp| !xdp.basic), "{:?}", lo.xdp);
}

#[test]
fn the_doctor_tells_of_interfaces() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).expect("the daemon starts");
    for at in 0..9 {
        let (one, other) = (format!("a{at}"), format!("b{at}"));
        pair.right
            .ip(&["link", "add", &one, "type", "veth", "peer", "name", &other])
            .expect("a pair");
    }
    let answer = daemon.ask(&["doctor"], b"");
    let checks = answer.value["checks"].as_array().expect("checks").clone();
    let veth = |check: &&Value| check["found"].as_str().is_some_and(|f| f.starts_with("veth; "));
    let veths: Vec<_> = checks.iter().filter(veth).collect();
    assert_eq!(veths.len(), 1, "{veths:#?}");
    assert_eq!(veths[0]["name"], "a0, a1, a2 and 16 more", "{veths:#?}");
}
