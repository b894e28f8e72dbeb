//! The desk: who gets what, and what a desk knows that was read back from its journal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod cards;
mod properties;

use pointsman_lease::choose::Wish;
use pointsman_lease::{Ask, Change, Claim, Desk, Kept, Lease, Peer, Policy, Record, Why, journal};
use pointsman_model::cpu::{Cpu, CpuSet, Topology};
use pointsman_model::document::{AccessSpec, LcoresSpec, People};
use pointsman_model::lease::{LcoreIds, Mapping, Protocol};
use std::collections::BTreeMap;

fn topology() -> Topology {
    let cpu = |id: u32| Cpu {
        id,
        online: true,
        isolated: false,
        node: Some(id / 8),
        socket: Some(0),
        siblings: [id & !1, id | 1].into_iter().collect(),
        kind: None,
    };
    Topology { cpus: (0..16).map(cpu).collect(), distances: BTreeMap::new() }
}

fn desk() -> Desk {
    Desk::new(Policy::default(), topology())
}

fn peer(uid: u32) -> Peer {
    Peer { pid: Some(100 + uid), uid, ..Peer::default() }
}

fn claim() -> Claim {
    Claim { hostname: "h".into(), pid: 1, uid: 0, interfaces: vec![] }
}

/// A desk with what was written down.
#[derive(Clone)]
struct Written {
    desk: Desk,
    records: Vec<Record>,
}

impl Written {
    fn new(desk: Desk) -> Self {
        Self { desk, records: Vec::new() }
    }

    fn write(&mut self, record: Record) {
        self.desk.apply(&record);
        self.records.push(record);
    }

    fn open(&mut self, connection: u64, protocol: Protocol, cpuset: Option<&str>) {
        self.open_as(connection, protocol, cpuset, 1);
    }

    fn open_as(&mut self, connection: u64, protocol: Protocol, cpuset: Option<&str>, uid: u32) {
        if let Some(record) = self.desk.open(connection, protocol, peer(uid), 7) {
            self.write(record);
        }
        let cpuset = cpuset.map(|cpus| cpus.parse().unwrap());
        self.write(record(connection, Change::Cpuset(cpuset)));
    }

    #[allow(clippy::needless_pass_by_value, reason = "steps read better with what they ask")]
    fn ask(&mut self, connection: u64, sequence: u64, ask: Ask) -> Kept {
        let decision = self.desk.decide(connection, sequence, &ask);
        if let Some(record) = decision.record {
            self.write(record);
        }
        decision.answer
    }

    /// A client that has registered.
    fn client(&mut self, connection: u64, cpuset: Option<&str>) {
        self.open(connection, Protocol::Imtl, cpuset);
        let register = Ask::Register { claim: claim(), refused: None };
        assert_eq!(self.ask(connection, 1, register), Kept::Done);
    }
}

fn record(connection: u64, change: Change) -> Record {
    Record { connection, sequence: 0, change, refused: None }
}

fn granted(kept: &Kept) -> bool {
    matches!(kept, Kept::Leased(_))
}

fn cpu_of(kept: &Kept) -> Option<u32> {
    let Kept::Leased(leases) = kept else { panic!("{kept:?}") };
    leases[0].cpu
}

fn lcores(desk: &Desk, connection: u64) -> Vec<Lease> {
    desk.clients()[&connection].leases.values().copied().collect()
}

#[test]
fn b_04_only_the_owner_gives_an_lcore_back() {
    let mut host = Written::new(desk());
    for client in [1, 2, 3] {
        host.client(client, Some("0-15"));
    }
    assert!(granted(&host.ask(1, 2, Ask::Get(5))));
    assert_eq!(host.ask(2, 2, Ask::Put(5)), Kept::Refused(Why::NotHeld { id: 5 }));
    assert_eq!(host.ask(2, 3, Ask::Get(5)), Kept::Refused(Why::Busy { id: 5, holder: 1 }));
    // What one gave back and another got is not freed by the end of the first.
    assert_eq!(host.ask(1, 3, Ask::Put(5)), Kept::Done);
    assert!(granted(&host.ask(2, 4, Ask::Get(5))));
    let end = host.desk.close(1).unwrap();
    host.write(end);
    assert_eq!(host.ask(3, 2, Ask::Get(5)), Kept::Refused(Why::Busy { id: 5, holder: 2 }));
}

#[test]
fn b_25_ids_go_on_above_128_and_need_no_cpu() {
    let mut host = Written::new(desk());
    host.client(1, Some("0-15"));
    assert_eq!(cpu_of(&host.ask(1, 2, Ask::Get(128))), None);
    assert_eq!(cpu_of(&host.ask(1, 3, Ask::Get(1023))), None);
    assert_eq!(
        host.ask(1, 4, Ask::Get(1024)),
        Kept::Refused(Why::OutOfRange { id: 1024, limit: 1024 })
    );
    assert_eq!(cpu_of(&host.ask(1, 5, Ask::Get(0))), Some(0));
    // The same token is another's only if they share no CPU.
    host.client(2, Some("15"));
    assert_eq!(host.ask(2, 2, Ask::Get(128)), Kept::Refused(Why::Busy { id: 128, holder: 1 }));
    host.client(3, None);
    assert_eq!(host.ask(3, 2, Ask::Get(128)), Kept::Refused(Why::Busy { id: 128, holder: 1 }));
}

#[test]
fn clients_of_disjoint_cpusets_do_not_collide_and_those_that_share_do() {
    let mut host = Written::new(desk());
    for (client, cpus) in [(1, "4-7"), (2, "8-11"), (3, "4-7"), (4, "0-15")] {
        host.client(client, Some(cpus));
    }
    for (client, cpu) in [(1, 5), (2, 9)] {
        assert_eq!(cpu_of(&host.ask(client, 2, Ask::Get(1))), Some(cpu));
        assert_eq!(host.desk.clients()[&client].mapping, Some(Mapping::Remapped));
    }
    let busy = |id, holder| Kept::Refused(Why::Busy { id, holder });
    assert_eq!(host.ask(3, 2, Ask::Get(1)), busy(1, 1));
    // That its ids are re-mapped was learned although it got nothing.
    assert_eq!(host.desk.clients()[&3].mapping, Some(Mapping::Remapped));
    assert_eq!(host.ask(4, 2, Ask::Get(9)), busy(9, 2));
    assert_eq!(cpu_of(&host.ask(4, 3, Ask::Get(1))), Some(1));
}

#[test]
fn what_a_client_has_moves_when_it_shows_that_its_ids_are_remapped() {
    let mut host = Written::new(desk());
    host.client(1, Some("1,2,8,9"));
    assert_eq!(cpu_of(&host.ask(1, 2, Ask::Get(1))), Some(1));
    assert_eq!(cpu_of(&host.ask(1, 3, Ask::Get(3))), Some(9));
    let at = |id, cpu| Lease { id, cpu: Some(cpu), idle: false };
    assert_eq!(lcores(&host.desk, 1), [at(1, 2), at(3, 9)]);
    // CPU 1 is free again, and 2 is not.
    host.client(2, Some("0-15"));
    assert!(granted(&host.ask(2, 2, Ask::Get(1))));
    assert_eq!(host.ask(2, 3, Ask::Get(2)), Kept::Refused(Why::Busy { id: 2, holder: 1 }));

    // Where somebody is in the way, it stays where it was.
    let mut host = Written::new(desk());
    host.client(1, Some("1,2,8,9"));
    host.client(2, Some("0-15"));
    assert!(granted(&host.ask(1, 2, Ask::Get(1))) && granted(&host.ask(2, 2, Ask::Get(2))));
    assert_eq!(cpu_of(&host.ask(1, 3, Ask::Get(3))), Some(9));
    assert_eq!(lcores(&host.desk, 1), [at(1, 1), at(3, 9)]);
}

#[test]
fn a_cpuset_that_cannot_be_read_makes_ids_physical_and_that_is_shown() {
    let mut host = Written::new(desk());
    host.client(1, None);
    assert_eq!(cpu_of(&host.ask(1, 2, Ask::Get(3))), Some(3));
    assert_eq!(host.desk.clients()[&1].mapping, Some(Mapping::PhysicalAssumed));
}

#[test]
fn reserved_cpus_are_given_to_nobody_and_taken_from_nobody() {
    let mut host = Written::new(desk());
    host.client(1, Some("0-15"));
    host.open(2, Protocol::Native, Some("0-15"));
    assert!(granted(&host.ask(1, 2, Ask::Get(3))));
    let reserve: CpuSet = "2-3".parse().unwrap();
    let lcores = LcoresSpec { reserve, ..LcoresSpec::default() };
    host.desk.set_policy(Policy { lcores, ..Policy::default() });
    assert_eq!(host.ask(1, 3, Ask::Get(2)), Kept::Refused(Why::Reserved { cpu: 2 }));
    let wish = Wish { count: 13, near: None, whole_cores: false };
    let all = host.ask(2, 1, Ask::Choose(wish.clone()));
    assert!(granted(&host.ask(2, 2, Ask::Choose(Wish { count: 1, ..wish.clone() }))), "{all:?}");
    assert_eq!(
        host.ask(2, 3, Ask::Choose(wish)),
        Kept::Refused(Why::TooFew { wanted: 13, available: 0 })
    );
    assert_eq!(host.ask(1, 4, Ask::Put(3)), Kept::Done);
    assert_eq!(host.ask(1, 5, Ask::Get(3)), Kept::Refused(Why::Reserved { cpu: 3 }));
}

#[test]
fn b_02_a_stranger_gets_an_error_whatever_it_claims() {
    let mut host = Written::new(desk());
    let clients = People { users: [5].into(), groups: [44].into() };
    let access = AccessSpec { clients: Some(clients), administrators: None };
    host.client(1, Some("0-15"));
    assert!(granted(&host.ask(1, 2, Ask::Get(1))));
    host.desk.set_policy(Policy { access, ..Policy::default() });
    let stranger = Kept::Refused(Why::Stranger { uid: 1 });
    let root = Claim { uid: 0, ..claim() };
    host.open(2, Protocol::Imtl, Some("0-15"));
    let register = Ask::Register { claim: root, refused: None };
    assert_eq!(host.ask(2, 1, register.clone()), stranger);
    assert_eq!(host.ask(2, 2, Ask::Get(2)), stranger);
    host.open(3, Protocol::Native, Some("0-15"));
    let wish = Wish { count: 1, ..Wish::default() };
    assert_eq!(host.ask(3, 1, Ask::Choose(wish)), stranger);
    // One who became a stranger keeps what he has, gets no more, and may give it back.
    assert_eq!(host.ask(1, 3, Ask::Get(2)), stranger);
    assert_eq!(host.ask(1, 4, Ask::Put(1)), Kept::Done);
    for (connection, uid) in [(4, 0), (5, 5)] {
        host.open_as(connection, Protocol::Imtl, Some("0-15"), uid);
        assert_eq!(host.ask(connection, 1, register.clone()), Kept::Done, "{uid}");
    }
}

#[test]
fn nothing_is_had_before_register_and_a_missing_interface_refuses_it() {
    let mut host = Written::new(desk());
    host.open(1, Protocol::Imtl, Some("0-15"));
    for (sequence, ask) in [(1, Ask::Get(1)), (2, Ask::Put(1)), (3, Ask::Map { index: 1 })] {
        assert_eq!(host.ask(1, sequence, ask), Kept::Refused(Why::NotRegistered));
    }
    let missing = Ask::Register { claim: claim(), refused: Some(Why::NoInterface { index: 9 }) };
    assert_eq!(host.ask(1, 4, missing), Kept::Refused(Why::NoInterface { index: 9 }));
    assert_eq!(host.ask(1, 5, Ask::Get(1)), Kept::Refused(Why::NotRegistered));
    assert_eq!(host.ask(1, 6, Ask::Register { claim: claim(), refused: None }), Kept::Done);
    let not_claimed = Kept::Refused(Why::NotClaimed { index: 1 });
    assert_eq!(host.ask(1, 7, Ask::Map { index: 1 }), not_claimed);
    assert!(granted(&host.ask(1, 8, Ask::Get(1))));
}

#[test]
fn an_id_that_is_named_often_is_given_back_once() {
    let mut written = Written::new(desk());
    written.client(1, None);
    assert!(granted(&written.ask(1, 2, Ask::Get(5))));
    let often = Ask::GiveBack(Some(vec![5; 10_000]));
    let record = written.desk.decide(1, 3, &often).record.unwrap();
    assert_eq!(record.change, Change::Returned(vec![5]));
    assert!(journal::encode(&record).len() <= journal::RELEASE_BYTES);
    assert_eq!(written.ask(1, 3, often), Kept::Done);
    assert_eq!(written.desk.held(), 0);
}

#[test]
fn what_is_written_of_a_client_that_never_connected_makes_none() {
    let mut back = desk();
    for change in [
        Change::Returned(Vec::new()),
        Change::Cleared,
        Change::Answered,
        Change::Registered(claim()),
        Change::Leased {
            leases: vec![Lease { id: 3, cpu: None, idle: false }],
            mapping: None,
            moved: Vec::new(),
        },
    ] {
        back.apply(&Record { connection: 1, sequence: 1, change, refused: None });
        assert_eq!((back.clients().len(), back.held()), (0, 0));
    }
    // Who it is, the socket tells, whatever a journal says.
    let mut host = Written::new(back);
    host.open_as(1, Protocol::Imtl, None, 0);
    let before = Peer { started: Some(5), command: Some("before".into()), ..peer(0) };
    host.desk.arrive(1, Protocol::Imtl, before);
    let now = Peer { groups: vec![44], started: Some(6), command: None, ..peer(5) };
    host.desk.arrive(1, Protocol::Native, now.clone());
    let client = &host.desk.clients()[&1];
    assert_eq!(client.protocol, Protocol::Native);
    let told = Peer { started: Some(5), command: Some("before".into()), ..now };
    assert_eq!(client.peer, told, "but what a daemon saw first of its process stays");
}

#[test]
fn to_give_back_nothing_is_done_and_takes_no_space() {
    let mut host = Written::new(desk());
    host.open(1, Protocol::Native, Some("0-15"));
    let written = host.records.len();
    for (sequence, ids) in [(1, None), (2, Some(Vec::new()))] {
        assert_eq!(host.ask(1, sequence, Ask::GiveBack(ids)), Kept::Done);
    }
    assert_eq!(host.records.len(), written);
    // It comes again behind one that is written down: it was done, and does nothing now.
    let wish = Ask::Choose(Wish { count: 1, near: None, whole_cores: false });
    assert!(granted(&host.ask(1, 3, wish)));
    assert_eq!(host.ask(1, 1, Ask::GiveBack(None)), Kept::Done);
    assert_eq!(host.ask(1, 2, Ask::Get(3)), Kept::Refused(Why::Lost));
    assert_eq!(host.desk.held(), 1);
}

#[test]
fn groups_are_not_written_down() {
    let mut host = Written::new(desk());
    let many = Peer { groups: (0..65_536).collect(), ..peer(5) };
    let opened = host.desk.open(1, Protocol::Imtl, many.clone(), 7).unwrap();
    assert!(journal::encode(&opened).len() < 200, "{}", journal::encode(&opened).len());
    host.write(opened);
    host.desk.arrive(1, Protocol::Imtl, many);
    assert_eq!(host.desk.clients()[&1].groups().len(), 65_537);
    let whole = &host.desk.snapshot()[0];
    assert!(journal::encode(whole).len() < 200, "{}", journal::encode(whole).len());
    // A daemon that did write them down is understood.
    let bytes = r#"{"pid":3,"uid":5,"gid":6,"groups":[7,8]}"#;
    let read: Peer = serde_json::from_str(bytes).unwrap();
    assert_eq!(read, Peer { pid: Some(3), uid: 5, gid: 6, ..Peer::default() });
}

#[test]
fn processes_are_looked_at_only_for_those_who_may_have_something() {
    let people = People { users: vec![4].into_iter().collect(), ..People::default() };
    let access = AccessSpec { clients: Some(people), ..AccessSpec::default() };
    let mut written = Written::new(Desk::new(Policy { access, ..Policy::default() }, topology()));
    for (connection, uid) in [(1, 4), (2, 5)] {
        let opened = written.desk.open(connection, Protocol::Imtl, peer(uid), 7).unwrap();
        written.write(opened);
    }
    let needs = |written: &Written, connection, sequence, id| {
        written.desk.needs_cpuset(connection, sequence, &Ask::Get(id))
    };
    assert!(!needs(&written, 1, 1, 3), "it has not registered");
    for connection in [1, 2] {
        let register = Ask::Register { claim: claim(), refused: None };
        written.ask(connection, 1, register);
    }
    assert!(needs(&written, 1, 2, 3) && !needs(&written, 2, 2, 3), "2 is a stranger");
    assert!(!needs(&written, 1, 2, u32::MAX), "there is no such lcore");
    assert!(!needs(&written, 1, 1, 3), "it is answered already");
    assert!(!needs(&written, 9, 1, 3), "there is no such client");
    let looks = |connection, sequence| written.desk.needs_interfaces(connection, sequence);
    assert!(looks(1, 2) && !looks(1, 1), "the first is answered");
    assert!(!looks(2, 2) && !looks(9, 1), "no stranger's interfaces are looked for");
}

#[test]
fn an_administrator_takes_all_of_it_back_and_the_client_stays() {
    let mut host = Written::new(desk());
    host.client(1, Some("0-15"));
    assert!(granted(&host.ask(1, 2, Ask::Get(1))) && granted(&host.ask(1, 3, Ask::Get(900))));
    let clear = host.desk.clear(1).unwrap();
    host.write(clear);
    assert_eq!(host.desk.held(), 0);
    assert_eq!(host.ask(1, 4, Ask::Put(1)), Kept::Refused(Why::NotHeld { id: 1 }));
    assert!(granted(&host.ask(1, 5, Ask::Get(1))));
    assert_eq!(host.desk.clear(2), None);
}

#[test]
fn a_cpu_that_goes_away_or_a_cpuset_that_changes_takes_nothing_from_anybody() {
    let mut host = Written::new(desk());
    host.client(1, Some("4-7"));
    assert_eq!(cpu_of(&host.ask(1, 2, Ask::Get(1))), Some(5));
    let mut smaller = topology();
    smaller.cpus[5].online = false;
    host.desk.set_topology(smaller.clone());
    smaller.cpus.truncate(4);
    host.desk.set_topology(smaller);
    // Its ids mean what they meant when it started: DPDK does not number them anew.
    assert_eq!(host.desk.clients()[&1].leases[&1].cpu, Some(5));
    host.client(2, Some("0-3"));
    assert_eq!(host.ask(1, 3, Ask::Put(1)), Kept::Done);
    assert_eq!(cpu_of(&host.ask(1, 4, Ask::Get(1))), None, "there is no such CPU now");
}

#[test]
fn a_cpu_that_comes_under_a_token_is_the_tokens() {
    let mut host = Written::new(desk());
    for client in [1, 2] {
        host.client(client, None);
    }
    assert_eq!(cpu_of(&host.ask(1, 2, Ask::Get(16))), None);
    let mut larger = topology();
    larger.cpus.push(Cpu { id: 16, ..larger.cpus[0].clone() });
    host.desk.set_topology(larger);
    let busy = |id| Kept::Refused(Why::Busy { id, holder: 1 });
    assert_eq!(host.ask(2, 2, Ask::Get(16)), busy(16));
    // Whatever it is called by others: a place in a cpuset, or any CPU that is free.
    host.client(3, Some("12-16"));
    assert_eq!(cpu_of(&host.ask(3, 2, Ask::Get(0))), Some(12), "it is re-mapped");
    assert_eq!(host.ask(3, 3, Ask::Get(4)), Kept::Refused(Why::Busy { id: 4, holder: 1 }));
    host.open(4, Protocol::Native, Some("16"));
    let wish = Ask::Choose(Wish { count: 1, near: None, whole_cores: false });
    assert!(matches!(host.ask(4, 1, wish.clone()), Kept::Refused(Why::TooFew { .. })));
    assert_eq!(host.ask(1, 90, Ask::Put(16)), Kept::Done);
    assert_eq!(cpu_of(&host.ask(3, 4, Ask::Get(4))), Some(16), "it is free");
    assert_eq!(host.ask(3, 5, Ask::Put(4)), Kept::Done);
    assert!(granted(&host.ask(4, 2, wish)));
    // And the other way round.
    assert!(granted(&host.ask(1, 91, Ask::Get(3))));
    let mut smaller = topology();
    smaller.cpus.truncate(2);
    host.desk.set_topology(smaller);
    assert_eq!(host.ask(2, 3, Ask::Get(3)), busy(3));
}

/// Scripts read the original's log: a prefix with what a client says of itself, and a few texts.
#[test]
fn what_happens_is_told_as_the_original_tells_it_too() {
    let mut host = Written::new(desk());
    host.open(1, Protocol::Imtl, Some("0-15"));
    let claim = Claim { hostname: "a:b]c".into(), pid: 7, uid: 0, interfaces: vec![1] };
    let mut lines = Vec::new();
    let mut ask = |host: &mut Written, sequence, ask: Ask| {
        let record = host.desk.decide(1, sequence, &ask).record.unwrap();
        lines.extend(host.desk.tell(&record).original);
        host.write(record);
    };
    ask(&mut host, 1, Ask::Register { claim, refused: None });
    ask(&mut host, 2, Ask::Get(3));
    ask(&mut host, 3, Ask::Get(4));
    ask(&mut host, 4, Ask::Put(3));
    lines.extend(host.desk.tell(&host.desk.close(1).unwrap()).original);
    let texts = [
        "Registered, uid 0, 1 interfaces",
        "Added lcore 3",
        "Added lcore 4",
        "Removed lcore 3",
        "Removed lcore 4",
        "Remove client.",
    ];
    let expected: Vec<_> = texts.iter().map(|text| format!("[Instance a_b_c:7] {text}")).collect();
    assert_eq!(lines, expected);
    // Who has not registered is nobody there.
    host.open(2, Protocol::Native, Some("0-15"));
    let wish = Ask::Choose(Wish { count: 1, near: None, whole_cores: false });
    let record = host.desk.decide(2, 1, &wish).record.unwrap();
    let told = host.desk.tell(&record);
    assert_eq!((told.log.len(), told.original.len()), (1, 0));
}
