//! What is asked, byte by byte, and what becomes of answers of every kind.

use crate::fake::{Fake, RECORD, Says, nowhere, record};
use pointsman_xsk::manager::{Manager, ManagerError, Reason};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(200);

fn be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// What a registered client's `ask` gets, where the manager says `says`.
fn after_register<T>(
    says: Says,
    ask: impl FnOnce(&mut Manager) -> Result<T, ManagerError>,
) -> Result<T, ManagerError> {
    let fake = Fake::saying(vec![Says::Record(201, 0), says]);
    let mut manager = Manager::connect_with(&fake.socket(), SHORT).unwrap();
    manager.register(&[7]).unwrap();
    let answer = ask(&mut manager);
    drop(manager);
    fake.heard();
    answer
}

#[test]
fn every_request_is_a_record_as_the_tables_say() {
    let done = Says::Record(201, 0);
    let script = vec![
        Says::Record(204, 1),
        done.clone(),
        Says::Record(202, 3),
        Says::Record(203, 9),
        done.clone(),
        done.clone(),
        done.clone(),
        done,
    ];
    let fake = Fake::saying(script);
    let mut manager = Manager::connect(&fake.socket()).unwrap();
    manager.heartbeat().unwrap();
    manager.register(&[7, 8]).unwrap();
    assert_eq!(manager.take_queue(7).unwrap(), 3);
    assert_eq!(manager.steer(7, 20_000, 3).unwrap(), 9);
    manager.add_port(7, 20_000).unwrap();
    manager.delete_port(7, 20_000).unwrap();
    manager.unsteer(7, 9).unwrap();
    manager.give_queue(7, 3).unwrap();
    drop(manager);

    let heard = fake.heard();
    let kinds: Vec<u32> = heard.iter().map(|request| be(request, 4)).collect();
    assert_eq!(kinds, [102, 101, 108, 110, 105, 106, 111, 109]);
    assert!(heard.iter().all(|request| &request[..4] == b"IMTL" && request.len() == RECORD));
    let [beat, register, queue, flow, add, delete, unsteer, put] = &heard[..] else { panic!() };
    assert_eq!(be(beat, 12), 1);
    // The length of REGISTER in network order: dialect 1.1.
    assert_eq!(be(register, 8), 106);
    assert_eq!(be(register, 12), std::process::id());
    assert_eq!((half(register, 84), be(register, 86), be(register, 90)), (2, 7, 8));
    assert!(register[20] != 0 && register[83] == 0, "a hostname that ends");
    assert_eq!(be(queue, 12), 7);
    assert_eq!((be(flow, 12), half(flow, 16), be(flow, 22)), (7, 3, 2));
    // Addresses would mean another host to a manager of 1.0.
    assert_eq!((be(flow, 26), be(flow, 30), half(flow, 34), half(flow, 36)), (0, 0, 0, 20_000));
    for port in [add, delete] {
        assert_eq!((be(port, 8), be(port, 12), half(port, 16)), (6, 7, 20_000));
    }
    assert_eq!((be(unsteer, 12), be(unsteer, 18)), (7, 9));
    assert_eq!((be(put, 12), half(put, 16)), (7, 3));
}

#[test]
fn refusals_say_what_was_asked_for_and_why() {
    let refusal = |code| {
        let answer = after_register(Says::Record(201, code), |m| m.add_port(7, 20_000));
        answer.unwrap_err().to_string()
    };
    let told = "the manager refuses UDP port 20000 of interface 7: ";
    assert_eq!(refusal(-16), format!("{told}somebody else has it"));
    assert!(refusal(-1).starts_with(told) && refusal(-1).contains("gives no reasons"));
    assert!(refusal(-12).ends_with("-12, Cannot allocate memory (os error 12)"));

    let queue = after_register(Says::Record(202, -28), |m| m.take_queue(7)).unwrap_err();
    assert!(matches!(queue, ManagerError::Refused { reason: Reason::Exhausted, .. }), "{queue}");
    let rule = after_register(Says::Record(203, -95), |m| m.steer(7, 1, 2)).unwrap_err();
    assert!(matches!(rule, ManagerError::Refused { reason: Reason::Unsupported, .. }), "{rule}");
    // A number that the wire cannot say is not cut down to another queue's.
    let far = after_register(Says::Nothing, |m| m.give_queue(7, 65_537)).unwrap_err();
    assert!(matches!(far, ManagerError::Refused { reason: Reason::Invalid, .. }), "{far}");

    let fake = Fake::saying(vec![Says::Record(201, -19)]);
    let mut manager = Manager::connect(&fake.socket()).unwrap();
    let nine = manager.register(&[1; 9]).unwrap_err().to_string();
    assert_eq!(nine, "9 interfaces: a manager takes at most 8 from one client");
    let gone = manager.register(&[99]).unwrap_err().to_string();
    assert_eq!(
        gone,
        "the manager refuses registering with interfaces [99]: there is no such interface in this \
         network namespace"
    );
}

#[test]
fn what_is_no_map_is_told_in_either_dialect() {
    // 1.0 has a descriptor of something else, 1.1 another byte and nothing beside it.
    for says in [Says::WithNull(b" ".to_vec()), Says::Bytes(b"E".to_vec())] {
        let error = after_register(says, |m| m.map(7)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the manager refuses the XSKMAP of interface 7: it has none for this client"
        );
    }
    for says in [Says::Bytes(b" ".to_vec()), Says::WithNull(b"E".to_vec()), Says::Record(201, -1)] {
        let error = after_register(says.clone(), |m| m.map(7)).unwrap_err();
        assert!(matches!(error, ManagerError::Odd { .. }), "{says:?}: {error}");
    }
    // It takes no more than its byte from the stream.
    let script = vec![Says::Record(201, 0), Says::WithNull(b" ".to_vec()), Says::Record(201, -16)];
    let fake = Fake::saying(script);
    let mut manager = Manager::connect(&fake.socket()).unwrap();
    manager.register(&[7]).unwrap();
    manager.map(7).unwrap_err();
    let next = manager.add_port(7, 1).unwrap_err();
    assert!(matches!(next, ManagerError::Refused { reason: Reason::Busy, .. }), "{next}");
}

#[test]
fn silence_ends_and_what_comes_too_late_is_not_taken_for_another_answer() {
    let fake = Fake::saying(vec![Says::Nothing, Says::Record(201, 0)]);
    let mut manager = Manager::connect_with(&fake.socket(), SHORT).unwrap();
    let before = Instant::now();
    let silent = manager.register(&[7]).unwrap_err();
    assert!(before.elapsed() >= SHORT, "it waits as long as it was told to");
    assert!(silent.to_string().starts_with("the manager does not answer within 200ms"));
    let after = manager.register(&[7]).unwrap_err();
    assert!(matches!(after, ManagerError::Lost { .. }), "{after}");
}

#[test]
fn a_heartbeat_that_nobody_answers_loses_nothing() {
    // As a manager of 1.0 does; and one that is late.
    let late = [record(204, 1), record(204, 2), record(201, 0)].concat();
    let fake = Fake::saying(vec![Says::Nothing, Says::Nothing, Says::Bytes(late)]);
    let mut manager = Manager::connect_with(&fake.socket(), SHORT).unwrap();
    for _ in 0..2 {
        let silent = manager.heartbeat().unwrap_err();
        assert!(matches!(silent, ManagerError::Silent { .. }), "{silent}");
    }
    manager.register(&[7]).unwrap();
    // A late one is not taken for that of a later heartbeat.
    let late = [record(204, 1), record(204, 2)].concat();
    let fake = Fake::saying(vec![Says::Nothing, Says::Bytes(late)]);
    let mut manager = Manager::connect_with(&fake.socket(), SHORT).unwrap();
    manager.heartbeat().unwrap_err();
    manager.heartbeat().unwrap();
}

#[test]
fn answers_that_are_none_and_ends_are_told() {
    let odd: [Says; 5] = [
        Says::Record(202, 1),
        Says::Record(201, 7),
        Says::Record(101, 0),
        Says::Bytes(b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
        Says::Bytes(record(201, 0)[..50].to_vec()),
    ];
    for says in odd {
        let error = after_register(says.clone(), |m| m.add_port(7, 1)).unwrap_err();
        assert!(matches!(error, ManagerError::Odd { .. }), "{says:?}: {error}");
        assert!(error.to_string().contains("UDP port 1 of interface 7"), "{error}");
    }
    let mut magic = record(201, 0);
    magic[2] = b'X';
    let error = after_register(Says::Bytes(magic), |m| m.add_port(7, 1)).unwrap_err();
    assert!(error.to_string().contains("magic at offset 0"), "{error}");
    let ended = after_register(Says::End, |m| m.map(7)).unwrap_err();
    assert_eq!(ended.to_string(), "the manager ended the connection: the XSKMAP of interface 7");
}

#[test]
fn a_manager_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = nowhere(directory.path());
    let error = Manager::connect(&socket).unwrap_err().to_string();
    assert!(error.contains(socket.to_str().unwrap()), "{error}");
    assert!(error.ends_with("does pointsman-node or MtlManager run?"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = Manager::connect(&socket).unwrap_err().to_string();
    assert!(error.ends_with("it ended without removing its socket"), "{error}");
    let long = directory.path().join("x".repeat(200));
    assert!(matches!(Manager::connect(&long), Err(ManagerError::Connect { .. })));
}
