//! What is decided about a request. Nothing here changes the desk.

use super::{Desk, answer, record};
use crate::choose::{Wish, choose};
use crate::place::{self, place};
use crate::{Change, Claim, Client, Lease, Record, Why};
use pointsman_model::cpu::CpuSet;
use pointsman_model::document::{LcoresSpec, People};
use pointsman_model::flow::FlowRule;
use pointsman_model::lease::{Mapping, Place, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a client asks of the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To be known by this.
    Register {
        /// What it says of itself.
        claim: Claim,
        /// Why it cannot be, such as that one of its interfaces is not there.
        refused: Option<Why>,
    },
    /// The lcore with this id.
    Get(u32),
    /// To give that id back.
    Put(u32),
    /// As many CPUs as it wants, wherever they are best.
    Choose(Wish),
    /// To give these back; `None`: all.
    GiveBack(Option<Vec<u32>>),
    /// Packets from an interface, which is done: it was claimed before.
    Claimed {
        /// Why it cannot be.
        refused: Option<Why>,
    },
    /// To have this port go on to sockets.
    AddPort {
        /// The interface.
        index: u32,
        /// The destination port.
        port: u16,
    },
    /// No longer.
    DelPort {
        /// The interface.
        index: u32,
        /// The destination port.
        port: u16,
    },
    /// The map that its sockets enter.
    Map {
        /// The interface.
        index: u32,
    },
    /// A receive queue.
    GetQueue {
        /// The interface.
        index: u32,
        /// The one that is free, or why none is: whoever asks the desk has looked.
        found: Result<u32, String>,
    },
    /// To give it back.
    PutQueue {
        /// The interface.
        index: u32,
        /// The queue.
        queue: u32,
    },
    /// A flow rule.
    AddFlow {
        /// The interface.
        index: u32,
        /// Where it was put, and what it is; or why it was not.
        found: Result<(u32, FlowRule), Why>,
    },
    /// To take it away.
    DelFlow {
        /// The interface.
        index: u32,
        /// Where it is.
        location: u32,
    },
}

impl Ask {
    /// Whether something is given back: whoever holds it may.
    const fn gives_back(&self) -> bool {
        matches!(
            self,
            Self::Put(_)
                | Self::GiveBack(_)
                | Self::DelPort { .. }
                | Self::PutQueue { .. }
                | Self::DelFlow { .. }
        )
    }
}

/// An answer, as it is kept for a request that comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Done.
    Done,
    /// Done: these are the client's now.
    Leased(Vec<Lease>),
    /// Done: this receive queue is.
    Queue(u32),
    /// Done: the rule is there.
    Flow(u32),
    /// Its map of this interface is to be handed over.
    Map(u32),
    /// No.
    Refused(Why),
}

/// What the desk decides about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer, once the record is written down and applied.
    pub answer: Kept,
    /// What is to be written down and applied; `None`: nothing changes.
    pub record: Option<Record>,
}

/// A refusal, and what changes all the same.
struct Refused {
    why: Why,
    change: Option<Box<Change>>,
}

impl From<Why> for Refused {
    fn from(why: Why) -> Self {
        Self { why, change: None }
    }
}

impl Desk {
    /// Decides about a request. Changes nothing: the decision's record does.
    ///
    /// A request that comes again gets the answer that it had. One of which nothing is written
    /// down, though later ones are, can only have been refused: whatever is given is written down.
    #[must_use]
    pub fn decide(&self, connection: u64, sequence: u64, ask: &Ask) -> Decision {
        let refuse = |why| Decision { answer: Kept::Refused(why), record: None };
        let Some(client) = self.clients.get(&connection) else {
            return refuse(Why::NotRegistered);
        };
        if sequence <= client.newest() {
            let answer = client.answered(sequence).cloned();
            let answer = answer.unwrap_or_else(|| self.unwritten(client, ask));
            return Decision { answer, record: None };
        }
        let decided = self.may(client, ask).and_then(|()| self.grant(connection, client, ask));
        match decided {
            // Nothing changes, and nothing is written into the space that is set aside for releases.
            Ok(Change::Returned(ids)) if ids.is_empty() => {
                Decision { answer: Kept::Done, record: None }
            }
            Ok(change) => {
                let answer = answer(&change, None);
                Decision { answer, record: Some(record(connection, sequence, change)) }
            }
            Err(Refused { why, change }) => {
                let refused = Some(why.clone());
                let record =
                    change.map(|change| Record { connection, sequence, change: *change, refused });
                Decision { answer: Kept::Refused(why), record }
            }
        }
    }

    /// The answer to a request that comes again and of which nothing is written down.
    fn unwritten(&self, client: &Client, ask: &Ask) -> Kept {
        let of_nothing = match ask {
            Ask::GiveBack(ids) => ids.as_ref().is_none_or(Vec::is_empty),
            _ => false,
        };
        if of_nothing && self.may(client, ask).is_ok() {
            return Kept::Done;
        }
        Kept::Refused(Why::Lost)
    }

    /// The answer that a request which comes again had; `None`: it is a new one.
    #[must_use]
    pub fn repeated(&self, connection: u64, sequence: u64) -> Option<Kept> {
        let client = self.clients.get(&connection)?;
        let again = sequence <= client.newest();
        again.then(|| client.answered(sequence).cloned().unwrap_or(Kept::Refused(Why::Lost)))
    }

    /// Whether this client may want its packets from interfaces.
    ///
    /// # Errors
    /// Why not.
    pub fn may_claim(&self, connection: u64) -> Result<(), Why> {
        let client = self.clients.get(&connection).ok_or(Why::NotRegistered)?;
        match self.is_stranger(client) {
            false => Ok(()),
            true => Err(Why::Stranger { uid: client.peer.uid }),
        }
    }

    /// The interface of a new request for which somebody has to look at the card first.
    ///
    /// # Errors
    /// The answer, because there is nothing to look for: it has one already, or no right.
    pub fn may_look(&self, connection: u64, sequence: u64, index: u32) -> Result<Place, Kept> {
        if let Some(answer) = self.repeated(connection, sequence) {
            return Err(answer);
        }
        let client = self.clients.get(&connection).ok_or(Kept::Refused(Why::NotRegistered))?;
        let ask = Ask::GetQueue { index, found: Err(String::new()) };
        self.may(client, &ask).map_err(|refused| Kept::Refused(refused.why))?;
        self.has_claimed(connection, index).map_err(Kept::Refused)
    }

    /// The answer to a request that is not to be carried out, because daemons crashed over it:
    /// what one of them did for it is told as done.
    #[must_use]
    pub fn decide_fatal(&self, connection: u64, sequence: u64) -> Kept {
        let client = self.clients.get(&connection);
        let answer = client.and_then(|client| client.answered(sequence)).cloned();
        answer.unwrap_or(Kept::Refused(Why::Fatal))
    }

    /// Whether the client's CPUs must be looked up before this is decided. Only where they matter:
    /// nobody without a right makes the daemon look at processes.
    #[must_use]
    pub fn needs_cpuset(&self, connection: u64, sequence: u64, ask: &Ask) -> bool {
        let matters = match ask {
            Ask::Get(id) => *id < self.policy.lcores.limit,
            Ask::Choose(_) => true,
            _ => false,
        };
        matters
            && self.clients.get(&connection).is_some_and(|client| {
                client.cpuset.is_none()
                    && sequence > client.newest()
                    && self.may(client, ask).is_ok()
            })
    }

    /// Whether it matters, for a REGISTER, which interfaces are there. Nobody without a right, and
    /// nothing that was answered before, makes the daemon enter a network namespace.
    #[must_use]
    pub fn needs_interfaces(&self, connection: u64, sequence: u64) -> bool {
        let client = self.clients.get(&connection);
        client.is_some_and(|client| sequence > client.newest() && !self.is_stranger(client))
    }

    fn is_stranger(&self, client: &Client) -> bool {
        let uid = client.peer.uid;
        let stranger = |people: &People| uid != 0 && !people.include(uid, &client.groups());
        self.policy.access.clients.as_ref().is_some_and(stranger)
    }

    /// Whether the client may ask for this at all.
    fn may(&self, client: &Client, ask: &Ask) -> Result<(), Refused> {
        // What it holds it may give back, whoever it is.
        let holds = !client.leases.is_empty() || !client.interfaces.is_empty();
        if ask.gives_back() && holds {
            return Ok(());
        }
        let why = if self.is_stranger(client) {
            Why::Stranger { uid: client.peer.uid }
        } else if let Ask::Register { refused: Some(why), .. }
        | Ask::Claimed { refused: Some(why) } = ask
        {
            why.clone()
        } else if matches!(ask, Ask::Register { .. } | Ask::GiveBack(_))
            || client.claim.is_some()
            || client.protocol == Protocol::Native
        {
            return Ok(());
        } else {
            Why::NotRegistered
        };
        // A REGISTER that failed is written down too: it has told the dialect.
        let change = matches!(ask, Ask::Register { .. }).then(|| Box::new(Change::Answered));
        Err(Refused { why, change })
    }

    fn grant(&self, connection: u64, client: &Client, ask: &Ask) -> Result<Change, Refused> {
        match ask {
            Ask::Register { claim, .. } => Ok(Change::Registered(claim.clone())),
            Ask::Claimed { .. } => Ok(Change::Answered),
            Ask::Get(id) => self.get(connection, client, *id),
            Ask::Put(id) if client.leases.contains_key(id) => Ok(Change::Returned(vec![*id])),
            Ask::Put(id) => Err(Why::NotHeld { id: *id }.into()),
            Ask::Choose(wish) => self.choice(client, wish).map_err(Refused::from),
            Ask::GiveBack(None) => Ok(Change::Returned(client.leases.keys().copied().collect())),
            Ask::GiveBack(Some(ids)) => {
                match ids.iter().find(|id| !client.leases.contains_key(id)) {
                    Some(id) => Err(Why::NotHeld { id: *id }.into()),
                    None => {
                        // Each once: what is written down must fit the space set aside for it.
                        let ids: BTreeSet<u32> = ids.iter().copied().collect();
                        Ok(Change::Returned(ids.into_iter().collect()))
                    }
                }
            }
            _ => self.card(connection, client, ask).map_err(Refused::from),
        }
    }

    fn get(&self, connection: u64, client: &Client, id: u32) -> Result<Change, Refused> {
        let LcoresSpec { reserve, lcore_ids, limit } = &self.policy.lcores;
        if id >= *limit {
            return Err(Why::OutOfRange { id, limit: *limit }.into());
        }
        if client.leases.contains_key(&id) {
            return Err(Why::Busy { id, holder: connection }.into());
        }
        let exists = |cpu| self.topology.cpu(cpu).is_some();
        let find = |id, before| place(id, *lcore_ids, before, client.cpus(), exists);
        let place::Place { mapping, cpu } = find(id, client.mapping);
        let fresh = client.mapping != Some(mapping);
        let mut moved = Vec::new();
        if fresh && mapping == Mapping::Remapped {
            let place = |lease: &Lease| Lease { cpu: find(lease.id, Some(mapping)).cpu, ..*lease };
            moved = client.leases.values().map(place).collect();
            if !self.can_move(connection, client, &moved) {
                moved.clear();
            }
        }
        // A CPU that came or went under a token: for those who call it by its number it is the same.
        let physical = mapping != Mapping::Remapped;
        // Whose ids are places in its cpuset meets those who call a CPU by its number.
        let token = |id| match (cpu, physical) {
            (Some(cpu), false) => self.holder_by_number(connection, client, cpu),
            _ => self.token_holder(connection, client, id),
        };
        let own = |lease: &Lease| lease.cpu.is_some() && lease.cpu == cpu;
        let why = match cpu {
            Some(cpu) if reserve.contains(cpu) => Some(Why::Reserved { cpu }),
            Some(_) if moved.iter().any(own) => Some(Why::Busy { id, holder: connection }),
            Some(cpu) => {
                // What it held before it moved is free.
                let holder = self.cpus.get(&cpu).copied();
                let holder = holder.filter(|holder| *holder != connection || moved.is_empty());
                holder.or_else(|| token(id)).map(|holder| Why::Busy { id, holder })
            }
            None => {
                let holder = token(id).or_else(|| self.cpus.get(&id).copied().filter(|_| physical));
                holder.map(|holder| Why::Busy { id, holder })
            }
        };
        let told = fresh.then_some(mapping);
        match why {
            None => {
                let leases = vec![Lease { id, cpu, idle: false }];
                Ok(Change::Leased { leases, mapping: told, moved })
            }
            // How its ids are to be read was learned all the same.
            Some(why) => {
                let change = Change::Leased { leases: Vec::new(), mapping: told, moved };
                let change = fresh.then(|| Box::new(change));
                Err(Refused { why, change })
            }
        }
    }

    /// Whether a client can have these in place of what it holds.
    fn can_move(&self, connection: u64, client: &Client, leases: &[Lease]) -> bool {
        let mut seen = BTreeSet::new();
        leases.iter().all(|lease| match lease.cpu {
            None => self.token_holder(connection, client, lease.id).is_none(),
            Some(cpu) => {
                let free = self.cpus.get(&cpu).is_none_or(|holder| *holder == connection)
                    && self.holder_by_number(connection, client, cpu).is_none();
                free && !self.policy.lcores.reserve.contains(cpu) && seen.insert(cpu)
            }
        })
    }

    /// Somebody else who holds an id that is no CPU, and who may share CPUs with this client.
    fn token_holder(&self, connection: u64, client: &Client, id: u32) -> Option<u64> {
        self.token_holders(connection, client, id).next()
    }

    /// Somebody else who was given the number of a CPU that was not there then.
    fn holder_by_number(&self, connection: u64, client: &Client, cpu: u32) -> Option<u64> {
        self.token_holders(connection, client, cpu).find(|holder| self.counts_cpus(*holder))
    }

    /// Whether a client's ids are numbers of CPUs.
    fn counts_cpus(&self, connection: u64) -> bool {
        let client = self.clients.get(&connection);
        client.is_some_and(|client| client.mapping != Some(Mapping::Remapped))
    }

    fn token_holders(
        &self,
        connection: u64,
        client: &Client,
        id: u32,
    ) -> impl Iterator<Item = u64> {
        let ours = client.cpus();
        let shares = move |holder: &u64| match (self.cpus_of(*holder), ours) {
            (Some(theirs), Some(ours)) => theirs.meets(ours),
            _ => true,
        };
        let holders = self.tokens.get(&id).into_iter().flatten().copied();
        holders.filter(move |holder| *holder != connection && shares(holder))
    }

    fn cpus_of(&self, connection: u64) -> Option<&CpuSet> {
        self.clients.get(&connection).and_then(Client::cpus)
    }

    fn choice(&self, client: &Client, wish: &Wish) -> Result<Change, Why> {
        // Also those that came under a token of somebody who calls them by their number.
        let counted = |(_, holders): &(&u32, &BTreeSet<u64>)| {
            holders.iter().any(|holder| self.counts_cpus(*holder))
        };
        let tokens = self.tokens.iter().filter(counted).map(|(id, _)| *id);
        let taken: CpuSet = self.cpus.keys().copied().chain(tokens).collect();
        let reserved = &self.policy.lcores.reserve;
        let chosen = choose(&self.topology, client.cpus(), reserved, &taken, wish)?;
        Ok(Change::Leased { leases: chosen, mapping: None, moved: Vec::new() })
    }
}
