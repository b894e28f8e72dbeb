//! What a card was asked for, and what its answer means.

use super::{Parked, Then, Wait};
use crate::leases::Reply;
use crate::leases::cards::{Done, Job, Rights};
use crate::leases::counter::Counter;
use crate::leases::requests::Front;
use pointsman_bpf::sockets::QUEUES;
use pointsman_lease::imtl::FlowAsked;
use pointsman_lease::{Ask, Kept, Record, Why};
use pointsman_model::flow::imtl_flow;
use pointsman_model::lease::Place;
use pointsman_plan::nic::{Queues, next_queue};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

impl Counter {
    pub(super) fn add_flow(&mut self, front: Front, place: Place, flow: &FlowAsked) {
        let FlowAsked { index, queue, flow_type, addresses, ports } = flow;
        let request = match addresses {
            Some(addresses) => imtl_flow(*flow_type, *addresses, *ports, *queue)
                .map_err(|problem| problem.to_string()),
            None => Err("what its addresses mean depends on its dialect, which it has not told: \
                         register first"
                .to_owned()),
        };
        let request = match request {
            Ok(request) => request,
            Err(what) => {
                return self.finish(front, &Kept::Refused(Why::BadRequest { what }), Vec::new());
            }
        };
        // DPDK's driver opens queues that it never asked for, and steers packets there: those that
        // nobody holds are free to be steered to, and given to nobody else from then on.
        let held = self.held_queues(front.connection, *index);
        let mut taken = self.desk.taken_queues(&place, front.connection);
        taken.retain(|queue| !held.contains(queue));
        let job = Job::AddFlow { place, request, rights: Rights::AllBut(taken) };
        self.job(front, job, Then::Flow(*index));
    }

    pub(super) fn held_queues(&self, connection: u64, index: u32) -> BTreeSet<u32> {
        let client = self.desk.clients().get(&connection);
        let held = client.and_then(|client| client.interfaces.get(&index));
        held.map(|held| held.queues.clone()).unwrap_or_default()
    }

    /// A card is done.
    pub(in crate::leases) fn worked(&mut self, ticket: u64, done: Result<Done, String>) {
        if let Some((_, reply)) = self.interfaces.released.take_if(|(of, _)| *of == ticket) {
            // That nobody waits for it any more is not our concern.
            let _ = reply.send(Ok(()));
            return;
        }
        let is_it = |(_, parked): &(&u64, &Parked)| matches!(&parked.wait, Wait::Card { ticket: waited, .. } if *waited == ticket);
        let Some(connection) = self.interfaces.parked.iter().find(is_it).map(|(id, _)| *id) else {
            // Nobody is there any more to have what was done for him.
            if let (Some(place), Ok(Done::Flow(location, rule))) =
                (self.interfaces.orphans.remove(&ticket), done)
            {
                self.interfaces.cards.tell(Job::DelFlow { place, location, rule });
            }
            return;
        };
        self.resume(connection, |counter, front, wait| {
            let Wait::Card { then, .. } = wait else { return };
            match (then, done) {
                (Then::Queue(index), done) => counter.queue(front, index, done),
                (Then::Flow(index), done) => counter.flow(front, index, done),
                (Then::Tell(kept, _), Ok(Done::Map(map))) => {
                    counter.finish(front, &kept, vec![map]);
                }
                (Then::Tell(..), Ok(Done::NotTaken(what))) => {
                    counter.finish(front, &Kept::Refused(Why::BadRequest { what }), Vec::new());
                }
                (Then::Tell(kept, _), Ok(_)) => counter.finish(front, &kept, Vec::new()),
                (Then::Tell(_, undo), Err(what)) => {
                    tracing::error!(instance = connection, "{what}");
                    let why = Why::CardFailed { what };
                    if let Some(change) = undo {
                        let (sequence, refused) = (front.sequence, Some(why.clone()));
                        let _ = counter.commit(&Record { connection, sequence, change, refused });
                    }
                    counter.finish(front, &Kept::Refused(why), Vec::new());
                }
            }
        });
    }

    pub(super) fn queue(&mut self, front: Front, index: u32, done: Result<Done, String>) {
        let found = match done {
            Ok(Done::Queues(queues, reserve)) => {
                self.free_queue(front.connection, index, queues, reserve.as_ref())
            }
            Ok(_) => Err("it is not known how many there are".to_owned()),
            Err(why) => Err(why),
        };
        self.decide(front, &Ask::GetQueue { index, found });
    }

    /// Ends everybody; `reply` is told when the cards are as they were.
    pub(in crate::leases) fn release(&mut self, reply: Reply<()>) {
        let all: Vec<u64> = self.desk.clients().keys().copied().collect();
        all.into_iter().for_each(|connection| self.closed(connection));
        match self.interfaces.cards.ask(Job::Fence) {
            Some(ticket) => self.interfaces.released = Some((ticket, reply)),
            None => drop(reply.send(Ok(()))),
        }
    }

    pub(super) fn flow(&mut self, front: Front, index: u32, done: Result<Done, String>) {
        let found = match done {
            Ok(Done::Flow(location, rule)) => Ok((location, rule)),
            Ok(Done::NoFlow(why)) => Err(why),
            Ok(_) => Err(Why::NotHere),
            Err(what) => Err(Why::CardFailed { what }),
        };
        let connection = front.connection;
        let client = self.desk.clients().get(&connection);
        let place = client.map(|client| client.place(index));
        let kept =
            self.ask(connection, front.sequence, &Ask::AddFlow { index, found: found.clone() });
        if let (Kept::Refused(_), Ok((location, rule)), Some(place)) = (&kept, found, place) {
            self.interfaces.cards.tell(Job::DelFlow { place, location, rule });
        }
        self.finish(front, &kept, Vec::new());
    }

    pub(super) fn free_queue(
        &self,
        connection: u64,
        index: u32,
        queues: Queues,
        reserve: Option<&BTreeSet<u32>>,
    ) -> Result<u32, String> {
        let client = self.desk.clients().get(&connection);
        let place = client.map(|client| client.place(index)).ok_or("its client is gone")?;
        let taken = self.desk.taken_queues(&place, connection);
        // Those beyond the maps of sockets nobody could take packets from.
        let receive = queues.receive.min(QUEUES);
        let queues = Queues { receive, ..queues };
        next_queue(queues, reserve, &taken).map_err(|why| why.to_string())
    }

    pub(super) fn socket(&mut self, front: Front, index: u32, queue: u32, socket: OwnedFd) {
        let client = self.desk.clients().get(&front.connection);
        let held = client.and_then(|client| {
            client.interfaces.get(&index)?.queues.contains(&queue).then(|| client.place(index))
        });
        let Some(place) = held else {
            self.closer.close(socket);
            let what = format!("queue {queue}");
            return self.finish(front, &Kept::Refused(Why::NotHeldThere { what }), Vec::new());
        };
        let owner = front.connection;
        self.job(front, Job::Socket { place, owner, queue, socket }, Then::Tell(Kept::Done, None));
    }
}
