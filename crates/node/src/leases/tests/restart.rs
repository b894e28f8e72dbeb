//! Daemons that end at any moment, and the next one.

use super::*;

impl Desk {
    /// What a keeper tells the next daemon: the connections that are open, and the request of
    /// each that is unanswered.
    fn again(
        &mut self,
        host: &Host,
        open: &[u64],
        unanswered: &[(u64, u64, Vec<u8>)],
    ) -> (Desk, Vec<Got>) {
        let mut next = host.open("e");
        next.next.clone_from(&self.next);
        let mut answers = Vec::new();
        for connection in open {
            next.connect(*connection, Kind::Imtl);
            for (of, sequence, bytes) in unanswered.iter().filter(|(of, ..)| of == connection) {
                answers.extend(next.send_as(*of, *sequence, bytes.clone()));
            }
        }
        next.counter.keeper(FromKeeper::Replayed);
        (next, answers)
    }
}

#[test]
fn a_request_that_comes_again_is_answered_and_not_done_twice() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    desk.client(2);
    let get = |lcore: u8| record(103, &[0, lcore]);
    let put = |lcore: u8| record(104, &[0, lcore]);
    // All of this was carried out; nothing of it reached a client.
    let requests = [get(3), put(3), get(4), get(4), put(9), get(4)];
    let first: Vec<_> = requests.iter().map(|bytes| desk.ask(1, bytes.clone())).collect();
    assert_eq!(first.iter().map(code).collect::<Vec<_>>(), [0, 0, 0, -16, -22, -16]);
    let unanswered: Vec<_> = (2..).zip(requests).map(|(at, bytes)| (1, at, bytes)).collect();
    let (mut next, answers) = desk.again(&host, &[1, 2], &unanswered);
    // A refusal may be another one; what was done is told as done.
    let done: Vec<_> = answers.iter().map(|answer| code(answer) == 0).collect();
    assert_eq!(done, [true, true, true, false, false, false]);
    assert_eq!(next.instance(1).lcores.iter().map(|l| l.id).collect::<Vec<_>>(), [4]);
    // It goes on: the dialect is known, and what others hold.
    assert_eq!((next.get(2, 4), next.get(2, 3), next.get(1, 5)), (-16, 0, 0));
    assert_eq!(next.instance(1).dialect.as_deref(), Some("1.1"));
}

/// The next daemon does on cards what the journal says, beside answering: who hears that it is done
/// finds it done.
#[test]
fn what_was_decided_before_is_told_when_the_next_daemon_has_done_it_on_the_card() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    assert_eq!(desk.ask(1, register(&[0, 0, 0, 106], 1, &[1])), reply(201, 0));
    let port = |kind| record(kind, &[0, 0, 0, 1, 0x4e, 0x20]);
    for (sequence, request) in [(2, port(105)), (3, port(106))] {
        assert_eq!(desk.ask(1, request.clone()), reply(201, 0));
        let mut next = host.open("e");
        next.connect(1, Kind::Imtl);
        next.counter.keeper(FromKeeper::Request {
            connection: 1,
            sequence,
            bytes: request,
            descriptors: Vec::new(),
        });
        assert!(next.counter.answers().is_empty(), "the card comes first");
        assert_eq!(next.answer(1, sequence), Some(reply(201, 0)));
    }
}

/// Daemons crashed over it: the keeper says so, and nobody carries it out again.
#[test]
fn a_request_that_daemons_crashed_over_is_refused_in_its_own_type() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    desk.connect(2, Kind::Imtl);
    assert_eq!(code(&desk.ask(2, register(&[106, 0, 0, 0], 0, &[]))), 0);
    desk.connect(3, Kind::Native);
    for (connection, request, expected) in [
        (1, record(103, &[0, 3]), reply(201, -5)),
        (1, record(108, &[0; 26]), reply(202, -5)),
        (1, record(110, &[0; 26]), reply(203, -5)),
        (1, register(&[0, 0, 0, 106], 1, &[1]), reply(201, -5)),
        (1, record(107, &[0; 26]), (vec![b'E'], 0)),
        (2, record(103, &[0, 3]), reply(201, -1)),
        (2, record(108, &[0; 26]), reply(202, -1)),
        (2, record(107, &[0; 26]), (vec![b' '], 1)),
    ] {
        assert_eq!(desk.refuse(connection, request), Some(expected), "{connection}");
    }
    let (refused, _) = desk.refuse(3, br#"{"lease": {"cpus": 1}}"#.to_vec()).unwrap();
    assert!(refused.starts_with(br#"{"refused":{"kind":"fatal""#), "{}", refused.escape_ascii());
    assert_eq!(desk.held(), 0);
    // No record is none here either, and what is asked next is served.
    assert_eq!((desk.get(1, 3), desk.get(2, 4)), (0, 0));
    assert_eq!(desk.refuse(2, vec![0xff; 118]), None);
}

/// It was carried out, and the daemon crashed before it answered: it is answered as done.
#[test]
fn what_was_carried_out_before_a_crash_is_told_as_done() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!(desk.get(1, 3), 0);
    let (mut next, _) = desk.again(&host, &[1], &[]);
    assert_eq!(next.refuse_as(1, 2, record(103, &[0, 3])), Some(reply(201, 0)));
    assert_eq!(next.refuse_as(1, 3, record(103, &[0, 4])), Some(reply(201, -5)));
    assert_eq!(next.held(), 1);
}

#[test]
fn what_a_connection_held_that_ended_meanwhile_is_free() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    desk.client(2);
    assert_eq!((desk.get(1, 1), desk.get(2, 2)), (0, 0));
    let since = desk.instance(2).since_unix_ms;
    let (mut next, _) = desk.again(&host, &[2], &[]);
    assert_eq!((next.held(), next.instance(2).since_unix_ms), (1, since));
    assert_eq!(next.get(2, 1), 0);
    // And so it is for the daemon after that.
    let (next, _) = next.again(&host, &[2], &[]);
    assert_eq!(next.held(), 2);
}

#[test]
fn the_next_keepers_connections_have_nothing_to_do_with_these() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!(desk.get(1, 1), 0);
    let mut next = host.open("another");
    next.connect(1, Kind::Imtl);
    assert_eq!((next.held(), next.instance(1).claimed), (0, None));
}

/// A journal cut off anywhere: clients are told again whatever is not in it any more.
#[test]
fn cut_off_anywhere_nothing_is_lost_and_nothing_given_twice() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    desk.connect(2, Kind::Imtl);
    let journal = host.path("run").join(crate::leases::JOURNAL);
    // Each request with its answer, and where the journal ended when it was answered.
    let mut asked = Vec::new();
    let hello = register(&[0, 0, 0, 106], 0, &[]);
    let get = |lcore: u8| record(103, &[0, lcore]);
    for (connection, bytes) in [
        (1, hello.clone()),
        (2, hello),
        (1, get(1)),
        (2, get(1)),
        (2, get(2)),
        (1, record(104, &[0, 1])),
        (2, get(1)),
        (1, get(3)),
    ] {
        let sequence = desk.next.get(&connection).copied().unwrap_or(1);
        let answer = desk.ask(connection, bytes.clone());
        asked.push((connection, sequence, bytes, answer, desk.counter.journal.length()));
    }
    let whole = fs::read(&journal).unwrap();
    let end = desk.counter.journal.length();
    // The heading is there before there is a journal: it is written aside.
    let heading = pointsman_lease::journal::heading("e").len() as u64;
    for cut in (heading..=end).step_by(3) {
        fs::write(&journal, &whole[..usize::try_from(cut).unwrap()]).unwrap();
        // Those whose answers had left before the kill do not come again.
        let lost = asked.iter().position(|(.., length)| *length > cut).unwrap_or(asked.len());
        let mut next = host.open("e");
        for connection in [1, 2] {
            next.connect(connection, Kind::Imtl);
        }
        for (connection, sequence, bytes, answer, _) in &asked[lost..] {
            let again = next.send_as(*connection, *sequence, bytes.clone()).unwrap();
            assert_eq!(&again, answer, "request {sequence} of {connection}, cut at {cut}");
        }
        next.counter.keeper(FromKeeper::Replayed);
        let ids = |of| next.instance(of).lcores.iter().map(|l| l.id).collect::<Vec<_>>();
        assert_eq!((ids(1), ids(2)), (vec![3], vec![1, 2]), "cut at {cut}");
    }
}

#[test]
fn nobody_is_served_where_another_version_wrote_the_journal() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert!(desk.get(1, 1) == 0 && desk.counter.serves());
    let path = host.path("run").join(crate::leases::JOURNAL);
    let whole = fs::read(&path).unwrap();
    let mut other = frame(r#"{"format":9,"epoch":"e"}"#);
    other.extend_from_slice(&whole);
    fs::write(&path, &other).unwrap();
    let mut next = host.open("e");
    assert!(!next.counter.serves());
    assert!(next.lcores().refusing.is_some_and(|why| why.contains("format 9")));
    assert_eq!(fs::read(&path).unwrap(), other);
    // The one that wrote it goes on where it stopped.
    fs::write(&path, &whole).unwrap();
    assert_eq!(host.open("e").held(), 1);
}
