//! `kill -9` of the control plane, a courier, a daemon or its keeper at random moments of publish,
//! fetch and apply.

use super::{MARKER, assert_edition, first_port, lets, settle};
use pointsman_netns::census::Census;
use pointsman_netns::fleet::{Api, Fleet, Node};
use pointsman_netns::object;
use pointsman_netns::random::{Random, full};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often something is killed.
fn rounds() -> u16 {
    if full() { 100 } else { 12 }
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Control,
    Courier(usize),
    /// The daemon: its keeper starts it again.
    Daemon(usize),
    /// The daemon with its keeper.
    Keeper(usize),
}

impl Victim {
    /// Each kind as often as the others.
    fn any(random: &mut Random, nodes: usize) -> Self {
        let node = random.below(nodes);
        match random.below(4) {
            0 => Self::Control,
            1 => Self::Courier(node),
            2 => Self::Daemon(node),
            _ => Self::Keeper(node),
        }
    }

    fn kill(self, fleet: &Fleet) {
        match self {
            Self::Control => fleet.control.as_ref().unwrap().signal(Signal::KILL).unwrap(),
            Self::Courier(node) => {
                fleet.nodes[node].courier.as_ref().unwrap().signal(Signal::KILL).unwrap();
            }
            Self::Daemon(node) => fleet.nodes[node].daemon().kill_engine().unwrap(),
            Self::Keeper(node) => fleet.nodes[node].daemon().signal(Signal::KILL).unwrap(),
        }
    }
}

/// Starts what was killed.
fn revive(fleet: &mut Fleet, victim: Victim) {
    match victim {
        Victim::Control => {
            drop(fleet.control.take());
            fleet.start_control().unwrap();
        }
        Victim::Courier(node) => {
            drop(fleet.nodes[node].courier.take());
            fleet.nodes[node].start_courier().unwrap();
        }
        Victim::Daemon(node) => fleet.nodes[node].daemon().ready_again().unwrap(),
        Victim::Keeper(node) => {
            drop(fleet.nodes[node].daemon.take());
            fleet.nodes[node].start_daemon().unwrap();
        }
    }
}

/// A policy that every node has beside its own: an uploaded program, another one each edition, so
/// that couriers have objects to bring.
fn uploaded() -> Value {
    json!({"selector": {"all": true}, "interface": "v1", "chain": [
        {"program": "clock", "entry": "arm", "priority": 10}]})
}

/// Changes what is wanted and publishes it, however often the control plane breaks off.
fn change(api: &Api, nodes: &[String], edition: u16, object: &[u8]) {
    for (at, node) in nodes.iter().enumerate() {
        api.put_policy(&format!("of-{node}"), &lets(node, first_port(at) + edition));
    }
    api.put("/v1/programs/clock", object);
    api.publish();
}

/// Every document that ever came into force on a node was made for it, whole, and newer than the
/// one before.
#[track_caller]
fn assert_history(node: &Node, at: usize) {
    let documents = node.documents();
    assert!(documents.is_sorted_by(|a, b| a.0 < b.0), "{}: {:?}", node.name, documents);
    let (_, last) = documents.last().unwrap();
    let mut editions = Vec::new();
    for (generation, document) in &documents {
        assert_eq!(document["node"], node.name.as_str());
        assert_eq!(document["generation"], *generation);
        let ports = &document["programs"]["ports"]["maps"]["ports"]["entries"];
        let ports: Vec<_> =
            ports.as_array().unwrap().iter().map(|entry| entry["key"].as_u64().unwrap()).collect();
        let own = ports.iter().find(|&&port| port != u64::from(MARKER)).unwrap();
        editions.push(own.checked_sub(first_port(at).into()).filter(|edition| *edition < 1_000));
        // But for these and the object it is the last one, word for word.
        let mut same = document.clone();
        same["generation"] = last["generation"].clone();
        for program in ["ports", "clock"] {
            if !document["programs"][program].is_null() {
                same["programs"][program] = last["programs"][program].clone();
            }
        }
        if document["programs"]["clock"].is_object() {
            assert_eq!(same, *last, "{}: generation {generation}", node.name);
        }
    }
    assert!(editions.iter().all(Option::is_some), "{}: {documents:?}", node.name);
    assert!(editions.is_sorted(), "{}: {editions:?}", node.name);
}

#[test]
fn a_kill_at_any_moment_leaves_every_host_with_something_whole_and_the_fleet_converges() {
    let mut fleet = Fleet::new(3).unwrap();
    let mut random = Random::new("fleet_kills");
    let mut census = Census::default();
    let mut next_object = || {
        let mut bytes = object("timer");
        census.mark(&mut bytes, "clocks");
        bytes
    };
    settle(&fleet, 1);
    fleet.put("/v1/programs/clock", &next_object());
    fleet.put_policy("clock", &uploaded());
    let start = Instant::now();
    let names: Vec<_> = fleet.nodes.iter().map(|node| node.name.clone()).collect();
    change(&fleet, &names, 2, &next_object());
    fleet.converge();
    let took = start.elapsed();
    assert_edition(&fleet, 2);
    let mut killed = [0; 4];
    for edition in 3..3 + rounds() {
        let victim = Victim::any(&mut random, fleet.nodes.len());
        killed[match victim {
            Victim::Control => 0,
            Victim::Courier(_) => 1,
            Victim::Daemon(_) => 2,
            Victim::Keeper(_) => 3,
        }] += 1;
        // Some kills come when all is done.
        let moment = took.as_micros() as u64 * 5 / 4;
        let delay = Duration::from_micros(random.next() % moment.max(1));
        println!("edition {edition}: {victim:?} after {delay:?}");
        let object = next_object();
        // The control plane, too, is killed and started again while somebody asks for a change.
        let api = fleet.api.clone();
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| change(&api, &names, edition, &object));
            // The moment of the kill is what is tried: any will do, and none is waited for.
            std::thread::sleep(delay);
            victim.kill(&fleet);
            revive(&mut fleet, victim);
            changing.join().unwrap();
        });
        fleet.converge();
        assert_edition(&fleet, edition);
        for (at, node) in fleet.nodes.iter().enumerate() {
            assert_history(node, at);
        }
    }
    println!(
        "killed: control {}, courier {}, daemon {}, keeper {}",
        killed[0], killed[1], killed[2], killed[3]
    );
}
