//! Clients that want too much, and those beside them.

use crate::scene::{Client, Keeper, full, record};
use rustix::fd::AsFd as _;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use std::io::Write as _;

/// Tests hold many connections.
pub(crate) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[test]
fn b_21_who_does_not_read_holds_up_only_himself() {
    let keeper = Keeper::start();
    let mut hog = keeper.client();
    hog.0.set_nonblocking(true).unwrap();
    let mut sent = 0_usize;
    // Until nothing more is taken from it.
    let request = record(b"echo", 1);
    let mut other = keeper.client();
    let mut refused = 0;
    while refused < 20 {
        match hog.0.write(&request[sent % request.len()..]) {
            Ok(length) => (sent, refused) = (sent + length, 0),
            Err(_) => refused += 1,
        }
        other.echo(&record(b"echo", sent as u64));
    }
    // It gets all its answers when it reads.
    hog.0.set_nonblocking(false).unwrap();
    for _ in 0..sent / request.len() {
        let mut reply = [0; 118];
        std::io::Read::read_exact(&mut hog.0, &mut reply).unwrap();
        assert!(reply == request);
    }
}

#[test]
fn a_request_that_is_too_large_ends_its_connection_only() {
    let keeper = Keeper::start();
    let other = keeper.native();
    let client = keeper.native();
    client.send(&[1; 65_537], &[]);
    assert!(client.ended());
    let client = keeper.native();
    client.send(b"BACK", &[other.as_fd(); 9]);
    assert!(client.ended());
    other.send(b"still here", &[]);
    assert_eq!(other.reply().0, b"still here");
    assert!(keeper.log().contains("was closed: a request"), "{}", keeper.log());
}

#[test]
fn who_sends_descriptors_where_none_belong_is_disconnected() {
    let keeper = Keeper::start();
    let mut good = keeper.client();
    let mut client = keeper.client();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    crate::scene::send(client.0.as_fd(), &record(b"echo", 1), &[theirs.as_fd(); 8]);
    assert!(client.ended());
    drop(theirs);
    assert!(Client(ours).ended(), "they are closed");
    good.echo(&record(b"echo", 2));
}

#[test]
fn more_clients_than_there_may_be_see_the_end_and_are_not_killed() {
    let mut keeper = Keeper::start_in(tempfile::tempdir().unwrap(), &["3"]);
    let mut clients: Vec<_> = (0..3).map(|_| keeper.client()).collect();
    clients.iter_mut().for_each(|client| client.echo(&record(b"echo", 1)));
    for number in 0..20 {
        let mut turned_away = keeper.client();
        // What libmtl does next. A broken pipe here would be its end.
        turned_away.send(&record(b"echo", number));
        assert!(turned_away.ended());
    }
    drop(clients.pop());
    clients.iter_mut().for_each(|client| client.echo(&record(b"echo", 2)));
    while keeper.count(&mut clients[0]) > 2 {}
    keeper.client().echo(&record(b"echo", 3));
    let told = keeper.log().matches("--max-clients").count();
    assert_eq!(told, 1, "no flood: {}", keeper.log());
    keeper.signal(rustix::process::Signal::TERM);
    keeper.wait();
}

#[test]
fn b_22_without_files_new_clients_wait_and_old_ones_are_served() {
    let keeper = Keeper::start();
    let mut client = keeper.client();
    client.echo(&record(b"echo", 1));
    let set = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(Some(keeper.pid()), Resource::Nofile, Rlimit { current: Some(current), maximum })
            .unwrap();
    };
    // What it has open now is all it may have.
    set(3);
    let mut waiting: Vec<_> = (0..20).map(|_| keeper.client()).collect();
    for client in &mut waiting {
        client.send(&record(b"echo", 7));
    }
    // It has noticed, and serves on.
    while !keeper.log().contains("none can be accepted") {
        client.echo(&record(b"echo", 2));
    }
    set(1024);
    for client in &mut waiting {
        assert!(client.reply() == record(b"echo", 7));
    }
    let told = keeper.log().matches("none can be accepted").count();
    assert_eq!(told, 1, "no flood: {}", keeper.log());
}

/// What clients send that mean no good. Bytes are pseudo-random, the same in each run.
fn garbage(keeper: &Keeper, number: u64) -> Option<Client> {
    let mut client = keeper.client();
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let length = random() % 4000;
    let bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
    client.0.set_nonblocking(true).unwrap();
    match number % 5 {
        // Part of a record, and silence.
        0 => client.0.write_all(&bytes[..bytes.len().min(117)]).unwrap(),
        // Noise, and nobody reads the answers.
        1 => drop(client.0.write(&bytes)),
        // As much as is taken.
        2 => while client.0.write(&bytes).is_ok_and(|written| written > 0) {},
        // Noise, and away.
        3 => {
            let _ = client.0.write(&bytes);
            return None;
        }
        // What gets it closed.
        _ => drop(client.0.write(&record(b"CLOS", number))),
    }
    Some(client)
}

#[test]
fn a_hundred_garbage_clients_do_not_disturb_ten_good_ones() {
    raise_open_files();
    let keeper = Keeper::start();
    let mut good: Vec<_> = (0..10).map(|_| keeper.client()).collect();
    let mut bad = Vec::new();
    let rounds = if full() { 50 } else { 5 };
    for round in 0..rounds {
        for number in 0..100 {
            bad.extend(garbage(&keeper, 100 * round + number));
            let client = &mut good[(number % 10) as usize];
            client.echo(&record(b"good", 100 * round + number));
        }
        bad.clear();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", keeper.pid())).unwrap();
    assert!(status.contains("State:"), "the keeper lives: {status}");
}
