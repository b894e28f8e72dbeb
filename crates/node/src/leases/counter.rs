//! The desk with everything around it that is not pure: peers, the journal, logs, counters.

use super::cards::Sections;
use super::closer::Closer;
use super::cpusets::Cpusets;
use super::file::JournalFile;
use super::interfaces::Interfaces;
use super::metrics::Metrics;
use super::people::Person;
use super::requests::Way;
use super::throttle::Throttles;
use super::{Asker, Config, Handle, Message, view};
use crate::clock::unix_ms;
use crate::engine;
use crate::problem;
use crate::state::InForce;
use pointsman_keeper::link::{FromKeeper, Kind, ToKeeper};
use pointsman_lease::{Desk, Policy};
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::cpu::Topology;
use pointsman_model::document::Document;
use pointsman_model::lease::{ClearReport, Protocol};
use pointsman_model::status::CardProblem;
use pointsman_netdev::{Roots, topology};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Log lines about one user's lcores: so many at once, and so many a second from then on.
const LOG_LINES: (u32, u32) = (2000, 200);

/// Events about one user's instances, likewise.
const EVENTS: (u32, u32) = (200, 10);

/// How much of a request that is refused unread is logged, in bytes.
const LONGEST_SHOWN: usize = 256;

/// The counter at which clients stand.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) desk: Desk,
    pub(super) journal: JournalFile,
    pub(super) people: BTreeMap<u64, Person>,
    pub(super) metrics: Metrics,
    pub(super) roots: Roots,
    pub(super) original_lines: bool,
    /// Why it is not known what the document in force says; `None`: it is, or there is none.
    pub(super) unclear: Option<String>,
    pub(super) engine: engine::Handle,
    pub(super) answers: Vec<ToKeeper>,
    /// What is no map; opened once.
    pub(super) null: Option<File>,
    pub(super) cpusets: Cpusets,
    pub(super) closer: Closer,
    /// What sysfs said of the CPUs when it was last read.
    cpus_seen: Vec<String>,
    /// When that was.
    pub(super) cpus_looked: Option<Instant>,
    pub(super) log: Throttles,
    pub(super) events: Throttles,
    /// What is logged when the answers have left, each with how many lines were left out before:
    /// no client waits for a line to be written, nor for the thread that writes it to be woken.
    pub(super) lines: Vec<(u64, String)>,
    pub(super) interfaces: Interfaces,
    /// What of the document in force cards do not do.
    card_problems: Vec<CardProblem>,
}

impl Counter {
    /// Opens the counter with what the journal knows of the keeper's connections.
    pub(super) fn open(config: Config, epoch: &str, engine: engine::Handle, own: Handle) -> Self {
        let Config { run_dir, fresh, roots, original_lines } = config;
        let config_roots = roots.clone();
        let (journal, records) = JournalFile::open(&run_dir, epoch, fresh);
        let mut desk = Desk::new(Policy::default(), Topology::default());
        records.iter().for_each(|record| desk.apply(record));
        let now = Instant::now();
        let mut counter = Self {
            desk,
            journal,
            people: BTreeMap::new(),
            metrics: Metrics::default(),
            roots,
            original_lines,
            unclear: None,
            engine,
            answers: Vec::new(),
            null: File::open("/dev/null").ok(),
            cpusets: Cpusets::default(),
            closer: Closer::start(),
            cpus_seen: Vec::new(),
            cpus_looked: None,
            log: Throttles::new(LOG_LINES.0, LOG_LINES.1, now),
            events: Throttles::new(EVENTS.0, EVENTS.1, now),
            lines: Vec::new(),
            interfaces: Interfaces::open(own, &run_dir, &config_roots),
            card_problems: Vec::new(),
        };
        counter.look_at_cpus();
        counter.begin();
        counter
    }

    /// Whether clients are served: it is known who holds what.
    pub(super) fn serves(&self) -> bool {
        !self.journal.unreadable() && self.interfaces.known()
    }

    /// Why nothing is given away; `None`: it is.
    pub(super) fn refusing(&self) -> Option<String> {
        self.journal.failing().or(self.unclear.as_deref()).map(ToOwned::to_owned)
    }

    /// Whether it is not known what the document in force says.
    pub(super) fn unclear(&self) -> bool {
        self.unclear.is_some()
    }

    /// What the keeper is to be told.
    pub(super) fn answers(&mut self) -> Vec<ToKeeper> {
        std::mem::take(&mut self.answers)
    }

    pub(super) fn message(&mut self, message: Message) {
        let held = self.desk.held_in_all() + self.desk.clients().len();
        self.journal.retry(held, || self.desk.snapshot());
        // That nobody waits for a reply any more is not our concern.
        match message {
            Message::Document(what) => self.document(what),
            Message::InterfacesChanged => self.interfaces.look(),
            Message::Cards(reply) => drop(reply.send(Ok(self.card_problems.clone()))),
            Message::CardProblems(problems) => self.card_problems = problems,
            Message::Instances(reply) => drop(reply.send(Ok(view::instances(self)))),
            Message::Instance(id, reply) => {
                let found = view::instance(self, id).ok_or_else(|| no_instance(id));
                drop(reply.send(found));
            }
            Message::Clear(id, asker, reply) => drop(reply.send(self.clear(id, &asker))),
            Message::Lcores(reply) => {
                self.look_at_cpus();
                drop(reply.send(Ok(view::lcores(self))));
            }
            Message::Metrics(reply) => drop(reply.send(Ok(self.metrics.text(self)))),
            Message::Refusing(reply) => {
                drop(reply.send(Ok(self.refusing())));
            }
            Message::Release(reply) => self.release(reply),
            Message::Served(served) => self.served(served),
            Message::Worked { ticket, done } => self.worked(ticket, done),
            Message::Stop => {}
        }
    }

    pub(super) fn keeper(&mut self, told: FromKeeper) {
        match told {
            FromKeeper::Connected { connection, kind, socket } => {
                self.connected(connection, kind, socket);
            }
            FromKeeper::Request { connection, sequence, bytes, descriptors } => {
                if let Some(descriptors) = self.belonging(connection, &bytes, descriptors) {
                    self.request(connection, sequence, &bytes, descriptors, Way::Decide);
                }
            }
            FromKeeper::Refuse { connection, sequence, bytes, descriptors } => {
                tracing::warn!(
                    instance = connection,
                    request = %bytes[..bytes.len().min(LONGEST_SHOWN)].escape_ascii(),
                    "a request is refused, because daemon after daemon crashed over it"
                );
                if let Some(descriptors) = self.belonging(connection, &bytes, descriptors) {
                    self.request(connection, sequence, &bytes, descriptors, Way::Refuse);
                }
            }
            FromKeeper::Closed { connection } => self.closed(connection),
            FromKeeper::Replayed => {
                for connection in self.desk.absent() {
                    self.closed(connection);
                }
            }
        }
    }

    fn connected(&mut self, connection: u64, kind: Kind, socket: OwnedFd) {
        let protocol = match kind {
            Kind::Imtl => Protocol::Imtl,
            Kind::Native => Protocol::Native,
        };
        let before = self.desk.clients().get(&connection).map(|client| &client.peer);
        let clients = self.desk.policy().access.clients.as_ref();
        match Person::meet(socket, &self.roots, before, clients, Instant::now()) {
            Ok((person, peer)) => {
                self.people.insert(connection, person);
                self.metrics.connections += 1;
                let at = unix_ms();
                if let Some(record) = self.desk.open(connection, protocol, peer.clone(), at) {
                    let _ = self.commit(&record);
                }
                self.desk.arrive(connection, protocol, peer);
            }
            Err(error) => {
                tracing::warn!(connection, %error, "a client's credentials cannot be read: closed");
                self.answers.push(ToKeeper::Close { connection });
            }
        }
    }

    pub(super) fn closed(&mut self, connection: u64) {
        self.forget(connection);
        if let Some(record) = self.desk.close(connection) {
            let _ = self.commit(&record);
        }
        if let Some(person) = self.people.remove(&connection) {
            self.closer.close(person);
        }
    }

    fn document(&mut self, InForce { text, drained }: InForce) {
        let first = |errors: Vec<_>| errors.first().map(ToString::to_string).unwrap_or_default();
        let Some(text) = text else {
            self.desk.set_policy(Policy::default());
            self.unclear = None;
            return self.sections(Sections::default());
        };
        // It was accepted, by this very version or by one before.
        match text.and_then(|text| Document::parse(&text).map_err(first)) {
            Ok(document) => {
                self.interfaces.set_namespaces(document.namespaces.clone());
                let sections = Sections::of(&document, drained);
                self.desk.set_policy(document.into());
                self.unclear = None;
                let clients = self.desk.policy().access.clients.clone();
                for (connection, person) in &self.people {
                    if let Some(groups) = person.groups_anew(clients.as_ref()) {
                        self.desk.set_groups(*connection, groups);
                    }
                }
                self.sections(sections);
            }
            // Whoever has a right, and what is reserved, may be anything. Cards stay as they are.
            Err(error) => {
                let why = format!(
                    "the document in force cannot be understood: {error}; apply one, or start the \
                     version of pointsman-node that accepted it"
                );
                tracing::error!("{why}: no lcore is given away as long as this is so");
                self.unclear = Some(why);
            }
        }
    }

    fn clear(&mut self, id: u64, asker: &Asker) -> Result<ClearReport, Problem> {
        let administrators = self.desk.policy().access.administrators.as_ref();
        let may = match administrators {
            // Whom the document in force names is not known.
            _ if self.unclear.is_some() => asker.uid == Some(0),
            None => true,
            Some(people) => {
                asker.uid.is_some_and(|uid| uid == 0 || people.include(uid, &asker.groups))
            }
        };
        if !may {
            let title = "only an administrator may do that: root, or one of \
                         `access.administrators` of the node document";
            return Err(problem::plain(ProblemKind::Forbidden, 403, title.to_owned()));
        }
        let record = self.desk.clear(id).ok_or_else(|| no_instance(id))?;
        let lcores = view::leases(self, id, None);
        let _ = self.commit(&record);
        Ok(ClearReport { instance: id, lcores })
    }

    /// Reads the processors anew if some came, went, or changed.
    pub(super) fn look_at_cpus(&mut self) {
        let cpus = self.roots.sys.join("devices/system/cpu");
        let seen: Vec<String> = ["present", "online", "isolated"]
            .iter()
            .map(|name| fs::read_to_string(cpus.join(name)).unwrap_or_default())
            .collect();
        if seen == self.cpus_seen {
            return;
        }
        match topology(&self.roots.sys) {
            Ok(topology) => {
                self.desk.set_topology(topology);
                self.cpus_seen = seen;
                self.tell_beside();
            }
            Err(error) => tracing::warn!("the host's CPUs are not known: {error}"),
        }
    }
}

fn no_instance(id: u64) -> Problem {
    let title = format!("there is no instance {id}; `pointsman instances` lists those there are");
    problem::plain(ProblemKind::NotFound, 404, title)
}
