//! `kill -9` of the daemon at every step in which it changes a card: queues that are taken and given
//! back, rules, and the RSS table that keeps other packets off.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::cards::{Scene, to};
use pointsman_imtl_client::request::{
    Record, add_flow, delete_flow, get_queue, heartbeat, put_queue,
};
use pointsman_imtl_client::{Client, Dialect};
use pointsman_netns::random::{Random, full};
use pointsman_netns::skip;
use pointsman_netns::tracer::Tracer;
use std::time::{Duration, Instant};

/// The thread that changes cards, and the system calls with which it does, and notes what it does.
const THREAD: &str = "cards";
const STEPS: &str = "bpf,fsync,ioctl,openat,rename,sendto,unlink,write";
const NAME: &str = "card_kills";

/// What a client asks, one after the other, and how the card is after each.
const CHANGES: [&str; 4] = ["a queue", "a rule", "a rule less", "a queue less"];

/// The place that the first rule gets: the card's last but that of the administrator's.
const PLACE: u32 = 14;

fn asked(scene: &Scene, change: usize) -> Record {
    match change {
        0 => get_queue(scene.index),
        1 => add_flow(Dialect::Mtlm, scene.index, to(1, 20_000)),
        2 => delete_flow(scene.index, PLACE),
        _ => put_queue(scene.index, 1),
    }
}

fn answered(change: usize) -> i32 {
    [1, PLACE as i32, 0, 0][change]
}

/// The card as it has to be after so many changes.
#[track_caller]
fn check(scene: &Scene, changes: usize, why: &str) {
    let all: Vec<u32> = (0..8).collect();
    let without: Vec<u32> = all.iter().copied().filter(|queue| *queue != 1).collect();
    let spread = if (1..=3).contains(&changes) { without } else { all };
    let rules = 1 + usize::from(changes == 2);
    let start = Instant::now();
    // A daemon that has just come answers before the last of what was left is put right.
    while (scene.spread(), scene.rules()) != (spread.clone(), rules) {
        let found = (scene.spread(), scene.rules());
        let left = Duration::from_secs(60).checked_sub(start.elapsed());
        assert!(left.is_some(), "{why}: {found:?} instead of {spread:?} and {rules} rules");
    }
}

#[track_caller]
fn change(client: &mut Client, scene: &Scene, number: usize, why: &str) {
    let reply = client.ask(&asked(scene, number)).unwrap();
    assert_eq!(reply.value, answered(number), "{why}: {}", CHANGES[number]);
}

/// A client that goes leaves nothing but the administrator's rule.
#[track_caller]
fn leave(client: Client, scene: &Scene, why: &str) {
    drop(client);
    check(scene, 0, why);
}

#[test]
fn killed_at_every_step_of_a_change_of_a_card_it_is_changed_once_and_nothing_is_left() {
    let Some(scene) = Scene::set_with(NAME, &["--restart-delay", "0"]) else { return };
    scene.add_admins_rule();
    let admins = scene.ethtool(&["-n", "card0", "rule", "15"]);
    let mut kills = 0;
    let mut random = Random::new(NAME);
    for (number, what) in CHANGES.into_iter().enumerate() {
        let mut client = scene.client(Dialect::Mtlm);
        (0..number).for_each(|before| change(&mut client, &scene, before, "before"));
        let Some(tracer) = Tracer::listening(&scene.host, THREAD, STEPS) else {
            return skip(NAME, "there is no strace");
        };
        change(&mut client, &scene, number, "traced");
        check(&scene, number + 1, "traced");
        // Until it has done what it does after the answer as well.
        assert_eq!(client.ask(&heartbeat(1)).unwrap().value, 1);
        let steps = tracer.calls();
        leave(client, &scene, "traced");
        let names: Vec<_> = steps.iter().map(|(call, _)| call.as_str()).collect();
        println!("{what}: {} steps: {}", steps.len(), names.join(" "));
        assert!(names.contains(&"ioctl"), "{what}: {names:?}");
        // All of them in a long run; in a short one from any on, until two were reached.
        let from = if full() { 0 } else { random.below(steps.len()) };
        let mut killed = 0;
        for (call, nth) in steps.iter().cycle().skip(from).take(steps.len()) {
            if killed == 2 && !full() {
                break;
            }
            let why = format!("{what}, killed before {call} {nth}");
            let mut client = scene.client(Dialect::Mtlm);
            (0..number).for_each(|before| change(&mut client, &scene, before, &why));
            let mut tracer = Tracer::killing(&scene.host, THREAD, call, *nth).unwrap();
            client.send(&asked(&scene, number)).unwrap();
            let reply = client.reply().unwrap();
            assert_eq!(reply.value, answered(number), "{why}: answered once, and so");
            check(&scene, number + 1, &why);
            // What was there already is not always written anew. Answered, and the card as it has to
            // be: a call that comes after this is one of another change.
            if tracer.ended_within(Duration::from_secs(1)) {
                tracer.died(call);
                scene.daemon.ready_again().unwrap();
                killed += 1;
            } else {
                drop(tracer);
                println!("{why}: not reached");
            }
            check(&scene, number + 1, &why);
            for after in number + 1..CHANGES.len() {
                change(&mut client, &scene, after, &why);
                check(&scene, after + 1, &why);
            }
            leave(client, &scene, &why);
        }
        assert!(killed >= 2, "{what}: {killed} kills");
        kills += killed;
    }
    assert_eq!(scene.ethtool(&["-n", "card0", "rule", "15"]), admins);
    println!("{kills} kills");
}
