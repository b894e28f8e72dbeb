//! What the document says of queues and flow rules, made so on cards, and given back.
//!
//! Whatever a card does not do is a problem that names the place in the document; the rest is done.
//! All of it is looked at again every minute, and when interfaces come: what somebody else changed
//! is put right then, and what failed is tried again.

use super::flows::{self, inside};
use super::footprints::Rule;
use super::settings;
use super::tuning::{self, Tuned};
use super::worker::Worker;
use crate::leases::{Handle, Message};
use pointsman_model::cpu::CpuSet;
use pointsman_model::document::{Document, InterfaceSpec, Namespaces, QueuesSpec};
use pointsman_model::lease::Place;
use pointsman_model::status::CardProblem;
use pointsman_model::{InterfaceId, InterfaceName};
use pointsman_netdev::{Control, NamespaceError, interface_index};
use pointsman_plan::nic::check_reserve;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often it is looked whether all is as the document says.
const AGAIN: Duration = Duration::from_secs(60);

/// What a document says of cards.
#[derive(Debug, Clone, Default)]
pub(in crate::leases) struct Sections {
    /// Only interfaces of whose queues or flow rules something is said.
    interfaces: BTreeMap<InterfaceId, InterfaceSpec>,
    namespaces: Namespaces,
}

/// Which CPUs are beside leased lcores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::leases) struct Beside {
    /// By interface and queue that somebody holds; `None`: no CPU is left.
    pub(in crate::leases) held: BTreeMap<Place, BTreeMap<u32, Option<CpuSet>>>,
    /// For all other queues.
    pub(in crate::leases) others: Option<CpuSet>,
}

impl Sections {
    /// Those of a document; none, if it is not to be carried out.
    pub(in crate::leases) fn of(document: &Document, drained: bool) -> Self {
        if drained {
            return Self::default();
        }
        let said = |(_, spec): &(&InterfaceId, &InterfaceSpec)| {
            spec.queues.is_some() || !spec.flows.is_empty()
        };
        let interfaces = document.interfaces.iter().filter(said).map(|(name, spec)| {
            let InterfaceSpec { xdp: _, queues, flows } = spec.clone();
            (name.clone(), InterfaceSpec { xdp: None, queues, flows })
        });
        Self { interfaces: interfaces.collect(), namespaces: document.namespaces.clone() }
    }

    /// Whether some interrupts follow the lcores that are leased.
    pub(in crate::leases) fn follows_lcores(&self) -> bool {
        let queues = self.interfaces.values().filter_map(|spec| spec.queues.as_ref());
        queues.into_iter().any(QueuesSpec::follows_lcores)
    }

    fn namespace(&self, interface: &InterfaceId) -> Option<PathBuf> {
        let name = interface.namespace.as_ref()?;
        self.namespaces.get(name).map(pointsman_model::document::NamespaceSpec::path)
    }

    /// Where an interface is; `None`: nowhere.
    fn place(&self, interface: &InterfaceId) -> Result<Option<Place>, String> {
        let InterfaceId { namespace, name } = interface;
        let path = self.namespace(interface);
        if let Some(path) = &path
            && let Err(NamespaceError::Missing { .. }) = pointsman_netdev::Namespace::open(path)
        {
            return Ok(None);
        }
        let index = inside(path.as_deref(), || index_of(name))?;
        Ok(index.map(|index| Place { namespace: namespace.clone(), index }))
    }
}

fn index_of(name: &InterfaceName) -> Result<Option<u32>, String> {
    interface_index(name).map_err(|error| error.to_string())
}

/// The document in force, as far as it is about cards.
#[derive(Debug, Default)]
pub(super) struct InForce {
    /// `None`: it is not known yet, or not understood.
    sections: Option<Sections>,
    /// The interfaces that it names and that are there.
    places: BTreeMap<Place, InterfaceId>,
    beside: Beside,
    problems: BTreeSet<CardProblem>,
    /// The problems that were told.
    told: BTreeSet<CardProblem>,
    /// When all was looked at.
    looked: Option<Instant>,
}

impl InForce {
    pub(super) fn is(&mut self, sections: Sections) {
        self.sections = Some(sections);
    }

    pub(super) fn is_known(&self) -> bool {
        self.sections.is_some()
    }

    /// When it is to be looked at again; `None`: there is nothing to look at.
    pub(super) fn due(&self) -> Option<Instant> {
        let some = self.sections.as_ref().is_some_and(|it| !it.interfaces.is_empty());
        (some || !self.problems.is_empty())
            .then(|| self.looked.unwrap_or_else(Instant::now) + AGAIN)
    }

    fn spec(&self, place: &Place) -> Option<&InterfaceSpec> {
        self.sections.as_ref()?.interfaces.get(self.places.get(place)?)
    }

    /// The queues that applications may have of an interface, where the document says it.
    pub(super) fn reserve(&self, place: &Place) -> Option<&BTreeSet<u32>> {
        self.spec(place)?.queues.as_ref()?.reserve.as_ref()
    }

    pub(super) fn namespace(&self, place: &Place) -> Option<PathBuf> {
        self.sections.as_ref()?.namespace(self.places.get(place)?)
    }
}

/// What is not as one part of an interface's section says.
struct Problems<'a> {
    interface: Option<&'a InterfaceId>,
    place: &'a Place,
    all: Vec<CardProblem>,
}

impl Problems<'_> {
    fn add(&mut self, section: &str, message: impl Into<String>) {
        let (interface, pointer) = match self.interface {
            Some(id) => (id.to_string(), format!("{}{section}", id.pointer())),
            None => (self.place.to_string(), String::new()),
        };
        self.all.push(CardProblem { interface, pointer, message: message.into() });
    }

    fn note(&mut self, section: &str, result: Result<(), String>) {
        if let Err(why) = result {
            self.add(section, why);
        }
    }
}

impl Worker {
    /// Interfaces came, went or were renamed: does what that means for the document.
    pub(super) fn look(&mut self) {
        let Some(sections) = &self.document.sections else { return };
        let places: Vec<_> = sections.interfaces.keys().map(|it| sections.place(it)).collect();
        let found: BTreeSet<Place> = places.into_iter().flatten().flatten().collect();
        if found != self.document.places.keys().cloned().collect() {
            self.settle();
        }
    }

    /// Leased lcores are others than before.
    pub(super) fn beside(&mut self, beside: Beside) {
        self.document.beside = beside;
        self.settle();
    }

    /// Makes all cards as the document says, as far as they are not, and gives back what it has no
    /// word on any more.
    pub(super) fn settle(&mut self) {
        let Some(sections) = self.document.sections.clone() else { return };
        self.document.looked = Some(Instant::now());
        let mut problems = BTreeSet::new();
        let mut places = BTreeMap::new();
        let mut unseen = BTreeSet::new();
        for interface in sections.interfaces.keys() {
            let missing = |message: String| CardProblem {
                interface: interface.to_string(),
                pointer: interface.pointer(),
                message,
            };
            match sections.place(interface) {
                Ok(Some(place)) => drop(places.insert(place, interface.clone())),
                Ok(None) => {
                    let why = "there is no such interface: what is said of its queues and flow \
                               rules is done when it appears";
                    problems.insert(missing(why.to_owned()));
                }
                Err(why) => {
                    unseen.insert(interface.namespace.clone());
                    problems.insert(missing(why));
                }
            }
        }
        self.document.places = places;
        // Also those of instances: before the document was known nothing was moved off their queues.
        let mut all = self.namespaces();
        all.extend(self.footprints.of_document());
        let tables = self.footprints.tables().iter();
        all.extend(tables.map(|table| (table.place.clone(), table.namespace.clone())));
        // What cannot be looked at now is not taken back.
        all.retain(|place, _| !unseen.contains(&place.namespace));
        let named = self.document.places.iter();
        all.extend(named.map(|(place, id)| (place.clone(), sections.namespace(id))));
        for (place, namespace) in all {
            problems.extend(self.settle_one(&place, namespace.as_ref()));
        }
        for problem in problems.difference(&self.document.problems) {
            tracing::warn!("a card is not as the document says: {problem}");
        }
        for problem in self.document.problems.difference(&problems) {
            tracing::info!(
                "a card is as the document says again, or that has no word on it: {problem}"
            );
        }
        self.document.problems = problems;
    }

    fn settle_one(&mut self, place: &Place, namespace: Option<&PathBuf>) -> Vec<CardProblem> {
        let spec = self.document.spec(place).cloned().unwrap_or_default();
        let interface = self.document.places.get(place).cloned();
        let mut problems = Problems { interface: interface.as_ref(), place, all: Vec::new() };
        let namespace = namespace.map(PathBuf::as_path);
        let queues = spec.queues.unwrap_or_default();

        // Rules first: a driver keeps queues to which some lead.
        let tidied = flows::tidy(&mut self.footprints, place, namespace, &spec.flows);
        let missing = tidied.unwrap_or_else(|why| {
            problems.add("/flows", why);
            Vec::new()
        });
        let held = self.highest_held(place);
        let off = self.off_limits(place);
        let footprints = &mut self.footprints;
        let set = settings::counts(footprints, place, namespace, &queues.counts, held, &off);
        problems.note("/queues", set);
        let receive = inside(namespace, || match Control::of_index(place.index) {
            Ok(_) => flows::queues(place.index).map(Some),
            // It went meanwhile; with it all that was done to it.
            Err(_) => Ok(None),
        });
        let receive = match receive {
            Ok(Some(receive)) => receive,
            Ok(None) => {
                problems.note("", settings::forget(&mut self.footprints, place));
                problems.note("/queues/reserve", self.spread(place));
                return problems.all;
            }
            Err(why) => {
                problems.add("", why);
                return problems.all;
            }
        };
        if let Some(reserve) = &queues.reserve {
            let list: Vec<u32> = reserve.iter().copied().collect();
            for problem in check_reserve(receive, &list).1 {
                problems.add("/queues/reserve", problem.to_string());
            }
        }
        problems.note("/queues/reserve", self.spread_in(place, namespace));
        let beside = self.document.beside.held.get(place);
        let tuned = Tuned {
            tuning: &queues.tuning,
            receive: receive.receive,
            held: beside,
            others: self.document.beside.others.as_ref(),
        };
        let (footprints, roots) = (&mut self.footprints, &self.roots);
        for (section, why) in tuning::tune(footprints, roots, place, namespace, &tuned) {
            problems.add(&format!("/queues/tuning{section}"), why);
        }
        for rule in missing {
            let number = spec.flows.iter().position(|it| *it == rule).unwrap_or_default();
            let section = format!("/flows/{number}");
            if let pointsman_model::flow::FlowAction::Queue(queue) = rule.action
                && queue >= receive.receive
            {
                let there = receive.receive;
                let why = format!("queue {queue} does not exist: there are {there} receive queues");
                problems.add(&section, why);
                continue;
            }
            let rule = Rule {
                place: place.clone(),
                namespace: namespace.map(Into::into),
                location: None,
                before: BTreeSet::new(),
                rule,
                document: true,
            };
            if let Err(why) = flows::put(&mut self.footprints, &rule) {
                problems.add(&section, why.to_string());
            }
        }
        problems.all
    }

    /// Tells what cards do not do of the document, if that is news.
    pub(super) fn tell_problems(&mut self, results: &Handle) {
        if self.document.problems != self.document.told {
            self.document.told.clone_from(&self.document.problems);
            let problems = self.document.problems.iter().cloned().collect();
            results.tell(Message::CardProblems(problems));
        }
    }
}
