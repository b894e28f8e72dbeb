//! How queues are polled and who takes their interrupts, as the document says; and as it was, when
//! that has no word on it any more.

use super::flows::inside;
use super::footprints::{Footprints, Settings};
use super::settings::known;
use pointsman_model::cpu::CpuSet;
use pointsman_model::document::{InterruptsSpec, TuningSpec};
use pointsman_model::lease::Place;
use pointsman_model::nic::Polling;
use pointsman_netdev::interrupts::{self, Interrupt};
use pointsman_netdev::{Control, ControlError, Ethtool, Roots, Sysfs, TuneError};
use pointsman_plan::nic::{Former, Setting, setting};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the document says, and what it means now.
#[derive(Debug)]
pub(super) struct Tuned<'a> {
    pub(super) tuning: &'a [TuningSpec],
    /// How many queues receive.
    pub(super) receive: u32,
    /// The CPUs beside the lcores of those who hold queues.
    pub(super) held: Option<&'a BTreeMap<u32, Option<CpuSet>>>,
    /// The CPUs for all other queues.
    pub(super) others: Option<&'a CpuSet>,
}

/// A part of a section and why it is not so.
type Trouble = (String, String);

/// One interface, in its network namespace, while it is tuned.
struct Card<'a> {
    footprints: &'a mut Footprints,
    settings: Settings,
    roots: &'a Roots,
    name: String,
    index: u32,
    troubles: Vec<Trouble>,
}

/// Makes it so.
pub(super) fn tune(
    footprints: &mut Footprints,
    roots: &Roots,
    place: &Place,
    namespace: Option<&Path>,
    tuned: &Tuned<'_>,
) -> Vec<Trouble> {
    let settings = known(footprints, place, namespace);
    let Settings { polling, queues, interrupts, .. } = &settings;
    let untouched = polling.is_none() && queues.is_empty() && interrupts.is_empty();
    if untouched && tuned.tuning.is_empty() {
        return Vec::new();
    }
    let worked = inside(namespace, || {
        let control = match Control::of_index(place.index) {
            Ok(control) => control,
            Err(ControlError::NoInterface { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.to_string()),
        };
        let (name, index) = (control.interface().to_string(), place.index);
        let mut card = Card { footprints, settings, roots, name, index, troubles: Vec::new() };
        card.missing(tuned);
        card.all(tuned);
        card.single(tuned);
        card.interrupts(tuned);
        Ok(card.troubles)
    });
    worked.unwrap_or_else(|why| vec![(String::new(), why)])
}

impl Card<'_> {
    fn trouble(&mut self, section: &str, why: impl Into<String>) {
        self.troubles.push((section.to_owned(), why.into()));
    }

    /// Names queues that are not there.
    fn missing(&mut self, tuned: &Tuned<'_>) {
        for (number, entry) in tuned.tuning.iter().enumerate() {
            let beyond = |queue: &u32| *queue >= tuned.receive;
            let queues = entry.queues.iter().flatten();
            if let Some(queue) = queues.copied().find(|queue| beyond(queue)) {
                let there = tuned.receive;
                let why = format!("queue {queue} does not exist: there are {there} receive queues");
                self.trouble(&format!("/{number}/queues"), why);
            }
        }
    }

    /// The daemon's own sysfs shows the namespace in which it was mounted.
    fn sysfs(&self) -> Result<Sysfs, TuneError> {
        let mounted = Sysfs::at(&self.roots.sys);
        match mounted.polling(&self.name, self.index) {
            Err(TuneError::NotThat { .. }) => Sysfs::here(),
            _ => Ok(mounted),
        }
    }

    /// Makes one setting so that is `now` like that.
    fn make<T: Clone + PartialEq>(
        &mut self,
        now: &T,
        wanted: Option<&T>,
        noted: &Noted<
            impl Fn(&Settings) -> Option<Former<T>>,
            impl Fn(&mut Settings, Option<Former<T>>),
        >,
        set: impl FnOnce(&Self, &T) -> Result<(), String>,
    ) -> Result<(), String> {
        let before = (noted.get)(&self.settings);
        let Setting { set: to, known } = setting(before.as_ref(), now, wanted);
        if let Some(to) = to {
            if known.is_some() {
                (noted.set)(&mut self.settings, known.clone());
                self.footprints.set(self.settings.clone())?;
            }
            if let Err(why) = set(self, &to) {
                (noted.set)(&mut self.settings, before);
                // Where that cannot be written down, more is known than is so.
                let _ = self.footprints.set(self.settings.clone());
                return Err(why);
            }
        }
        (noted.set)(&mut self.settings, known);
        self.footprints.set(self.settings.clone())
    }

    /// How all queues are polled. The kernel gives this to single ones as well, so it comes first.
    fn all(&mut self, tuned: &Tuned<'_>) {
        let mut entries = tuned.tuning.iter().enumerate();
        let entry = entries.find(|(_, it)| it.queues.is_none() && it.polling.is_some());
        if entry.is_none() && self.settings.polling.is_none() {
            return;
        }
        let wanted = entry.and_then(|(_, it)| it.polling);
        let result = self.sysfs().and_then(|sysfs| {
            let now = sysfs.polling(&self.name, self.index)?;
            Ok((sysfs, now))
        });
        let result = result.map_err(|error| error.to_string()).and_then(|(sysfs, now)| {
            let noted = Noted {
                get: |it: &Settings| it.polling.clone(),
                set: |it: &mut Settings, known| it.polling = known,
            };
            self.make(&now, wanted.as_ref(), &noted, |card, to| {
                let set = sysfs.set_polling(&card.name, card.index, *to);
                set.map(drop).map_err(|error| error.to_string())
            })
        });
        if let Err(why) = result {
            let section = entry.map(|(number, _)| format!("/{number}/busy_poll"));
            self.trouble(&section.unwrap_or_default(), why);
        }
    }

    /// How single queues are.
    fn single(&mut self, tuned: &Tuned<'_>) {
        let mut wanted: BTreeMap<u32, (usize, Polling)> = BTreeMap::new();
        for (number, entry) in tuned.tuning.iter().enumerate() {
            let Some(polling) = entry.polling else { continue };
            let queues = entry.queues.iter().flatten().filter(|queue| **queue < tuned.receive);
            wanted.extend(queues.map(|queue| (*queue, (number, polling))));
        }
        let known = self.settings.queues.keys();
        let all: BTreeSet<u32> = known.chain(wanted.keys()).copied().collect();
        if all.is_empty() {
            return;
        }
        let mut ethtool = match Ethtool::open() {
            Ok(ethtool) => ethtool,
            Err(error) => return self.trouble("", error.to_string()),
        };
        for queue in all {
            let (number, polling) = wanted.get(&queue).copied().unzip();
            let result = self.queue(&mut ethtool, queue, polling.as_ref());
            if let Err(why) = result {
                let section = number.map(|number| format!("/{number}/busy_poll"));
                self.trouble(&section.unwrap_or_default(), format!("queue {queue}: {why}"));
            }
        }
    }

    fn queue(
        &mut self,
        ethtool: &mut Ethtool,
        queue: u32,
        wanted: Option<&Polling>,
    ) -> Result<(), String> {
        let napi = ethtool.napi(self.index, queue);
        let (id, now) = match (napi, wanted) {
            (Some(napi), _) if napi.polling.is_some() => {
                (napi.id, napi.polling.unwrap_or_default())
            }
            (Some(_), Some(_)) => {
                return Err(pointsman_netdev::NapiError::Unsupported.to_string());
            }
            (None, Some(_)) => {
                let why = "nothing polls it now: the interface is down, or its driver or the \
                           kernel (before Linux 6.8) does not say what does";
                return Err(why.to_owned());
            }
            // With what polled it went how.
            (_, None) => {
                self.settings.queues.remove(&queue);
                return self.footprints.set(self.settings.clone());
            }
        };
        let noted = Noted {
            get: |it: &Settings| it.queues.get(&queue).cloned(),
            set: |it: &mut Settings, known| put(&mut it.queues, queue, known),
        };
        self.make(&now, wanted, &noted, |_, to| {
            ethtool.set_napi_polling(id, *to).map_err(|error| error.to_string())
        })
    }

    fn interrupts(&mut self, tuned: &Tuned<'_>) {
        let some = tuned.tuning.iter().any(|entry| entry.interrupts.is_some());
        if !some && self.settings.interrupts.is_empty() {
            return;
        }
        let listed = self
            .sysfs()
            .and_then(|sysfs| sysfs.interrupts(&self.name, self.index, &self.roots.proc));
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return self.trouble("", error.to_string()),
        };
        let of_queues = self.interrupts_of_queues(&listed, tuned.receive);
        let mut wanted: BTreeMap<u32, (usize, CpuSet)> = BTreeMap::new();
        for (number, entry) in tuned.tuning.iter().enumerate() {
            let Some(spec) = &entry.interrupts else { continue };
            let section = format!("/{number}/interrupts");
            for queue in queues_of(tuned, entry) {
                let Some(interrupt) = of_queues.get(&queue) else {
                    if entry.queues.is_some() || of_queues.is_empty() {
                        let why = "no interrupt of its own is known: a virtual interface has none, \
                                   and drivers name theirs as they like";
                        self.trouble(&section, format!("queue {queue}: {why}"));
                        break;
                    }
                    continue;
                };
                let cpus = match spec {
                    InterruptsSpec::Cpus(cpus) => Some(cpus.clone()),
                    InterruptsSpec::BesideLcores => {
                        match tuned.held.and_then(|it| it.get(&queue)) {
                            Some(cpus) => cpus.clone(),
                            None => tuned.others.cloned(),
                        }
                    }
                };
                match cpus {
                    Some(cpus) => drop(wanted.insert(*interrupt, (number, cpus))),
                    None => {
                        let why =
                            "every CPU is leased or isolated: the interrupt stays where it is";
                        self.trouble(&section, format!("queue {queue}: {why}"));
                    }
                }
            }
        }
        let known = self.settings.interrupts.keys();
        let all: BTreeSet<u32> = known.chain(wanted.keys()).copied().collect();
        for interrupt in all {
            let (number, cpus) = match wanted.get(&interrupt) {
                Some((number, cpus)) => (Some(number), Some(cpus)),
                None => (None, None),
            };
            if let Err(why) = self.interrupt(interrupt, cpus) {
                let section = number.map(|number| format!("/{number}/interrupts"));
                self.trouble(&section.unwrap_or_default(), why);
            }
        }
    }

    /// The interrupt of each queue: as the kernel tells it (Linux 6.8), or else by its name.
    fn interrupts_of_queues(&self, listed: &[Interrupt], receive: u32) -> BTreeMap<u32, u32> {
        let named = listed.iter().filter_map(|it| Some((it.queue?, it.number)));
        let mut found: BTreeMap<u32, u32> = named.filter(|(queue, _)| *queue < receive).collect();
        if let Ok(mut ethtool) = Ethtool::open() {
            // Of an interface without any the kernel is not asked queue by queue.
            let asked = (0..receive).take_while(|queue| !listed.is_empty() && *queue < MOST_ASKED);
            for queue in asked {
                let number = ethtool.napi(self.index, queue).and_then(|napi| napi.interrupt);
                found.extend(number.map(|number| (queue, number)));
            }
        }
        found
    }

    fn interrupt(&mut self, interrupt: u32, wanted: Option<&CpuSet>) -> Result<(), String> {
        let proc = &self.roots.proc;
        let now = match (interrupts::affinity(proc, interrupt), wanted) {
            (Ok(now), _) => now,
            (Err(error), Some(_)) => return Err(error.to_string()),
            // With the interrupt went who took it.
            (Err(_), None) => {
                self.settings.interrupts.remove(&interrupt);
                return self.footprints.set(self.settings.clone());
            }
        };
        let noted = Noted {
            get: |it: &Settings| it.interrupts.get(&interrupt).cloned(),
            set: |it: &mut Settings, known| put(&mut it.interrupts, interrupt, known),
        };
        self.make(&now, wanted, &noted, |card, to| {
            let set = interrupts::set_affinity(&card.roots.proc, interrupt, to);
            set.map(drop).map_err(|error| error.to_string())
        })
    }
}

/// Where a setting is noted.
struct Noted<G, S> {
    get: G,
    set: S,
}

/// Notes a setting, or forgets it.
fn put<T>(all: &mut BTreeMap<u32, T>, number: u32, known: Option<T>) {
    match known {
        Some(known) => drop(all.insert(number, known)),
        None => drop(all.remove(&number)),
    }
}

/// Of more queues the kernel is not asked which interrupt they have.
const MOST_ASKED: u32 = 1024;

/// The queues that an entry is about, as far as they are there.
fn queues_of(tuned: &Tuned<'_>, entry: &TuningSpec) -> Vec<u32> {
    match &entry.queues {
        Some(queues) => queues.iter().copied().filter(|it| *it < tuned.receive).collect(),
        None => {
            let others = tuned.tuning.iter().filter_map(|it| it.queues.as_ref());
            let named: BTreeSet<u32> = others.flatten().copied().collect();
            (0..tuned.receive.min(MOST_ASKED)).filter(|queue| !named.contains(queue)).collect()
        }
    }
}

#[cfg(test)]
mod tests;
