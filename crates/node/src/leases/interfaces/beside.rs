//! Which CPUs are beside the lcores of those who hold queues, where the document wants interrupts
//! there.

use crate::leases::cards::{Beside, Job, Sections};
use crate::leases::counter::Counter;
use pointsman_lease::Client;
use pointsman_model::cpu::CpuSet;
use pointsman_plan::nic::beside;

impl Counter {
    /// The document says this of cards from now on.
    pub(in crate::leases) fn sections(&mut self, sections: Sections) {
        self.interfaces.beside = sections.follows_lcores().then(Beside::default);
        self.interfaces.cards.tell(Job::Document(sections));
        self.tell_beside();
    }

    /// Tells which CPUs are beside leased lcores, if somebody wants to know and it is news.
    pub(in crate::leases) fn tell_beside(&mut self) {
        let Some(told) = &self.interfaces.beside else { return };
        let desk = &self.desk;
        let cpus = |client: &Client| -> CpuSet {
            client.leases.values().filter_map(|lease| lease.cpu).collect()
        };
        let leased: CpuSet =
            desk.clients().values().flat_map(|it| cpus(it).iter().collect::<Vec<_>>()).collect();
        let mut now = Beside {
            others: beside(desk.topology(), &CpuSet::default(), &leased),
            ..Beside::default()
        };
        for client in desk.clients().values() {
            let near = beside(desk.topology(), &cpus(client), &leased);
            for (index, held) in &client.interfaces {
                let queues = held.queues.iter().map(|queue| (*queue, near.clone()));
                now.held.entry(client.place(*index)).or_default().extend(queues);
            }
        }
        now.held.retain(|_, queues| !queues.is_empty());
        if now != *told {
            self.interfaces.cards.tell(Job::Beside(now.clone()));
            self.interfaces.beside = Some(now);
        }
    }
}
