//! What was changed on network cards, as it lies on disk: flow rules, RSS tables and settings outlive
//! the daemon, its keeper, and every connection, and nobody else would take them back.
//!
//! Written before a card is touched, aside and renamed. Whose a rule of instances is, the journal of
//! leases says; this says which rules are ours at all, which are of the document, and how settings
//! were before the document changed them.

use crate::disk::Disk;
use pointsman_model::cpu::CpuSet;
use pointsman_model::flow::FlowRule;
use pointsman_model::lease::Place;
use pointsman_model::nic::Polling;
use pointsman_plan::nic::{Counts, Former, FormerRss};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The file in the run directory.
pub(super) const FILE: &str = "cards.json";

/// The largest that is read, in bytes: far more rules than cards have room for.
const MOST: usize = 64 << 20;

/// A flow rule of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) place: Place,
    /// The file of the interface's network namespace; `None`: the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<PathBuf>,
    /// `None`: the driver was about to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<u32>,
    /// Where there were rules then, if the driver was about to choose: those are not ours.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) before: BTreeSet<u32>,
    pub(super) rule: FlowRule,
    /// Whether it is the operator's, by the document.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) document: bool,
}

/// An RSS table that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<PathBuf>,
    pub(super) former: FormerRss,
}

/// What the document changed of an interface, and how that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<Former<Counts>>,
    /// How all queues are polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) polling: Option<Former<Polling>>,
    /// How single ones are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) queues: BTreeMap<u32, Former<Polling>>,
    /// Who takes interrupts, by their numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) interrupts: BTreeMap<u32, Former<CpuSet>>,
}

impl Settings {
    /// Nothing of an interface was changed.
    pub(super) fn none(place: Place, namespace: Option<PathBuf>) -> Self {
        Self {
            place,
            namespace,
            counts: None,
            polling: None,
            queues: BTreeMap::new(),
            interrupts: BTreeMap::new(),
        }
    }

    fn is_empty(&self) -> bool {
        let Self { place: _, namespace: _, counts, polling, queues, interrupts } = self;
        counts.is_none() && polling.is_none() && queues.is_empty() && interrupts.is_empty()
    }
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    tables: Vec<Table>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    settings: Vec<Settings>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Footprints {
    path: PathBuf,
    found: Found,
    /// It is there and cannot be understood: it is not written over, and cards are left alone.
    broken: Option<String>,
}

impl Footprints {
    /// Reads the file in `directory`.
    pub(super) fn open(directory: &Path) -> Self {
        let path = directory.join(FILE);
        let read = match crate::store::read_regular(&path, MOST) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::default()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(found) => Self { path, found, broken: None },
            Err(why) => {
                let why = format!(
                    "{} cannot be used: {why}; no flow rule is made, and nothing of queues \
                     changed, until it is moved away",
                    path.display()
                );
                tracing::error!("{why}");
                Self { path, found: Found::default(), broken: Some(why) }
            }
        }
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.found.rules
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.found.tables
    }

    /// Notes a rule.
    ///
    /// # Errors
    /// It cannot be written down: then nothing may be done to the card.
    pub(super) fn add_rule(&mut self, rule: Rule) -> Result<(), String> {
        self.change(|found| found.rules.push(rule))
    }

    /// Notes where the driver has put a rule; gives the rule as it is noted then.
    ///
    /// # Errors
    /// As [`Self::add_rule`].
    pub(super) fn placed(&mut self, rule: &Rule, location: u32) -> Result<Rule, String> {
        let placed = Rule { location: Some(location), before: BTreeSet::new(), ..rule.clone() };
        self.change(|found| {
            if let Some(known) = found.rules.iter_mut().find(|known| *known == rule) {
                known.clone_from(&placed);
            }
        })?;
        Ok(placed)
    }

    /// Forgets a rule that is not on its card any more.
    pub(super) fn remove_rule(&mut self, rule: &Rule) -> Result<(), String> {
        self.change(|found| found.rules.retain(|known| known != rule))
    }

    /// Notes how a table was.
    ///
    /// # Errors
    /// As [`Self::add_rule`].
    pub(super) fn add_table(&mut self, table: Table) -> Result<(), String> {
        self.change(|found| found.tables.push(table))
    }

    /// Forgets a table that is as it was.
    pub(super) fn remove_table(&mut self, place: &Place) -> Result<(), String> {
        self.change(|found| found.tables.retain(|known| known.place != *place))
    }

    /// What the document changed of an interface.
    pub(super) fn settings(&self, place: &Place) -> Option<&Settings> {
        self.found.settings.iter().find(|known| known.place == *place)
    }

    /// Notes what the document changes of an interface, or has given back.
    ///
    /// # Errors
    /// As [`Self::add_rule`].
    pub(super) fn set(&mut self, settings: Settings) -> Result<(), String> {
        self.change(|found| {
            found.settings.retain(|known| known.place != settings.place);
            if !settings.is_empty() {
                found.settings.push(settings);
            }
        })
    }

    /// The interfaces of which the document has changed something, with the file of their network
    /// namespace.
    pub(super) fn of_document(&self) -> BTreeMap<Place, Option<PathBuf>> {
        let rules = self.found.rules.iter().filter(|rule| rule.document);
        let rules = rules.map(|rule| (rule.place.clone(), rule.namespace.clone()));
        let settings = self.found.settings.iter();
        rules.chain(settings.map(|it| (it.place.clone(), it.namespace.clone()))).collect()
    }

    fn change(&mut self, change: impl FnOnce(&mut Found)) -> Result<(), String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let mut found = self.found.clone();
        change(&mut found);
        if found == self.found {
            return Ok(());
        }
        let text = serde_json::to_vec(&found).expect("invariant: it has string keys");
        Disk::default().replace(&self.path, &text).map_err(|error| error.to_string())?;
        self.found = found;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::flow::{Flow, FlowAction, FlowMatch, Ports, Transport};

    fn rule(location: Option<u32>, before: &[u32]) -> Rule {
        let flow = Flow::all(Transport::Udp(Ports::any()));
        let rule = FlowRule { matching: FlowMatch::V4(flow), action: FlowAction::Queue(1) };
        let before = before.iter().copied().collect();
        let place = Place { namespace: None, index: 3 };
        Rule { place, namespace: None, location, before, rule, document: false }
    }

    #[test]
    fn what_was_done_is_known_to_the_next_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let mut found = Footprints::open(directory.path());
        found.add_rule(rule(None, &[2, 5])).unwrap();
        let half = Footprints::open(directory.path());
        assert_eq!(half.rules(), [rule(None, &[2, 5])]);
        assert_eq!(found.placed(&rule(None, &[2, 5]), 7).unwrap(), rule(Some(7), &[]));
        let former = FormerRss { table: vec![0, 1], queues: 2 };
        let place = Place { namespace: None, index: 3 };
        let table = Table { place: place.clone(), namespace: None, former };
        found.add_table(table.clone()).unwrap();
        let mut next = Footprints::open(directory.path());
        assert_eq!((next.rules(), next.tables()), (&[rule(Some(7), &[])][..], &[table][..]));
        next.remove_rule(&rule(Some(7), &[])).unwrap();
        next.remove_table(&place).unwrap();
        let last = Footprints::open(directory.path());
        assert!(last.rules().is_empty() && last.tables().is_empty());
    }

    #[test]
    fn what_the_document_changed_is_known_to_the_next_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let mut found = Footprints::open(directory.path());
        let mut own = rule(Some(4), &[]);
        own.document = true;
        found.add_rule(own).unwrap();
        let place = Place { namespace: None, index: 8 };
        let mut settings = Settings::none(place.clone(), Some("/run/netns/blue".into()));
        let four = Counts { combined: 4, ..Counts::default() };
        settings.counts = Some(Former { former: four, ours: vec![Counts::default()] });
        let polling = Polling { defer_hard_irqs: 2, gro_flush_timeout: 7 };
        settings.queues.insert(3, Former { former: Polling::default(), ours: vec![polling] });
        let cpus = "0-3,7".parse().unwrap();
        settings.interrupts.insert(121, Former { former: cpus, ours: vec![] });
        found.set(settings.clone()).unwrap();
        let mut next = Footprints::open(directory.path());
        assert_eq!(next.settings(&place), Some(&settings));
        let of: Vec<_> = next.of_document().into_iter().collect();
        let here = Place { namespace: None, index: 3 };
        assert_eq!(of, [(here, None), (place.clone(), Some("/run/netns/blue".into()))]);
        next.set(Settings::none(place.clone(), None)).unwrap();
        assert_eq!(Footprints::open(directory.path()).settings(&place), None);
    }

    #[test]
    fn a_file_that_is_not_understood_stays_and_cards_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        std::fs::write(&path, "{\"of\": \"another version\"}").unwrap();
        let mut found = Footprints::open(directory.path());
        let why = found.add_rule(rule(None, &[])).unwrap_err();
        assert!(why.contains("cards.json cannot be used"), "{why}");
        assert!(std::fs::read_to_string(path).unwrap().contains("another version"));
    }
}
