//! What a change of the leases leaves to be done.

use crate::leases::cards::Job;
use crate::leases::counter::Counter;
use pointsman_lease::{Change, Record};
use pointsman_model::flow::FlowRule;
use pointsman_model::lease::Place;
use std::collections::BTreeSet;

/// What a change leaves to be done on cards, noted before it is made.
#[derive(Debug, Default)]
pub(in crate::leases) struct Aftermath {
    ports: Vec<(Place, u16)>,
    all_ports: BTreeSet<Place>,
    queues: Vec<(Place, u32)>,
    flows: Vec<(Place, u32, FlowRule)>,
    demands: bool,
    gone: bool,
}

impl Counter {
    /// Notes what a change takes from a client, before it is made.
    pub(in crate::leases) fn before_change(&self, record: &Record) -> Aftermath {
        let mut after = Aftermath::default();
        let Some(client) = self.desk.clients().get(&record.connection) else { return after };
        match &record.change {
            Change::PortReturned { index, port } => {
                after.ports.push((client.place(*index), *port));
            }
            Change::QueueReturned { index, queue } => {
                after.queues.push((client.place(*index), *queue));
            }
            Change::FlowReturned { index, location } => {
                let held = client.interfaces.get(index).and_then(|held| held.flows.get(location));
                after.flows.extend(held.map(|rule| (client.place(*index), *location, *rule)));
            }
            Change::Closed | Change::Cleared => {
                for (index, held) in &client.interfaces {
                    let place = client.place(*index);
                    after.queues.extend(held.queues.iter().map(|queue| (place.clone(), *queue)));
                    let flows = held.flows.iter();
                    after.flows.extend(flows.map(|(at, rule)| (place.clone(), *at, *rule)));
                    if !held.ports.is_empty() {
                        after.all_ports.insert(place);
                    }
                }
                after.gone = record.change == Change::Closed && !client.interfaces.is_empty();
                after.demands = after.gone;
            }
            Change::Claimed { .. } | Change::Unclaimed(_) => after.demands = true,
            _ => {}
        }
        after
    }

    /// Has done on cards what follows from a change.
    pub(in crate::leases) fn after_change(&mut self, record: &Record, after: Aftermath) {
        let Aftermath { ports, all_ports, queues, flows, demands, gone } = after;
        let cards = &self.interfaces.cards;
        // First no packet is steered there any more, then the queue is nobody's.
        for (place, location, rule) in flows {
            cards.tell(Job::DelFlow { place, location, rule });
        }
        for (place, queue) in queues {
            cards.tell(Job::Owner { place, queue, owner: None });
        }
        for (place, port) in ports {
            if !self.desk.has_port(&place, port) {
                cards.tell(Job::Port { place, port, listed: false });
            }
        }
        for place in all_ports {
            let ports = self.desk.ports(&place);
            cards.tell(Job::AllPorts { place, ports });
        }
        if gone {
            cards.tell(Job::Gone { owner: record.connection });
        }
        if demands {
            self.demand();
        }
    }
}
