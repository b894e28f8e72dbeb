//! Requests that the daemon dies of whenever it is told them.

use crate::scene::{Client, Keeper, RECORD, record};

/// What comes back for a request that is refused.
fn refused(request: &[u8; RECORD]) -> [u8; RECORD] {
    let mut reply = *request;
    reply[..4].copy_from_slice(b"REFU");
    reply
}

fn crashes(keeper: &Keeper) -> usize {
    keeper.log().matches("the daemon ended: signal: 6").count()
}

#[test]
fn a_request_that_kills_daemon_after_daemon_is_refused_and_all_others_are_answered() {
    let keeper = Keeper::start();
    // All of these wait for the same daemons, before and behind the one that kills them.
    let mut others: Vec<_> = (0..20).map(|_| keeper.client()).collect();
    let (before, behind) = others.split_at_mut(10);
    let mut guilty = keeper.client();
    let native = keeper.native();
    let poison = record(b"POIS", 7);
    let send = |clients: &mut [Client], from: u64| {
        for (number, client) in (from..).zip(clients) {
            let all: Vec<_> = (0..5).map(|at| record(b"echo", 100 * number + at)).collect();
            client.send(&all.concat());
        }
    };
    send(before, 0);
    guilty.send(&[record(b"echo", 1), poison, record(b"echo", 2)].concat());
    native.send(b"beside", &[]);
    send(behind, 10);
    assert!(guilty.reply() == record(b"echo", 1));
    assert!(guilty.reply() == refused(&poison), "with an answer of its own");
    assert!(guilty.reply() == record(b"echo", 2), "and it goes on");
    for (number, client) in (0..).zip(&mut others) {
        for at in 0..5 {
            assert!(client.reply() == record(b"echo", 100 * number + at), "{at} of {number}");
        }
    }
    assert_eq!(native.reply().0, b"beside");
    let log = keeper.log();
    assert_eq!(crashes(&keeper), 3, "{log}");
    assert_eq!(log.matches("crashed 3 times over a request").count(), 1, "{log}");
    // Nothing is left of it.
    guilty.echo(&record(b"echo", 3));
    guilty.send(&record(b"POIS", 8));
    assert!(guilty.reply() == refused(&record(b"POIS", 8)));
}

#[test]
fn who_kills_daemons_that_are_to_refuse_it_loses_its_connection() {
    let keeper = Keeper::start();
    let mut guilty = keeper.client();
    let mut other = keeper.client();
    guilty.send(&[record(b"echo", 1), record(b"POIX", 2), record(b"echo", 3)].concat());
    other.send(&record(b"echo", 4));
    assert!(guilty.reply() == record(b"echo", 1));
    assert!(guilty.ended());
    assert!(other.reply() == record(b"echo", 4));
    other.echo(&record(b"echo", 5));
    assert_eq!(crashes(&keeper), 5, "{}", keeper.log());
    let log = keeper.log();
    assert!(log.contains("was closed: daemon after daemon crashed over a request"), "{log}");
}

/// Each of several is found out by itself.
#[test]
fn several_requests_that_kill_are_each_refused() {
    let keeper = Keeper::start();
    let mut clients: Vec<_> = (0..4).map(|_| keeper.client()).collect();
    for (number, client) in (0..).zip(&mut clients) {
        let what = if number % 2 == 0 { b"POIS" } else { b"echo" };
        client.send(&[record(what, number), record(b"POIS", 100 + number)].concat());
    }
    for (number, client) in (0..).zip(&mut clients) {
        let first = record(if number % 2 == 0 { b"POIS" } else { b"echo" }, number);
        let expected = if number % 2 == 0 { refused(&first) } else { first };
        assert!(client.reply() == expected, "{number}");
        assert!(client.reply() == refused(&record(b"POIS", 100 + number)), "{number}");
    }
}

/// Who leaves takes its suspects along; who comes meanwhile waits, and is served.
#[test]
fn clients_come_and_go_while_daemons_die() {
    let keeper = Keeper::start();
    let mut guilty = keeper.client();
    guilty.send(&record(b"POIS", 1));
    while crashes(&keeper) == 0 {
        std::thread::yield_now();
    }
    let mut late = keeper.client();
    late.send(&record(b"echo", 2));
    drop(guilty);
    assert!(late.reply() == record(b"echo", 2));
    late.echo(&record(b"echo", 3));
}
