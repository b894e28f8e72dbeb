//! What a document says of queues and flow rules, on veth and on the tests' card.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::cards::{Scene, to};
use pointsman_imtl_client::request::{add_flow, get_queue, put_queue, register};
use pointsman_imtl_client::{Client, Dialect};
use pointsman_model::nic::{Channels, Polling};
use pointsman_netdev::{Ethtool, Sysfs};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::netns::Netns;
use pointsman_netns::random::full;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A document that says this of the test's interface.
fn document(generation: u64, interface: &str, says: &Value) -> Value {
    json!({"schema": "pointsman.node/v1", "node": "test", "generation": generation,
           "allow_empty": true, "interfaces": {interface: says}})
}

#[track_caller]
fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

/// A veth pair whose ends have up to four queues of each kind.
struct Veth {
    daemon: Daemon,
    host: Host,
    netns: Netns,
    index: u32,
}

impl Veth {
    /// `None`: it is left to full runs, for the host's own kernel tells as much and is faster.
    fn set(test: &str) -> Option<Self> {
        let emulated = std::env::var("POINTSMAN_RING").is_ok_and(|ring| ring == "vm");
        if emulated && !full() {
            let why = "takes long in an emulated machine: cargo xtask test --full";
            pointsman_netns::skip(test, why);
            return None;
        }
        let netns = Netns::new().expect("root");
        let queues = ["numrxqueues", "4", "numtxqueues", "4"];
        let pair =
            [&["link", "add", "v0"], &queues[..], &["type", "veth", "peer", "name", "v1"], &queues];
        netns.ip(&pair.concat()).unwrap();
        for name in ["v0", "v1"] {
            netns.ip(&["link", "set", name, "up"]).unwrap();
        }
        let host = Host::told().expect("root");
        let daemon = host.start(&netns).unwrap();
        let index = netns.index("v0");
        let scene = Self { daemon, host, netns, index };
        scene.channels("v0", 4, 4);
        // With a program on it, one end needs as many queues as the other sends through.
        scene.channels("v1", 4, 1);
        Some(scene)
    }

    /// Sets channels as an administrator does.
    fn channels(&self, interface: &str, rx: u32, tx: u32) {
        let index = self.netns.index(interface);
        self.netns.run(|| {
            let mut ethtool = Ethtool::open().unwrap();
            let wanted = Channels { rx, tx, ..Channels::default() };
            ethtool.set_channels(index, wanted).unwrap();
        });
    }

    fn queues(&self) -> (u32, u32) {
        self.netns.run(|| {
            let channels = Ethtool::open().unwrap().channels(self.index).unwrap();
            (channels.rx, channels.tx)
        })
    }

    fn polling(&self) -> Polling {
        self.netns.run(|| Sysfs::here().unwrap().polling("v0", self.index).unwrap())
    }

    fn client(&self) -> Client {
        let path = self.host.path("run/mtl_manager.sock");
        let mut client = self.netns.run(move || Client::connect(&path, Dialect::Mtlm).unwrap());
        let reply = client.ask(&register(Dialect::Mtlm, 1, "tests", &[self.index])).unwrap();
        assert_eq!((reply.kind, reply.value), (201, 0));
        client
    }

    /// The problems of the status, by where they are in the document.
    fn problems(&self, count: usize) -> Vec<(String, String)> {
        let all = |status: &Value| status["cards"].as_array().cloned().unwrap_or_default();
        let status = self.daemon.until(|status| all(status).len() == count);
        let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
        all(&status).iter().map(|it| (text(it, "pointer"), text(it, "message"))).collect()
    }
}

const POLL: Polling = Polling { defer_hard_irqs: 2, gro_flush_timeout: 200_000 };

fn poll() -> Value {
    json!({"napi_defer_hard_irqs": 2, "gro_flush_timeout_ns": 200_000})
}

#[test]
fn queues_are_as_the_document_says_and_afterwards_as_they_were() {
    let Some(scene) = Veth::set("queues::counts") else { return };
    let all = json!({"queues": {"rx": 2, "tuning": [{"busy_poll": poll()}]}});
    scene.daemon.apply_whole(&document(1, "v0", &all));
    until("as the document says", || scene.queues() == (2, 4) && scene.polling() == POLL);
    // Killed and started again, and asked for something else, it knows how it was at first.
    scene.daemon.kill_engine().unwrap();
    scene.daemon.ready_again().unwrap();
    let other = json!({"queues": {"rx": 3, "tx": 3, "tuning": [{"busy_poll": poll()}]}});
    scene.daemon.apply_whole(&document(2, "v0", &other));
    until("as the next one says", || scene.queues() == (3, 3));
    assert_eq!(scene.polling(), POLL);
    assert_eq!(scene.problems(0), []);
    scene.daemon.apply_whole(&document(3, "v0", &json!({})));
    until("as it was", || scene.queues() == (4, 4) && scene.polling() == Polling::default());
    // What the administrator sets while the document wants something else is his afterwards.
    scene.daemon.apply_whole(&document(4, "v0", &all));
    until("as the document says", || scene.queues() == (2, 4));
    scene.channels("v0", 1, 4);
    assert_eq!(scene.daemon.ask(&["drain", "--yes"], b"").code, 0);
    until("as it was", || scene.polling() == Polling::default());
    assert_eq!(scene.queues(), (1, 4));
}

#[test]
fn with_the_daemon_gone_for_good_the_next_one_gives_back_what_the_document_changed() {
    let Some(mut scene) = Veth::set("queues::given_back") else { return };
    let says = json!({"queues": {"rx": 2, "tuning": [{"busy_poll": poll()}]}});
    scene.daemon.apply_whole(&document(1, "v0", &says));
    until("as the document says", || scene.queues() == (2, 4) && scene.polling() == POLL);
    let Veth { daemon, host, netns, .. } = &mut scene;
    daemon.signal(rustix::process::Signal::KILL).unwrap();
    // What is taken out of the document while nobody is there to see it.
    host.drop_document(&document(2, "v0", &json!({}))).unwrap();
    *daemon = host.start(netns).unwrap();
    until("as it was", || scene.queues() == (4, 4) && scene.polling() == Polling::default());
}

#[test]
fn applications_get_the_reserved_queues_and_no_others() {
    let Some(scene) = Veth::set("queues::reserved") else { return };
    scene.daemon.apply_whole(&document(1, "v0", &json!({"queues": {"reserve": [2, 3]}})));
    let mut client = scene.client();
    let mut get = || client.ask(&get_queue(scene.index)).unwrap().value;
    assert_eq!((get(), get()), (2, 3));
    assert!(get() < 0, "1 is not reserved");
    // What is held stays, and keeps the number of queues up.
    let few = json!({"queues": {"rx": 2, "reserve": [1]}});
    scene.daemon.apply_whole(&document(2, "v0", &few));
    let [(pointer, why)] = &scene.problems(1)[..] else { panic!("one problem") };
    assert_eq!(pointer, "/interfaces/v0/queues");
    assert!(why.starts_with("an application holds queue 3: there are 2 receive queues"), "{why}");
    assert_eq!((get(), get() < 0), (1, true));
    for queue in [2, 3] {
        assert_eq!(client.ask(&put_queue(scene.index, queue)).unwrap().value, 0);
    }
    // It is tried again by itself within a minute; a document does it at once.
    scene.daemon.apply_whole(&document(3, "v0", &few));
    until("fewer queues", || scene.queues() == (2, 4));
    assert_eq!(scene.problems(0), []);
    scene.daemon.apply_whole(&document(4, "v0", &json!({})));
    until("as it was", || scene.queues() == (4, 4));
    assert_eq!(client.ask(&get_queue(scene.index)).unwrap().value, 2);
}

#[test]
fn what_a_card_does_not_do_is_told_with_its_place_and_the_rest_is_done() {
    let Some(scene) = Veth::set("queues::told") else { return };
    let says = json!({
        "queues": {"combined": 2, "reserve": [1, 9], "tuning": [{"busy_poll": poll()}]},
        "flows": [{"type": "udp4", "dst_port": 20_000, "queue": 1}],
    });
    scene.daemon.apply_whole(&document(1, "v0", &says));
    let problems = scene.problems(3);
    let has = |pointer: &str, words: &str| {
        let found = problems.iter().any(|(at, why)| at == pointer && why.contains(words));
        assert!(found, "{pointer}, {words}: {problems:?}");
    };
    has("/interfaces/v0/queues", "it has no `combined` queues: expected `rx` and `tx`");
    has("/interfaces/v0/queues/reserve", "queue 9 cannot be reserved: there are 4 receive queues");
    has("/interfaces/v0/flows", "v0: its driver cannot list flow rules");
    assert_eq!((scene.polling(), scene.queues()), (POLL, (4, 4)));
    // People see it too.
    let socket = scene.host.path("run/node.sock");
    let shown = pointsman_netns::daemon::cli(&["--node", socket.to_str().unwrap(), "status"], b"");
    let text = shown.value.to_string();
    assert!(text.contains("/interfaces/v0/flows: v0: its driver cannot"), "{text}");
    let log = std::fs::read_to_string(scene.host.path("log")).unwrap();
    assert!(log.contains("/interfaces/v0/flows: v0: its driver cannot list flow rules"), "{log}");
    scene.daemon.apply_whole(&document(2, "v0", &json!({})));
    assert_eq!(scene.problems(0), []);
}

#[test]
fn an_interface_that_comes_later_gets_its_queues_when_it_comes() {
    let Some(scene) = Veth::set("queues::later") else { return };
    scene.daemon.apply_whole(&document(1, "late0", &json!({"queues": {"rx": 1}})));
    let [(pointer, why)] = &scene.problems(1)[..] else { panic!("one problem") };
    assert!(pointer == "/interfaces/late0" && why.contains("no such interface"), "{why}");
    scene.netns.ip(&["link", "set", "v0", "down"]).unwrap();
    scene.netns.ip(&["link", "set", "v0", "name", "late0"]).unwrap();
    until("as the document says", || scene.queues() == (1, 4));
    assert_eq!(scene.problems(0), []);
    // Under another name it is none of the document's.
    scene.netns.ip(&["link", "set", "late0", "name", "v0"]).unwrap();
    until("as it was", || scene.queues() == (4, 4));
}

#[test]
fn the_documents_flow_rules_are_made_beside_those_of_others_and_go_with_their_section() {
    let Some(scene) = Scene::set("queues::flows") else { return };
    scene.add_admins_rule();
    let admins = scene.ethtool(&["-n", "card0"]);
    let to_port = |port: u16| json!({"type": "udp4", "dst_port": port, "queue": 2});
    let flows = |ports: &[u16]| {
        let mut rules: Vec<_> = ports.iter().map(|port| to_port(*port)).collect();
        rules.push(json!({"type": "tcp6", "dst_ip": "2001:db8::1", "drop": true}));
        json!({"flows": rules})
    };
    scene.daemon.apply_whole(&document(1, "card0", &flows(&[20_000, 20_001])));
    scene.until_rules(4);
    let made = scene.ethtool(&["-n", "card0"]);
    for words in ["Dest port: 20000", "Dest port: 20001", "2001:db8::1", "Action: Drop"] {
        assert!(made.contains(words), "{words} in {made}");
    }
    // An application's are beside them, and are its own.
    let mut client = scene.client(Dialect::Mtlm);
    assert_eq!(client.ask(&get_queue(scene.index)).unwrap().value, 1);
    let own = client.ask(&add_flow(Dialect::Mtlm, scene.index, to(1, 7))).unwrap().value;
    assert!(own > 0);
    scene.until_rules(5);
    let before = scene.ethtool(&["-n", "card0"]);
    for _ in 0..3 {
        scene.daemon.kill_engine().unwrap();
        scene.daemon.ready_again().unwrap();
        scene.daemon.until(|status| status["generation"] == 1);
        assert_eq!(scene.ethtool(&["-n", "card0"]), before, "found again as they are");
    }
    // Only what changes is touched.
    scene.daemon.apply_whole(&document(2, "card0", &flows(&[20_001, 20_002])));
    until("the next document's", || {
        let text = scene.ethtool(&["-n", "card0"]);
        text.contains("Dest port: 20002") && !text.contains("Dest port: 20000")
    });
    assert_eq!(scene.rules(), 5);
    scene.daemon.apply_whole(&document(3, "card0", &json!({})));
    scene.until_rules(2);
    drop(client);
    scene.until_rules(1);
    assert_eq!(scene.ethtool(&["-n", "card0"]), admins, "the administrator's is as it was");
}

#[test]
fn a_rule_in_place_of_the_documents_is_its_owners_and_one_that_is_there_twice_is_told() {
    let Some(scene) = Scene::set("queues::owners") else { return };
    scene.add_admins_rule();
    let admins = scene.ethtool(&["-n", "card0"]);
    let same = json!({"flows": [
        {"type": "udp4", "dst_port": 9, "queue": 3},
        {"type": "udp4", "dst_port": 10, "queue": 3},
        {"type": "udp4", "dst_port": 11, "queue": 8},
    ]});
    scene.daemon.apply_whole(&document(1, "card0", &same));
    let cards = |status: &Value| status["cards"].as_array().map_or(0, Vec::len);
    let status = scene.daemon.until(|status| cards(status) == 2);
    let text = status["cards"].to_string();
    for words in
        ["/flows/0", "a flow rule for these packets already", "/flows/2", "queue 8 does not exist"]
    {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert_eq!(scene.rules(), 2);
    // The document's is at the next place, and somebody takes that.
    let mine = ["flow-type", "tcp4", "dst-port", "22", "action", "0", "loc", "14"];
    scene.ethtool(&[&["-N", "card0"], mine.as_slice()].concat());
    assert_eq!(scene.rules(), 2);
    assert_eq!(scene.daemon.ask(&["drain", "--yes"], b"").code, 0);
    scene.daemon.until(|status| cards(status) == 0);
    assert!(scene.ethtool(&["-n", "card0", "rule", "14"]).contains("TCP over IPv4"));
    scene.ethtool(&["-N", "card0", "delete", "14"]);
    assert_eq!(scene.ethtool(&["-n", "card0"]), admins);
}

#[test]
fn packets_of_no_rule_are_kept_off_reserved_queues_and_come_back_with_the_queues() {
    let Some(scene) = Scene::set("queues::rss") else { return };
    let all: Vec<u32> = (0..8).collect();
    assert_eq!(scene.spread(), all);
    let reserve = json!({"queues": {"reserve": [2, 3, 7]}});
    scene.daemon.apply_whole(&document(1, "card0", &reserve));
    until("off the reserved", || scene.spread() == [0, 1, 4, 5, 6]);
    scene.daemon.kill_engine().unwrap();
    scene.daemon.ready_again().unwrap();
    scene.daemon.until(|status| status["generation"] == 1);
    assert_eq!(scene.spread(), [0, 1, 4, 5, 6]);
    // Fewer queues, though our own table names more.
    let four = json!({"queues": {"combined": 4, "reserve": [2, 3]}});
    scene.daemon.apply_whole(&document(2, "card0", &four));
    until("the first two", || scene.spread() == [0, 1]);
    let channels = || {
        let index = scene.index;
        scene.netns.run(|| Ethtool::open().unwrap().channels(index).unwrap().combined)
    };
    assert_eq!(channels(), 4);
    let mut client = scene.client(Dialect::Mtlm);
    assert_eq!(client.ask(&get_queue(scene.index)).unwrap().value, 2);
    drop(client);
    scene.daemon.apply_whole(&document(3, "card0", &json!({})));
    until("as it was", || channels() == 8 && scene.spread() == all);
}
