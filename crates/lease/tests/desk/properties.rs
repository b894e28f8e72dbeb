//! What holds of a desk whatever is asked of it, and of one that is read back from its journal.

use super::*;
use pointsman_model::flow::{Flow, FlowAction, FlowMatch, FlowRule, Ports, Transport};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Ask(u64, Ask),
    Close(u64),
    Clear(u64),
    Reopen(u64),
    Policy(LcoreIds, CpuSet),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 1u64..5;
    let wish = (1u32..4, any::<bool>()).prop_map(|(count, whole_cores)| Wish {
        count,
        near: None,
        whole_cores,
    });
    let ask = prop_oneof![
        6 => (0u32..20).prop_map(Ask::Get),
        3 => (0u32..20).prop_map(Ask::Put),
        2 => wish.prop_map(Ask::Choose),
        1 => prop::option::of(prop::collection::vec(0u32..20, 0..3)).prop_map(Ask::GiveBack),
        1 => Just(Ask::Register { claim: claim(), refused: None }),
        8 => card_ask(),
    ];
    let ids = prop_oneof![Just(LcoreIds::Auto), Just(LcoreIds::Physical), Just(LcoreIds::Remapped)];
    let reserve = prop::collection::btree_set(0u32..16, 0..3);
    let policy = (ids, reserve).prop_map(|(ids, set)| Step::Policy(ids, set.into_iter().collect()));
    let step = prop_oneof![
        20 => (client.clone(), ask).prop_map(|(client, ask)| Step::Ask(client, ask)),
        1 => client.clone().prop_map(Step::Close),
        1 => client.clone().prop_map(Step::Clear),
        2 => client.prop_map(Step::Reopen),
        1 => policy,
    ];
    prop::collection::vec(step, 1..60)
}

/// Requests about three interfaces, one of which nobody claims.
fn card_ask() -> impl Strategy<Value = Ask> {
    let index = 1u32..4;
    let rule = |queue: u32| {
        let flow = Flow::all(Transport::Udp(Ports::any()));
        FlowRule { matching: FlowMatch::V4(flow), action: FlowAction::Queue(queue) }
    };
    prop_oneof![
        3 => (index.clone(), 0u16..3).prop_map(|(index, port)| Ask::AddPort { index, port }),
        2 => (index.clone(), 0u16..3).prop_map(|(index, port)| Ask::DelPort { index, port }),
        3 => (index.clone(), prop::option::of(0u32..4)).prop_map(|(index, queue)| {
            Ask::GetQueue { index, found: queue.ok_or_else(|| "none".to_owned()) }
        }),
        2 => (index.clone(), 0u32..4).prop_map(|(index, queue)| Ask::PutQueue { index, queue }),
        1 => index.clone().prop_map(|index| Ask::Map { index }),
        2 => (index.clone(), 1u32..5, 0u32..4).prop_map(move |(index, location, queue)| {
            Ask::AddFlow { index, found: Ok((location, rule(queue))) }
        }),
        1 => (index, 1u32..5).prop_map(|(index, location)| Ask::DelFlow { index, location }),
    ]
}

/// No queue and no rule has two owners, the first queue has none, and what is counted is there.
fn cards_are_sound(desk: &Desk) {
    let (mut owners, mut rules, mut count) = (BTreeMap::new(), BTreeMap::new(), 0);
    for (connection, client) in desk.clients() {
        for (index, held) in &client.interfaces {
            let place = client.place(*index);
            for queue in &held.queues {
                assert_ne!(*queue, 0, "the first queue is the host's");
                let other = owners.insert((place.clone(), *queue), *connection);
                assert_eq!(other, None, "queue {queue} has two owners");
                assert_eq!(desk.owners(&place).get(queue), Some(connection));
            }
            for location in held.flows.keys() {
                let other = rules.insert((place.clone(), *location), *connection);
                assert_eq!(other, None, "rule {location} has two owners");
            }
            let ports: u32 = held.ports.values().sum();
            assert!(held.ports.values().all(|times| *times > 0));
            assert!(held.ports.keys().all(|port| desk.ports(&place).contains(port)));
            count += held.queues.len() + held.flows.len() + ports as usize;
        }
    }
    assert_eq!(desk.held_in_all(), desk.held() + count);
}

/// What must hold of every desk.
fn sound(desk: &Desk) {
    let mut holders = BTreeMap::new();
    for (connection, client) in desk.clients() {
        for (id, lease) in &client.leases {
            assert_eq!(*id, lease.id);
            if let Some(cpu) = lease.cpu {
                assert_eq!(holders.insert(cpu, connection), None, "CPU {cpu} is granted twice");
            }
        }
    }
    cards_are_sound(desk);
}

/// Clients that may share a CPU never hold the same token.
fn tokens_are_apart(desk: &Desk) {
    for (one, client) in desk.clients() {
        for (other, neighbour) in desk.clients().range(one + 1..) {
            let shared = match (client.cpus(), neighbour.cpus()) {
                (Some(a), Some(b)) => a.meets(b),
                _ => true,
            };
            let token = |client: &pointsman_lease::Client, id: u32| {
                client.leases.get(&id).is_some_and(|lease| lease.cpu.is_none())
            };
            let both =
                client.leases.keys().find(|id| token(client, **id) && token(neighbour, **id));
            assert!(!shared || both.is_none(), "{one} and {other} hold {both:?}");
        }
    }
}

fn same(a: &Desk, b: &Desk) {
    let leases = |desk: &Desk| -> Vec<_> {
        let client = |(id, client): (&u64, &pointsman_lease::Client)| {
            let told = (client.claim.clone(), client.cpuset.clone(), client.dialect);
            let cards = (client.namespace.clone(), client.interfaces.clone());
            (*id, client.leases.clone(), client.mapping, client.peer.clone(), told, cards)
        };
        desk.clients().iter().map(client).collect()
    };
    assert_eq!(leases(a), leases(b));
}

/// A connection, a request's number, the request, and its answer.
type Answered = (u64, u64, Ask, Kept);

fn play(steps: Vec<Step>) -> (Written, Vec<(usize, Answered)>) {
    let mut host = Written::new(desk());
    let sets = [Some("0-7"), Some("4-11"), Some("12-15"), None];
    let protocol = |client| if client == 4 { Protocol::Native } else { Protocol::Imtl };
    let (mut numbers, mut answers) = (BTreeMap::<u64, u64>::new(), Vec::new());
    for step in steps {
        match step {
            Step::Ask(client, ask) => {
                if !host.desk.clients().contains_key(&client) {
                    continue;
                }
                let number = numbers.entry(client).or_default();
                *number += 1;
                let kept = host.ask(client, *number, ask.clone());
                answers.push((host.records.len(), (client, *number, ask, kept)));
            }
            Step::Close(client) => {
                if let Some(record) = host.desk.close(client) {
                    host.write(record);
                    answers.retain(|(_, (connection, ..))| *connection != client);
                    numbers.remove(&client);
                }
            }
            Step::Clear(client) => {
                host.desk.clear(client).into_iter().for_each(|record| host.write(record));
            }
            Step::Reopen(client) => {
                if !host.desk.clients().contains_key(&client) {
                    host.open(client, protocol(client), sets[client as usize - 1]);
                    let change = Change::Claimed { namespace: None, interfaces: vec![1, 2] };
                    host.write(record(client, change));
                }
            }
            Step::Policy(lcore_ids, reserve) => {
                let lcores = LcoresSpec { reserve, lcore_ids, ..LcoresSpec::default() };
                host.desk.set_policy(Policy { lcores, ..Policy::default() });
            }
        }
        sound(&host.desk);
        tokens_are_apart(&host.desk);
    }
    (host, answers)
}

proptest! {
    /// No double grant whatever happens; and a desk that was read back from the journal is the
    /// same, and answers each request that may come again as before, without doing it twice.
    #[test]
    fn a_desk_read_back_answers_as_before_and_does_nothing_twice(steps in steps()) {
        let (host, answers) = play(steps);
        let bytes: Vec<u8> = [journal::heading("e")]
            .into_iter()
            .chain(host.records.iter().map(journal::encode))
            .flatten()
            .collect();
        let mut back = desk();
        let read = journal::decode(&bytes);
        prop_assert_eq!(&read.records, &host.records);
        read.records.iter().for_each(|record| back.apply(record));
        same(&back, &host.desk);
        let mut compacted = desk();
        host.desk.snapshot().iter().for_each(|record| {
            let bytes = journal::encode(record);
            let record = journal::decode(&[journal::heading("e"), bytes].concat()).records;
            compacted.apply(&record[0]);
        });
        same(&compacted, &host.desk);
        let mut last = BTreeMap::new();
        for (_, (connection, sequence, ..)) in &answers {
            last.insert(*connection, *sequence);
        }
        for desk in [&back, &compacted] {
            for (_, (connection, sequence, ask, kept)) in &answers {
                let decision = desk.decide(*connection, *sequence, ask);
                match kept {
                    // A refusal may be refused for another reason now.
                    Kept::Refused(_) => {
                        let newest = desk.clients()[connection].newest() < *sequence;
                        let refused = matches!(decision.answer, Kept::Refused(_));
                        prop_assert!(refused || newest, "{:?}", decision);
                    }
                    given => {
                        prop_assert_eq!(&decision.answer, given);
                        prop_assert_eq!(decision.record, None);
                    }
                }
            }
        }
    }

    /// Killed after any record, with the next one torn or not: what was not written down is
    /// done now, what was is answered, and all clients have what they were told.
    #[test]
    fn killed_at_any_record_it_goes_on_where_it_was(steps in steps(), at: prop::sample::Index) {
        let (host, answers) = play(steps);
        let cut = at.index(host.records.len() + 1);
        let mut back = desk();
        host.records[..cut].iter().for_each(|record| back.apply(record));
        sound(&back);
        let mut back = Written { desk: back, records: Vec::new() };
        let closed = |connection| !back.desk.clients().contains_key(&connection);
        let replayed: Vec<_> =
            answers.iter().filter(|(_, (connection, ..))| !closed(*connection)).collect();
        for (written, (connection, sequence, ask, kept)) in replayed {
            let answer = back.ask(*connection, *sequence, ask.clone());
            let was_written = *written <= cut && !matches!(kept, Kept::Refused(_));
            // Of a connection whose number was used again, the records are another's.
            if was_written && host.records[..cut].iter().any(|r| r.connection == *connection && r.sequence == *sequence) {
                prop_assert_eq!(&answer, kept);
            }
            sound(&back.desk);
        }
    }

    /// Any records in any order make a desk that is sound.
    #[test]
    fn no_journal_makes_a_double_grant(
        leases in prop::collection::vec((1u64..4, 0u32..6, prop::option::of(0u32..4), any::<bool>()), 0..40),
    ) {
        let mut desk = desk();
        for connection in [1, 2] {
            let opened = desk.open(connection, Protocol::Imtl, peer(1), 7).unwrap();
            desk.apply(&opened);
        }
        for (connection, id, cpu, back) in leases {
            let lease = Lease { id, cpu, idle: false };
            let change = if back {
                Change::Returned(vec![id])
            } else {
                Change::Leased { leases: vec![lease], mapping: None, moved: vec![lease] }
            };
            desk.apply(&record(connection, change));
            sound(&desk);
            prop_assert!(!desk.clients().contains_key(&3), "nobody wrote that it connected");
        }
    }
}
