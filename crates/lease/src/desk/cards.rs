//! What clients hold of network cards: receive queues, UDP ports, flow rules.

use super::{Ask, Desk};
use crate::{Change, Client, Why};
use pointsman_model::flow::{FlowAction, FlowRule};
use pointsman_model::lease::Place;
use std::collections::{BTreeMap, BTreeSet};

/// The most ports that one client may have listed, each counted as often as it was: all of them on
/// a few interfaces.
pub const MOST_PORTS: u32 = 1 << 18;

/// The most flow rules that one client may have: more than any card has room for.
pub const MOST_FLOWS: usize = 1 << 16;

/// What a client holds of one interface that it has claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// Receive queues.
    pub queues: BTreeSet<u32>,
    /// Destination ports that go on to its sockets, and how often each was asked for.
    pub ports: BTreeMap<u16, u32>,
    /// Flow rules, by where they are in the card's table.
    pub flows: BTreeMap<u32, FlowRule>,
    /// The sum of `ports`: there may be tens of thousands, and each request asks.
    pub(crate) asked: u32,
}

impl Holding {
    /// How many things these are, each of which is given back by itself.
    pub(super) fn count(&self) -> usize {
        self.queues.len() + self.asked as usize + self.flows.len()
    }
}

impl Desk {
    /// The interfaces that clients have claimed, and which clients.
    #[must_use]
    pub fn demands(&self) -> BTreeMap<Place, BTreeSet<u64>> {
        let mut demands = BTreeMap::<Place, BTreeSet<u64>>::new();
        for (id, client) in &self.clients {
            for index in client.interfaces.keys() {
                demands.entry(client.place(*index)).or_default().insert(*id);
            }
        }
        demands
    }

    fn holdings<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = (u64, &'a Holding)> {
        let there = self.clients.iter().filter(|(_, client)| client.namespace == place.namespace);
        there.filter_map(|(id, client)| Some((*id, client.interfaces.get(&place.index)?)))
    }

    /// Who holds which receive queue.
    #[must_use]
    pub fn owners(&self, place: &Place) -> BTreeMap<u32, u64> {
        let holdings = self.holdings(place);
        holdings.flat_map(|(id, held)| held.queues.iter().map(move |queue| (*queue, id))).collect()
    }

    /// Which ports go on to sockets.
    #[must_use]
    pub fn ports(&self, place: &Place) -> BTreeSet<u16> {
        self.holdings(place).flat_map(|(_, held)| held.ports.keys().copied()).collect()
    }

    /// Whether somebody has this port.
    #[must_use]
    pub fn has_port(&self, place: &Place, port: u16) -> bool {
        self.holdings(place).any(|(_, held)| held.ports.contains_key(&port))
    }

    /// The flow rules, by where they are, each with its owner.
    #[must_use]
    pub fn flows(&self, place: &Place) -> BTreeMap<u32, (u64, FlowRule)> {
        let holdings = self.holdings(place);
        let flows = holdings.flat_map(|(id, held)| {
            held.flows.iter().map(move |(location, rule)| (*location, (id, *rule)))
        });
        flows.collect()
    }

    /// The receive queues that are not free for `connection`: those that somebody holds, and those
    /// to which rules of others send packets.
    #[must_use]
    pub fn taken_queues(&self, place: &Place, connection: u64) -> BTreeSet<u32> {
        let mut taken = BTreeSet::new();
        for (id, held) in self.holdings(place) {
            taken.extend(&held.queues);
            if id != connection {
                taken.extend(held.flows.values().filter_map(queue_of));
            }
        }
        taken
    }

    /// Whether this client may use this interface, so that it is worth looking what there is.
    ///
    /// # Errors
    /// Why not.
    pub fn has_claimed(&self, connection: u64, index: u32) -> Result<Place, Why> {
        let client = self.clients.get(&connection).ok_or(Why::NotRegistered)?;
        match client.interfaces.contains_key(&index) {
            true => Ok(client.place(index)),
            false if client.claim.is_none() && client.interfaces.is_empty() => {
                Err(Why::NotRegistered)
            }
            false => Err(Why::NotClaimed { index }),
        }
    }

    /// What a request about an interface changes.
    pub(super) fn card(&self, id: u64, client: &Client, ask: &Ask) -> Result<Change, Why> {
        let held = |index: u32| client.interfaces.get(&index).ok_or(Why::NotClaimed { index });
        let not_held = |what: String| Err(Why::NotHeldThere { what });
        match ask {
            Ask::AddPort { index, port } => {
                held(*index)?;
                let all = client.interfaces.values().map(|held| held.asked);
                if all.fold(0_u32, u32::saturating_add) >= MOST_PORTS {
                    return Err(Why::TooMany { what: "ports".into(), most: MOST_PORTS });
                }
                Ok(Change::Port { index: *index, port: *port })
            }
            Ask::DelPort { index, port } => match held(*index)?.ports.contains_key(port) {
                true => Ok(Change::PortReturned { index: *index, port: *port }),
                false => not_held(format!("port {port}")),
            },
            Ask::Map { index } => held(*index).map(|_| Change::Map { index: *index }),
            Ask::GetQueue { index, found } => {
                held(*index)?;
                let queue = found.clone().map_err(|what| Why::NoQueue { what })?;
                let taken = self.taken_queues(&client.place(*index), id);
                // Whoever looked has looked at something else.
                if queue == 0 || taken.contains(&queue) {
                    return Err(Why::NoQueue { what: format!("queue {queue} is taken") });
                }
                Ok(Change::Queue { index: *index, queue })
            }
            Ask::PutQueue { index, queue } => match held(*index)?.queues.contains(queue) {
                true => Ok(Change::QueueReturned { index: *index, queue: *queue }),
                false => not_held(format!("queue {queue}")),
            },
            Ask::AddFlow { index, found } => {
                if held(*index)?.flows.len() >= MOST_FLOWS {
                    let most = MOST_FLOWS as u32;
                    return Err(Why::TooMany { what: "flow rules".into(), most });
                }
                let (location, rule) = found.clone()?;
                Ok(Change::Flow { index: *index, location, rule })
            }
            Ask::DelFlow { index, location } => match held(*index)?.flows.contains_key(location) {
                true => Ok(Change::FlowReturned { index: *index, location: *location }),
                false => not_held(format!("flow rule {location}")),
            },
            _ => Err(Why::NotHere),
        }
    }

    /// Changes what a record says of interfaces.
    pub(super) fn apply_to_cards(&mut self, connection: u64, change: &Change) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        match change {
            Change::Claimed { namespace, interfaces } => {
                // All interfaces of a connection are of its one namespace.
                client.namespace.clone_from(namespace);
                for index in interfaces {
                    client.interfaces.entry(*index).or_default();
                }
            }
            Change::Unclaimed(interfaces) => {
                client.interfaces.retain(|index, _| !interfaces.contains(index));
            }
            Change::Port { index, port } => {
                let held = client.interfaces.entry(*index).or_default();
                *held.ports.entry(*port).or_default() += 1;
                held.asked += 1;
            }
            Change::PortReturned { index, port } => {
                let held = client.interfaces.entry(*index).or_default();
                let Some(times) = held.ports.get_mut(port) else { return };
                *times -= 1;
                if *times == 0 {
                    held.ports.remove(port);
                }
                held.asked -= 1;
            }
            Change::Queue { index, queue } => {
                let place = client.place(*index);
                // What others hold stays theirs, whatever a record says.
                if self.owners(&place).contains_key(queue) {
                    return;
                }
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.interfaces.entry(*index).or_default().queues.insert(*queue);
                }
            }
            Change::QueueReturned { index, queue } => {
                client.interfaces.entry(*index).or_default().queues.remove(queue);
            }
            Change::Flow { index, location, rule } => {
                let place = client.place(*index);
                if self.flows(&place).contains_key(location) {
                    return;
                }
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.interfaces.entry(*index).or_default().flows.insert(*location, *rule);
                }
            }
            Change::FlowReturned { index, location } => {
                client.interfaces.entry(*index).or_default().flows.remove(location);
            }
            // It stays registered, and has nothing.
            Change::Cleared => {
                client.interfaces.values_mut().for_each(|held| *held = Holding::default());
            }
            _ => {}
        }
    }
}

fn queue_of(rule: &FlowRule) -> Option<u32> {
    match rule.action {
        FlowAction::Queue(queue) => Some(queue),
        FlowAction::Drop => None,
    }
}
