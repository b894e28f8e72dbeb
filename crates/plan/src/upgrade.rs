//! What an upgrade of a program keeps: maps of which nothing has changed that could make the new
//! program read the contents as something else.

mod difference;

use self::difference::difference;
use crate::catalog::{Load, Usable};
use crate::chain::list;
use pointsman_model::document::OnUpgrade;
use pointsman_model::facts::{InitialContents, MapFacts};
use pointsman_model::observed::{MadeMap, Observed, ObservedProgram};
use pointsman_model::plan::Note;
use pointsman_model::{Fingerprint, MapName, ProgramName};
use std::collections::BTreeMap;

/// What becomes of the maps of a program that is prepared.
#[derive(Debug, Default)]
pub(crate) struct Upgrade {
    /// The maps that are taken over, and from which load.
    pub(crate) keeps: BTreeMap<MapName, Fingerprint>,
    /// The maps whose contents are lost, and why.
    pub(crate) loses: BTreeMap<MapName, String>,
    pub(crate) notes: Vec<Note>,
}

/// The load of a program before the one that is prepared.
enum Before<'a> {
    /// There is none: nothing can be lost.
    Nothing,
    /// There is one, and what it leaves cannot be known.
    Unknown(&'static str),
    /// Its maps are pinned.
    Pinned(&'a Fingerprint, &'a ObservedProgram),
}

/// What becomes of one map.
enum Fate {
    Kept,
    Lost(String),
    /// It starts anew because the document says so.
    Wanted,
    /// It holds nothing that could be lost.
    Stateless,
}

/// Decides for every map of `program`, which is about to be prepared.
pub(crate) fn upgrade(program: &Usable<'_>, observed: &Observed) -> Upgrade {
    let mut upgrade = Upgrade::default();
    let load = program.load();
    let before = before(&load, observed);
    let from = match before {
        Before::Nothing => return upgrade,
        Before::Pinned(from, _) => Some(from),
        Before::Unknown(_) => None,
    };
    let (mut fresh, mut callbacks) = (Vec::new(), Vec::new());
    for map in &program.facts.maps {
        match (fate(program, map, &before), from) {
            (Fate::Kept, Some(from)) => {
                upgrade.keeps.insert(map.name.clone(), from.clone());
                callbacks.extend(map.definition.callbacks.then_some(&map.name));
            }
            (Fate::Lost(why), _) => drop(upgrade.loses.insert(map.name.clone(), why)),
            (Fate::Wanted, _) => fresh.push(&map.name),
            (Fate::Kept | Fate::Stateless, _) => {}
        }
    }
    upgrade.loses.extend(dropped(program, &before));
    upgrade.notes = notes(program.name, &upgrade, &fresh, &callbacks);
    upgrade
}

/// What the load before `new` leaves.
fn before<'a>((name, new): &'a Load, observed: &'a Observed) -> Before<'a> {
    let Some(fingerprint) = latest(name, observed) else { return Before::Nothing };
    match observed.programs.get(&(name.clone(), fingerprint.clone())) {
        Some(program) => Before::Pinned(fingerprint, program),
        // The chain that runs says so.
        None if fingerprint == new => Before::Nothing,
        None => Before::Unknown("the pins of the program that runs are gone"),
    }
}

/// The load of a program whose maps hold what is newest: of the live chain of the highest
/// generation; else of any pinned chain; else the one that was prepared last.
pub(crate) fn latest<'a>(name: &ProgramName, observed: &'a Observed) -> Option<&'a Fingerprint> {
    let order = |fingerprint: &Fingerprint| {
        let pinned = observed.programs.get(&(name.clone(), fingerprint.clone()));
        pinned.and_then(|pinned| pinned.made.as_ref()).map(|made| made.order)
    };
    let records = observed.hooks.values().flat_map(|hook| {
        let live = hook.live().map(|(sequence, _)| sequence);
        let records = hook.chains.iter().filter_map(move |(&sequence, chain)| {
            Some((live == Some(sequence), chain.record.as_ref()?))
        });
        records.flat_map(|(live, record)| {
            record.spec.members.iter().map(move |member| (live, record.generation, member))
        })
    });
    let of_chains = records
        .filter(|(_, _, member)| member.program == *name)
        .map(|(live, generation, member)| (live, generation, &member.fingerprint))
        .max_by_key(|&(live, generation, load)| (live, generation, order(load), load));
    let pinned = observed.programs.keys().filter(|(other, _)| other == name);
    let prepared = pinned.map(|(_, load)| load).max_by_key(|&load| (order(load), load));
    of_chains.map(|(.., load)| load).or(prepared)
}

fn fate(program: &Usable<'_>, map: &MapFacts, before: &Before<'_>) -> Fate {
    // What the object fills refers to its own programs and maps.
    if matches!(map.initial, InitialContents::Constants | InitialContents::Slots) {
        return Fate::Stateless;
    }
    let found = match before {
        Before::Nothing => return Fate::Stateless,
        Before::Unknown(why) => Err((*why).to_owned()),
        Before::Pinned(_, ObservedProgram { made: None, .. }) => {
            Err("an earlier version prepared it and recorded no definitions".to_owned())
        }
        Before::Pinned(_, ObservedProgram { made: Some(made), .. }) => {
            let Some(MadeMap { facts, id }) = made.maps.get(&map.name) else {
                return Fate::Stateless;
            };
            let same_object = made.object == program.resolved.object;
            match (id, difference(facts, map, same_object)) {
                (_, Some(why)) => Err(why),
                (None, None) => Err("it is not what is pinned under its name".to_owned()),
                (Some(_), None) => Ok(()),
            }
        }
    };
    let wanted = program.resolved.on_upgrade.get(&map.name).copied().unwrap_or_default();
    match (found, wanted) {
        // The document's entries are written before packets see the map.
        (_, OnUpgrade::Fresh) | (Err(_), _) if program.resolved.maps.contains_key(&map.name) => {
            Fate::Stateless
        }
        (_, OnUpgrade::Fresh) => Fate::Wanted,
        (Ok(()), OnUpgrade::Keep) => Fate::Kept,
        (Err(why), OnUpgrade::Keep) => Fate::Lost(why),
    }
}

/// The maps with contents of their own that the new object does not have.
fn dropped(program: &Usable<'_>, before: &Before<'_>) -> BTreeMap<MapName, String> {
    let Before::Pinned(_, ObservedProgram { entries, made: Some(made) }) = before else {
        return BTreeMap::new();
    };
    let still_there = |name: &MapName| program.facts.maps.iter().any(|map| map.name == *name);
    let gone = made.maps.iter().filter(|(name, map)| {
        let fillers = [InitialContents::Constants, InitialContents::Slots];
        !still_there(name) && !entries.contains_key(name) && !fillers.contains(&map.facts.initial)
    });
    gone.map(|(name, _)| (name.clone(), "the new object has no such map".to_owned())).collect()
}

fn notes(
    program: &ProgramName,
    upgrade: &Upgrade,
    fresh: &[&MapName],
    callbacks: &[&MapName],
) -> Vec<Note> {
    let mut by_reason: BTreeMap<&str, Vec<&MapName>> = BTreeMap::new();
    for (map, why) in &upgrade.loses {
        by_reason.entry(why).or_default().push(map);
    }
    let lost = by_reason.into_iter().map(|(why, maps)| {
        let (maps, verb) =
            counted(&maps, "does not keep its contents", "do not keep their contents");
        format!("state lost: {maps} of program {program} {verb}: {why}")
    });
    let mut messages: Vec<_> = lost.collect();
    if messages.is_empty() && fresh.is_empty() {
        messages.push(format!("program {program} is upgraded; no map contents are lost"));
    }
    if !fresh.is_empty() {
        let (maps, verb) = counted(fresh, "starts anew", "start anew");
        messages.push(format!("{maps} of program {program} {verb}, as the document says"));
    }
    if !callbacks.is_empty() {
        let (maps, verb) = counted(callbacks, "is kept", "are kept");
        messages.push(format!(
            "{maps} of program {program} {verb} with its timers: one that is set goes on calling \
             the old program's function until the new program sets its callback"
        ));
    }
    let note = |message| Note { hook: None, program: Some(program.clone()), message };
    messages.into_iter().map(note).collect()
}

/// The maps in words, with the verb that goes with their number.
fn counted<'a>(maps: &[&MapName], one: &'a str, several: &'a str) -> (String, &'a str) {
    match maps {
        [map] => (format!("map {map}"), one),
        maps => (format!("maps {}", list(maps)), several),
    }
}
