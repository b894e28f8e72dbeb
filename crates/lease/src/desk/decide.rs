//! What is decided about a request. Nothing here changes the desk.

use super::{Desk, answer, record};
use crate::choose::{Wish, choose};
use crate::place::{Place, place};
use crate::{Change, Claim, Client, Lease, Record, Why};
use pointsman_model::cpu::CpuSet;
use pointsman_model::document::{LcoresSpec, People};
use pointsman_model::lease::{Mapping, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a client asks of the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To be known by this.
    Register {
        /// What it says of itself.
        claim: Claim,
        /// The first of its interfaces that is not there.
        missing: Option<u32>,
    },
    /// The lcore with this id.
    Get(u32),
    /// To give that id back.
    Put(u32),
    /// As many CPUs as it wants, wherever they are best.
    Choose(Wish),
    /// To give these back; `None`: all.
    GiveBack(Option<Vec<u32>>),
    /// Something of an interface.
    Interface,
}

/// An answer, as it is kept for a request that comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Done.
    Done,
    /// Done: these are the client's now.
    Leased(Vec<Lease>),
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
        if let Some((last, _)) = client.kept.back().filter(|(last, _)| sequence <= *last) {
            debug_assert!(*last >= sequence);
            let kept = client.kept.binary_search_by_key(&sequence, |(number, _)| *number);
            let answer = kept.map_or(Kept::Refused(Why::Lost), |at| client.kept[at].1.clone());
            return Decision { answer, record: None };
        }
        let decided = self.may(client, ask).and_then(|()| self.grant(connection, client, ask));
        match decided {
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

    /// Whether the client may ask for this at all.
    fn may(&self, client: &Client, ask: &Ask) -> Result<(), Refused> {
        // What it holds it may give back, whoever it is.
        if matches!(ask, Ask::Put(_) | Ask::GiveBack(_)) && !client.leases.is_empty() {
            return Ok(());
        }
        let uid = client.peer.uid;
        let clients = self.policy.access.clients.as_ref();
        let stranger = |people: &People| uid != 0 && !people.include(uid, &client.groups());
        let why = if clients.is_some_and(stranger) {
            Why::Stranger { uid }
        } else if let Ask::Register { missing: Some(index), .. } = ask {
            Why::NoInterface { index: *index }
        } else if matches!(ask, Ask::Register { .. })
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
            Ask::Interface => Err(Why::NotHere.into()),
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
        let Place { mapping, cpu } = find(id, client.mapping);
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
        let token = |id| match (cpu, physical) {
            (Some(_), false) => None,
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
                let free = self.cpus.get(&cpu).is_none_or(|holder| *holder == connection);
                free && !self.policy.lcores.reserve.contains(cpu) && seen.insert(cpu)
            }
        })
    }

    /// Somebody else who holds an id that is no CPU, and who may share CPUs with this client.
    fn token_holder(&self, connection: u64, client: &Client, id: u32) -> Option<u64> {
        let shares = |holder: &u64| match (self.cpus_of(*holder), client.cpus()) {
            (Some(theirs), Some(ours)) => theirs.meets(ours),
            _ => true,
        };
        let mut holders = self.tokens.get(&id)?.iter().filter(|holder| **holder != connection);
        holders.find(|holder| shares(holder)).copied()
    }

    fn cpus_of(&self, connection: u64) -> Option<&CpuSet> {
        self.clients.get(&connection).and_then(Client::cpus)
    }

    fn choice(&self, client: &Client, wish: &Wish) -> Result<Change, Why> {
        let taken: CpuSet = self.cpus.keys().copied().collect();
        let reserved = &self.policy.lcores.reserve;
        let chosen = choose(&self.topology, client.cpus(), reserved, &taken, wish)?;
        Ok(Change::Leased { leases: chosen, mapping: None, moved: Vec::new() })
    }
}
