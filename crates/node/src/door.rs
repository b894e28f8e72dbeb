//! Clients' requests, as the keeper passes them on.

use pointsman_imtl::{
    Answer, DEFAULT_IN_FLIGHT, Descriptor, Event, Frame, Position, Record, Refusal, Request,
    Session,
};
use pointsman_keeper::link::{FromKeeper, Kind, LinkError, Receiver, Sender, ToKeeper};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;

/// Answers clients until the keeper ends, and returns why. Nothing is leased yet: libmtl's clients
/// are told no, which they take for "ask for another" or "not here", and heartbeats are answered.
pub fn serve(mut receiver: Receiver, mut sender: Sender) -> LinkError {
    let mut sessions = HashMap::new();
    let mut answers = Vec::new();
    loop {
        let batch = match receiver.receive() {
            Ok(batch) => batch,
            Err(error) => return error,
        };
        for message in batch {
            take(message, &mut sessions, &mut answers);
        }
        if let Err(error) = sender.send(answers.drain(..)) {
            return error;
        }
    }
}

fn take(
    message: FromKeeper,
    sessions: &mut HashMap<u64, Option<Session<()>>>,
    answers: &mut Vec<ToKeeper>,
) {
    match message {
        FromKeeper::Connected { connection, kind: Kind::Imtl, .. } => {
            sessions.insert(connection, None);
        }
        FromKeeper::Connected { connection, kind: Kind::Native, .. } => {
            answers.push(ToKeeper::Close { connection });
        }
        FromKeeper::Request { connection, sequence, bytes, .. } => {
            let Some(session) = sessions.get_mut(&connection) else { return };
            let at = Position { next: sequence, learned: None };
            let session = session.get_or_insert_with(|| Session::resume((), DEFAULT_IN_FLIGHT, at));
            answer(connection, session, &bytes, answers);
        }
        FromKeeper::Closed { connection } => drop(sessions.remove(&connection)),
        FromKeeper::Replayed => {}
    }
}

fn answer(connection: u64, session: &mut Session<()>, bytes: &[u8], answers: &mut Vec<ToKeeper>) {
    let record = bytes.try_into().ok().and_then(|bytes| Record::from_bytes(bytes).ok());
    let Some(event) = record.and_then(|record| session.take(&record).ok()) else {
        answers.push(ToKeeper::Close { connection });
        return;
    };
    if let Event::Asked(intent) = event {
        let answer = match intent.request {
            Request::Register(_) | Request::Heartbeat { .. } => Answer::Done,
            _ => Answer::Refused(Refusal::Unsupported),
        };
        // Every request can be answered by one of the two.
        let _ = session.answer(intent.number, answer);
    }
    while let Some((sequence, frame)) = session.reply() {
        let descriptors = match frame {
            Frame::Byte { descriptor: Some(Descriptor::Harmless), .. } => null(),
            _ => Vec::new(),
        };
        let bytes = frame.data().to_vec();
        answers.push(ToKeeper::Reply { connection, sequence, bytes, descriptors });
        session.sent();
    }
}

/// What is no map. Where even that cannot be had, the client gets a byte alone.
fn null() -> Vec<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from).into_iter().collect()
}
