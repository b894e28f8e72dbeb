//! The desk with everything around it that is not pure: peers, the journal, logs, counters.

use super::closer::Closer;
use super::cpusets::Cpusets;
use super::file::JournalFile;
use super::metrics::Metrics;
use super::people::Person;
use super::throttle::Throttle;
use super::{Asker, Config, Message, view};
use crate::clock::unix_ms;
use crate::engine;
use crate::problem;
use pointsman_imtl::Descriptor;
use pointsman_keeper::link::{FromKeeper, Kind, ToKeeper};
use pointsman_lease::choose::Wish;
use pointsman_lease::imtl::{Meaning, Taken};
use pointsman_lease::native::{LeaseRequest, Request, ReturnRequest};
use pointsman_lease::{Ask, Change, Desk, Kept, Line, Policy, Record, Told, Why, imtl, native};
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::cpu::Topology;
use pointsman_model::document::Document;
use pointsman_model::event::EventKind;
use pointsman_model::lease::{ClearReport, Protocol};
use pointsman_netdev::{Roots, interface_node, topology};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Log lines about lcores: so many at once, and so many a second from then on.
const LOG_LINES: (u32, u32) = (2000, 200);

/// Events about instances, likewise.
const EVENTS: (u32, u32) = (200, 10);

/// The counter at which clients stand.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) desk: Desk,
    pub(super) journal: JournalFile,
    pub(super) people: BTreeMap<u64, Person>,
    pub(super) metrics: Metrics,
    pub(super) roots: Roots,
    /// Why it is not known what the document in force says; `None`: it is, or there is none.
    unclear: Option<String>,
    engine: engine::Handle,
    answers: Vec<ToKeeper>,
    /// What is no map; opened once.
    null: Option<File>,
    cpusets: Cpusets,
    pub(super) closer: Closer,
    /// What sysfs said of the CPUs when it was last read.
    cpus_seen: Vec<String>,
    log: Throttle,
    events: Throttle,
}

impl Counter {
    /// Opens the counter with what the journal knows of the keeper's connections.
    pub(super) fn open(config: Config, epoch: &str, engine: engine::Handle) -> Self {
        let Config { run_dir, roots } = config;
        let (journal, records) = JournalFile::open(&run_dir, epoch);
        let mut desk = Desk::new(Policy::default(), Topology::default());
        records.iter().for_each(|record| desk.apply(record));
        let now = Instant::now();
        let mut counter = Self {
            desk,
            journal,
            people: BTreeMap::new(),
            metrics: Metrics::default(),
            roots,
            unclear: None,
            engine,
            answers: Vec::new(),
            null: File::open("/dev/null").ok(),
            cpusets: Cpusets::default(),
            closer: Closer::start(),
            cpus_seen: Vec::new(),
            log: Throttle::new(LOG_LINES.0, LOG_LINES.1, now),
            events: Throttle::new(EVENTS.0, EVENTS.1, now),
        };
        counter.look_at_cpus();
        counter
    }

    /// Whether clients are served: it is known who holds what.
    pub(super) fn serves(&self) -> bool {
        !self.journal.unreadable()
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
        let held = self.desk.held() + self.desk.clients().len();
        self.journal.retry(held, || self.desk.snapshot());
        // That nobody waits for a reply any more is not our concern.
        match message {
            Message::Document(text) => self.document(text),
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
            Message::Stop => {}
        }
    }

    pub(super) fn keeper(&mut self, told: FromKeeper) {
        match told {
            FromKeeper::Connected { connection, kind, socket } => {
                self.connected(connection, kind, socket);
            }
            FromKeeper::Request { connection, sequence, bytes, descriptors } => {
                if descriptors.is_empty() {
                    self.request(connection, sequence, &bytes);
                } else {
                    self.closer.close(descriptors);
                    if self.people.get(&connection).is_some_and(|person| !person.lost) {
                        self.lose(connection, "it sent descriptors, and no request has any");
                    }
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
        match Person::meet(socket, &self.roots, Instant::now()) {
            Ok((person, peer)) => {
                self.people.insert(connection, person);
                self.metrics.connections += 1;
                if let Some(record) = self.desk.open(connection, protocol, peer, unix_ms()) {
                    let _ = self.commit(&record);
                }
                self.desk.arrive(connection);
            }
            Err(error) => {
                tracing::warn!(connection, %error, "a client's credentials cannot be read: closed");
                self.answers.push(ToKeeper::Close { connection });
            }
        }
    }

    fn closed(&mut self, connection: u64) {
        if let Some(record) = self.desk.close(connection) {
            let _ = self.commit(&record);
        }
        if let Some(person) = self.people.remove(&connection) {
            self.closer.close(person);
        }
    }

    fn request(&mut self, connection: u64, sequence: u64, bytes: &[u8]) {
        // A connection that was closed for want of credentials has no answers to wait for.
        let Some(person) = self.people.get_mut(&connection) else { return };
        // Nor has one whose stream is lost.
        if person.lost {
            return;
        }
        person.requests += 1;
        person.asked = Instant::now();
        let native = self.desk.clients().get(&connection).map(|client| client.protocol);
        if native == Some(Protocol::Native) {
            self.native(connection, sequence, bytes);
        } else {
            self.imtl(connection, sequence, bytes);
        }
    }

    fn imtl(&mut self, connection: u64, sequence: u64, bytes: &[u8]) {
        let person = self.people.get(&connection);
        let missing =
            |interfaces: &[u32]| person.and_then(|person| person.missing_interface(interfaces));
        let taken = match imtl::take(bytes, sequence, self.desk.learned(connection), missing) {
            Ok(taken) => taken,
            Err(lost) => {
                self.metrics.count("garbage", true);
                self.lose(connection, &lost.to_string());
                return;
            }
        };
        self.note_oddity(connection, &taken);
        if let Some(told) = taken.told {
            let change = Change::Dialect(told);
            let _ = self.commit(&Record { connection, sequence: 0, change, refused: None });
        }
        let (kind, kept) = match &taken.meaning {
            Meaning::Heartbeat => ("HEARTBEAT".to_owned(), Kept::Done),
            Meaning::Wrong(error) => {
                let what = error.to_string();
                ("unknown".to_owned(), Kept::Refused(Why::BadRequest { what }))
            }
            Meaning::Asks(kind, ask) => (kind.to_string(), self.ask(connection, sequence, ask)),
        };
        self.tally(connection, &kind, &kept);
        let Some(frame) = taken.answer(&kept) else {
            // Nothing that is asked lacks an answer; a client that waits for ever would be worse.
            self.answers.push(ToKeeper::Close { connection });
            return;
        };
        let descriptors = match frame.descriptor() {
            Some(Descriptor::Harmless | Descriptor::XskMap) => self.null(),
            None => Vec::new(),
        };
        let bytes = frame.data().to_vec();
        self.answers.push(ToKeeper::Reply { connection, sequence, bytes, descriptors });
    }

    /// Closes a connection, once.
    fn lose(&mut self, connection: u64, why: &str) {
        if let Some(person) = self.people.get_mut(&connection) {
            person.lost = true;
        }
        self.say(Instant::now(), &format!("instance {connection} is closed: {why}"));
        self.answers.push(ToKeeper::Close { connection });
    }

    /// Logs a line about a client, if there is room for it.
    fn say(&mut self, now: Instant, line: &str) {
        match self.log.pass(now) {
            Some(0) => tracing::info!("{line}"),
            Some(left_out) => tracing::info!(left_out, "{line}"),
            None => {}
        }
    }

    fn native(&mut self, connection: u64, sequence: u64, bytes: &[u8]) {
        let (kind, kept) = match native::read(bytes).and_then(|request| self.understood(request)) {
            Ok((kind, ask)) => (kind, self.ask(connection, sequence, &ask)),
            Err(why) => ("unknown", Kept::Refused(why)),
        };
        self.tally(connection, kind, &kept);
        let bytes = native::write(&kept);
        self.answers.push(ToKeeper::Reply { connection, sequence, bytes, descriptors: Vec::new() });
    }

    fn understood(&mut self, request: Request) -> Result<(&'static str, Ask), Why> {
        Ok(match request {
            Request::Lease(LeaseRequest { cpus: count, near, whole_cores }) => {
                self.look_at_cpus();
                let near = match near {
                    Some(name) => self.node_of(&name)?,
                    None => None,
                };
                ("lease", Ask::Choose(Wish { count, near, whole_cores }))
            }
            Request::Return(ReturnRequest { ids }) => ("return", Ask::GiveBack(ids)),
        })
    }

    fn node_of(&self, interface: &str) -> Result<Option<u32>, Why> {
        let node = interface_node(&self.roots.sys, interface);
        let known = pointsman_model::InterfaceName::new(interface).is_ok()
            && self.roots.sys.join("class/net").join(interface).exists();
        if known {
            return Ok(node);
        }
        let what = format!("there is no interface {} to be near", native::quoted(interface));
        Err(Why::BadRequest { what })
    }

    /// Decides about a request, writes the decision down, and only then makes it so.
    fn ask(&mut self, connection: u64, sequence: u64, ask: &Ask) -> Kept {
        if self.unclear.is_none() && self.desk.needs_cpuset(connection, sequence, ask) {
            let person = self.people.get(&connection);
            let roots = &self.roots;
            let cpus = person.and_then(|person| self.cpusets.of(person, roots, Instant::now()));
            let change = Change::Cpuset(cpus);
            let _ = self.commit(&Record { connection, sequence: 0, change, refused: None });
        }
        let decision = self.desk.decide(connection, sequence, ask);
        if let (Some(record), Some(why)) = (&decision.record, &self.unclear)
            && record.change.gives()
        {
            return Kept::Refused(Why::Document { why: why.clone() });
        }
        match decision.record.map(|record| self.commit(&record)) {
            Some(Err(why)) => Kept::Refused(Why::Journal { why }),
            _ => decision.answer,
        }
    }

    /// Writes a record down and applies it.
    ///
    /// # Errors
    /// It gives something away and cannot be written down; nothing has changed.
    fn commit(&mut self, record: &Record) -> Result<(), String> {
        let held = self.desk.held() + self.desk.clients().len();
        self.journal.write(record, held, || self.desk.snapshot())?;
        let now = Instant::now();
        let ordinary = matches!(record.change, Change::Leased { .. } | Change::Returned(_));
        let told = if ordinary && !self.log.has_room(now) {
            // Nobody reads it; but how many there were is told.
            let _ = self.log.pass(now);
            Told::default()
        } else {
            self.desk.tell(record)
        };
        self.desk.apply(record);
        for line in told.log {
            self.say(now, &line);
        }
        if let Some(line) = told.event {
            self.event(&line, now);
        }
        Ok(())
    }

    fn event(&mut self, line: &Line, now: Instant) {
        let Some(left_out) = self.events.pass(now) else { return };
        let (kind, text) = match line {
            Line::Registered(text) => (EventKind::InstanceRegistered, text),
            Line::Ended(text) => (EventKind::InstanceEnded, text),
            Line::Cleared(text) => (EventKind::InstanceCleared, text),
        };
        let text = match left_out {
            0 => text.clone(),
            left_out => format!("{text} ({left_out} events of instances were left out)"),
        };
        self.engine.tell(engine::Message::Happened(kind, text));
    }

    fn tally(&mut self, connection: u64, kind: &str, kept: &Kept) {
        let why = match kept {
            Kept::Refused(why) => Some(why),
            Kept::Done | Kept::Leased(_) => None,
        };
        self.metrics.count(kind, why.is_some());
        if let (Some(why), Some(person)) = (why, self.people.get_mut(&connection)) {
            person.refused += 1;
            tracing::debug!(instance = connection, "{kind} refused: {why}");
        }
    }

    /// Says once for each client that its requests are odd.
    fn note_oddity(&mut self, connection: u64, taken: &Taken) {
        let Some(person) = self.people.get_mut(&connection) else { return };
        if let Some(oddity) = taken.oddity.filter(|_| !person.odd) {
            person.odd = true;
            let line = format!("instance {connection} is odd, and served all the same: {oddity}");
            self.say(Instant::now(), &line);
        }
    }

    fn null(&self) -> Vec<OwnedFd> {
        let null = self.null.as_ref().and_then(|null| null.try_clone().ok());
        null.map(OwnedFd::from).into_iter().collect()
    }

    fn document(&mut self, text: Result<Vec<u8>, String>) {
        let first = |errors: Vec<_>| errors.first().map(ToString::to_string).unwrap_or_default();
        // It was accepted, by this very version or by one before.
        match text.and_then(|text| Document::parse(&text).map_err(first)) {
            Ok(document) => {
                self.desk.set_policy(document.into());
                self.unclear = None;
            }
            // Whoever has a right, and what is reserved, may be anything.
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
    fn look_at_cpus(&mut self) {
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
            }
            Err(error) => tracing::warn!("the host's CPUs are not known: {error}"),
        }
    }
}

fn no_instance(id: u64) -> Problem {
    let title = format!("there is no instance {id}; `pointsman instances` lists those there are");
    problem::plain(ProblemKind::NotFound, 404, title)
}
