//! Maps of the simulated kernel: they live as long as a pin or a loaded chain has them.

use super::{Loaded, Simulator};
use crate::catalog::Load;
use pointsman_model::facts::{InitialContents, MapFacts};
use pointsman_model::observed::{Made, MadeMap};
use pointsman_model::plan::PrepareProgram;
use pointsman_model::{Fingerprint, MapName, ProgramName, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What a map holds, as far as it matters who put it there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// The entries of a document that were written last, whole.
    pub told: Option<Sha256>,
    /// What an application wrote after that.
    pub written: Option<u64>,
}

/// What the kernel side would read from a program's object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) hash: Sha256,
    pub(super) maps: Vec<MapFacts>,
}

/// A pinned map.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    facts: MapFacts,
    id: u32,
    /// `false`: somebody removed the pin.
    pinned: bool,
}

impl Simulator {
    /// Hands over what the object of a load defines. Without it the load has no maps, and none are
    /// told: as if an earlier version had prepared it.
    pub fn put_object(&mut self, load: &Fingerprint, object: Sha256, maps: &[MapFacts]) {
        self.objects.insert(load.clone(), Object { hash: object, maps: maps.to_vec() });
    }

    /// The kernel's id of a pinned map.
    #[must_use]
    pub fn map_id(&self, load: &Load, map: &MapName) -> Option<u32> {
        self.programs.get(load)?.maps.get(map)?.id()
    }

    /// What a pinned map holds.
    #[must_use]
    pub fn contents(&self, load: &Load, map: &MapName) -> Option<Contents> {
        self.contents.get(&self.map_id(load, map)?).copied()
    }

    /// Writes into all pinned maps of a program through their pins, as an application does.
    pub fn write_maps(&mut self, program: &ProgramName, value: u64) {
        let loads = self.programs.iter().filter(|((name, _), _)| name == program);
        for id in loads.flat_map(|(_, program)| program.maps.values()).filter_map(Pinned::id) {
            self.contents.entry(id).or_default().written = Some(value);
        }
    }

    /// Loses one pinned map of a program: somebody removed the pin by hand.
    pub fn lose_map(&mut self, program: &ProgramName, map: &MapName) {
        let loads = self.programs.iter_mut().filter(|((name, _), _)| name == program);
        for map in loads.filter_map(|(_, program)| program.maps.get_mut(map)) {
            map.pinned = false;
        }
        self.free_maps();
    }

    /// Pins the map that a load had, as long as the kernel has it.
    pub(super) fn pin_map(&mut self, load: &Load, name: &MapName) -> Result<(), String> {
        let Some(map) = self.programs.get_mut(load).and_then(|p| p.maps.get_mut(name)) else {
            return Err(format!("program {} has no map {name} (ENOENT)", load.0));
        };
        map.pinned = true;
        let emptied = map.facts.initial == InitialContents::Slots;
        if emptied || !self.contents.contains_key(&map.id) {
            self.last_map_id += 1;
            map.id = self.last_map_id;
            self.contents.insert(map.id, Contents::default());
            self.forget_entries(load, name);
        }
        Ok(())
    }

    /// Makes the maps of a load, or takes them over as the step says.
    pub(super) fn make_maps(
        &mut self,
        step: &PrepareProgram,
    ) -> Result<BTreeMap<MapName, Pinned>, String> {
        let PrepareProgram { program, fingerprint, keeps, .. } = step;
        let object = self.objects.get(fingerprint).cloned();
        let mut maps = BTreeMap::new();
        for (map, from) in keeps {
            let from = (program.clone(), from.clone());
            let id = self.map_id(&from, map).ok_or_else(|| {
                format!("map {map} of program {program} is not pinned: plan again (ENOENT)")
            })?;
            let old = &self.programs[&from].maps[map].facts;
            let new = object.iter().flat_map(|object| &object.maps).find(|new| new.name == *map);
            let Some(new) = new else {
                return Err(format!("program {program} has no map {map} (EINVAL)"));
            };
            if !could_be_read(old, new) {
                self.violations.push(format!("map {map} of {program} is kept and differs"));
            }
            maps.insert(map.clone(), Pinned { facts: new.clone(), id, pinned: true });
        }
        for facts in object.into_iter().flat_map(|object| object.maps) {
            if !maps.contains_key(&facts.name) {
                self.last_map_id += 1;
                self.contents.insert(self.last_map_id, Contents::default());
                let pinned = Pinned { id: self.last_map_id, pinned: true, facts };
                maps.insert(pinned.facts.name.clone(), pinned);
            }
        }
        Ok(maps)
    }

    /// Forgets what a map was told to hold, in the records of all loads that have it.
    pub(super) fn forget_entries(&mut self, load: &Load, map: &MapName) {
        let id = self.map_id(load, map);
        for (other, program) in &mut self.programs {
            let shares = id.is_some() && program.maps.get(map).is_some_and(|map| map.id() == id);
            if other == load || (other.0 == load.0 && shares) {
                program.entries.remove(map);
            }
        }
    }

    /// Writes a document's entries, or half of them.
    pub(super) fn fill_map(&mut self, load: &Load, map: &MapName, told: Option<Sha256>) {
        if let Some(id) = self.map_id(load, map) {
            self.contents.insert(id, Contents { told, written: None });
        }
    }

    /// Frees the maps that nothing has any more.
    pub(super) fn free_maps(&mut self) {
        let pinned = self.programs.values().flat_map(|program| program.maps.values());
        let chains = self.hooks.values().flat_map(|hook| hook.chains.values());
        let loaded = self.running().chain(chains.filter_map(|chain| chain.loaded.as_ref()));
        let used: BTreeSet<u32> = pinned
            .filter_map(Pinned::id)
            .chain(loaded.flat_map(|Loaded { map_ids, .. }| map_ids).copied())
            .collect();
        self.contents.retain(|id, _| used.contains(id));
    }

    pub(super) fn made(&self, load: &Load) -> Option<Made> {
        let program = self.programs.get(load)?;
        let maps = program.maps.iter();
        let maps = maps
            .map(|(name, map)| (name.clone(), MadeMap { facts: map.facts.clone(), id: map.id() }));
        Some(Made { order: program.instance, object: program.object?, maps: maps.collect() })
    }
}

impl Pinned {
    /// The kernel's id of it, if it is pinned.
    pub(super) fn id(&self) -> Option<u32> {
        self.pinned.then_some(self.id)
    }
}

/// What must hold of every kept map, whatever else decides.
fn could_be_read(old: &MapFacts, new: &MapFacts) -> bool {
    let what = |map: &MapFacts| {
        let it = &map.definition;
        (it.kind.clone(), it.key_size, it.value_size, it.max_entries, it.flags, it.extra)
    };
    let type_of = |map: &MapFacts| map.definition.value.clone();
    let stateful = matches!(new.initial, InitialContents::Nothing | InitialContents::Variables(_));
    what(old) == what(new) && type_of(old) == type_of(new) && old.initial == new.initial && stateful
}
