//! Whole conversations: nothing depends on how fast either side is.

use crate::common::{answer, cases, fragments, limit, location, record, session, stream};
use pointsman_imtl::{
    Answer, DEFAULT_IN_FLIGHT, Descriptor, Dialect, Event, Frame, Intent, Reader, Refusal, Request,
    Session,
};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::num::{NonZeroU8, NonZeroU16};

/// What answers `intent`, chosen by `choice`, and what then has to leave: said without a session.
fn chosen(intent: &Intent, choice: u8) -> (Answer, Frame) {
    let number = u32::from(choice) + 1;
    let code = |kind, code| Frame::Record(record(answer(kind, code)));
    let byte = |byte, descriptor| Frame::Byte { byte: [byte], descriptor };
    let new = intent.dialect == Some(Dialect::V1_1);
    let no = if new { -16 } else { -1 };
    let refused = choice.is_multiple_of(2);
    let kind = match intent.request {
        Request::Heartbeat { sequence } => {
            return (Answer::Done, code(204, sequence.cast_signed()));
        }
        Request::XskMap { .. } if !refused => {
            return (Answer::XskMap, byte(b' ', Some(Descriptor::XskMap)));
        }
        Request::XskMap { .. } => {
            let frame = if new { byte(b'E', None) } else { byte(b' ', Some(Descriptor::Harmless)) };
            return (Answer::Refused(Refusal::Busy), frame);
        }
        Request::GetQueue { .. } if !refused => {
            let queue = NonZeroU16::new(u16::from(choice) + 1).unwrap();
            return (Answer::Queue(queue), code(202, number.cast_signed()));
        }
        Request::AddFlow(_) if !refused => {
            return (location(number), code(203, number.cast_signed()));
        }
        Request::GetQueue { .. } => 202,
        Request::AddFlow(_) => 203,
        _ if !refused => return (Answer::Done, code(201, 0)),
        _ => 201,
    };
    (Answer::Refused(Refusal::Busy), code(kind, no))
}

/// A daemon and a client around a session, both as fast or slow as `moves` has it.
struct World {
    session: Session<()>,
    reader: Reader,
    waiting: VecDeque<Intent>,
    /// What has to leave, in order; `None`: not answered yet.
    expected: VecDeque<(u64, Option<Frame>)>,
    events: Vec<Event>,
    frames: Vec<Frame>,
}

impl World {
    fn new(limit: NonZeroU8) -> Self {
        Self {
            session: Session::new((), limit),
            reader: Reader::new(),
            waiting: VecDeque::new(),
            expected: VecDeque::new(),
            events: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn read(&mut self, input: &mut &[u8]) {
        while let Some(event) = self.session.read(&mut self.reader, input) {
            self.events.push(event);
            match event {
                Event::Asked(intent) => {
                    self.waiting.push_back(intent);
                    self.expected.push_back((intent.number, None));
                }
                Event::Refused { number, error } => {
                    let learned = self.session.position().learned;
                    let refusal = error.refusal().code(learned.map(|learned| learned.dialect));
                    let frame = Frame::Record(record(answer(201, refusal)));
                    self.expected.push_back((number, Some(frame)));
                }
                Event::Closing(_) => {}
            }
        }
    }

    /// Answers the request at `choice` of those that wait, by its number alone.
    fn answer(&mut self, choice: u8) {
        let at = usize::from(choice) % self.waiting.len().max(1);
        let Some(intent) = self.waiting.remove(at) else { return };
        let (answer, frame) = chosen(&intent, intent.number as u8);
        self.session.answer(intent.number, answer).unwrap();
        let entry = self.expected.iter_mut().find(|(number, _)| *number == intent.number);
        entry.expect("was asked").1 = Some(frame);
    }

    fn send(&mut self) {
        let reply = self.session.reply();
        let next = self.expected.front().and_then(|(number, frame)| Some((*number, (*frame)?)));
        assert_eq!(reply, next);
        if let Some((_, frame)) = reply {
            self.session.sent();
            self.expected.pop_front();
            self.frames.push(frame);
        }
    }

    /// Feeds `stream` in pieces, at the speed of `moves`; then answers and sends what is left.
    fn run(mut self, stream: &[u8], cuts: &[usize], moves: &[u8], limit: NonZeroU8) -> Self {
        let mut moves = moves.iter().cycle();
        for mut input in fragments(stream, cuts) {
            loop {
                self.read(&mut input);
                assert!(self.session.in_flight() <= limit.get().into());
                assert_eq!(self.session.in_flight(), self.expected.len());
                let closing = self.events.iter().any(|event| matches!(event, Event::Closing(_)));
                assert!(input.is_empty() || closing || self.session.in_flight() > 0, "stuck");
                if input.is_empty() || closing {
                    break;
                }
                // It is full. At least one leaves, or a slow daemon would make this test slow.
                self.turn(moves.next().map_or(0, |step| step | 5));
            }
            self.turn(*moves.next().expect("never ends"));
        }
        while !self.expected.is_empty() {
            self.turn(5);
        }
        assert_eq!(self.session.reply(), None);
        self
    }

    /// Answers up to three, of the oldest where the number is low, and sends up to three.
    fn turn(&mut self, step: u8) {
        (0..step % 4).for_each(|_| self.answer(step / 16));
        (0..step / 4 % 4).for_each(|_| self.send());
    }
}

proptest! {
    #![proptest_config(cases(256, 20_000))]

    /// Each request comes out once and is answered in its order, whatever the client sends, however
    /// it is cut, in whatever order and however late it is answered, however late that is read.
    #[test]
    fn neither_cuts_nor_speed_change_a_conversation(
        (stream, cuts) in stream(),
        moves in proptest::collection::vec(any::<u8>(), 1..20),
        requests in 1u8..10,
    ) {
        let at_once = World::new(NonZeroU8::MAX).run(&stream, &[stream.len().max(1)], &[255], NonZeroU8::MAX);
        let slowly = World::new(limit(requests)).run(&stream, &cuts, &moves, limit(requests));
        prop_assert_eq!(at_once.events, slowly.events);
        prop_assert_eq!(at_once.frames, slowly.frames);
    }

    /// A session that is resumed before any record says of the rest what the first one said.
    #[test]
    fn a_resumed_session_goes_on_as_the_one_before((stream, _) in stream(), at in any::<prop::sample::Index>()) {
        let mut reader = Reader::new();
        let mut input = &stream[..];
        let records: Vec<_> =
            std::iter::from_fn(|| reader.read(&mut input)).filter_map(Result::ok).collect();
        let mut first = session();
        let events: Vec<_> = records.iter().map(|record| first.take(record).unwrap()).collect();

        let from = at.index(records.len() + 1);
        let at = first.position().before(from as u64);
        let mut resumed = Session::resume((), DEFAULT_IN_FLIGHT, at);
        let again: Vec<_> =
            records[from..].iter().map(|record| resumed.take(record).unwrap()).collect();
        prop_assert_eq!(&again, &events[from..]);
        prop_assert_eq!(resumed.position(), first.position());
    }
}
