//! Daemons that do nothing more, and do not end.

use crate::scene::{Keeper, await_end, record};
use rustix::process::{Signal, kill_process};
use std::os::unix::process::ExitStatusExt as _;

fn stop(keeper: &Keeper) {
    kill_process(keeper.engine(), Signal::STOP).unwrap();
}

#[test]
fn a_daemon_that_answers_nothing_is_ended_and_clients_stay() {
    let mut keeper = Keeper::impatient();
    let (mut client, native) = (keeper.client(), keeper.native());
    client.echo(&record(b"echo", 1));
    let hung = keeper.engine();
    stop(&keeper);
    // As long as nobody asks, nobody misses it.
    client.send(&record(b"echo", 2));
    native.send(b"beside", &[]);
    assert!(client.reply() == record(b"echo", 2));
    assert_eq!(native.reply().0, b"beside");
    await_end(hung);
    keeper.ready();
    assert_ne!(keeper.engine(), hung);
    let log = keeper.log();
    assert!(log.contains("answered none of 2 requests for 1s"), "{log}");
    assert!(log.contains("the daemon ended: signal: 6"), "it is told from a kill: {log}");
    assert!(!log.contains("killed"), "{log}");
}

#[test]
fn a_request_that_hangs_daemon_after_daemon_is_refused_and_all_others_are_answered() {
    let keeper = Keeper::impatient();
    let mut others: Vec<_> = (0..6).map(|_| keeper.client()).collect();
    let mut guilty = keeper.client();
    others.extend((0..6).map(|_| keeper.client()));
    guilty.send(&record(b"HANG", 7));
    for (number, client) in (0..).zip(&mut others) {
        client.send(&[record(b"echo", number), record(b"echo", 100 + number)].concat());
    }
    for (number, client) in (0..).zip(&mut others) {
        assert!(client.reply() == record(b"echo", number), "nobody else is refused: {number}");
        assert!(
            client.reply() == record(b"echo", 100 + number),
            "nobody else is refused: {number}"
        );
    }
    let mut refused = record(b"HANG", 7);
    refused[..4].copy_from_slice(b"REFU");
    assert!(guilty.reply() == refused);
    guilty.echo(&record(b"echo", 8));
    let log = keeper.log();
    assert_eq!(log.matches("it hangs").count(), 3, "{log}");
    assert_eq!(log.matches("crashed 3 times over a request").count(), 1, "{log}");
}

/// One request that is not answered is no daemon that hangs, as long as others are.
#[test]
fn a_daemon_that_answers_others_does_not_hang() {
    let keeper = Keeper::impatient();
    let (mut mute, mut client) = (keeper.client(), keeper.client());
    mute.send(&record(b"MUTE", 1));
    let start = std::time::Instant::now();
    let mut number = 0;
    while start.elapsed().as_millis() < 2500 {
        number += 1;
        client.echo(&record(b"echo", number));
    }
    assert!(!keeper.log().contains("hangs"), "{}", keeper.log());
}

/// One whose daemons do not hear that they are to end.
fn deaf() -> Keeper {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("deaf"), "").unwrap();
    Keeper::impatient_in(directory)
}

#[test]
fn a_daemon_that_does_not_end_for_a_swap_is_killed() {
    let mut keeper = deaf();
    let mut client = keeper.client();
    client.echo(&record(b"echo", 1));
    keeper.signal(Signal::HUP);
    keeper.ready();
    client.echo(&record(b"echo", 2));
    let log = keeper.log();
    assert!(log.contains("did not end in time and is killed"), "{log}");
    // And one that is stopped, too.
    stop(&keeper);
    keeper.signal(Signal::HUP);
    keeper.ready();
    client.echo(&record(b"echo", 3));
    assert_eq!(keeper.log().matches("did not end in time").count(), 2, "{}", keeper.log());
}

#[test]
fn a_daemon_that_does_not_end_does_not_keep_its_keeper() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut keeper = deaf();
        let engine = keeper.engine();
        stop(&keeper);
        keeper.signal(signal);
        let status = keeper.wait();
        assert_eq!((status.code(), status.signal()), (Some(137), None), "{}", keeper.log());
        await_end(engine);
    }
}
