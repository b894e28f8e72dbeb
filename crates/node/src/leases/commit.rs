//! From a decision to what is written down, done, logged and told.

use super::counter::Counter;
use pointsman_lease::imtl::Taken;
use pointsman_lease::{Ask, Change, Kept, Line, Record, Told, Why};
use pointsman_model::event::EventKind;
use std::time::{Duration, Instant};

/// How long what was seen of the CPUs is believed when a client asks for one.
const CPUS_LAST: Duration = Duration::from_secs(1);

impl Counter {
    /// Keeps a line about a client for the log, if there is room for it.
    pub(super) fn say(&mut self, connection: u64, now: Instant, line: String) {
        let user = self.user(connection);
        self.say_of(user, now, line);
    }

    /// Who stands behind a connection; nobody's is the kernel's number for nobody.
    fn user(&self, connection: u64) -> u32 {
        self.desk.clients().get(&connection).map_or(u32::MAX, |client| client.peer.uid)
    }

    fn say_of(&mut self, user: u32, now: Instant, line: String) {
        if let Some(left_out) = self.log.of(user, now).pass(now) {
            self.lines.push((left_out, line));
        }
    }

    /// Does what nobody waits for, once for all that was answered together.
    pub(super) fn after_answers(&mut self) {
        self.tell_beside();
        self.log_lines();
    }

    /// Logs what was kept.
    fn log_lines(&mut self) {
        for (left_out, line) in self.lines.drain(..) {
            match left_out {
                0 => tracing::info!("{line}"),
                left_out => tracing::info!(left_out, "{line}"),
            }
        }
    }

    /// Decides about a request, writes the decision down, and only then makes it so.
    pub(super) fn ask(&mut self, connection: u64, sequence: u64, ask: &Ask) -> Kept {
        if matches!(ask, Ask::Get(_))
            && self.cpus_looked.is_none_or(|looked| looked.elapsed() >= CPUS_LAST)
        {
            // One that came meanwhile would be a number to some, and a CPU to others.
            self.look_at_cpus();
        }
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
    pub(super) fn commit(&mut self, record: &Record) -> Result<(), String> {
        let held = self.desk.held_in_all() + self.desk.clients().len();
        self.journal.write(record, held, || self.desk.snapshot())?;
        let now = Instant::now();
        // Before it is applied: of one that has closed nothing is known behind that.
        let user = self.user(record.connection);
        let ordinary = !matches!(
            record.change,
            Change::Registered(_) | Change::Cleared | Change::Closed | Change::Opened { .. }
        );
        let told = if ordinary && !self.log.of(user, now).has_room(now) {
            // Nobody reads it; but how many there were is told.
            let _ = self.log.of(user, now).pass(now);
            Told::default()
        } else {
            self.desk.tell(record)
        };
        let after = self.before_change(record);
        self.desk.apply(record);
        self.after_change(record, after);
        let wanted = self.original_lines;
        let original = told.original.into_iter().filter(|_| wanted);
        for line in told.log.into_iter().chain(original) {
            self.say_of(user, now, line);
        }
        if let Some(line) = told.event {
            self.event(&line, user, now);
        }
        Ok(())
    }

    fn event(&mut self, line: &Line, user: u32, now: Instant) {
        let Some(left_out) = self.events.of(user, now).pass(now) else { return };
        let (kind, text) = match line {
            Line::Registered(text) => (EventKind::InstanceRegistered, text),
            Line::Ended(text) => (EventKind::InstanceEnded, text),
            Line::Cleared(text) => (EventKind::InstanceCleared, text),
        };
        let text = match left_out {
            0 => text.clone(),
            left_out => format!("{text} ({left_out} events of instances were left out)"),
        };
        self.engine.tell(crate::engine::Message::Happened(kind, text));
    }

    pub(super) fn tally(&mut self, connection: u64, kind: &str, kept: &Kept) {
        let why = match kept {
            Kept::Refused(why) => Some(why),
            _ => None,
        };
        self.metrics.count(kind, why.is_some());
        if let (Some(why), Some(person)) = (why, self.people.get_mut(&connection)) {
            person.refused += 1;
            tracing::debug!(instance = connection, "{kind} refused: {why}");
        }
    }

    /// Says once for each client that its requests are odd.
    pub(super) fn note_oddity(&mut self, connection: u64, taken: &Taken) {
        let Some(person) = self.people.get_mut(&connection) else { return };
        if let Some(oddity) = taken.oddity.filter(|_| !person.odd) {
            person.odd = true;
            let line = format!("instance {connection} is odd, and served all the same: {oddity}");
            self.say(connection, Instant::now(), line);
        }
    }
}
