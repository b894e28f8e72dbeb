//! Where descriptors end that clients had a hand in: to close one can take for ever, where it is the
//! last one of a file that somebody else serves (FUSE, NFS), or of a socket that lingers.

use std::sync::mpsc::{self, Sender};
use std::thread;

/// Closes what it is given, in a thread of its own.
#[derive(Debug)]
pub(super) struct Closer(Option<Sender<Box<dyn Send>>>);

impl Closer {
    pub(super) fn start() -> Self {
        let (sender, receiver) = mpsc::channel::<Box<dyn Send>>();
        let close = move || receiver.into_iter().for_each(drop);
        match thread::Builder::new().name("closer".into()).spawn(close) {
            Ok(_) => Self(Some(sender)),
            Err(error) => {
                tracing::warn!("no thread to close clients' descriptors in: {error}");
                Self(None)
            }
        }
    }

    /// Takes what is to be closed, and does not wait. What waits is bounded by the connections:
    /// one that sends a descriptor is ended.
    pub(super) fn close(&self, what: impl Send + 'static) {
        if let Some(sender) = &self.0 {
            // It fails only when the thread has ended; then this closes it.
            let _ = sender.send(Box::new(what));
        }
    }
}
