//! One connection's conversation: what is asked, and the answers in the order of the requests.
//!
//! A session decides nothing about resources. Whether a client may register twice, ask before it
//! registers, or give back what it does not hold, is for whoever answers. The session knows which
//! dialect is spoken, keeps the order, and takes no more requests than have room.
//!
//! What comes out depends on the records and the answers alone, not on how fast either comes. So a
//! session that a restarted daemon resumes from a [`Position`] answers a replayed record as the one
//! before it would have.

use crate::{
    Dialect, Frame, Oddity, Reader, Record, Refusal, Reply, Request, RequestError, RequestKind,
    StreamError,
};
use std::collections::VecDeque;
use std::num::{NonZeroU8, NonZeroU16};

/// Requests of one connection that may wait for their answers. libmtl has one at a time and
/// thread; whoever sends more waits, and disturbs nobody.
pub const DEFAULT_IN_FLIGHT: NonZeroU8 = NonZeroU8::new(64).expect("64 is not 0");

/// The state of one connection. `P` is what is known of the peer, such as its credentials; the
/// session keeps it and does not look at it.
#[derive(Debug)]
pub struct Session<P> {
    peer: P,
    at: Position,
    limit: NonZeroU8,
    /// Answered or not, in the order of the requests.
    in_flight: VecDeque<InFlight>,
    closing: bool,
}

#[derive(Debug)]
enum InFlight {
    Waiting { request: RequestKind, sequence: u32, dialect: Option<Dialect> },
    Answered(Reply),
}

/// Where in its conversation a session is: all that has to be kept to resume it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the next record; the first of a connection is 0.
    pub next: u64,
    /// What the client speaks; `None`: no REGISTER has told.
    pub learned: Option<Learned>,
}

/// When a client told which dialect it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The dialect.
    pub dialect: Dialect,
    /// The number of the REGISTER that told.
    pub by: u64,
}

impl Position {
    /// Where the session was before it took record `number`: from there on records are replayed.
    #[must_use]
    pub fn before(self, number: u64) -> Self {
        Self { next: number, learned: self.learned.filter(|learned| learned.by < number) }
    }
}

/// What a record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody has to answer.
    Asked(Intent),
    /// The session has answered itself, with a refusal. It stands in line as any other.
    Refused {
        /// The record's number.
        number: u64,
        /// Why.
        error: RequestError,
    },
    /// No more requests are taken; see [`Session::is_finished`].
    Closing(StreamError),
}

/// A request with what is needed to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// The record's number, which the answer has to name.
    pub number: u64,
    /// What is asked for.
    pub request: Request,
    /// In which dialect; `None`: not known yet.
    pub dialect: Option<Dialect>,
    /// Something about the record that is wrong and was never minded.
    pub oddity: Option<Oddity>,
}

/// An answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or the client is alive. Answers everything that has no answer of its own below.
    Done,
    /// This queue. Queue 0 is the host's and never given away.
    Queue(NonZeroU16),
    /// The rule is at this location.
    Flow(Location),
    /// The map, whose descriptor goes beside.
    XskMap,
    /// No. A heartbeat cannot be refused: its answer has no room for that.
    Refused(Refusal),
}

/// The location of a flow rule that a client can be told and can give back: 1 to `i32::MAX`.
/// Above that it would read as an error, and libmtl gives nothing back that is not above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location(i32);

/// A location that clients cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("location {0} of a flow rule: expected 1 to {max}", max = i32::MAX)]
pub struct InvalidLocation(pub u32);

impl TryFrom<u32> for Location {
    type Error = InvalidLocation;

    fn try_from(location: u32) -> Result<Self, InvalidLocation> {
        i32::try_from(location)
            .ok()
            .filter(|location| *location > 0)
            .map(Self)
            .ok_or(InvalidLocation(location))
    }
}

/// A record that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The session is closing.
    #[error("the connection is closing and takes no more requests")]
    Closing,
    /// As many requests as there may be wait for their answers.
    #[error("{limit} requests wait for their answers: take the rest when a reply has left")]
    Full {
        /// How many.
        limit: NonZeroU8,
    },
}

/// An answer that does not go with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It says what this request does not ask.
    #[error("request {number}: {answer:?} does not answer {request}")]
    Mismatch {
        /// The request's number.
        number: u64,
        /// What was asked.
        request: RequestKind,
        /// What was answered.
        answer: Answer,
    },
    /// It has an answer.
    #[error("request {number} is answered already")]
    Twice {
        /// The request's number.
        number: u64,
    },
    /// It was never asked, or its answer has left.
    #[error("request {number} does not wait for an answer")]
    Unknown {
        /// The request's number.
        number: u64,
    },
}

impl<P> Session<P> {
    /// The start of a connection that `peer` made.
    #[must_use]
    pub fn new(peer: P, limit: NonZeroU8) -> Self {
        Self::resume(peer, limit, Position::default())
    }

    /// A connection that was served before, by another process perhaps. The next record taken is
    /// `at.next`.
    #[must_use]
    pub fn resume(peer: P, limit: NonZeroU8, at: Position) -> Self {
        Self { peer, at, limit, in_flight: VecDeque::new(), closing: false }
    }

    /// What is known of the peer.
    #[must_use]
    pub const fn peer(&self) -> &P {
        &self.peer
    }

    /// Where the conversation is.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.at
    }

    /// Requests whose answers have not left.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes from the front of `input` up to the next event. `None`: all of `input` is taken, or
    /// there is no room: then the rest stays where it is until replies have left.
    pub fn read(&mut self, reader: &mut Reader, input: &mut &[u8]) -> Option<Event> {
        self.room().ok()?;
        Some(match reader.read(input)? {
            Ok(record) => self.enter(&record),
            Err(error) => {
                self.close();
                Event::Closing(error)
            }
        })
    }

    /// Takes one record.
    ///
    /// # Errors
    /// [`NoRoom`]: the record is not taken.
    pub fn take(&mut self, record: &Record) -> Result<Event, NoRoom> {
        self.room()?;
        Ok(self.enter(record))
    }

    /// Answers request `number`. Answers may come in any order; they leave in that of the requests.
    ///
    /// # Errors
    /// [`AnswerError`]: the request still waits, if it did.
    pub fn answer(&mut self, number: u64, answer: Answer) -> Result<(), AnswerError> {
        let entry = usize::try_from(number.wrapping_sub(self.first()))
            .ok()
            .and_then(|at| self.in_flight.get_mut(at))
            .ok_or(AnswerError::Unknown { number })?;
        let InFlight::Waiting { request, sequence, dialect } = *entry else {
            return Err(AnswerError::Twice { number });
        };
        let reply = reply(request, sequence, dialect, answer).ok_or(AnswerError::Mismatch {
            number,
            request,
            answer,
        })?;
        *entry = InFlight::Answered(reply);
        Ok(())
    }

    /// The reply that leaves next, with the number of the request it answers: by that its
    /// descriptor is found. `None`: the oldest request still waits, or there is none. It stays the
    /// next one until [`Session::sent`].
    #[must_use]
    pub fn reply(&self) -> Option<(u64, Frame)> {
        match self.in_flight.front()? {
            InFlight::Answered(reply) => Some((self.first(), reply.encode())),
            InFlight::Waiting { .. } => None,
        }
    }

    /// The reply that was next has left, whole. That makes room for a request.
    pub fn sent(&mut self) {
        self.in_flight.pop_front_if(|entry| matches!(entry, InFlight::Answered(_)));
    }

    /// Takes no more requests: the stream is lost, or the client has said all it had to say.
    pub const fn close(&mut self) {
        self.closing = true;
    }

    /// Whether nothing is left to do: the session is closing, and all replies have left.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.closing && self.in_flight.is_empty()
    }

    /// The number of the oldest request in flight.
    fn first(&self) -> u64 {
        self.at.next.wrapping_sub(self.in_flight.len() as u64)
    }

    fn room(&self) -> Result<(), NoRoom> {
        if self.closing {
            return Err(NoRoom::Closing);
        }
        if self.in_flight.len() >= usize::from(self.limit.get()) {
            return Err(NoRoom::Full { limit: self.limit });
        }
        Ok(())
    }

    fn enter(&mut self, record: &Record) -> Event {
        let number = self.at.next;
        self.at.next = number.wrapping_add(1);
        let oddity = self.learn(record, number);
        // A request is answered in the dialect known when it came. What a later record tells
        // changes nothing about it, or the answer would depend on how fast it was given.
        let dialect = self.at.learned.map(|learned| learned.dialect);
        match Request::decode(record) {
            Ok(request) => {
                let sequence = match request {
                    Request::Heartbeat { sequence } => sequence,
                    _ => 0,
                };
                let waiting = InFlight::Waiting { request: request.kind(), sequence, dialect };
                self.in_flight.push_back(waiting);
                Event::Asked(Intent { number, request, dialect, oddity })
            }
            Err(error) => {
                let reply = Reply::Response(error.refusal().code(dialect));
                self.in_flight.push_back(InFlight::Answered(reply));
                Event::Refused { number, error }
            }
        }
    }

    /// What `body_len` tells: the dialect, if this is the first REGISTER that does, and whether it
    /// is odd. A process does not change what it is linked with, so the first holds.
    fn learn(&mut self, record: &Record, number: u64) -> Option<Oddity> {
        let request = RequestKind::from_number(record.number())?;
        let oddity = Oddity::of_length(record.body_len(), request);
        if oddity.is_some() || request != RequestKind::Register {
            return oddity;
        }
        let found = Dialect::of_register(record.body_len())?;
        let learned = Learned { dialect: found, by: number };
        let first = self.at.learned.get_or_insert(learned).dialect;
        (first != found).then_some(Oddity::DialectChanged { first, found })
    }
}

/// What answers a request; `None`: the answer does not go with it.
fn reply(
    request: RequestKind,
    sequence: u32,
    dialect: Option<Dialect>,
    answer: Answer,
) -> Option<Reply> {
    let refused = |refusal: Refusal| refusal.code(dialect);
    Some(match (request, answer) {
        (RequestKind::Heartbeat, Answer::Done) => Reply::HeartbeatAck(sequence),
        (RequestKind::Heartbeat, _) => return None,
        (RequestKind::XskMap, Answer::XskMap) => Reply::XskMap,
        (RequestKind::XskMap, Answer::Refused(_)) => match dialect {
            Some(Dialect::V1_1) => Reply::NoXskMap,
            Some(Dialect::V1_0) | None => Reply::NoXskMapButDescriptor,
        },
        (RequestKind::GetQueue, Answer::Queue(queue)) => Reply::QueueId(queue.get().into()),
        (RequestKind::GetQueue, Answer::Refused(refusal)) => Reply::QueueId(refused(refusal)),
        (RequestKind::AddFlow, Answer::Flow(Location(location))) => Reply::FlowId(location),
        (RequestKind::AddFlow, Answer::Refused(refusal)) => Reply::FlowId(refused(refusal)),
        (RequestKind::XskMap | RequestKind::GetQueue | RequestKind::AddFlow, _) => return None,
        (_, Answer::Done) => Reply::Response(0),
        (_, Answer::Refused(refusal)) => Reply::Response(refused(refusal)),
        (_, Answer::Queue(_) | Answer::Flow(_) | Answer::XskMap) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 16 bytes per request that waits, and so at most 4 KiB: the limit is a `u8`, and the queue
    /// grows in powers of two.
    #[test]
    fn a_session_takes_little_memory() {
        assert!(size_of::<InFlight>() <= 16, "{}", size_of::<InFlight>());
        assert!(size_of::<Session<()>>() <= 128, "{}", size_of::<Session<()>>());
    }
}
