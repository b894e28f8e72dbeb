//! The thread's own side: what each interface has, and how that comes about.

use super::document::InForce;
use super::flows::{self, inside};
use super::footprints::{Footprints, Rule};
use super::handover::Inspector;
use super::{Done, Job, rss};
use crate::engine::Maps;
use crate::host::OpenMap;
use crate::leases::{Handle, Message};
use pointsman_bpf::sockets::{Owners, Ports, QUEUES, Sockets};
use pointsman_model::flow::FlowRule;
use pointsman_model::lease::Place;
use pointsman_netdev::Roots;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

/// What is known of one interface.
#[derive(Debug, Default)]
struct Card {
    ports: BTreeSet<u16>,
    owners: BTreeMap<u32, u64>,
    flows: BTreeMap<u32, FlowRule>,
    maps: Option<Opened>,
    /// Its network namespace, where it is not the daemon's.
    namespace: Option<PathBuf>,
}

/// The maps of a chain, with the pins' descriptors: they live as long as somebody uses them.
#[derive(Debug)]
struct Opened {
    ids: (u32, u32),
    _pins: (OwnedFd, OwnedFd),
    ports: Ports,
    owners: Owners,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) footprints: Footprints,
    pub(super) roots: Roots,
    cards: BTreeMap<Place, Card>,
    pub(super) document: InForce,
    /// The sockets of each owner on each interface.
    sockets: BTreeMap<(Place, u64), Sockets>,
    inspector: Inspector,
}

impl Worker {
    pub(super) fn new(footprints: Footprints, roots: Roots) -> Self {
        Self {
            footprints,
            roots,
            cards: BTreeMap::new(),
            document: InForce::default(),
            sockets: BTreeMap::new(),
            inspector: Inspector::default(),
        }
    }

    pub(super) fn run(mut self, jobs: &Receiver<(Option<u64>, Job)>, results: &Handle) {
        loop {
            let (ticket, job) = match self.next(jobs) {
                Ok(next) => next,
                Err(RecvTimeoutError::Timeout) => {
                    self.settle();
                    self.tell_problems(results);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let what = ticket.is_none().then(|| format!("{job:?}"));
            let done = self.work(job);
            match (ticket, done) {
                (Some(ticket), done) => results.tell(Message::Worked { ticket, done }),
                (None, Err(why)) => {
                    let what = what.unwrap_or_default();
                    tracing::error!("what instances hold is not as it should be: {why} ({what})");
                }
                (None, Ok(_)) => {}
            }
            self.tell_problems(results);
        }
    }

    /// Waits for a job, until the document's sections are to be looked at again.
    fn next(
        &self,
        jobs: &Receiver<(Option<u64>, Job)>,
    ) -> Result<(Option<u64>, Job), RecvTimeoutError> {
        match self.document.due() {
            Some(due) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn work(&mut self, job: Job) -> Result<Done, String> {
        match job {
            Job::Wanted { place, ports, owners, flows } => {
                let card = self.cards.entry(place).or_default();
                (card.ports, card.owners, card.flows) = (ports, owners, flows);
            }
            Job::Sweep => self.sweep()?,
            Job::Served { place, maps } => self.served(&place, maps)?,
            Job::Unwanted { place } => {
                let namespace = self.namespace(&place);
                self.cards.remove(&place);
                self.sockets.retain(|(at, _), _| *at != place);
                self.spread_in(&place, namespace.as_deref())?;
            }
            Job::Port { place, port, listed } => {
                let card = self.cards.entry(place).or_default();
                match listed {
                    true => card.ports.insert(port),
                    false => card.ports.remove(&port),
                };
                if let Some(maps) = &card.maps {
                    maps.ports.list(port, listed).map_err(|e| e.to_string())?;
                }
            }
            Job::AllPorts { place, ports } => {
                let card = self.cards.entry(place).or_default();
                card.ports = ports;
                if let Some(maps) = &card.maps {
                    maps.ports.list_all(&card.ports).map_err(|e| e.to_string())?;
                }
            }
            Job::Owner { place, queue, owner } => self.owner(&place, queue, owner)?,
            Job::Map { place, owner } => {
                let sockets = self.sockets_of(&place, owner)?;
                return sockets.hand_over().map(Done::Map).map_err(|e| e.to_string());
            }
            Job::Socket { place, owner, queue, socket } => {
                let namespace = self.namespace(&place);
                let socket_fits =
                    self.inspector.check(socket.as_fd(), &place, namespace.as_deref(), queue)?;
                if let Err(what) = socket_fits {
                    return Ok(Done::NotTaken(what));
                }
                let sockets = self.sockets_of(&place, owner)?;
                let put = sockets.put(queue, socket.as_fd());
                put.map_err(|e| e.to_string())?;
            }
            Job::Queues { place } => {
                let namespace = self.namespace(&place);
                let look = || flows::queues(place.index);
                let queues = inside(namespace.as_deref(), look)?;
                return Ok(Done::Queues(queues, self.document.reserve(&place).cloned()));
            }
            Job::AddFlow { place, request, rights } => {
                let namespace = self.namespace(&place);
                let (namespace, reserve) = (namespace.as_deref(), self.document.reserve(&place));
                let footprints = &mut self.footprints;
                let made = flows::add(footprints, &place, namespace, &request, &rights, reserve);
                return Ok(match made {
                    Ok((location, rule)) => {
                        let card = self.cards.entry(place).or_default();
                        card.flows.insert(location, rule);
                        Done::Flow(location, rule)
                    }
                    Err(why) => Done::NoFlow(why),
                });
            }
            Job::DelFlow { place, location, rule } => {
                let namespace = self.namespace(&place);
                if let Some(card) = self.cards.get_mut(&place) {
                    card.flows.remove(&location);
                }
                let before = BTreeSet::new();
                let location = Some(location);
                let noted = Rule { place, namespace, location, before, rule, document: false };
                let known = self.footprints.rules().iter();
                // Where it is noted otherwise, the note says in which namespace.
                let mut known = known.filter(|it| {
                    !it.document
                        && (&it.place, it.location, it.rule) == (&noted.place, location, rule)
                });
                let noted = known.next().cloned().unwrap_or(noted);
                flows::remove(&mut self.footprints, &noted)?;
            }
            Job::Document(sections) => {
                self.document.is(sections);
                self.settle();
            }
            Job::Look => self.look(),
            Job::Beside(beside) => self.beside(beside),
            Job::Fence => {}
            Job::Gone { owner } => self.sockets.retain(|(_, of), _| *of != owner),
        }
        Ok(Done::Nothing)
    }

    fn served(&mut self, place: &Place, maps: Maps) -> Result<(), String> {
        let Maps { namespace, ports, owners, .. } = maps;
        let card = self.cards.entry(place.clone()).or_default();
        card.namespace = namespace;
        let (Some(ports), Some(owners)) = (ports, owners) else {
            card.maps = None;
            return Ok(());
        };
        if card.maps.as_ref().is_some_and(|maps| maps.ids == (ports.id, owners.id)) {
            return Ok(());
        }
        card.maps = Some(Opened::open(ports, owners).map_err(|e| e.to_string())?);
        self.fill(place)
    }

    /// Makes the maps of an interface say what they should, whatever they said.
    fn fill(&mut self, place: &Place) -> Result<(), String> {
        let Self { cards, sockets, .. } = self;
        let Some(Card { ports, owners, maps: Some(maps), .. }) = cards.get(place) else {
            return Ok(());
        };
        maps.ports.list_all(ports).map_err(|e| e.to_string())?;
        let held = maps.owners.held().map_err(|e| e.to_string())?;
        for &queue in held.iter().filter(|queue| !owners.contains_key(queue)) {
            maps.owners.set(queue, None).map_err(|e| e.to_string())?;
        }
        for (&queue, owner) in owners.range(..QUEUES) {
            let number = match held.contains(&queue) {
                true => maps.owners.number(queue).map_err(|e| e.to_string())?,
                false => None,
            };
            let key = (place.clone(), *owner);
            // The daemon before has made it, and its owner has it.
            if let (Some(number), false) = (number, sockets.contains_key(&key))
                && let Ok(found) = Sockets::open(number)
                && found.name() == name_of(*owner)
            {
                sockets.insert(key.clone(), found);
            }
            let own = sockets_of(sockets, key)?;
            let is_it = number.is_some() && number == own.number().ok();
            if !is_it {
                maps.owners.set(queue, Some(own)).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    fn owner(&mut self, place: &Place, queue: u32, owner: Option<u64>) -> Result<(), String> {
        if let Some(owner) = owner {
            self.sockets_of(place, owner)?;
        }
        let card = self.cards.entry(place.clone()).or_default();
        match owner {
            Some(owner) => drop(card.owners.insert(queue, owner)),
            None => drop(card.owners.remove(&queue)),
        }
        if let Some(maps) = &card.maps {
            let sockets = owner.and_then(|owner| self.sockets.get(&(place.clone(), owner)));
            maps.owners.set(queue, sockets).map_err(|e| e.to_string())?;
        }
        if let Err(why) = self.spread(place) {
            // Such packets go to the stack, whoever holds the queue: a socket takes listed ports.
            tracing::warn!("packets of no flow rule may come by queues that somebody holds: {why}");
        }
        Ok(())
    }

    fn sockets_of(&mut self, place: &Place, owner: u64) -> Result<&Sockets, String> {
        sockets_of(&mut self.sockets, (place.clone(), owner)).map(|sockets| &*sockets)
    }

    fn namespace(&self, place: &Place) -> Option<PathBuf> {
        let card = self.cards.get(place).and_then(|card| card.namespace.clone());
        card.or_else(|| self.document.namespace(place))
    }

    /// The interfaces that instances want, with the file of their network namespace.
    pub(super) fn namespaces(&self) -> BTreeMap<Place, Option<PathBuf>> {
        let cards = self.cards.iter();
        cards.map(|(place, card)| (place.clone(), card.namespace.clone())).collect()
    }

    /// The highest queue that somebody holds.
    pub(super) fn highest_held(&self, place: &Place) -> Option<u32> {
        self.cards.get(place)?.owners.keys().next_back().copied()
    }

    /// Takes back what a daemon before did and nobody owns, and does again what is missing.
    fn sweep(&mut self) -> Result<(), String> {
        let owned = self.cards.iter().map(|(place, card)| (place.clone(), card.flows.clone()));
        let mut result = flows::sweep(&mut self.footprints, &owned.collect());
        let mut places: BTreeSet<Place> = self.cards.keys().cloned().collect();
        places.extend(self.footprints.tables().iter().map(|table| table.place.clone()));
        for place in places {
            result = result.and(self.spread(&place));
        }
        result
    }

    /// Keeps packets of no rule off the queues that are held or reserved.
    pub(super) fn spread(&mut self, place: &Place) -> Result<(), String> {
        let namespace = self.namespace(place);
        self.spread_in(place, namespace.as_deref())
    }

    pub(super) fn spread_in(
        &mut self,
        place: &Place,
        namespace: Option<&Path>,
    ) -> Result<(), String> {
        // What it reserves cannot be taken back before it is known.
        if !self.document.is_known() {
            return Ok(());
        }
        let off = self.off_limits(place);
        rss::move_off(&mut self.footprints, place, namespace, &off)
    }

    /// The queues to which no packet goes without a rule.
    pub(super) fn off_limits(&self, place: &Place) -> BTreeSet<u32> {
        let held = self.cards.get(place).into_iter().flat_map(|card| card.owners.keys());
        held.chain(self.document.reserve(place).into_iter().flatten()).copied().collect()
    }
}

fn sockets_of(
    sockets: &mut BTreeMap<(Place, u64), Sockets>,
    key: (Place, u64),
) -> Result<&mut Sockets, String> {
    use std::collections::btree_map::Entry;
    match sockets.entry(key) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let made = Sockets::create(&name_of(entry.key().1)).map_err(|e| e.to_string())?;
            Ok(entry.insert(made))
        }
    }
}

/// The name of an owner's map of sockets: by it the next daemon knows whose it is. The numbers of
/// connections are never used twice while a keeper lives.
fn name_of(owner: u64) -> String {
    format!("x{:014x}", owner & 0x00ff_ffff_ffff_ffff)
}

impl Opened {
    fn open(ports: OpenMap, owners: OpenMap) -> Result<Self, pointsman_bpf::Error> {
        Ok(Self {
            ids: (ports.id, owners.id),
            ports: Ports::open(ports.id)?,
            owners: Owners::open(owners.id)?,
            _pins: (ports.file, owners.file),
        })
    }
}
