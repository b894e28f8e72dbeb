//! One plain thread owns the leases, and takes requests of clients and of the API.
//!
//! In: what the keeper passes on from clients, and messages ([`Message`]). Out: answers to both,
//! records in the journal, events to the engine. The thread waits in one place for either; no
//! client can make it wait elsewhere. What is decided is decided in `pointsman-lease`.

mod cards;
mod closer;
mod commit;
mod counter;
mod cpusets;
mod file;
mod interfaces;
mod metrics;
mod people;
mod requests;
mod throttle;
mod view;

#[cfg(test)]
mod tests;

use crate::engine;
use crate::problem;
use crate::state::InForce;
use counter::Counter;
use pointsman_keeper::link::{LinkError, Receiver, Sender};
use pointsman_model::api::Problem;
use pointsman_model::lease::{ClearReport, Instance, Instances, Lcores};
use pointsman_model::status::CardProblem;
use pointsman_netdev::Roots;
use pointsman_plan::instances::Demands;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

pub use cards::Done;
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
    /// The document in force.
    Document(InForce),
    /// Interfaces came, went or were renamed.
    InterfacesChanged,
    /// What of the document in force cards do not do.
    Cards(Reply<Vec<CardProblem>>),
    /// That is this from now on.
    CardProblems(Vec<CardProblem>),
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
    /// Everybody's end: answered when nothing of what instances held is left on cards, and the
    /// engine was told.
    Release(Reply<()>),
    /// What instances get on the interfaces that they want.
    Served(engine::Served),
    /// What came of a job on a card.
    Worked {
        /// Which.
        ticket: u64,
        /// The result.
        done: Result<Done, String>,
    },
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
    /// Whether no daemon has served the keeper's connections before: nothing that lies there is
    /// about them.
    pub fresh: bool,
    /// Where procfs and sysfs are.
    pub roots: Roots,
    /// Whether the log also has lines as the MTL Manager writes them about its clients.
    pub original_lines: bool,
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

/// What is known of the clients of a keeper, before they are served.
#[derive(Debug)]
pub struct Leases(Counter);

impl Leases {
    /// Reads what the daemon before wrote down of the clients of the keeper `epoch`. `own` reaches
    /// the thread that will serve them.
    #[must_use]
    pub fn open(config: Config, epoch: &str, engine: engine::Handle, own: Handle) -> Self {
        Self(Counter::open(config, epoch, engine, own))
    }

    /// From which interfaces they want their packets; `None`: that cannot be known.
    #[must_use]
    pub fn demands(&self) -> Option<Demands> {
        self.0.demands()
    }
}

/// Serves clients and the API until the keeper ends, and returns why; `None`: it was told to stop.
/// Without a link there are no clients. Where there is a journal that cannot be understood, clients
/// wait at the keeper: whatever they were told could be wrong.
#[must_use]
pub fn run(leases: Leases, link: Option<Link>, messages: &Messages) -> Option<LinkError> {
    let Leases(mut counter) = leases;
    let (mut receiver, mut sender) = link.unzip();
    if let (false, Some(sender)) = (counter.serves(), &mut sender)
        && let Err(error) = sender.withhold()
    {
        return Some(error);
    }
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
            // What was waited for beside the desk is answered by messages.
            if let Some(sender) = &mut sender
                && let Err(error) = sender.send(counter.answers())
            {
                return Some(error);
            }
            counter.after_answers();
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
            let sent = sender.send(counter.answers());
            counter.after_answers();
            if let Err(error) = sent {
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
