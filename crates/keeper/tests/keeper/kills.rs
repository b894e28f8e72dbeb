//! Ends of the daemon that clients do not notice.

use crate::scene::{Client, Keeper, full, record};
use rustix::process::{Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

#[test]
fn a_daemon_that_dies_before_or_after_its_answer_is_not_noticed() {
    let keeper = Keeper::start();
    let mut client = keeper.client();
    let mut native = keeper.native();
    for round in 0..5 {
        client.echo(&record(b"CRSH", round));
        client.echo(&record(b"CRSA", round));
        native.send(b"CRSH native", &[]);
        assert_eq!(native.reply().0, b"CRSH native");
        native = keeper.native();
    }
    // Pipelined: those before and behind it are answered once, too.
    let requests: Vec<_> = (0..20)
        .map(|number| record(if number % 7 == 3 { b"CRSH" } else { b"echo" }, number))
        .collect();
    client.send(&requests.concat());
    for request in requests {
        assert!(client.reply() == request);
    }
}

#[test]
fn replayed_requests_bring_their_descriptors() {
    let keeper = Keeper::start();
    let native = keeper.native();
    let file = std::fs::File::open("/dev/null").unwrap();
    native.send(b"CRSH first", &[]);
    native.send(b"BACK", &[std::os::fd::AsFd::as_fd(&file)]);
    assert_eq!(native.reply().0, b"CRSH first");
    let (bytes, descriptors) = native.reply();
    assert_eq!((&bytes[..], descriptors.len()), (&b"BACK"[..], 1));
}

/// Clients that ask without a pause, and check each answer, until told to stop.
struct Active {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Active {
    fn start(keeper: &Keeper, clients: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |client: u64| {
            let (path, stop) = (keeper.path("imtl.sock"), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut connection = Client::connect(&path);
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    asked += 1;
                    connection.echo(&record(b"echo", client << 32 | asked));
                }
                asked
            })
        };
        let threads = (0..clients).map(start).collect();
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().expect("no client noticed anything") > 0);
        }
    }
}

#[test]
fn kills_at_any_moment_under_active_clients_lose_and_double_nothing() {
    let mut keeper = Keeper::start();
    let active = Active::start(&keeper, 20);
    let kills = if full() { 200 } else { 12 };
    for _ in 0..kills {
        // Some of them hit a daemon that is starting.
        let _ = kill_process(keeper.engine(), Signal::KILL);
        keeper.ready();
    }
    active.stop();
}

#[test]
fn the_daemon_is_swapped_under_active_clients() {
    let mut keeper = Keeper::start();
    let active = Active::start(&keeper, 10);
    for _ in 0..5 {
        let before = keeper.engine();
        keeper.signal(Signal::HUP);
        keeper.ready();
        assert_ne!(keeper.engine(), before);
    }
    active.stop();
}

#[test]
fn a_daemon_is_swapped_that_does_not_serve_yet() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("wait"), "").unwrap();
    let mut keeper = Keeper::start_unready(directory, &[]);
    while !keeper.log().contains("the daemon runs as pid ") {
        std::thread::yield_now();
    }
    let before = keeper.engine();
    keeper.signal(Signal::HUP);
    while !keeper.log().contains("the daemon ends to be started anew") {
        std::thread::yield_now();
    }
    std::fs::remove_file(keeper.path("wait")).unwrap();
    keeper.ready();
    keeper.ready();
    assert_ne!(keeper.engine(), before);
    keeper.client().echo(&record(b"echo", 1));
}
