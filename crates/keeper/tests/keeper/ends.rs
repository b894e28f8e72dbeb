//! How it all ends.

use crate::scene::{Keeper, await_end, record};
use rustix::process::Signal;

#[test]
fn b_30_signals_end_daemon_and_keeper_and_leave_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut keeper = Keeper::start();
        let engine = keeper.engine();
        let mut client = keeper.client();
        client.echo(&record(b"echo", 1));
        keeper.signal(signal);
        keeper.told("STOPPING=1");
        let status = keeper.wait();
        // The daemon of these tests does not handle signals: its end is ours, as shells tell it.
        assert_eq!(status.code(), Some(128 + signal.as_raw()), "{status}");
        await_end(engine);
        assert!(client.ended());
        for name in ["imtl.sock", "leases.sock", "imtl.sock.lock", "leases.sock.lock"] {
            assert!(!keeper.path(name).exists(), "B-30: {name} is left");
        }
    }
}

#[test]
fn a_killed_keeper_takes_its_daemon_along_and_the_next_one_starts() {
    let mut keeper = Keeper::start();
    let engine = keeper.engine();
    let mut client = keeper.client();
    client.echo(&record(b"echo", 1));
    client.send(&record(b"MUTE", 2));
    keeper.signal(Signal::KILL);
    keeper.wait();
    await_end(engine);
    assert!(client.ended(), "the client has to learn of it");
    // Its sockets lie there still.
    let directory = std::mem::replace(&mut keeper.directory, tempfile::tempdir().unwrap());
    std::fs::write(keeper.path("log"), "").unwrap();
    let next = Keeper::start_in(directory, &[]);
    next.client().echo(&record(b"echo", 3));
}

#[test]
fn a_daemon_that_never_served_ends_the_keeper_with_its_code() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("fail"), "42").unwrap();
    let mut keeper = Keeper::start_unready(directory, &[]);
    assert_eq!(keeper.wait().code(), Some(42));
}

#[test]
fn a_daemon_that_served_is_started_again_until_it_serves() {
    let mut keeper = Keeper::start();
    let mut client = keeper.client();
    std::fs::write(keeper.path("fail"), "3").unwrap();
    client.send(&record(b"CRSH", 1));
    // Until it has failed for as often as it is started at once.
    while keeper.log().matches("the daemon ended: exit status: 3").count() < 3 {
        std::thread::yield_now();
    }
    std::fs::remove_file(keeper.path("fail")).unwrap();
    keeper.ready();
    assert!(client.reply() == record(b"CRSH", 1));
    assert!(keeper.log().contains("1 clients stay connected"), "{}", keeper.log());
}
