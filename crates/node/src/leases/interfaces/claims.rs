//! A client wants its packets from interfaces, and what becomes of that.

use super::{Entry, Wait};
use crate::engine::{self, Served};
use crate::leases::cards::Job;
use crate::leases::counter::Counter;
use crate::leases::requests::Front;
use pointsman_lease::{Ask, Change, Kept, Record, Why};
use std::collections::BTreeSet;

impl Counter {
    /// A client wants its packets from interfaces.
    pub(super) fn claim(&mut self, front: Front, then: Entry) {
        let (connection, sequence) = (front.connection, front.sequence);
        let refused = |what| {
            let why = match &then {
                Entry::Register(claim) => {
                    let index = claim.interfaces.first().copied().unwrap_or_default();
                    Why::NotServed { index, what }
                }
                Entry::Claim(index) => Why::NotServed { index: *index, what },
            };
            Some(why)
        };
        let repeated = self.desk.repeated(connection, sequence).is_some();
        let stranger = self.desk.may_claim(connection).is_err();
        if repeated || stranger || self.unclear() {
            return self.enter(front, then, None);
        }
        let known = &self.interfaces.namespaces;
        let person = self.people.get(&connection);
        let claimed = self.interfaces.demands.keys().filter_map(|place| place.namespace.as_ref());
        let namespace = person.map_or(Ok(None), |person| person.namespace(known, claimed));
        let namespace = match namespace {
            Ok(namespace) => namespace,
            Err(why) => {
                let why = refused(why);
                return self.enter(front, then, why);
            }
        };
        let client = self.desk.clients().get(&connection);
        let has = |index: &u32| client.is_some_and(|it| it.interfaces.contains_key(index));
        let wanted = then.interfaces();
        let fresh: BTreeSet<u32> = wanted.iter().copied().filter(|index| !has(index)).collect();
        let fresh: Vec<u32> = fresh.into_iter().collect();
        if !fresh.is_empty() {
            let change = Change::Claimed { namespace, interfaces: fresh.clone() };
            let record = Record { connection, sequence: 0, change, refused: None };
            if let Err(why) = self.commit(&record) {
                return self.finish(front, &Kept::Refused(Why::Journal { why }), Vec::new());
            }
        }
        let revision = self.interfaces.revision;
        let wait = Wait::Served { revision, fresh, then };
        if let Wait::Served { then, .. } = &wait
            && self.outcome(connection, &then.interfaces()).is_none()
        {
            return self.park(front, wait);
        }
        self.served_to(front, wait);
    }

    /// What became of a client's interfaces; `None`: it is not known yet.
    pub(super) fn outcome(&self, connection: u64, interfaces: &[u32]) -> Option<Option<Why>> {
        let client = self.desk.clients().get(&connection)?;
        let mut refused = None;
        for index in interfaces {
            match self.interfaces.served.get(&client.place(*index))? {
                Ok(()) => {}
                Err(what) if refused.is_none() => {
                    refused = Some(Why::NotServed { index: *index, what: what.clone() });
                }
                Err(_) => {}
            }
        }
        Some(refused)
    }

    /// The engine has said what a client gets.
    pub(super) fn served_to(&mut self, front: Front, wait: Wait) {
        let Wait::Served { fresh, then, .. } = wait else { return };
        let connection = front.connection;
        let refused = self.outcome(connection, &then.interfaces()).flatten();
        if refused.is_some() && !fresh.is_empty() {
            let change = Change::Unclaimed(fresh);
            let _ = self.commit(&Record { connection, sequence: 0, change, refused: None });
        }
        self.enter(front, then, refused);
    }

    pub(super) fn enter(&mut self, front: Front, then: Entry, refused: Option<Why>) {
        let ask = match then {
            Entry::Register(claim) => Ask::Register { claim, refused },
            Entry::Claim(_) => Ask::Claimed { refused },
        };
        let kept = self.ask(front.connection, front.sequence, &ask);
        self.finish(front, &kept, Vec::new());
    }

    /// The engine tells what instances get.
    pub(in crate::leases) fn served(&mut self, served: Served) {
        let Served { revision, places } = served;
        self.interfaces.waits = false;
        // What was said of demands that have changed since is said again.
        if revision < self.interfaces.revision {
            return;
        }
        self.interfaces.served.clear();
        // Where it is not known who holds what, the maps say it still.
        let known = !self.journal.unreadable();
        for (place, maps) in places {
            let told = match maps {
                Ok(maps) => {
                    if known {
                        self.interfaces.cards.tell(Job::Served { place: place.clone(), maps });
                    }
                    Ok(())
                }
                Err(why) => Err(why),
            };
            self.interfaces.served.insert(place, told);
        }
        let waiting = self.interfaces.parked.iter().filter(|(_, parked)| {
            matches!(&parked.wait, Wait::Served { revision: wanted, .. } if *wanted <= revision)
        });
        let waiting: Vec<u64> = waiting.map(|(connection, _)| *connection).collect();
        for connection in waiting {
            self.resume(connection, Self::served_to);
        }
    }

    /// Tells the engine from which interfaces clients want their packets, if that is news.
    pub(super) fn demand(&mut self) {
        let demands = self.desk.demands();
        if demands == self.interfaces.demands {
            return;
        }
        for place in self.interfaces.demands.keys().filter(|place| !demands.contains_key(place)) {
            self.interfaces.cards.tell(Job::Unwanted { place: place.clone() });
            self.interfaces.served.remove(place);
        }
        self.interfaces.demands.clone_from(&demands);
        self.interfaces.revision += 1;
        let revision = self.interfaces.revision;
        self.engine.tell(engine::Message::Demands { demands, revision });
    }
}

impl Entry {
    pub(super) fn interfaces(&self) -> Vec<u32> {
        match self {
            Self::Register(claim) => claim.interfaces.clone(),
            Self::Claim(index) => vec![*index],
        }
    }
}
