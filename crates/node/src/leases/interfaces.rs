//! Requests about interfaces: what of them has to be waited for, and what follows from a lease.
//!
//! A client that registers with interfaces is answered when the chains are as it needs them; one
//! that wants a queue, when somebody has looked how many there are. Meanwhile all others are served.
//! What the same client asks after that waits: requests of one connection are carried out in their
//! order.

mod answers;
mod beside;
mod changes;
mod claims;

use super::cards::{Beside, Cards, Job, Rights};
use super::counter::Counter;
use super::requests::{Front, Way};
use super::{Handle, Reply};
use pointsman_lease::imtl::Looks;
use pointsman_lease::{Ask, Change, Claim, Kept, Why};
use pointsman_model::document::Namespaces;
use pointsman_model::flow::FlowRequest;
use pointsman_model::lease::Place;
use pointsman_netdev::Roots;
use pointsman_plan::instances::Demands;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What a client wants.
#[derive(Debug)]
pub(super) enum Wants {
    /// Something of the desk.
    Ask(Ask),
    /// Something for which the card has to be looked at.
    Look(Looks),
    /// Its packets from this interface: what REGISTER says for clients of the other protocol.
    Claim(u32),
    /// A flow rule, for one of its own queues.
    Flow { index: u32, rule: Box<FlowRequest> },
    /// To have a socket put at its queue.
    Socket { index: u32, queue: u32, socket: OwnedFd },
}

/// A request that came while an earlier one of the same connection waited.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) sequence: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) way: Way,
}

/// A connection whose first unanswered request waits.
#[derive(Debug)]
struct Parked {
    front: Front,
    wait: Wait,
    later: VecDeque<Later>,
}

/// What is waited for.
#[derive(Debug)]
enum Wait {
    /// The engine, about demands of this revision or later.
    Served { revision: u64, fresh: Vec<u32>, then: Entry },
    /// The card.
    Card { ticket: u64, then: Then },
}

/// What a claim of interfaces belongs to.
#[derive(Debug)]
enum Entry {
    Register(Claim),
    Claim(u32),
}

/// What follows when the card is done.
#[derive(Debug)]
enum Then {
    /// A queue is chosen.
    Queue(u32),
    /// The rule is the client's.
    Flow(u32),
    /// The client is told; where the card failed, the change is undone.
    Tell(Kept, Option<Change>),
}

/// What is waited for, and what was told.
#[derive(Debug)]
pub(super) struct Interfaces {
    cards: Cards,
    parked: BTreeMap<u64, Parked>,
    /// What the engine said of each interface last.
    served: BTreeMap<Place, Result<(), String>>,
    revision: u64,
    demands: Demands,
    /// Nothing was heard of the engine yet, and clients hold interfaces.
    waits: bool,
    namespaces: Namespaces,
    /// Interfaces on which rules are being made for clients that have ended since.
    orphans: BTreeMap<u64, Place>,
    /// Who waits for everybody's end.
    released: Option<(u64, Reply<()>)>,
    /// Which CPUs are beside leased lcores, as was told last; `None`: no interrupt follows them.
    beside: Option<Beside>,
}

impl Interfaces {
    pub(super) fn open(own: Handle, directory: &Path, roots: &Roots) -> Self {
        Self {
            cards: Cards::start(own, directory, roots),
            parked: BTreeMap::new(),
            served: BTreeMap::new(),
            revision: 0,
            demands: Demands::new(),
            waits: false,
            namespaces: Namespaces::new(),
            orphans: BTreeMap::new(),
            released: None,
            beside: None,
        }
    }

    /// Interfaces came, went or were renamed.
    pub(super) fn look(&self) {
        self.cards.tell(Job::Look);
    }

    /// Whether it is known what clients get on the interfaces that they hold.
    pub(super) fn known(&self) -> bool {
        !self.waits
    }

    pub(super) fn set_namespaces(&mut self, namespaces: Namespaces) {
        self.namespaces = namespaces;
    }
}

impl Counter {
    /// Goes on with what the daemon before wrote down.
    pub(super) fn begin(&mut self) {
        self.interfaces.demands = self.desk.demands();
        self.interfaces.waits = !self.interfaces.demands.is_empty();
        for place in self.interfaces.demands.keys() {
            let (ports, owners) = (self.desk.ports(place), self.desk.owners(place));
            let flows = self.desk.flows(place).into_iter();
            let flows = flows.map(|(location, (_, rule))| (location, rule)).collect();
            let place = place.clone();
            self.interfaces.cards.tell(Job::Wanted { place, ports, owners, flows });
        }
        // Who holds what is not known where the journal cannot be read.
        if !self.journal.unreadable() {
            self.interfaces.cards.tell(Job::Sweep);
        }
    }

    /// From which interfaces clients want their packets; `None`: that cannot be known.
    pub(super) fn demands(&self) -> Option<Demands> {
        (!self.journal.unreadable()).then(|| self.interfaces.demands.clone())
    }

    /// Whether a request of this connection waits.
    pub(super) fn waits(&self, connection: u64) -> bool {
        self.interfaces.parked.contains_key(&connection)
    }

    pub(super) fn later(&mut self, connection: u64, later: Later) {
        if let Some(parked) = self.interfaces.parked.get_mut(&connection) {
            parked.later.push_back(later);
        }
    }

    /// Nobody waits for answers on this connection any more.
    pub(super) fn forget(&mut self, connection: u64) {
        let Some(parked) = self.interfaces.parked.remove(&connection) else { return };
        self.closer.close(parked.later);
        if let Wait::Card { ticket, then: Then::Flow(index) } = parked.wait
            && let Some(client) = self.desk.clients().get(&connection)
        {
            self.interfaces.orphans.insert(ticket, client.place(index));
        }
    }

    /// Carries a request out, or begins to.
    pub(super) fn meet(&mut self, front: Front, wants: Wants, way: Way) {
        let (connection, sequence) = (front.connection, front.sequence);
        if way == Way::Refuse {
            let kept = self.desk.decide_fatal(connection, sequence);
            return self.finish(front, &kept, Vec::new());
        }
        match wants {
            Wants::Ask(Ask::Register { claim, refused: None }) if !claim.interfaces.is_empty() => {
                self.claim(front, Entry::Register(claim));
            }
            Wants::Ask(ask) => self.decide(front, &ask),
            Wants::Claim(index) => self.claim(front, Entry::Claim(index)),
            Wants::Look(looks) => match self.desk.may_look(connection, sequence, looks.index()) {
                Err(kept) => self.known(front, kept),
                Ok(_) if self.unclear() => self.refuse_unclear(front),
                Ok(place) => match looks {
                    Looks::Queue { index } => {
                        self.job(front, Job::Queues { place }, Then::Queue(index));
                    }
                    Looks::Flow(flow) => self.add_flow(front, place, &flow),
                },
            },
            Wants::Flow { index, rule } => match self.desk.may_look(connection, sequence, index) {
                Err(kept) => self.known(front, kept),
                Ok(_) if self.unclear() => self.refuse_unclear(front),
                Ok(place) => {
                    let held = self.held_queues(connection, index);
                    let (request, rights) = (*rule, Rights::Held(held));
                    self.job(front, Job::AddFlow { place, request, rights }, Then::Flow(index));
                }
            },
            Wants::Socket { index, queue, socket } => self.socket(front, index, queue, socket),
        }
    }

    fn refuse_unclear(&mut self, front: Front) {
        let why = self.unclear.clone().unwrap_or_default();
        self.finish(front, &Kept::Refused(Why::Document { why }), Vec::new());
    }

    /// Decides, and has done on the card what follows.
    fn decide(&mut self, front: Front, ask: &Ask) {
        let (connection, sequence) = (front.connection, front.sequence);
        let again = self.desk.repeated(connection, sequence).is_some();
        let kept = self.ask(connection, sequence, ask);
        let place = |counter: &Self, index: u32| {
            let client = counter.desk.clients().get(&connection);
            client.map(|client| client.place(index))
        };
        let (job, undo) = match (&kept, ask) {
            (Kept::Map(index), _) => {
                let place = place(self, *index);
                (place.map(|place| Job::Map { place, owner: connection }), None)
            }
            _ if again && of_a_card(ask) => (Some(Job::Fence), None),
            _ if again => (None, None),
            (Kept::Done, Ask::AddPort { index, port }) => {
                let place = place(self, *index);
                let undo = Change::PortReturned { index: *index, port: *port };
                let port = *port;
                (place.map(|place| Job::Port { place, port, listed: true }), Some(undo))
            }
            (Kept::Queue(queue), Ask::GetQueue { index, .. }) => {
                let (place, queue) = (place(self, *index), *queue);
                let undo = Change::QueueReturned { index: *index, queue };
                let owner = Some(connection);
                (place.map(|place| Job::Owner { place, queue, owner }), Some(undo))
            }
            // What is given back is gone from the card when that is answered.
            (Kept::Done, Ask::DelPort { .. } | Ask::PutQueue { .. } | Ask::DelFlow { .. }) => {
                (Some(Job::Fence), None)
            }
            _ => (None, None),
        };
        match job {
            Some(job) => self.job(front, job, Then::Tell(kept, undo)),
            None => self.finish(front, &kept, Vec::new()),
        }
    }

    /// Answers a request whose answer needs no look. What a daemon before had decided, this one does
    /// on the card when it starts: whoever is told that it is done waits for that.
    fn known(&mut self, front: Front, kept: Kept) {
        match self.desk.repeated(front.connection, front.sequence) {
            Some(_) => self.job(front, Job::Fence, Then::Tell(kept, None)),
            None => self.finish(front, &kept, Vec::new()),
        }
    }

    /// Has something done on a card; the request waits for it.
    fn job(&mut self, front: Front, job: Job, then: Then) {
        match self.interfaces.cards.ask(job) {
            Some(ticket) => self.park(front, Wait::Card { ticket, then }),
            None => {
                let what = "nobody works on network cards any more".to_owned();
                self.finish(front, &Kept::Refused(Why::CardFailed { what }), Vec::new());
            }
        }
    }

    fn park(&mut self, front: Front, wait: Wait) {
        let connection = front.connection;
        let later = self.interfaces.parked.remove(&connection).map(|parked| parked.later);
        let later = later.unwrap_or_default();
        self.interfaces.parked.insert(connection, Parked { front, wait, later });
    }

    /// Takes what waited, and lets what came after it go on when `then` has dealt with it.
    fn resume(&mut self, connection: u64, then: impl FnOnce(&mut Self, Front, Wait)) {
        let Some(parked) = self.interfaces.parked.remove(&connection) else { return };
        let Parked { front, wait, mut later } = parked;
        then(self, front, wait);
        loop {
            if let Some(parked) = self.interfaces.parked.get_mut(&connection) {
                // It waits again, or the next one does.
                later.append(&mut parked.later);
                parked.later = later;
                return;
            }
            let Some(Later { sequence, bytes, descriptors, way }) = later.pop_front() else {
                return;
            };
            self.request(connection, sequence, &bytes, descriptors, way);
        }
    }
}

/// Whether a card is otherwise afterwards.
fn of_a_card(ask: &Ask) -> bool {
    matches!(
        ask,
        Ask::AddPort { .. }
            | Ask::DelPort { .. }
            | Ask::GetQueue { .. }
            | Ask::PutQueue { .. }
            | Ask::DelFlow { .. }
    )
}
