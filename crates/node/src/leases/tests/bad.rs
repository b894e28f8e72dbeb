//! Hosts and clients that do not behave.

use super::*;
use crate::leases::{Asker, Message};
use crate::state::InForce;
use pointsman_model::api::ProblemKind;
use pointsman_model::lease::{Liveness, Mapping};
use serde_json::{Value, json};

#[test]
fn a_cpu_that_is_unplugged_stays_with_its_owner_and_is_shown() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!((desk.get(1, 3), desk.get(1, 4)), (0, 0));
    host.write("sys/devices/system/cpu/online", "0-2,4-15");
    let lcores = desk.lcores();
    assert!(lcores.topology.cpu(3).is_some_and(|cpu| !cpu.online));
    assert_eq!(lcores.held[0].lcore.notes, ["the CPU is offline"]);
    assert_eq!(lcores.held[1].lcore.notes, Vec::<String>::new());
    host.write("sys/devices/system/cpu/present", "0-2");
    assert_eq!(desk.lcores().held[0].lcore.notes, ["the CPU is gone"]);
    host.write("sys/devices/system/cpu/present", "rubbish");
    assert_eq!(desk.lcores().topology.cpus.len(), 3, "what is known stays");
    assert_eq!((desk.put(1, 3), desk.held()), (0, 1));
}

#[test]
fn a_cpu_that_is_plugged_in_is_one_for_whoever_asks_next() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!(desk.get(1, 3), 0);
    for name in ["present", "online"] {
        host.write(&format!("sys/devices/system/cpu/{name}"), "0-16");
    }
    // A second later, though nobody has looked at the machine.
    desk.counter.cpus_looked = None;
    assert_eq!(desk.get(1, 16), 0);
    assert_eq!(desk.instance(1).lcores[1].cpu, Some(16));
}

#[test]
fn a_cpuset_that_changes_under_a_client_changes_no_lease() {
    let host = Host::new();
    let mut desk = host.open("e");
    host.cpuset("4-7");
    desk.client(1);
    assert_eq!(desk.get(1, 0), 0);
    host.cpuset("6-9");
    // DPDK does not number its lcores anew.
    assert_eq!(desk.get(1, 1), 0);
    let instance = desk.instance(1);
    let cpus: Vec<_> = instance.lcores.iter().map(|lcore| (lcore.id, lcore.cpu)).collect();
    assert_eq!(cpus, [(0, Some(4)), (1, Some(5))]);
    assert_eq!(instance.mapping, Some(Mapping::Remapped));
    assert_eq!(instance.cpuset_now.map(|cpus| cpus.to_string()).as_deref(), Some("6-9"));
    assert_eq!(instance.lcores[0].notes, ["outside the cpuset that its process has now"]);
}

#[test]
fn a_client_that_cannot_be_looked_into_gets_physical_ids_and_that_is_shown() {
    let host = Host::new();
    fs::remove_dir_all(host.path("proc")).unwrap();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!(desk.get(1, 3), 0);
    let instance = desk.instance(1);
    assert_eq!(instance.mapping, Some(Mapping::PhysicalAssumed));
    assert!(instance.lcores[0].notes[0].contains("cannot be read"), "{instance:?}");
    assert_eq!((instance.peer.command, instance.liveness), (None, Liveness::Gone));
}

#[test]
fn a_process_that_is_stopped_is_stuck() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    for (state, liveness) in
        [("S", Liveness::Alive), ("T", Liveness::Stuck), ("D", Liveness::Stuck)]
    {
        host.process(state);
        assert_eq!(desk.instance(1).liveness, liveness);
    }
}

#[test]
fn register_names_interfaces_that_are_there() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    // 1 is lo, in every network namespace.
    for (interfaces, code) in [(vec![1, 0x7fff_ffff], -19), (vec![0], -19), (vec![1], 0)] {
        let count = u16::try_from(interfaces.len()).unwrap();
        let asked = register(&[0, 0, 0, 106], count, &interfaces);
        assert_eq!(desk.ask(1, asked), reply(201, code), "{interfaces:?}");
    }
    assert_eq!(desk.instance(1).claimed.unwrap().interfaces, [1]);
}

#[test]
fn an_interface_that_cannot_be_served_is_refused_and_not_held() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    *host.no_chains.borrow_mut() = Some("a program that is not ours is attached".into());
    assert_eq!(desk.ask(1, register(&[0, 0, 0, 106], 1, &[1])), reply(201, -5));
    assert_eq!(desk.instance(1).claimed, None);
    assert!(desk.counter.demands().unwrap().is_empty(), "it is not wanted any more");
    *host.no_chains.borrow_mut() = None;
    desk.settle();
    assert_eq!(desk.ask(1, register(&[0, 0, 0, 106], 1, &[1])), reply(201, 0));
    assert_eq!(desk.counter.demands().unwrap().len(), 1);
    desk.end(1);
    assert!(desk.counter.demands().unwrap().is_empty());
}

#[test]
fn what_comes_behind_a_register_that_waits_is_done_after_it() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    let mut ask = |sequence: u64, bytes: Vec<u8>| {
        let descriptors = Vec::new();
        desk.counter.keeper(FromKeeper::Request { connection: 1, sequence, bytes, descriptors });
        desk.counter.answers().len()
    };
    // All at once: the engine has not answered yet.
    assert_eq!(ask(1, register(&[0, 0, 0, 106], 1, &[1])), 0);
    assert_eq!(ask(2, record(103, &5_u16.to_be_bytes())), 0);
    assert_eq!(ask(3, record(105, &[0, 0, 0, 1, 0x4e, 0x20])), 0);
    assert_eq!(ask(4, record(102, &[0, 0, 0, 9])), 0);
    let mut answers = Vec::new();
    while answers.len() < 4 {
        desk.settle();
        answers.extend(desk.counter.answers());
    }
    let sequences: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            ToKeeper::Reply { sequence, bytes, .. } => (*sequence, code(&(bytes.clone(), 0))),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sequences, [(1, 0), (2, 0), (3, 0), (4, 9)]);
}

#[test]
fn ports_and_queues_outlive_the_daemon_and_end_with_the_client() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    assert_eq!(desk.ask(1, register(&[106, 0, 0, 0], 1, &[1])), reply(201, 0));
    for port in [0_u16, 65_535, 20_000] {
        let port = port.to_be_bytes();
        assert_eq!(desk.ask(1, record(105, &[0, 0, 0, 1, port[0], port[1]])), reply(201, 0));
    }
    // lo has one queue, which is the host's.
    assert_eq!(desk.ask(1, record(108, &[0, 0, 0, 1])), reply(202, -1));
    let mut next = host.open("e");
    let place = Place { namespace: None, index: 1 };
    assert_eq!(next.counter.desk.ports(&place).len(), 3);
    assert_eq!(next.counter.demands().unwrap().len(), 1, "before the first client is heard of");
    next.counter.keeper(FromKeeper::Replayed);
    assert_eq!(next.counter.desk.ports(&place).len(), 0, "it ended meanwhile");
    assert!(next.counter.demands().unwrap().is_empty());
}

fn native(desk: &mut Desk, connection: u64, request: &Value) -> Value {
    let (bytes, _) = desk.ask(connection, request.to_string().into_bytes());
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn cores_near_a_card_are_leased_by_connection() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Native);
    let three = json!({"lease": {"cpus": 3, "near": "eth0", "whole_cores": true}});
    let leased = native(&mut desk, 1, &three);
    let ids: Vec<_> = leased["leased"].as_array().unwrap().iter().map(|l| &l["cpu"]).collect();
    assert_eq!(ids, [8, 9, 10]);
    let known = native(&mut desk, 1, &json!({"lease": {"cpus": 1, "near": "eth9"}}));
    assert_eq!(known["refused"]["kind"], "bad_request");
    let many = native(&mut desk, 1, &json!({"lease": {"cpus": 14}}));
    assert_eq!(
        (&many["refused"]["kind"], &many["refused"]["available"]),
        (&json!("too_few"), &json!(13))
    );
    assert_eq!(native(&mut desk, 1, &json!({"return": {"ids": [9]}})), json!({"done": true}));
    assert_eq!(native(&mut desk, 1, &json!({"return": {"ids": [9]}}))["refused"]["id"], 9);
    let long = json!({"lease": {"cpus": 1, "near": "\u{1}".repeat(8000)}});
    assert_eq!(native(&mut desk, 1, &long)["refused"]["kind"], "bad_request");
    // What a client sends comes back short, and never breaks the answer.
    let long = format!(r#"{{"{}": 1}}"#, "\\n\\u001b".repeat(8000));
    let (bytes, _) = desk.ask(1, long.into_bytes());
    assert!(bytes.len() < 2000 && serde_json::from_slice::<Value>(&bytes).is_ok());
    // Both protocols share the machine.
    desk.client(2);
    assert_eq!((desk.get(2, 8), desk.get(2, 9)), (-16, 0));
    desk.end(1);
    assert_eq!(desk.get(2, 8), 0);
}

fn document(desk: &mut Desk, more: &Value) {
    let mut document = json!({"schema": "pointsman.node/v1", "node": "n", "generation": 1});
    let fields = more.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(fields);
    let text = Some(Ok(document.to_string().into_bytes()));
    desk.counter.message(Message::Document(InForce { text, drained: false }));
}

#[test]
fn a_document_reserves_cpus_and_says_who_may_have_the_others() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!(desk.get(1, 2), 0);
    document(&mut desk, &json!({"lcores": {"reserve": [2, 3]}}));
    assert_eq!((desk.get(1, 3), desk.get(1, 4)), (-16, 0));
    let lcores = desk.lcores();
    assert_eq!(lcores.reserved.to_string(), "2-3");
    assert_eq!(lcores.held[0].lcore.notes, ["reserved since"]);
}

/// The document may reserve anything, and name anybody: nobody guesses.
#[test]
fn nothing_is_given_away_under_a_document_that_is_not_understood() {
    for unclear in [Ok(b"{}".to_vec()), Err("documents/1234: I/O error".to_owned())] {
        let host = Host::new();
        let mut desk = host.open("e");
        desk.client(1);
        assert_eq!(desk.get(1, 2), 0);
        let is_document = unclear.is_ok();
        let text = Some(unclear);
        desk.counter.message(Message::Document(InForce { text, drained: false }));
        assert_eq!((desk.get(1, 3), desk.put(1, 3)), (-5, -22));
        desk.connect(2, Kind::Imtl);
        let hello = register(&[0, 0, 0, 106], 0, &[]);
        assert_eq!(desk.ask(2, hello.clone()), reply(201, -5));
        desk.connect(3, Kind::Native);
        let refused = native(&mut desk, 3, &json!({"lease": {"cpus": 1}}));
        assert_eq!(refused["refused"]["kind"], "document");
        let why = desk.lcores().refusing.unwrap();
        assert!(
            why.contains("document in force") && (is_document || why.contains("1234")),
            "{why}"
        );
        let (reply, answer) = tokio::sync::oneshot::channel();
        desk.counter.message(Message::Metrics(reply));
        let text = answer.blocking_recv().unwrap().unwrap();
        assert!(text.contains("\npointsman_document_unclear 1\n"), "{text}");
        let (reply, answer) = tokio::sync::oneshot::channel();
        let asker = Asker { uid: Some(5), groups: Vec::new() };
        desk.counter.message(Message::Clear(1, asker, reply));
        assert_eq!(answer.blocking_recv().unwrap().unwrap_err().kind, ProblemKind::Forbidden);
        // What is held ends as ever, and a document that is understood ends this.
        assert_eq!((desk.put(1, 2), desk.held()), (0, 0));
        document(&mut desk, &json!({"lcores": {"reserve": [3]}}));
        assert_eq!((desk.get(1, 3), desk.get(1, 4)), (-16, 0));
        assert_eq!(desk.lcores().refusing, None);
    }
}

#[test]
fn only_an_administrator_clears() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!(desk.get(1, 2), 0);
    let mut clear = |id, uid, groups: &[u32]| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let asker = Asker { uid, groups: groups.to_vec() };
        desk.counter.message(Message::Clear(id, asker, reply));
        answer.blocking_recv().unwrap()
    };
    assert_eq!(clear(9, Some(5), &[]).unwrap_err().kind, ProblemKind::NotFound);
    // As long as the document says nothing, whoever may open the socket may.
    assert_eq!(clear(1, Some(5), &[]).unwrap().lcores.len(), 1);
    document(&mut desk, &json!({"access": {"administrators": {"groups": [44]}}}));
    let mut clear = |uid, groups: &[u32]| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let asker = Asker { uid, groups: groups.to_vec() };
        desk.counter.message(Message::Clear(1, asker, reply));
        answer.blocking_recv().unwrap().map_err(|problem| problem.kind)
    };
    assert_eq!(clear(Some(5), &[7]), Err(ProblemKind::Forbidden));
    assert_eq!(clear(None, &[44]), Err(ProblemKind::Forbidden));
    assert!(clear(Some(5), &[7, 44]).is_ok() && clear(Some(0), &[]).is_ok());
}

#[test]
fn a_journal_that_cannot_be_written_refuses_grants_and_lets_leases_end() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!((desk.get(1, 1), desk.get(1, 2)), (0, 0));
    // Nothing can be written anew, and the file there is has become another's.
    fs::rename(host.path("run"), host.path("away")).unwrap();
    desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    let hello = register(&[0, 0, 0, 106], 0, &[]);
    assert_eq!(desk.ask(1, hello), reply(201, -5), "EIO in 1.1: it would not be kept");
    assert!(desk.lcores().refusing.is_some_and(|why| why.contains("leases.journal")));
    assert_eq!((desk.get(1, 5), desk.put(1, 5)), (-1, -1), "it has not registered");
    desk.connect(2, Kind::Native);
    let refused = native(&mut desk, 2, &json!({"lease": {"cpus": 1}}));
    assert_eq!(refused["refused"]["kind"], "journal");
    desk.end(1);
    fs::rename(host.path("away"), host.path("run")).unwrap();
    assert_eq!(desk.lcores().refusing, None, "as soon as somebody looks");
    assert_eq!(native(&mut desk, 2, &json!({"lease": {"cpus": 1}}))["leased"][0]["cpu"], 1);
}

#[test]
fn a_stream_that_is_lost_is_closed_once_and_not_read_on() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!(desk.get(1, 3), 0);
    assert_eq!(desk.send(1, vec![0xff; 118]), None);
    let asked = desk.instance(1).requests;
    for sequence in 4..100 {
        let bytes = if sequence % 2 == 0 { vec![0xff; 118] } else { record(103, &[0, 4]) };
        let descriptors = Vec::new();
        desk.counter.keeper(FromKeeper::Request { connection: 1, sequence, bytes, descriptors });
    }
    assert!(desk.counter.answers().is_empty(), "it is being closed already");
    assert_eq!((desk.instance(1).requests, desk.held()), (asked, 1));
    let (reply, answer) = tokio::sync::oneshot::channel();
    desk.counter.message(Message::Metrics(reply));
    let text = answer.blocking_recv().unwrap().unwrap();
    assert!(text.contains("requests_total{request=\"garbage\"} 1\n"), "{text}");
}

/// The listings are made while clients wait: no process is looked into for them.
#[test]
fn what_lists_all_clients_reads_no_cpuset() {
    let host = Host::new();
    let mut desk = host.open("e");
    host.cpuset("4-7");
    desk.client(1);
    assert_eq!(desk.get(1, 5), 0);
    host.cpuset("8-9");
    let all = crate::leases::view::instances(&desk.counter).instances;
    assert_eq!((&all[0].cpuset_now, all[0].lcores[0].notes.len()), (&None, 0));
    assert_eq!(desk.lcores().held[0].lcore.notes.len(), 0);
    let one = desk.instance(1);
    assert!(one.cpuset_now.is_some() && one.lcores[0].notes.len() == 1);
}

/// To close it takes until somebody says so.
struct Slow(mpsc::Receiver<()>);

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

/// What the last close of a client's descriptor does, it does elsewhere.
#[test]
fn descriptors_are_closed_elsewhere_and_end_their_connection() {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Native);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    desk.counter.closer.close(Slow(wait));
    let request = |sequence, descriptors| FromKeeper::Request {
        connection: 1,
        sequence,
        bytes: json!({"lease": {"cpus": 1}}).to_string().into_bytes(),
        descriptors,
    };
    desk.counter.keeper(request(1, vec![OwnedFd::from(theirs)]));
    let answers = desk.counter.answers();
    assert!(matches!(answers[..], [ToKeeper::Close { connection: 1 }]), "{answers:?}");
    desk.counter.keeper(request(2, Vec::new()));
    assert!(desk.counter.answers().is_empty() && desk.held() == 0);
    desk.end(1);
    ours.set_nonblocking(true).unwrap();
    let open = ours.read(&mut [0]).unwrap_err().kind();
    assert_eq!(open, std::io::ErrorKind::WouldBlock, "nobody has closed it yet");
    go.send(()).unwrap();
    ours.set_nonblocking(false).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "and now it is");
}
