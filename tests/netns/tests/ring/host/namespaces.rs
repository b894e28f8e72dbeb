//! Interfaces in other network namespaces, and interfaces that move between them.

use super::{hook_of, notes, scene, stands};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::netns::Netns;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Counts and passes on `interfaces`, whose namespaces are found as `namespaces` says.
fn counting(generation: u64, namespaces: &Value, interfaces: &[&str]) -> Value {
    let chain = json!({"xdp": {"chain": [{"program": "count"}]}});
    let interfaces: serde_json::Map<_, _> =
        interfaces.iter().map(|&name| (name.to_owned(), chain.clone())).collect();
    json!({
        "schema": "pointsman.node/v1", "node": "test", "generation": generation,
        "programs": {"count": {"builtin": "counting-pass"}},
        "namespaces": namespaces, "interfaces": interfaces,
    })
}

/// Joins `left` to `right` by a veth pair, `vNUMBER` there and `v1` here.
fn join(left: &Netns, right: &Netns, number: u8) {
    let (near, mac) = (format!("v{number}"), format!("02:00:00:00:78:{number:02x}"));
    let far = ["peer", "name", "v1", "address", &mac, "netns", right.name()];
    left.ip(&[&["link", "add", &near, "type", "veth"], &far[..]].concat()).expect("root");
    let (own, other) = (format!("10.78.{number}.1/24"), format!("10.78.{number}.2"));
    left.ip(&["address", "add", &own, "dev", &near]).expect("root");
    left.ip(&["link", "set", &near, "up"]).expect("root");
    right.ip(&["link", "set", "v1", "up"]).expect("root");
    let neighbour = ["neigh", "replace", &other, "lladdr", &mac, "dev", &near, "nud", "permanent"];
    left.ip(&neighbour).expect("root");
}

/// Sends `count` datagrams to the interface that was joined as `number`.
fn send(left: &Netns, number: u8, count: usize) {
    left.run(|| {
        let sender = UdpSocket::bind("0.0.0.0:0").expect("a sender");
        let to = format!("10.78.{number}.2:5001");
        for _ in 0..count {
            sender.send_to(b"x", &to).expect("send");
        }
    });
}

fn runs(status: &Value, interface: &str) -> Option<u64> {
    hook_of(status, interface)["members"][0]["runs"].as_u64()
}

/// A process in a namespace; killed when dropped.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(netns: &Netns) -> Self {
        let mut command = Command::new("cat");
        // It waits for input that never comes.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Self(netns.run(|| command.spawn().expect("cat")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn namespaces_by_name_path_and_pid_with_interfaces_of_one_name_and_number() {
    let (host, left) = (Host::told().unwrap(), Netns::new().unwrap());
    let inside = [(); 3].map(|()| Netns::new().unwrap());
    for (number, netns) in (1..).zip(&inside) {
        join(&left, netns, number);
    }
    let process = Process::start(&inside[2]);
    let namespaces = json!({
        "one": {"name": inside[0].name()},
        "two": {"path": format!("/run/netns/{}", inside[1].name())},
        "three": {"pid": process.0.id()},
    });
    let names = ["one/v1", "two/v1", "three/v1"];
    let mut daemon = host.start(&left).unwrap();
    daemon.apply_whole(&counting(1, &namespaces, &names));
    let fused = |status: &Value| names.map(|name| hook_of(status, name)["fused"].clone());
    let before = fused(&daemon.status());
    for round in 1..=3u64 {
        for (number, per_round) in [(1, 10), (2, 20), (3, 30)] {
            send(&left, number, per_round);
        }
        let counted = |status: &Value| {
            [10, 20, 30]
                .into_iter()
                .zip(names)
                .all(|(n, name)| runs(status, name) == Some(n * round))
        };
        let status = daemon.until(counted);
        let numbers = names.map(|name| hook_of(&status, name)["interface_index"].clone());
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
        assert_eq!((fused(&status), &status["foreign"]), (before.clone(), &json!([])));
        if round < 3 {
            daemon.stop(Signal::KILL).unwrap();
            daemon = host.start(&left).unwrap();
        }
    }
    // Another name for one of them: the chain follows, and counts on.
    let namespaces = json!({"four": {"name": inside[0].name()}});
    daemon.apply_whole(&counting(2, &namespaces, &["four/v1"]));
    let status = daemon.status();
    assert_eq!(status["hooks"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&hook_of(&status, "four/v1")["fused"], runs(&status, "four/v1")),
        (&before[0], Some(30))
    );
    let drained = daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    assert_eq!(host.bpffs.list().unwrap(), [std::path::PathBuf::from("pointsman")]);
}

#[test]
fn what_cannot_be_looked_into_is_named_and_waited_for() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let pid = daemon.pid();
    let waits = |daemon: &Daemon, generation: u64, spec: Value| {
        let report = daemon.apply_whole(&counting(generation, &json!({"far": spec}), &["far/v1"]));
        assert_eq!(report["outcome"], "pending", "{report:#}");
        daemon.hook()["pending"].as_str().expect("a reason").to_owned()
    };
    let none = waits(&daemon, 1, json!({"name": "pm-test-nowhere"}));
    assert!(none.contains("/run/netns/pm-test-nowhere does not exist"), "{none}");
    let file = waits(&daemon, 2, json!({"path": "/etc/hostname"}));
    assert!(file.contains("/etc/hostname is no network namespace"), "{file}");
    let other = waits(&daemon, 3, json!({"path": "/proc/self/ns/uts"}));
    assert!(other.contains("is no network namespace"), "{other}");
    let gone = waits(&daemon, 4, json!({"pid": 4_194_304}));
    assert!(gone.contains("/proc/4194304/ns/net does not exist"), "{gone}");
    let own = waits(&daemon, 5, json!({ "pid": pid }));
    assert!(own.contains("the daemon's own"), "{own}");
    let there = waits(&daemon, 6, json!({"name": pair.left.name()}));
    assert!(there.contains("v1 does not exist in network namespace far"), "{there}");
}

#[test]
fn a_namespace_that_is_deleted_ends_and_gets_its_chain_again_when_it_is_back() {
    let (host, left) = (Host::told().unwrap(), Netns::new().unwrap());
    let mut daemon = host.start(&left).unwrap();
    let name = format!("pm-test-{}-again", std::process::id());
    let document = counting(1, &json!({"blue": {"name": name}}), &["blue/v1"]);
    assert_eq!(daemon.apply_whole(&document)["outcome"], "pending");
    for round in 0..4 {
        let blue = Netns::named(name.clone()).unwrap();
        join(&left, &blue, 1);
        daemon.until(stands("blue/v1", "running"));
        send(&left, 1, 25);
        daemon.until(|status| runs(status, "blue/v1").is_some_and(|runs| runs >= 25));
        if round == 2 {
            daemon.stop(Signal::KILL).unwrap();
            daemon = host.start(&left).unwrap();
        }
        let start = Instant::now();
        drop(blue);
        // Its end takes the other side of the pair along; something that held the namespace
        // would keep both.
        while left.ip(&["link", "show", "v1"]).is_ok() {
            assert!(start.elapsed().as_secs() < 20, "the namespace is kept alive");
        }
        println!("ended within {:?}", start.elapsed());
        daemon.until(stands("blue/v1", "pending"));
        println!("pending within {:?}", start.elapsed());
    }
}

#[test]
fn what_happens_inside_a_namespace_is_heard_outside() {
    let (host, own, blue) = (Host::told().unwrap(), Netns::new().unwrap(), Netns::new().unwrap());
    let daemon = host.start(&own).unwrap();
    daemon.apply_whole(&counting(1, &json!({"blue": {"name": blue.name()}}), &["blue/v1"]));
    for _ in 0..6 {
        // Both ends, so that nothing happens in the daemon's own namespace.
        blue.ip(&["link", "add", "v1", "type", "veth", "peer", "name", "w1"]).unwrap();
        daemon.until(stands("blue/v1", "running"));
        blue.ip(&["link", "set", "v1", "up"]).unwrap();
        daemon.until(|status| hook_of(status, "blue/v1")["up"] == true);
        blue.ip(&["link", "delete", "v1"]).unwrap();
        daemon.until(stands("blue/v1", "pending"));
    }
}

#[test]
fn an_interface_takes_its_chain_to_another_namespace_and_back() {
    let (host, left, right) = (Host::told().unwrap(), Netns::new().unwrap(), Netns::new().unwrap());
    let away = Netns::new().unwrap();
    join(&left, &right, 1);
    let mut daemon = host.start(&right).unwrap();
    let namespaces = json!({"blue": {"name": away.name()}});
    daemon.apply_whole(&counting(1, &json!({}), &["v1"]));
    let fused = daemon.hook()["fused"].clone();
    let mut sent = 0;
    let mut check = |daemon: &Daemon, hook: &str| {
        send(&left, 1, 40);
        sent += 40;
        let status = daemon.until(|status| runs(status, hook) == Some(sent));
        let hook = hook_of(&status, hook);
        assert_eq!((&hook["fused"], &hook["state"]), (&fused, &json!("running")));
    };
    check(&daemon, "v1");
    // The kernel sets it down on the way.
    right.ip(&["link", "set", "v1", "netns", away.name()]).unwrap();
    away.ip(&["link", "set", "v1", "up"]).unwrap();
    daemon.until(|status| notes(status, "moved to another network namespace"));
    check(&daemon, "v1");
    // A document that says where it is now.
    daemon.apply_whole(&counting(2, &namespaces, &["blue/v1"]));
    assert_eq!(daemon.status()["hooks"].as_array().map(Vec::len), Some(1));
    check(&daemon, "blue/v1");
    daemon.stop(Signal::KILL).unwrap();
    away.ip(&["link", "set", "v1", "netns", right.name()]).unwrap();
    right.ip(&["link", "set", "v1", "up"]).unwrap();
    daemon = host.start(&right).unwrap();
    daemon.until(|status| notes(status, "blue/v1 is called v1 now"));
    check(&daemon, "blue/v1");
    daemon.apply_whole(&counting(3, &json!({}), &["v1"]));
    check(&daemon, "v1");
    // Something new takes its place while it is away: the chain goes to the name.
    right.ip(&["link", "set", "v1", "netns", away.name()]).unwrap();
    right.ip(&["link", "add", "v1", "type", "veth", "peer", "name", "w1"]).unwrap();
    let index = right.index("v1");
    let status = daemon.until(|status| {
        let hook = hook_of(status, "v1");
        hook["fused"] != fused && hook["state"] == "running" && hook["interface_index"] == index
    });
    assert_eq!(status["foreign"], json!([]));
}
