//! The leases of a host: what is decided about them, and how they change.

mod cards;
mod decide;

use crate::record::{Card, Cards, Whole};
use crate::{Change, Client, Lease, Peer, Record, Why};
use pointsman_imtl::{DEFAULT_IN_FLIGHT, Learned};
use pointsman_model::cpu::Topology;
use pointsman_model::document::{AccessSpec, Document, LcoresSpec};
use pointsman_model::lease::Protocol;
use std::collections::{BTreeMap, BTreeSet};

pub use cards::{Holding, MOST_FLOWS, MOST_PORTS};
pub use decide::{Ask, Decision, Kept};

/// What an operator has decided: the parts of the document that are about leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The lcores.
    pub lcores: LcoresSpec,
    /// Who may have them.
    pub access: AccessSpec,
}

impl From<Document> for Policy {
    fn from(Document { lcores, access, .. }: Document) -> Self {
        Self { lcores, access }
    }
}

/// The leases of a host.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    policy: Policy,
    topology: Topology,
    clients: BTreeMap<u64, Client>,
    /// Who holds which CPU: what the clients' leases say, the other way round.
    cpus: BTreeMap<u32, u64>,
    /// Who holds ids that are no CPU.
    tokens: BTreeMap<u32, BTreeSet<u64>>,
    /// How many queues, ports and flow rules are held.
    held_of_cards: usize,
}

impl Desk {
    /// A desk without clients.
    #[must_use]
    pub fn new(policy: Policy, topology: Topology) -> Self {
        Self { policy, topology, ..Self::default() }
    }

    /// What the operator has decided.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The operator decides anew. Nobody loses what he holds.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The processors.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// CPUs came or went. Nobody loses what he holds.
    pub fn set_topology(&mut self, topology: Topology) {
        self.topology = topology;
    }

    /// The clients, by connection.
    #[must_use]
    pub fn clients(&self) -> &BTreeMap<u64, Client> {
        &self.clients
    }

    /// How many lcores are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.cpus.len() + self.tokens.values().map(BTreeSet::len).sum::<usize>()
    }

    /// How many things of all kinds are held, each of which is given back by itself.
    #[must_use]
    pub fn held_in_all(&self) -> usize {
        self.held() + self.held_of_cards
    }

    /// Which dialect a client has told, and when.
    #[must_use]
    pub fn learned(&self, connection: u64) -> Option<Learned> {
        self.clients.get(&connection)?.dialect.map(Into::into)
    }

    /// What a connection begins with. `None`: it was known already, and goes on as before.
    #[must_use]
    pub fn open(&self, connection: u64, protocol: Protocol, peer: Peer, at: u64) -> Option<Record> {
        let known = self.clients.contains_key(&connection);
        (!known).then(|| record(connection, 0, Change::Opened { protocol, peer, at }))
    }

    /// A connection is there: its keeper has named it to this daemon. What the socket tells counts
    /// more than what was written down, but for the process as it was when a daemon first looked.
    pub fn arrive(&mut self, connection: u64, protocol: Protocol, peer: Peer) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.present = true;
            client.protocol = protocol;
            let before = std::mem::take(&mut client.peer);
            client.peer = Peer {
                started: before.started.or(peer.started),
                command: before.command.or(peer.command),
                ..peer
            };
        }
    }

    /// Which groups are kept of a client is decided anew.
    pub fn set_groups(&mut self, connection: u64, groups: Vec<u32>) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.peer.groups = groups;
        }
    }

    /// All connections have been named: those that were not are gone.
    #[must_use]
    pub fn absent(&self) -> Vec<u64> {
        self.clients.iter().filter(|(_, c)| !c.present).map(|(id, _)| *id).collect()
    }

    /// What ends a connection: all that it holds is free.
    #[must_use]
    pub fn close(&self, connection: u64) -> Option<Record> {
        self.clients.contains_key(&connection).then(|| record(connection, 0, Change::Closed))
    }

    /// What an administrator does to take everything from a client.
    #[must_use]
    pub fn clear(&self, connection: u64) -> Option<Record> {
        self.clients.contains_key(&connection).then(|| record(connection, 0, Change::Cleared))
    }

    /// Changes what a record says. Takes any record, in any order: what makes no sense changes
    /// nothing that others hold.
    pub fn apply(&mut self, record: &Record) {
        let before = self.held_of_cards_by(record.connection);
        self.change(record);
        // A client's own is counted, not everybody's: there may be hundreds of thousands.
        self.held_of_cards += self.held_of_cards_by(record.connection);
        self.held_of_cards -= before;
    }

    fn held_of_cards_by(&self, connection: u64) -> usize {
        let client = self.clients.get(&connection);
        client.map_or(0, |client| client.interfaces.values().map(Holding::count).sum())
    }

    fn change(&mut self, record: &Record) {
        let Record { connection, sequence, change, refused } = record;
        match change {
            Change::Closed => {
                self.drop_all(*connection);
                self.clients.remove(connection);
                return;
            }
            Change::Opened { protocol, peer, at } => {
                let fresh = || Client::new(*protocol, peer.clone(), *at);
                self.clients.entry(*connection).or_insert_with(fresh);
                return;
            }
            Change::Whole(whole) => return self.restore(*connection, whole),
            _ => {}
        }
        // Of a client of whom it was not written down that it connected nobody knows who it is: it
        // holds nothing, because before anything is given away all of it is written down.
        if !self.clients.contains_key(connection) {
            return;
        }
        match change {
            Change::Leased { leases, mapping, moved } => {
                for lease in moved {
                    self.put(*connection, lease.id);
                }
                for lease in moved.iter().chain(leases) {
                    self.hold(*connection, *lease);
                }
                if let (Some(client), Some(mapping)) = (self.clients.get_mut(connection), mapping) {
                    client.mapping = Some(*mapping);
                }
            }
            Change::Returned(ids) => {
                for id in ids {
                    self.put(*connection, *id);
                }
            }
            Change::Cleared => self.drop_all(*connection),
            _ => {}
        }
        self.apply_to_cards(*connection, change);
        let Some(client) = self.clients.get_mut(connection) else { return };
        match change {
            Change::Dialect(tongue) => client.dialect = Some(*tongue),
            Change::Cpuset(cpuset) => client.cpuset = Some(cpuset.clone()),
            Change::Registered(claim) => client.claim = Some(claim.clone()),
            _ => {}
        }
        if *sequence > 0 {
            client.keep(*sequence, answer(change, refused.as_ref()));
        }
    }

    fn hold(&mut self, connection: u64, lease: Lease) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if client.leases.contains_key(&lease.id) {
            return;
        }
        match lease.cpu {
            Some(cpu) if self.cpus.contains_key(&cpu) => return,
            Some(cpu) => drop(self.cpus.insert(cpu, connection)),
            None => drop(self.tokens.entry(lease.id).or_default().insert(connection)),
        }
        client.leases.insert(lease.id, lease);
    }

    fn put(&mut self, connection: u64, id: u32) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        match client.leases.remove(&id) {
            Some(Lease { cpu: Some(cpu), .. }) => drop(self.cpus.remove(&cpu)),
            Some(Lease { cpu: None, .. }) => {
                if let Some(holders) = self.tokens.get_mut(&id) {
                    holders.remove(&connection);
                    if holders.is_empty() {
                        self.tokens.remove(&id);
                    }
                }
            }
            None => {}
        }
    }

    fn drop_all(&mut self, connection: u64) {
        let ids = self.clients.get(&connection).map(|client| client.leases.keys().copied());
        for id in ids.map(Iterator::collect::<Vec<_>>).unwrap_or_default() {
            self.put(connection, id);
        }
    }

    fn restore(&mut self, connection: u64, whole: &Whole) {
        self.drop_all(connection);
        let Whole { protocol, peer, at, dialect, claim, cpuset, mapping, leases, kept, cards } =
            whole.clone();
        let Cards { namespace, interfaces } = cards;
        let client = Client {
            dialect,
            claim,
            cpuset: cpuset.into_iter().next(),
            mapping,
            kept: kept.into_iter().collect(),
            namespace,
            interfaces: interfaces.into_iter().map(|card| (card.index, card.into())).collect(),
            ..Client::new(protocol, peer, at)
        };
        self.clients.insert(connection, client);
        for lease in leases {
            self.hold(connection, lease);
        }
    }

    /// Records that make a desk without clients this one: what a compacted journal holds.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        let whole = |(connection, client): (&u64, &Client)| {
            let client = client.clone();
            let whole = Whole {
                protocol: client.protocol,
                peer: client.peer,
                at: client.since_unix_ms,
                dialect: client.dialect,
                claim: client.claim,
                cpuset: client.cpuset.into_iter().collect(),
                mapping: client.mapping,
                leases: client.leases.into_values().collect(),
                kept: client.kept.into_iter().collect(),
                cards: Cards {
                    namespace: client.namespace,
                    interfaces: client.interfaces.into_iter().map(Card::from).collect(),
                },
            };
            record(*connection, 0, Change::Whole(Box::new(whole)))
        };
        self.clients.iter().map(whole).collect()
    }
}

impl Client {
    /// Keeps the answer to a request, and forgets those that nobody can ask for again: no more
    /// requests than this are ever unanswered.
    fn keep(&mut self, sequence: u64, answer: Kept) {
        let window = u64::from(DEFAULT_IN_FLIGHT.get());
        while self.kept.front().is_some_and(|(number, _)| number + window <= sequence) {
            self.kept.pop_front();
        }
        match self.kept.back_mut() {
            // What was given could not be given after all.
            Some((last, kept)) if *last == sequence => *kept = answer,
            Some((last, _)) if *last > sequence => {}
            _ => self.kept.push_back((sequence, answer)),
        }
    }
}

fn record(connection: u64, sequence: u64, change: Change) -> Record {
    Record { connection, sequence, change, refused: None }
}

/// The answer to a request that changes this.
fn answer(change: &Change, refused: Option<&Why>) -> Kept {
    match (refused, change) {
        (Some(why), _) => Kept::Refused(why.clone()),
        (None, Change::Leased { leases, .. }) => Kept::Leased(leases.clone()),
        (None, Change::Queue { queue, .. }) => Kept::Queue(*queue),
        (None, Change::Flow { location, .. }) => Kept::Flow(*location),
        (None, Change::Map { index }) => Kept::Map(*index),
        _ => Kept::Done,
    }
}
