//! Interfaces that come, go, change their names, go down and up, with packets on them.

use super::{attached, document, hook_of, notes, passing, stands};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::flow::Flow;
use pointsman_netns::foreign;
use pointsman_netns::netns::{Netns, Pair};
use pointsman_netns::traffic::received;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A host with a veth pair, whose daemon does nothing that it is not told to.
fn scene() -> (Host, Pair) {
    (Host::told().expect("root"), Pair::new().expect("root"))
}

/// Drops UDP to every port but 5999.
fn filter(generation: u64, interface: &str) -> Value {
    let programs = json!({"ports": {"builtin": "udp-port-filter",
        "maps": {"ports": {"entries": [{"key": 5999, "value": 1}]}}}});
    let mut document = document(generation, &programs, &json!([{"program": "ports"}]));
    document["interfaces"] = json!({interface: document["interfaces"]["v1"]});
    document
}

fn runs(status: &Value, interface: &str) -> u64 {
    hook_of(status, interface)["members"][0]["runs"].as_u64().expect("runs")
}

/// Gives an interface another name while it is up, which Linux allows since 6.2.
fn rename(netns: &Netns, from: &str, to: &str) {
    let rename = || netns.ip(&["link", "set", from, "name", to]);
    if rename().is_err() {
        netns.ip(&["link", "set", from, "down"]).expect("down");
        rename().expect("a name that is free");
        netns.ip(&["link", "set", to, "up"]).expect("up");
    }
}

#[test]
fn a_chain_waits_for_its_interface_and_is_there_when_packets_come() {
    let (host, pair) = scene();
    pair.right.ip(&["link", "delete", "v1"]).unwrap();
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.apply_whole(&filter(1, "v1"))["outcome"], "pending");
    let status = daemon.until(stands("v1", "pending"));
    let waits = hook_of(&status, "v1")["pending"].to_string();
    assert!(waits.contains("does not exist"), "{waits}");
    pair.connect().unwrap();
    let late = attached(&host, "v1");
    let status = daemon.until(stands("v1", "running"));
    assert_eq!(hook_of(&status, "v1")["interface_index"], pair.right.index("v1"));
    assert_eq!(received(&pair, &[5001], 5999, 5), [0]);
    println!("attached {late:?} after `ip` had made the pair and set it up");
}

#[test]
fn a_start_waits_too_and_so_does_one_after_a_kill() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&filter(1, "v1"));
    // Deleted while nobody looks.
    daemon.stop(Signal::KILL).unwrap();
    pair.right.ip(&["link", "delete", "v1"]).unwrap();
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.hook()["state"], "pending");
    // Killed again while it waits.
    daemon.stop(Signal::KILL).unwrap();
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.hook()["state"], "pending");
    pair.connect().unwrap();
    daemon.until(stands("v1", "running"));
    // Created anew while nobody looks.
    daemon.stop(Signal::TERM).unwrap();
    pair.right.ip(&["link", "delete", "v1"]).unwrap();
    pair.connect().unwrap();
    assert_eq!(received(&pair, &[5001], 5999, 2), [2], "nobody attaches");
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.hook()["state"], "running");
    assert_eq!(received(&pair, &[5001], 5999, 2), [0]);
}

#[test]
fn an_interface_that_is_deleted_and_created_under_traffic_gets_its_chain_every_time() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&filter(1, "v1"));
    let flow = Flow::start(&pair, 5001);
    let mut before = 0;
    for round in 0..10 {
        pair.right.ip(&["link", "delete", "v1"]).unwrap();
        pair.connect().unwrap();
        let index = pair.right.index("v1");
        let status = daemon.until(|status| {
            let hook = hook_of(status, "v1");
            hook["state"] == "running" && hook["interface_index"] == index
        });
        // What came between the interface and its chain was not filtered; nothing after that is.
        let (early, at) = (flow.arrived(), runs(&status, "v1"));
        assert!(at >= before, "counted on in round {round}");
        daemon.until(|status| runs(status, "v1") > at + 100);
        assert_eq!(flow.arrived(), 0, "round {round}, {early} before the chain");
        assert_eq!(received(&pair, &[5002], 5999, 1), [0]);
        before = runs(&daemon.status(), "v1");
    }
}

/// A pair whose chain drops all of a flow, and proof at the end that it did.
struct Guarded {
    host: Host,
    pair: Pair,
    daemon: Daemon,
    flow: Flow,
}

impl Guarded {
    fn new() -> Self {
        let (host, pair) = scene();
        let daemon = host.start(&pair.right).expect("the daemon starts");
        daemon.apply_whole(&filter(1, "v1"));
        let flow = Flow::start(&pair, 5001);
        Self { host, pair, daemon, flow }
    }

    /// Every packet of the flow so far was dropped by the chain, and more are coming.
    #[track_caller]
    fn check(&self, interface: &str) {
        let sent = self.flow.sent();
        // The program runs before the sender has counted, and for others as well.
        let go_on = || self.flow.sent() > sent;
        self.daemon.until(|status| runs(status, interface) as usize > sent && go_on());
        assert_eq!(self.flow.arrived(), 0, "a packet was not filtered");
        assert_eq!(received(&self.pair, &[5002], 5999, 1), [0]);
    }
}

#[test]
fn a_renamed_interface_keeps_its_chain_and_no_packet_passes_unfiltered() {
    let mut guarded = Guarded::new();
    let fused = guarded.daemon.hook()["fused"].clone();
    let right = &guarded.pair.right;
    rename(right, "v1", "wan0");
    let status = guarded.daemon.until(|status| notes(status, "called wan0 now"));
    assert_eq!(hook_of(&status, "v1")["state"], "running");
    assert_eq!(hook_of(&status, "v1")["interface_index"], right.index("wan0"));
    assert_eq!(status["foreign"], json!([]));
    guarded.check("v1");
    rename(right, "wan0", "v1");
    guarded.daemon.until(|status| !notes(status, "called wan0 now"));
    guarded.check("v1");
    // The document follows; the chain and its counters stay.
    rename(right, "v1", "wan0");
    assert_eq!(guarded.daemon.apply_whole(&filter(2, "wan0"))["outcome"], "applied");
    assert_eq!(guarded.daemon.hook()["fused"], fused);
    guarded.check("wan0");
    // Renamed while nobody looks, and killed in between.
    guarded.daemon.signal(Signal::KILL).unwrap();
    rename(right, "wan0", "v1");
    guarded.daemon = guarded.host.start(&guarded.pair.right).unwrap();
    let status = guarded.daemon.until(|status| notes(status, "called v1 now"));
    assert_eq!(hook_of(&status, "wan0")["fused"], fused);
    guarded.daemon.apply_whole(&filter(3, "v1"));
    assert_eq!(guarded.daemon.hook()["fused"], fused);
    guarded.check("v1");
}

#[test]
fn two_interfaces_that_exchange_their_names_exchange_their_documents() {
    let guarded = Guarded::new();
    let right = &guarded.pair.right;
    right.ip(&["link", "add", "w1", "type", "veth", "peer", "name", "w0"]).unwrap();
    let mut both = filter(2, "v1");
    both["programs"]["pass"] = json!({"builtin": "counting-pass"});
    both["interfaces"]["w1"] = json!({"xdp": {"chain": [{"program": "pass"}]}});
    guarded.daemon.apply_whole(&both);
    let programs = |status: &Value, interface: &str| {
        let hook = hook_of(status, interface);
        (hook["state"].clone(), hook["members"][0]["program"].clone())
    };
    let running = |program: &str| (json!("running"), json!(program));
    let (v1, w1) = (right.index("v1"), right.index("w1"));
    rename(right, "v1", "aside");
    rename(right, "w1", "v1");
    rename(right, "aside", "w1");
    // What the document says of a name holds for whatever bears it now.
    let status = guarded.daemon.until(|status| {
        hook_of(status, "v1")["interface_index"] == w1
            && hook_of(status, "w1")["interface_index"] == v1
            && programs(status, "v1") == running("ports")
            && programs(status, "w1") == running("pass")
    });
    assert_eq!(status["foreign"], json!([]));
}

#[test]
fn an_interface_that_goes_down_and_up_keeps_its_chain() {
    let guarded = Guarded::new();
    let fused = guarded.daemon.hook()["fused"].clone();
    for (state, up) in [("down", false), ("up", true)] {
        guarded.pair.right.ip(&["link", "set", "v1", state]).unwrap();
        let status = guarded.daemon.until(|status| hook_of(status, "v1")["up"] == up);
        assert_eq!(hook_of(&status, "v1")["state"], "running");
        assert_eq!(hook_of(&status, "v1")["fused"], fused);
    }
    // Addresses and neighbours went with it.
    guarded.pair.right.ip(&["link", "set", "v1", "up"]).unwrap();
    assert_eq!(guarded.flow.arrived(), 0);
    assert!(guarded.daemon.until(|status| runs(status, "v1") > 0)["notes"] == json!([]));
}

#[test]
fn a_foreign_program_that_goes_makes_room_when_its_interface_tells() {
    let (host, pair) = scene();
    foreign::attach(&pair.right, "v1", "verdict", "v_drop").unwrap();
    let daemon = host.start(&pair.right).unwrap();
    let answer = daemon.apply(&passing(1));
    assert_eq!(answer.value["refusals"][0]["reason"], "foreign_program", "{answer:#?}");
    pair.right.ip(&["link", "set", "dev", "v1", "xdpdrv", "off"]).unwrap();
    daemon.until(stands("v1", "running"));
}

/// Time that a process has spent on a CPU, in the kernel and outside.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 = [11, 12].map(|at| fields[at].parse::<u64>().expect("a number")).iter().sum();
    // USER_HZ is 100 on every architecture that Linux runs BPF on.
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_storm_of_other_interfaces_neither_disturbs_the_chain_nor_keeps_the_daemon_busy() {
    let guarded = Guarded::new();
    let (right, daemon) = (&guarded.pair.right, &guarded.daemon);
    let fused = daemon.hook()["fused"].clone();
    let (start, before) = (Instant::now(), cpu(daemon.engine()));
    let batch = guarded.host.path("batch");
    let mut slowest = Duration::ZERO;
    for action in ["add", "delete", "add"] {
        let lines: String = (0..250)
            .map(|n| match action {
                "add" => format!("link add s{n} up type veth peer name t{n}\n"),
                _ => format!("link delete s{n}\n"),
            })
            .collect();
        std::fs::write(&batch, lines).unwrap();
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| right.ip(&["-batch", batch.to_str().unwrap()]).unwrap());
            while !storm.is_finished() {
                let asked = Instant::now();
                assert_eq!(daemon.hook()["fused"], fused);
                slowest = slowest.max(asked.elapsed());
            }
        });
    }
    let (took, busy) = (start.elapsed(), cpu(daemon.engine()) - before);
    println!(
        "250 pairs made, deleted, made in {took:?}: daemon on CPU {busy:?}, slowest status {slowest:?}"
    );
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    guarded.check("v1");
    // What an event costs when 500 interfaces are there that nobody asks about.
    let (rounds, before) = (20u32, cpu(daemon.engine()));
    let start = Instant::now();
    for round in 0..rounds {
        let up = if round % 2 == 0 { "down" } else { "up" };
        right.ip(&["link", "set", "s7", up]).unwrap();
        // Far enough apart that each is an event of its own.
        std::thread::sleep(Duration::from_millis(150));
    }
    let (took, busy) = (start.elapsed(), cpu(daemon.engine()) - before);
    println!("{rounds} events with 500 interfaces in {took:?}: daemon on CPU {busy:?}");
    assert!(busy < took / 5, "{busy:?} of {took:?}");
}
