//! One plain thread owns the leases, and takes requests of clients and of the API.
//!
//! In: what the keeper passes on from clients, and messages ([`Message`]). Out: answers to both,
//! records in the journal, events to the engine. The thread waits in one place for either; no
//! client can make it wait elsewhere. What is decided is decided in `pointsman-lease`.

mod closer;
mod counter;
mod cpusets;
mod file;
mod metrics;
mod people;
mod throttle;
mod view;

#[cfg(test)]
mod tests;

use crate::engine;
use crate::problem;
use counter::Counter;
use pointsman_keeper::link::{LinkError, Receiver, Sender};
use pointsman_model::api::Problem;
use pointsman_model::lease::{ClearReport, Instance, Instances, Lcores};
use pointsman_netdev::Roots;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

pub use file::FILE as JOURNAL;

/// Where a reply goes.
pub type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// Who asks over the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// Its user; `None`: the kernel does not tell.
    pub uid: Option<u32>,
    /// Its groups.
    pub groups: Vec<u32>,
}

/// What the thread is asked or told beside what clients ask.
#[derive(Debug)]
pub enum Message {
    /// The text of the document in force, or why it cannot be read.
    Document(Result<Vec<u8>, String>),
    /// All instances.
    Instances(Reply<Instances>),
    /// One instance.
    Instance(u64, Reply<Instance>),
    /// Take everything from an instance.
    Clear(u64, Asker, Reply<ClearReport>),
    /// The machine with its owners.
    Lcores(Reply<Lcores>),
    /// Counters, as Prometheus reads them.
    Metrics(Reply<String>),
    /// Why nothing is given away; `None`: it is.
    Refusing(Reply<Option<String>>),
    /// End. Clients stay with the keeper.
    Stop,
}

/// Sends messages to the thread.
#[derive(Debug, Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    wake: Arc<OwnedFd>,
}

/// The other end of a [`Handle`].
#[derive(Debug)]
pub struct Messages {
    messages: mpsc::Receiver<Message>,
    wake: Arc<OwnedFd>,
}

/// What the thread works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory of the journal.
    pub run_dir: PathBuf,
    /// Where procfs and sysfs are.
    pub roots: Roots,
}

impl Handle {
    /// A handle, and where its messages come out.
    ///
    /// # Errors
    /// The kernel's: no event could be had.
    pub fn new() -> io::Result<(Self, Messages)> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, receiver) = mpsc::channel();
        let messages = Messages { messages: receiver, wake: Arc::clone(&wake) };
        Ok((Self { messages: sender, wake }, messages))
    }

    /// Asks and waits for the reply.
    ///
    /// # Errors
    /// The thread's, or that there is none any more.
    pub async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply));
        answer.await.unwrap_or_else(|_| Err(problem::engine_gone()))
    }

    /// Tells and does not wait.
    pub fn tell(&self, message: Message) {
        let _ = self.messages.send(message);
        // It fails only when it has been told more often than it could count.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The ends of the link to the keeper.
pub type Link = (Receiver, Sender);

/// Serves clients and the API until the keeper ends, and returns why; `None`: it was told to stop.
/// Without a link there are no clients. Where there is a journal that cannot be understood, clients
/// wait at the keeper: whatever they were told could be wrong.
#[must_use]
pub fn run(
    config: Config,
    epoch: &str,
    link: Option<Link>,
    messages: &Messages,
    engine: engine::Handle,
) -> Option<LinkError> {
    let mut counter = Counter::open(config, epoch, engine);
    let (mut receiver, mut sender) = link.unzip();
    loop {
        let ready = match wait(messages, receiver.as_ref(), counter.serves()) {
            Ok(ready) => ready,
            Err(source) => return Some(LinkError::Io { what: "wait for", source }),
        };
        if ready.messages {
            let mut count = [0; 8];
            let _ = rustix::io::read(&messages.wake, &mut count);
            while let Ok(message) = messages.messages.try_recv() {
                if matches!(message, Message::Stop) {
                    return None;
                }
                counter.message(message);
            }
        }
        if ready.link && !counter.serves() {
            return Some(LinkError::KeeperGone);
        }
        if let (true, Some(receiver), Some(sender)) = (ready.link, &mut receiver, &mut sender) {
            let batch = match receiver.receive() {
                Ok(batch) => batch,
                Err(error) => return Some(error),
            };
            batch.into_iter().for_each(|told| counter.keeper(told));
            if let Err(error) = sender.send(counter.answers()) {
                return Some(error);
            }
        }
    }
}

struct Ready {
    messages: bool,
    link: bool,
}

/// Waits for messages, and for the link: for what comes over it, or only for its end.
fn wait(messages: &Messages, receiver: Option<&Receiver>, serves: bool) -> io::Result<Ready> {
    let events = if serves { PollFlags::IN } else { PollFlags::empty() };
    let mut sources = vec![PollFd::new(&*messages.wake, PollFlags::IN)];
    let link = receiver.map(|receiver| receiver.as_fd());
    sources.extend(link.as_ref().map(|link| PollFd::new(link, events)));
    loop {
        match poll(&mut sources, None) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let is_ready = |at: usize| sources.get(at).is_some_and(|source| !source.revents().is_empty());
    Ok(Ready { messages: is_ready(0), link: is_ready(1) })
}
