//! Queues, RSS and flow rules of instances, on the real ioctl path of the tests' card.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pointsman_imtl_client::request::{
    self, Flow, add_flow, delete_flow, get_queue, put_queue, register,
};
use pointsman_imtl_client::{Client, DIALECTS, Dialect};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::netns::Netns;
use pointsman_netns::skip;
use std::net::Ipv4Addr;
use std::process::Command;

pub(super) struct Scene {
    pub(super) daemon: Daemon,
    pub(super) host: Host,
    pub(super) netns: Netns,
    pub(super) index: u32,
}

impl Scene {
    /// `None`: this kernel has no such card, and the summary says so.
    pub(super) fn set(test: &str) -> Option<Self> {
        Self::set_with(test, &[])
    }

    /// The same, with more options for the daemon.
    pub(super) fn set_with(test: &str, options: &[&str]) -> Option<Self> {
        let netns = Netns::new().expect("root");
        if let Err(error) = netns.ip(&["link", "add", "card0", "type", "flowcard"]) {
            skip(test, &format!("only the emulated machine has the tests' card: {error:#}"));
            return None;
        }
        let host = Host::told().expect("root");
        let mut command = host.command();
        command.args(options);
        let daemon = host.start_as(&netns, command).unwrap();
        let index = netns.index("card0");
        Some(Self { daemon, host, netns, index })
    }

    pub(super) fn client(&self, dialect: Dialect) -> Client {
        let path = self.host.path("run/mtl_manager.sock");
        let mut client = self.netns.run(move || Client::connect(&path, dialect).unwrap());
        let reply = client.ask(&register(dialect, 1, "tests", &[self.index])).unwrap();
        assert_eq!((reply.kind, reply.value), (201, 0));
        client
    }

    pub(super) fn ethtool(&self, arguments: &[&str]) -> String {
        let run = || self.netns.run(|| Command::new("ethtool").args(arguments).output().unwrap());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut output = run();
        // It lists the rules and then asks for each: one may have been taken away in between.
        let start = std::time::Instant::now();
        while text(&output.stderr).contains("Cannot get RX class rule: No such file or directory")
            && start.elapsed().as_secs() < 60
        {
            output = run();
        }
        assert!(output.status.success(), "ethtool {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Makes a rule of the administrator's own, at the place that ours would have.
    pub(super) fn add_admins_rule(&self) {
        let rule = ["flow-type", "udp4", "dst-port", "9", "action", "1", "loc", "15"];
        self.ethtool(&[&["-N", "card0"], rule.as_slice()].concat());
    }

    /// How many rules the card has.
    pub(super) fn rules(&self) -> usize {
        self.ethtool(&["-n", "card0"]).matches("Filter: ").count()
    }

    #[track_caller]
    pub(super) fn until_rules(&self, count: usize) {
        let start = std::time::Instant::now();
        while self.rules() != count {
            assert!(start.elapsed().as_secs() < 60, "{} rules", self.rules());
        }
    }

    /// The queues that RSS spreads packets over.
    pub(super) fn spread(&self) -> Vec<u32> {
        let text = self.ethtool(&["-x", "card0"]);
        let rows = text.lines().filter_map(|line| {
            let (at, queues) = line.trim().split_once(':')?;
            at.parse::<u32>().ok()?;
            Some(queues.split_whitespace().map(|queue| queue.parse().unwrap()).collect::<Vec<_>>())
        });
        let mut queues: Vec<u32> = rows.flatten().collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

pub(super) fn to(queue: u16, port: u16) -> Flow {
    let source = Ipv4Addr::new(10, 0, 0, 1);
    let destination = Ipv4Addr::new(239, 1, 2, 3);
    Flow { queue, source, destination, source_port: 0, destination_port: port }
}

#[test]
fn b_09_b_26_b_27_rules_of_each_dialect_are_made_kept_apart_and_taken_away() {
    let Some(scene) = Scene::set("cards::flows") else { return };
    scene.add_admins_rule();
    let admins = scene.ethtool(&["-n", "card0"]);
    for dialect in DIALECTS {
        let mut client = scene.client(dialect);
        let queue = client.ask(&get_queue(scene.index)).unwrap().value;
        assert!(queue > 0);
        let own = queue as u16;
        let mut flow = |flow| client.ask(&add_flow(dialect, scene.index, flow)).unwrap();
        let made = flow(to(own, 20_000));
        assert!(made.kind == 203 && (1..15).contains(&made.value), "{made:?}");
        let said = scene.ethtool(&["-n", "card0", "rule", &made.value.to_string()]);
        let to_queue = format!("queue {own}\n");
        for words in ["UDP over IPv4", "10.0.0.1", "239.1.2.3", "Dest port: 20000", &to_queue] {
            assert!(said.contains(words), "{words:?} in {said}");
        }
        // A queue that is not there, the stack's, and a type that is none.
        assert!(flow(to(63, 1)).value < 0 && flow(to(0, 1)).value < 0);
        let mut strange = add_flow(dialect, scene.index, to(own, 1));
        strange[22..26].copy_from_slice(&0x8000_0002_u32.to_be_bytes());
        assert!(client.ask(&strange).unwrap().value < 0);
        assert_eq!(scene.rules(), 2);
        // Nobody takes away what is not his own: not the administrator's, not another client's.
        let mut other = scene.client(dialect);
        for location in [15, made.value as u32, 0, 7] {
            assert!(other.ask(&delete_flow(scene.index, location)).unwrap().value < 0);
        }
        // Nor steers packets to the queue of another.
        let reply = other.ask(&add_flow(dialect, scene.index, to(own, 5))).unwrap();
        assert!(reply.kind == 203 && reply.value < 0, "{reply:?}");
        assert_eq!(client.ask(&delete_flow(scene.index, made.value as u32)).unwrap().value, 0);
        assert_eq!(scene.rules(), 1);
    }
    assert_eq!(scene.ethtool(&["-n", "card0"]), admins, "registering and leaving touched nothing");
}

#[test]
fn rules_survive_a_kill_and_go_with_their_client() {
    let Some(scene) = Scene::set("cards::kills") else { return };
    scene.add_admins_rule();
    let (mut one, mut two) = (scene.client(Dialect::Libmtl), scene.client(Dialect::Mtlm));
    let mut locations = Vec::new();
    for (client, queue) in [(&mut one, 1), (&mut two, 2)] {
        assert_eq!(client.ask(&get_queue(scene.index)).unwrap().value, i32::from(queue));
        for port in [1, 2, 3] {
            let asked = add_flow(client.dialect(), scene.index, to(queue, 100 * queue + port));
            locations.push(client.ask(&asked).unwrap().value);
        }
    }
    // The same packets cannot go to two.
    let again = add_flow(Dialect::Mtlm, scene.index, to(2, 101));
    assert_eq!(two.ask(&again).unwrap().value, -16);
    locations.sort_unstable();
    locations.dedup();
    assert_eq!((locations.len(), scene.rules()), (6, 7));
    let before = scene.ethtool(&["-n", "card0"]);
    for _ in 0..3 {
        scene.daemon.kill_engine().unwrap();
        assert_eq!(one.ask(&request::heartbeat(7)).unwrap().value, 7);
        scene.daemon.ready_again().unwrap();
        assert_eq!(scene.ethtool(&["-n", "card0"]), before, "adopted as they are");
    }
    // One ends while nobody is there to see it.
    scene.daemon.kill_engine().unwrap();
    drop(one);
    scene.daemon.ready_again().unwrap();
    assert_eq!(two.ask(&request::heartbeat(8)).unwrap().value, 8);
    // Its three are gone before anybody is served.
    assert_eq!(two.ask(&get_queue(scene.index)).unwrap().value, 1);
    assert_eq!(scene.rules(), 4);
    // With the keeper end all; the next one takes back what is left.
    drop(scene.daemon.stop(rustix::process::Signal::KILL));
    let _daemon = scene.host.start(&scene.netns).unwrap();
    let path = scene.host.path("run/mtl_manager.sock");
    let (netns, index) = (&scene.netns, scene.index);
    let mut three = netns.run(move || Client::connect(&path, Dialect::Mtlm).unwrap());
    assert_eq!(three.ask(&register(Dialect::Mtlm, 1, "x", &[index])).unwrap().value, 0);
    assert_eq!(three.ask(&get_queue(index)).unwrap().value, 1);
    let output = netns.run(|| Command::new("ethtool").args(["-n", "card0"]).output().unwrap());
    let left = String::from_utf8_lossy(&output.stdout).matches("Filter: ").count();
    assert_eq!(left, 1, "the administrator's");
}

#[test]
fn a_full_table_and_a_busy_card_are_refused_and_nothing_is_left() {
    let Some(scene) = Scene::set("cards::full") else { return };
    let mut client = scene.client(Dialect::Mtlm);
    assert_eq!(client.ask(&get_queue(scene.index)).unwrap().value, 1);
    let mut add =
        |port| client.ask(&add_flow(Dialect::Mtlm, scene.index, to(1, port))).unwrap().value;
    // Sixteen places; the one at 0 is nobody's.
    let made: Vec<_> = (1..=15).map(&mut add).collect();
    assert!(made.iter().all(|location| (1..16).contains(location)), "{made:?}");
    assert_eq!(add(99), -28);
    assert_eq!(scene.rules(), 15);
    assert_eq!(client.ask(&delete_flow(scene.index, 5)).unwrap().value, 0);
    scene.ethtool(&["--set-priv-flags", "card0", "busy", "on"]);
    let reply = client.ask(&add_flow(Dialect::Mtlm, scene.index, to(1, 77))).unwrap();
    assert_eq!((reply.kind, reply.value), (203, -5));
    scene.ethtool(&["--set-priv-flags", "card0", "busy", "off"]);
    drop(client);
    scene.until_rules(0);
}

#[test]
fn packets_of_no_rule_are_kept_off_queues_that_somebody_holds() {
    let Some(scene) = Scene::set("cards::rss") else { return };
    let all: Vec<u32> = (0..8).collect();
    assert_eq!(scene.spread(), all);
    let mut client = scene.client(Dialect::Mtlm);
    for queue in [1, 2] {
        assert_eq!(client.ask(&get_queue(scene.index)).unwrap().value, queue);
    }
    assert_eq!(scene.spread(), [0, 3, 4, 5, 6, 7]);
    scene.daemon.kill_engine().unwrap();
    assert_eq!(client.ask(&put_queue(scene.index, 1)).unwrap().value, 0);
    scene.daemon.ready_again().unwrap();
    assert_eq!(scene.spread(), [0, 1, 3, 4, 5, 6, 7]);
    drop(client);
    scene.daemon.until(|status| !status.to_string().contains("mtl_dp_filter"));
    let start = std::time::Instant::now();
    while scene.spread() != all {
        assert!(start.elapsed().as_secs() < 30, "{:?}", scene.spread());
    }
}

/// A rule that the administrator put in the place of one of ours is his.
#[test]
fn a_rule_that_was_replaced_by_somebody_stays() {
    let Some(scene) = Scene::set("cards::replaced") else { return };
    let mut client = scene.client(Dialect::Mtlm);
    assert_eq!(client.ask(&get_queue(scene.index)).unwrap().value, 1);
    let made = client.ask(&add_flow(Dialect::Mtlm, scene.index, to(1, 5))).unwrap().value;
    let at = made.to_string();
    scene.ethtool(&[
        "-N",
        "card0",
        "flow-type",
        "tcp4",
        "dst-port",
        "22",
        "action",
        "0",
        "loc",
        &at,
    ]);
    assert_eq!(client.ask(&delete_flow(scene.index, made as u32)).unwrap().value, 0);
    assert!(scene.ethtool(&["-n", "card0", "rule", &at]).contains("TCP over IPv4"));
    drop(client);
    scene.daemon.until(|status| !status.to_string().contains("mtl_dp_filter"));
    assert_eq!(scene.rules(), 1);
}
