//! Conversations: what is asked comes out once, what is answered leaves in its order, and nothing
//! depends on how fast either comes.

use crate::common::{answer, limit, location, raw, record, register, session, wire};
use pointsman_imtl::layout::RECORD_BYTES;
use pointsman_imtl::{
    Answer, AnswerError, DEFAULT_IN_FLIGHT, Descriptor, Dialect, Event, Frame, Intent, Learned,
    Location, NoRoom, Oddity, Position, Reader, Refusal, RequestError, RequestKind, Session,
    StreamError,
};
use std::num::NonZeroU16;

const QUEUE: NonZeroU16 = NonZeroU16::new(3).unwrap();
const UNKNOWN: Option<Dialect> = None;

fn taken(session: &mut Session<()>, bytes: [u8; RECORD_BYTES]) -> Intent {
    match session.take(&record(bytes)) {
        Ok(Event::Asked(intent)) => intent,
        other => panic!("{other:?}"),
    }
}

fn sent(session: &mut Session<()>) -> Option<Frame> {
    let (_, frame) = session.reply()?;
    session.sent();
    Some(frame)
}

fn registered(dialect: Dialect) -> Session<()> {
    let mut session = session();
    let number = taken(&mut session, register(dialect)).number;
    session.answer(number, Answer::Done).unwrap();
    assert_eq!(sent(&mut session).unwrap().data(), answer(201, 0));
    session
}

/// Type and number of the record, or the byte and its descriptor, by request, dialect and answer.
#[test]
fn every_request_has_its_answers_in_each_dialect() {
    const DIALECTS: [Option<Dialect>; 3] = [UNKNOWN, Some(Dialect::V1_0), Some(Dialect::V1_1)];
    let no = Answer::Refused(Refusal::Unsupported);
    let byte = |byte, descriptor| Some(Frame::Byte { byte: [byte], descriptor });
    let code = |number, code| Some(Frame::Record(record(answer(number, code))));
    for dialect in DIALECTS {
        let (refused, no_map) = match dialect {
            Some(Dialect::V1_1) => (-95, byte(b'E', None)),
            _ => (-1, byte(b' ', Some(Descriptor::Harmless))),
        };
        for kind in RequestKind::ALL {
            let (yes, expected, refusal) = match kind.number() {
                102 => (Answer::Done, code(204, 9), None),
                107 => (Answer::XskMap, byte(b' ', Some(Descriptor::XskMap)), no_map),
                108 => (Answer::Queue(QUEUE), code(202, 3), code(202, refused)),
                110 => (location(1023), code(203, 1023), code(203, refused)),
                _ => (Answer::Done, code(201, 0), code(201, refused)),
            };
            for (given, expected) in [(yes, expected), (no, refusal)] {
                let mut session = dialect.map_or_else(session, registered);
                // A REGISTER whose length is no dialect's does not tell one.
                let asked = raw(kind.number(), [0; 4], &[0, 0, 0, 9]);
                let number = taken(&mut session, asked).number;
                let answered = session.answer(number, given);
                assert_eq!(sent(&mut session), expected, "{kind} in {dialect:?}: {given:?}");
                let mismatch = AnswerError::Mismatch { number, request: kind, answer: given };
                assert_eq!(answered.err(), expected.is_none().then_some(mismatch));
            }
        }
    }
}

#[test]
fn answers_that_do_not_go_with_a_request_leave_it_waiting() {
    for kind in RequestKind::ALL {
        let mut session = session();
        let number = taken(&mut session, raw(kind.number(), [0; 4], &[])).number;
        let mut fitting = 0;
        for given in [Answer::Done, Answer::Queue(QUEUE), location(1), Answer::XskMap] {
            fitting += usize::from(session.answer(number, given).is_ok());
        }
        assert_eq!(fitting, 1, "{kind}");
        let again = session.answer(number, Answer::Done);
        assert_eq!(again, Err(AnswerError::Twice { number }));
        session.sent();
        for number in [number, number + 1, u64::MAX] {
            let unknown = session.answer(number, Answer::Done);
            assert_eq!(unknown, Err(AnswerError::Unknown { number }));
        }
    }
}

#[test]
fn refusals_are_errno_in_dialect_1_1_and_minus_one_before_it() {
    let codes = Refusal::ALL.map(|refusal| refusal.code(Some(Dialect::V1_1)));
    // EPERM, EIO, EBUSY, ENODEV, EINVAL, ENOSPC, EOPNOTSUPP.
    assert_eq!(codes, [-1, -5, -16, -19, -22, -28, -95]);
    for dialect in [UNKNOWN, Some(Dialect::V1_0)] {
        assert!(Refusal::ALL.iter().all(|refusal| refusal.code(dialect) == -1));
    }
}

#[test]
fn locations_that_would_read_as_errors_are_none() {
    for right in [1, 1023, i32::MAX as u32] {
        assert!(Location::try_from(right).is_ok());
    }
    for wrong in [0, 1 << 31, u32::MAX] {
        assert!(Location::try_from(wrong).is_err());
    }
}

#[test]
fn the_first_register_that_tells_decides_the_dialect() {
    let mut session = session();
    let odd = taken(&mut session, raw(101, [0xff; 4], &[]));
    let request = RequestKind::Register;
    let oddity = Some(Oddity::BodyTooLong { found: [0xff; 4], request });
    assert_eq!((odd.dialect, odd.oddity), (None, oddity));
    // Other requests tell nothing, even where libmtl's byte order shows.
    let put = taken(&mut session, raw(104, [2, 0, 0, 0], &[0, 7]));
    assert_eq!((put.dialect, put.oddity), (None, None));

    let old = taken(&mut session, register(Dialect::V1_0));
    assert_eq!((old.dialect, old.oddity), (Some(Dialect::V1_0), None));
    let new = taken(&mut session, register(Dialect::V1_1));
    let oddity = Oddity::DialectChanged { first: Dialect::V1_0, found: Dialect::V1_1 };
    assert_eq!((new.dialect, new.oddity), (Some(Dialect::V1_0), Some(oddity)));
}

/// Who is refused still says what it speaks, and so is refused in its own words.
#[test]
fn a_register_that_is_refused_tells_its_dialect() {
    let mut too_many = register(Dialect::V1_1);
    too_many[84..86].copy_from_slice(&[0xff, 0xff]);
    let mut session = session();
    let error = RequestError::InterfaceCount { found: u16::MAX };
    let event = session.take(&record(too_many));
    assert_eq!(event, Ok(Event::Refused { number: 0, error }));
    assert_eq!(sent(&mut session).unwrap().data(), answer(201, -22));
    let dialect = session.position().learned.map(|learned| learned.dialect);
    assert_eq!(dialect, Some(Dialect::V1_1));
}

#[test]
fn refusals_stand_in_line() {
    let mut session = registered(Dialect::V1_1);
    let asked = taken(&mut session, wire("494d544c 00000067 00000002 0001"));
    let unknown = session.take(&record(raw(112, [0; 4], &[])));
    let error = RequestError::Type { found: 112 };
    assert_eq!(unknown, Ok(Event::Refused { number: 2, error }));
    assert_eq!(session.reply(), None, "the request before it waits");
    session.answer(asked.number, Answer::Refused(Refusal::Busy)).unwrap();
    assert_eq!(sent(&mut session).unwrap().data(), answer(201, -16));
    assert_eq!(sent(&mut session).unwrap().data(), answer(201, -95));
    assert_eq!(sent(&mut session), None);
}

#[test]
fn a_full_session_leaves_the_rest_where_it_is() {
    let mut session = Session::new((), limit(2));
    let mut reader = Reader::new();
    let get = raw(103, [0, 0, 0, 2], &[0, 1]);
    let stream = [get; 5].concat();
    let mut input = &stream[..];
    for number in [0, 1] {
        let event = session.read(&mut reader, &mut input);
        assert!(matches!(event, Some(Event::Asked(intent)) if intent.number == number));
    }
    assert_eq!(session.read(&mut reader, &mut input), None);
    assert_eq!(input.len(), 3 * RECORD_BYTES);
    assert_eq!(session.take(&record(get)), Err(NoRoom::Full { limit: limit(2) }));
    // An answer alone makes no room: a client that does not read is not served on.
    session.answer(0, Answer::Done).unwrap();
    assert_eq!(session.read(&mut reader, &mut input), None);
    session.sent();
    assert!(session.read(&mut reader, &mut input).is_some());
    assert_eq!((session.in_flight(), input.len()), (2, 2 * RECORD_BYTES));
}

#[test]
fn a_lost_stream_is_closed_when_what_came_before_is_answered() {
    let mut session = session();
    let mut reader = Reader::new();
    let mut stream = register(Dialect::V1_0).to_vec();
    stream.extend(b"GET / HTTP/1.1\r\n\r\n");
    let mut input = &stream[..];
    assert!(matches!(session.read(&mut reader, &mut input), Some(Event::Asked(_))));
    let error = StreamError::Magic { found: *b"GET " };
    assert_eq!(session.read(&mut reader, &mut input), Some(Event::Closing(error)));
    assert_eq!(session.take(&record(register(Dialect::V1_0))), Err(NoRoom::Closing));
    assert!(!session.is_finished());
    session.answer(0, Answer::Done).unwrap();
    assert!(!session.is_finished(), "the answer has not left");
    assert_eq!(sent(&mut session).unwrap().data(), answer(201, 0));
    assert!(session.is_finished());
}

#[test]
fn a_frame_stays_until_it_has_left() {
    let mut session = session();
    taken(&mut session, register(Dialect::V1_0));
    session.sent();
    assert_eq!(session.in_flight(), 1, "what is not answered cannot have left");
    session.answer(0, Answer::Done).unwrap();
    assert_eq!(session.reply(), session.reply());
    session.sent();
    assert_eq!((session.reply(), session.in_flight()), (None, 0));
}

#[test]
fn numbers_may_be_anything_when_a_session_is_resumed() {
    let at = Position { next: u64::MAX, learned: None };
    let mut session = Session::resume((), DEFAULT_IN_FLIGHT, at);
    let numbers = [(); 2].map(|()| taken(&mut session, register(Dialect::V1_0)).number);
    assert_eq!(numbers, [u64::MAX, 0]);
    for number in numbers.into_iter().rev() {
        session.answer(number, Answer::Done).unwrap();
    }
    assert_eq!(numbers.map(|_| sent(&mut session).is_some()), [true; 2]);
}

#[test]
fn positions_before_a_register_do_not_know_its_dialect() {
    let learned = Some(Learned { dialect: Dialect::V1_1, by: 5 });
    let at = Position { next: 9, learned };
    for (number, known) in [(0, None), (5, None), (6, learned), (9, learned)] {
        assert_eq!(at.before(number), Position { next: number, learned: known });
    }
}
