//! Queues, ports and flow rules: who gets what, and what is left when somebody goes.

use super::*;
use pointsman_lease::MOST_PORTS;
use pointsman_model::NamespaceName;
use pointsman_model::lease::Place;
use std::collections::BTreeSet;

const OWN: Place = Place { namespace: None, index: 1 };

/// Two clients that have claimed interface 1.
fn two() -> Written {
    let mut host = Written::new(desk());
    for client in [1, 2] {
        host.client(client, None);
        let change = Change::Claimed { namespace: None, interfaces: vec![1] };
        host.write(record(client, change));
    }
    host
}

fn queue(found: u32) -> Ask {
    Ask::GetQueue { index: 1, found: Ok(found) }
}

#[test]
fn b_03_nothing_of_an_interface_is_had_without_registering_with_it() {
    let mut host = two();
    host.client(3, None);
    let not_claimed = Kept::Refused(Why::NotClaimed { index: 1 });
    let asks = [
        Ask::AddPort { index: 1, port: 5 },
        Ask::DelPort { index: 1, port: 5 },
        Ask::Map { index: 1 },
        queue(1),
        Ask::PutQueue { index: 1, queue: 1 },
        Ask::DelFlow { index: 1, location: 1 },
    ];
    for (at, ask) in asks.into_iter().enumerate() {
        assert_eq!(host.ask(3, at as u64 + 2, ask), not_claimed);
    }
    host.open(4, Protocol::Imtl, None);
    assert_eq!(host.ask(4, 1, queue(1)), Kept::Refused(Why::NotRegistered));
}

#[test]
fn b_04_a_queue_and_a_port_are_given_back_by_their_owner_alone() {
    let mut host = two();
    assert_eq!(host.ask(1, 2, queue(1)), Kept::Queue(1));
    let put = |queue| Ask::PutQueue { index: 1, queue };
    let not_held = |what: &str| Kept::Refused(Why::NotHeldThere { what: what.into() });
    assert_eq!(host.ask(2, 2, put(1)), not_held("queue 1"));
    assert!(matches!(host.ask(2, 3, queue(1)), Kept::Refused(Why::NoQueue { .. })));
    assert_eq!(host.ask(1, 3, Ask::AddPort { index: 1, port: 7 }), Kept::Done);
    assert_eq!(host.ask(2, 4, Ask::DelPort { index: 1, port: 7 }), not_held("port 7"));
    let closed = host.desk.close(1).unwrap();
    host.write(closed);
    assert_eq!(host.ask(2, 5, queue(1)), Kept::Queue(1));
    assert!(host.desk.ports(&OWN).is_empty());
}

#[test]
fn b_14_a_port_that_was_not_added_is_not_taken_out_and_counts_never_go_below_none() {
    let mut host = two();
    let (add, del) = (Ask::AddPort { index: 1, port: 0 }, Ask::DelPort { index: 1, port: 0 });
    let not_held = Kept::Refused(Why::NotHeldThere { what: "port 0".into() });
    assert_eq!(host.ask(1, 2, del.clone()), not_held);
    for (sequence, ask) in [(3, &add), (4, &add), (5, &del)] {
        assert_eq!(host.ask(1, sequence, ask.clone()), Kept::Done);
    }
    assert!(host.desk.has_port(&OWN, 0), "it was added twice");
    // The same port by two clients.
    assert_eq!(host.ask(2, 2, add), Kept::Done);
    assert_eq!(host.ask(1, 6, del.clone()), Kept::Done);
    assert_eq!(host.ask(1, 7, del.clone()), not_held);
    assert_eq!(host.desk.ports(&OWN), BTreeSet::from([0]));
    assert_eq!(host.ask(2, 3, del), Kept::Done);
    assert!(host.desk.ports(&OWN).is_empty());
}

#[test]
fn b_15_all_ports_can_be_listed_and_the_number_of_times_has_an_end() {
    let mut host = two();
    let mut sequence = 1;
    let mut add = |host: &mut Written, port| {
        sequence += 1;
        host.ask(1, sequence, Ask::AddPort { index: 1, port })
    };
    for port in 0..=u16::MAX {
        assert_eq!(add(&mut host, port), Kept::Done);
    }
    assert_eq!(host.desk.ports(&OWN).len(), 65_536);
    for _ in 65_536..MOST_PORTS {
        assert_eq!(add(&mut host, 1), Kept::Done);
    }
    assert!(matches!(add(&mut host, 1), Kept::Refused(Why::TooMany { .. })));
    assert_eq!(host.desk.held_in_all(), MOST_PORTS as usize);
}

#[test]
fn b_17_the_first_queue_is_neither_given_nor_taken_back() {
    let mut host = two();
    assert!(matches!(host.ask(1, 2, queue(0)), Kept::Refused(Why::NoQueue { .. })));
    // libmtl gives back what it never had, and calls it 0.
    let put = Ask::PutQueue { index: 1, queue: 0 };
    let not_held = Kept::Refused(Why::NotHeldThere { what: "queue 0".into() });
    assert_eq!(host.ask(1, 3, put), not_held);
}

#[test]
fn b_28_the_same_number_in_another_namespace_is_another_interface() {
    let mut host = two();
    host.client(3, None);
    let namespace = NamespaceName::new("pod").unwrap();
    let change = Change::Claimed { namespace: Some(namespace.clone()), interfaces: vec![1] };
    host.write(record(3, change));
    for client in [1, 3] {
        assert_eq!(host.ask(client, 2, queue(1)), Kept::Queue(1));
    }
    let pod = Place { namespace: Some(namespace), index: 1 };
    assert_eq!(host.desk.owners(&pod), BTreeMap::from([(1, 3)]));
    assert_eq!(host.desk.owners(&OWN), BTreeMap::from([(1, 1)]));
    let demands = host.desk.demands();
    assert_eq!(demands[&OWN], BTreeSet::from([1, 2]));
    assert_eq!(demands[&pod], BTreeSet::from([3]));
}

#[test]
fn a_request_for_the_map_that_comes_again_gets_the_map_again() {
    let mut host = two();
    assert_eq!(host.ask(1, 2, Ask::Map { index: 1 }), Kept::Map(1));
    assert_eq!(host.ask(1, 3, queue(1)), Kept::Queue(1));
    assert_eq!(host.ask(1, 2, Ask::Map { index: 1 }), Kept::Map(1));
    assert_eq!(host.desk.may_look(1, 3, 1), Err(Kept::Queue(1)));
    assert_eq!(host.desk.may_look(1, 4, 1), Ok(OWN));
}

#[test]
fn an_administrator_takes_queues_and_ports_and_the_interface_stays_claimed() {
    let mut host = two();
    assert_eq!(host.ask(1, 2, queue(1)), Kept::Queue(1));
    assert_eq!(host.ask(1, 3, Ask::AddPort { index: 1, port: 9 }), Kept::Done);
    let cleared = host.desk.clear(1).unwrap();
    host.write(cleared);
    assert_eq!((host.desk.owners(&OWN).len(), host.desk.ports(&OWN).len()), (0, 0));
    assert_eq!(host.desk.held_in_all(), 0);
    assert_eq!(host.ask(1, 4, queue(1)), Kept::Queue(1));
}
