//! `kill -9` of the daemon at any moment under twenty clients that receive and ask without a pause.
//!
//! What a client was told is so: each time that a daemon serves again, whatever the clients hold at
//! that moment is compared with the kernel's maps and with what the daemon has read in its journal,
//! and all that the kernel has of the test is counted.

mod books;
mod crowd;

use super::Stage;
use books::Books;
use crowd::{Crowd, Traffic};
use pointsman_netns::daemon::Daemon;
use pointsman_netns::random::{Random, full};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::time::{Duration, Instant};

/// So many clients, each with a queue, its map, a port and a socket.
const CLIENTS: u16 = 20;
/// The queue that all clients want, and give back again.
const WANTED_BY_ALL: u32 = CLIENTS as u32 + 1;
/// The first is the stack's.
const QUEUES: u32 = WANTED_BY_ALL + 1;
/// Microseconds from one that serves to its kill, at most.
const APART: usize = 60_000;
/// Microseconds from a kill to that of the next one, at most: about as long as a daemon takes to
/// serve.
const STARTING: usize = 250_000;

/// How often the daemon is killed.
fn rounds() -> u32 {
    if full() { 200 } else { 10 }
}

/// Kills whichever daemon the keeper has at this moment, served or not; tells whether there was one.
fn kill_child(daemon: &Daemon) -> bool {
    let keeper = daemon.pid();
    let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
    let child = children.ok().and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
    let file = child.and_then(Pid::from_raw).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    file.is_some_and(|file| file.is_ok_and(|it| pidfd_send_signal(it, Signal::KILL).is_ok()))
}

#[test]
fn kills_under_twenty_clients_lose_no_packet_no_lease_and_leave_nothing_behind() {
    let mut random = Random::new("kills under clients");
    let stage = Stage::with_queues(QUEUES);
    let mut books = Books::new(&stage);
    let (crowd, sockets) = Crowd::gather(&stage, &mut random);
    let traffic = Traffic::start(&stage, sockets);
    books.open(&stage);
    crowd.at_rest(|clients| books.check(&stage, clients, "at first"));
    let start = Instant::now();
    let (mut twice, mut longest) = (0, Duration::ZERO);
    for kill in 0..rounds() {
        // The moment of the kill is what is tried: any will do, and none is waited for.
        let moment = Duration::from_micros(random.below(APART) as u64);
        std::thread::sleep(moment);
        let died = Instant::now();
        stage.daemon.kill_engine().unwrap();
        if random.one_in(3) {
            // The next one is killed as well, while it starts.
            std::thread::sleep(Duration::from_micros(random.below(STARTING) as u64));
            twice += u32::from(kill_child(&stage.daemon));
        }
        // Nobody is between two requests of his, so all have been answered: by a daemon that serves.
        let when = format!("kill {kill}, after {moment:?}");
        crowd.at_rest(|clients| {
            longest = longest.max(died.elapsed());
            books.check(&stage, clients, &when);
        });
        traffic.more(1);
    }
    let asked = crowd.stop();
    let packets = traffic.stop();
    println!(
        "kills under {CLIENTS} clients: {} in all, {twice} of them twice, in {:?}; {packets} \
         packets, {asked} requests, all served again within {longest:?}",
        rounds(),
        start.elapsed()
    );
    stage.until_entries(&[books::ENTRY]);
    let drained = stage.daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    books.close(stage);
}
