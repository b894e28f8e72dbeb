//! The MTL Manager's protocol on top of the desk: a request's bytes in, the answer's bytes out.

use crate::client::Tongue;
use crate::{Ask, Claim, Kept, Why};
use pointsman_imtl::{
    Answer, DEFAULT_IN_FLIGHT, Event, Frame, Intent, Learned, Oddity, Position, Record, Request,
    RequestError, RequestKind, Session,
};

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
    /// It is answered already, with a refusal.
    Wrong(RequestError),
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
        Event::Asked(Intent { request, oddity, .. }) => (meaning(&request, missing), oddity),
        Event::Refused { error, .. } => (Meaning::Wrong(error), None),
        Event::Closing(error) => return Err(Lost(error.to_string())),
    };
    Ok(Taken { session, meaning, oddity, told })
}

fn meaning(request: &Request, missing: impl FnOnce(&[u32]) -> Option<u32>) -> Meaning {
    let ask = match request {
        Request::Heartbeat { .. } => return Meaning::Heartbeat,
        Request::Register(registration) => {
            let missing = missing(&registration.interfaces);
            Ask::Register { claim: Claim::from(registration), missing }
        }
        Request::GetLcore { lcore } => Ask::Get(u32::from(*lcore)),
        Request::PutLcore { lcore } => Ask::Put(u32::from(*lcore)),
        Request::AddUdpPort { .. }
        | Request::DelUdpPort { .. }
        | Request::XskMap { .. }
        | Request::GetQueue { .. }
        | Request::PutQueue { .. }
        | Request::AddFlow(_)
        | Request::DelFlow { .. } => Ask::Interface,
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
                _ => Answer::Done,
            };
            self.session.answer(number, answer).ok()?;
        }
        self.session.reply().map(|(_, frame)| frame)
    }
}
