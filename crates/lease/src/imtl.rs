//! The MTL Manager's protocol on top of the desk: a request's bytes in, the answer's bytes out.

use crate::client::Tongue;
use crate::{Ask, Claim, Kept, Why};
use pointsman_imtl::{
    Answer, DEFAULT_IN_FLIGHT, Dialect, Event, Flow, Frame, Intent, Learned, Location, Oddity,
    Position, Record, Refusal, Request, RequestError, RequestKind, Session,
};
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

/// One request, taken but not answered.
#[derive(Debug)]
pub struct Taken {
    session: Session<()>,
    /// What it means.
    pub meaning: Meaning,
    /// Something about it that is wrong and was never minded.
    pub oddity: Option<Oddity>,
    /// The dialect, where this request told it.
    pub told: Option<Tongue>,
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The client says that it lives.
    Heartbeat,
    /// It wants something of the desk.
    Asks(RequestKind, Ask),
    /// It wants something for which somebody has to look at the card first.
    Looks(RequestKind, Looks),
    /// It is answered already, with a refusal.
    Wrong(RequestError),
}

/// What a card has to be looked at for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looks {
    /// A receive queue.
    Queue {
        /// The interface.
        index: u32,
    },
    /// A flow rule.
    Flow(FlowAsked),
}

impl Looks {
    /// The interface.
    #[must_use]
    pub const fn index(&self) -> u32 {
        match self {
            Self::Queue { index } | Self::Flow(FlowAsked { index, .. }) => *index,
        }
    }
}

/// A flow rule, as a client asks for it: nothing is checked. 0 in an address or a port is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowAsked {
    /// The interface.
    pub index: u32,
    /// The receive queue that the packets are to go to.
    pub queue: u32,
    /// As ethtool numbers types of flows.
    pub flow_type: u32,
    /// Source and destination; `None`: it depends on the dialect, which is not known, what is meant.
    pub addresses: Option<[Ipv4Addr; 2]>,
    /// Source and destination.
    pub ports: [u16; 2],
}

/// The stream is lost: close the connection. What was before is answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// Takes request `sequence` of a connection that has told its dialect as `learned` says. Which of
/// the interfaces that it names is the first that is not there, `missing` tells.
///
/// # Errors
/// [`Lost`]: this is no record.
pub fn take(
    bytes: &[u8],
    sequence: u64,
    learned: Option<Learned>,
    missing: impl FnOnce(&[u32]) -> Option<u32>,
) -> Result<Taken, Lost> {
    let whole = bytes.try_into().map_err(|_| Lost(format!("a record of {} bytes", bytes.len())))?;
    let record = Record::from_bytes(whole).map_err(|error| Lost(error.to_string()))?;
    // As it was when this request came first: a later one may have told more.
    let at = Position { next: sequence, learned }.before(sequence);
    let mut session = Session::resume((), DEFAULT_IN_FLIGHT, at);
    let event = session.take(&record).map_err(|error| Lost(error.to_string()))?;
    let told = match (at.learned, session.position().learned) {
        (None, Some(learned)) => Some(learned.into()),
        _ => None,
    };
    let (meaning, oddity) = match event {
        Event::Asked(Intent { request, oddity, dialect, .. }) => {
            (meaning(&request, dialect, missing), oddity)
        }
        Event::Refused { error, .. } => (Meaning::Wrong(error), None),
        Event::Closing(error) => return Err(Lost(error.to_string())),
    };
    Ok(Taken { session, meaning, oddity, told })
}

fn asked(flow: &Flow, dialect: Option<Dialect>) -> FlowAsked {
    let addresses = [flow.source, flow.destination].map(|address| address.read(dialect));
    FlowAsked {
        index: flow.interface_index,
        queue: u32::from(flow.queue),
        flow_type: flow.flow_type,
        addresses: match addresses {
            [Some(source), Some(destination)] => Some([source, destination]),
            _ => None,
        },
        ports: [flow.source_port, flow.destination_port],
    }
}

fn meaning(
    request: &Request,
    dialect: Option<Dialect>,
    missing: impl FnOnce(&[u32]) -> Option<u32>,
) -> Meaning {
    let ask = match request {
        Request::Heartbeat { .. } => return Meaning::Heartbeat,
        Request::Register(registration) => {
            let missing = missing(&registration.interfaces);
            let refused = missing.map(|index| Why::NoInterface { index });
            Ask::Register { claim: Claim::from(registration), refused }
        }
        Request::GetLcore { lcore } => Ask::Get(u32::from(*lcore)),
        Request::PutLcore { lcore } => Ask::Put(u32::from(*lcore)),
        Request::AddUdpPort { interface_index: index, port } => {
            Ask::AddPort { index: *index, port: *port }
        }
        Request::DelUdpPort { interface_index: index, port } => {
            Ask::DelPort { index: *index, port: *port }
        }
        Request::XskMap { interface_index: index } => Ask::Map { index: *index },
        Request::GetQueue { interface_index: index } => {
            return Meaning::Looks(request.kind(), Looks::Queue { index: *index });
        }
        Request::PutQueue { interface_index: index, queue } => {
            Ask::PutQueue { index: *index, queue: u32::from(*queue) }
        }
        Request::AddFlow(flow) => {
            return Meaning::Looks(request.kind(), Looks::Flow(asked(flow, dialect)));
        }
        Request::DelFlow { interface_index: index, location } => {
            Ask::DelFlow { index: *index, location: *location }
        }
    };
    Meaning::Asks(request.kind(), ask)
}

impl Taken {
    /// What leaves as the answer. A heartbeat is answered whatever is given here, and so is what
    /// was wrong.
    #[must_use]
    pub fn answer(mut self, kept: &Kept) -> Option<Frame> {
        let number = self.session.position().next.wrapping_sub(1);
        if !matches!(self.meaning, Meaning::Wrong(_)) {
            let answer = match kept {
                Kept::Refused(why) if self.meaning != Meaning::Heartbeat => {
                    Answer::Refused(Why::refusal(why))
                }
                Kept::Queue(queue) => queue_answer(*queue),
                Kept::Flow(location) => {
                    let told = Location::try_from(*location).map(Answer::Flow);
                    told.unwrap_or(Answer::Refused(Refusal::Failed))
                }
                Kept::Map(_) => Answer::XskMap,
                _ => Answer::Done,
            };
            self.session.answer(number, answer).ok()?;
        }
        self.session.reply().map(|(_, frame)| frame)
    }
}

fn queue_answer(queue: u32) -> Answer {
    let told = u16::try_from(queue).ok().and_then(NonZeroU16::new);
    told.map_or(Answer::Refused(Refusal::Failed), Answer::Queue)
}
