//! What is wrong with the original manager's side of the protocol, and is not with this one.
//!
//! The ids are those of `docs/imtl.md`.

use crate::common::{DIALECTS, answer, raw, record, register, session};
use pointsman_imtl::layout::RECORD_BYTES;
use pointsman_imtl::{
    Answer, DEFAULT_IN_FLIGHT, Descriptor, Dialect, Event, Frame, Location, Reader, Refusal, Reply,
    Request, RequestKind, Session,
};

#[test]
fn the_originals_defects_are_not_here() {
    let defects: [(&str, fn()); 10] = [
        ("B-05: replies show the manager's stack", b_05),
        ("B-06: the number of interfaces is not bounded", b_06),
        ("B-08: nothing answers a failed IF_XSK_MAP_FD", b_08),
        ("B-18: records that are split or joined are lost", b_18),
        ("B-19: failed operations answer in the wrong type", b_19),
        ("B-20: what cannot be served is not answered", b_20),
        ("B-21: a client that does not read holds up all", b_21),
        ("B-24: names break the log's lines", b_24),
        ("B-26: location 0 is given to clients and forgotten", b_26),
        ("B-31: heartbeats are not answered", b_31),
    ];
    for (defect, test) in defects {
        println!("{defect}");
        test();
    }
}

fn refused(session: &mut Session<()>, bytes: [u8; RECORD_BYTES]) -> Option<Frame> {
    if let Ok(Event::Asked(intent)) = session.take(&record(bytes)) {
        session.answer(intent.number, Answer::Refused(Refusal::Unsupported)).unwrap();
    }
    let (_, frame) = session.reply()?;
    session.sent();
    Some(frame)
}

fn b_05() {
    for reply in [Reply::Response(-1), Reply::QueueId(7), Reply::FlowId(1), Reply::HeartbeatAck(9)]
    {
        let frame = reply.encode();
        let (meant, rest) = frame.data().split_at(16);
        assert_eq!((meant.len() + rest.len(), rest.iter().any(|byte| *byte != 0)), (118, false));
    }
    for dialect in DIALECTS {
        let request = Request::GetLcore { lcore: u16::MAX }.encode(dialect);
        assert!(request.as_bytes()[14..].iter().all(|byte| *byte == 0));
    }
}

fn b_06() {
    for (count, answered) in [(9, -22), (u16::MAX, -22)] {
        let mut bytes = register(Dialect::V1_1);
        bytes[84..86].copy_from_slice(&count.to_be_bytes());
        let frame = refused(&mut session(), bytes);
        assert_eq!(frame.unwrap().data(), answer(201, answered));
    }
    // What lies behind the last interface that counts is not one.
    let mut bytes = register(Dialect::V1_0);
    bytes[84..118].fill(0xa5);
    bytes[84..90].copy_from_slice(&[0, 1, 0, 0, 0, 3]);
    let Ok(Request::Register(registration)) = Request::decode(&record(bytes)) else {
        panic!("one interface is few enough")
    };
    assert_eq!(registration.interfaces[..], [3]);
}

fn b_08() {
    let harmless = Frame::Byte { byte: [b' '], descriptor: Some(Descriptor::Harmless) };
    let nothing = Frame::Byte { byte: [b'E'], descriptor: None };
    let asked = raw(107, [0, 0, 0, 26], &[0, 0, 0, 5]);
    assert_eq!(refused(&mut session(), asked), Some(harmless), "before REGISTER");
    for (dialect, frame) in [(Dialect::V1_0, harmless), (Dialect::V1_1, nothing)] {
        let mut session = session();
        refused(&mut session, register(dialect));
        assert_eq!(refused(&mut session, asked), Some(frame), "{dialect}");
    }
}

fn b_18() {
    let stream = [register(Dialect::V1_0), raw(103, [0, 0, 0, 2], &[0, 1])].concat();
    for length in 1..=stream.len() {
        let (mut session, mut reader) = (session(), Reader::new());
        let mut kinds = Vec::new();
        for mut input in stream.chunks(length) {
            while let Some(Event::Asked(intent)) = session.read(&mut reader, &mut input) {
                kinds.push(intent.request.kind());
            }
        }
        assert_eq!(kinds, [RequestKind::Register, RequestKind::GetLcore], "pieces of {length}");
    }
}

fn b_19() {
    for (number, answered) in
        [(105, 201), (106, 201), (108, 202), (109, 201), (110, 203), (111, 201)]
    {
        let frame = refused(&mut session(), raw(number, [0; 4], &[]));
        assert_eq!(frame.unwrap().data(), answer(answered, -1), "{number}");
    }
}

fn b_20() {
    for (number, code) in [(0, -1), (100, -1), (112, -1), (200, -1), (u32::MAX, -1)] {
        let frame = refused(&mut session(), raw(number, [0; 4], &[]));
        assert_eq!(frame.unwrap().data(), answer(201, code), "{number}");
    }
    for number in [103, 104] {
        let frame = refused(&mut session(), raw(number, [0, 0, 0, 2], &[0, 1]));
        assert_eq!(frame.unwrap().data(), answer(201, -1), "before REGISTER: {number}");
    }
    // After a wrong magic nothing can be answered, and nobody waits: the connection ends.
    let (mut session, mut reader) = (session(), Reader::new());
    let event = session.read(&mut reader, &mut &b"LTMI"[..]);
    assert!(matches!(event, Some(Event::Closing(_))) && session.is_finished());
}

fn b_21() {
    let (mut session, mut reader) = (session(), Reader::new());
    let flood = raw(103, [0, 0, 0, 2], &[0, 1]).repeat(349);
    let mut input = &flood[..];
    while let Some(Event::Asked(intent)) = session.read(&mut reader, &mut input) {
        session.answer(intent.number, Answer::Done).unwrap();
    }
    let limit = usize::from(DEFAULT_IN_FLIGHT.get());
    assert_eq!((session.in_flight(), input.len()), (limit, flood.len() - limit * RECORD_BYTES));
}

fn b_24() {
    let mut bytes = register(Dialect::V1_0);
    bytes[20..84].fill(0);
    bytes[20..40].copy_from_slice(b"a\n[ERROR] b\r\x1b[2Jc\x00d\xff");
    let Ok(Request::Register(registration)) = Request::decode(&record(bytes)) else {
        panic!("any name is a name")
    };
    assert_eq!(registration.hostname.to_string(), r"a\n[ERROR] b\r\x1b[2Jc");
}

fn b_26() {
    assert!(Location::try_from(0).is_err());
}

fn b_31() {
    let mut session = session();
    let Ok(Event::Asked(intent)) = session.take(&record(raw(102, [0, 0, 0, 4], &[0xff, 0, 0, 1])))
    else {
        panic!("a heartbeat needs no REGISTER")
    };
    session.answer(intent.number, Answer::Done).unwrap();
    let expected = raw(204, [0, 0, 0, 4], &[0xff, 0, 0, 1]);
    assert_eq!(session.reply().unwrap().1.data(), expected);
}
