//! Programs with their maps: made or taken over, filled, released.

use super::look::read;
use super::{Store, write};
use crate::error::Error;
use crate::kernel;
use crate::maps::{self, MapHome};
use crate::member::Member;
use crate::pins;
use libbpf_rs::{MapHandle, MapInfo};
use pointsman_fuse::layout::StackRounding;
use pointsman_model::facts::{InitialContents, MapFacts, ProgramFacts};
use pointsman_model::observed::{Made, MadeMap, ObservedProgram};
use pointsman_model::plan::{ResolvedProgram, entries_digest};
use pointsman_model::{Fingerprint, MapName, ProgramName, Sha256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// What was made for a program: pinned once, before `entries`, and never changed.
///
/// It is a record of its own so that a version that does not know it reads the others, and so that
/// what such a version prepared is told by its absence.
#[derive(Debug, Serialize, Deserialize)]
struct Definitions {
    /// Another number: another version decides by other things. It is not read then.
    format: u32,
    order: u64,
    object: Sha256,
    maps: Vec<Defined>,
}

/// A map with the kernel's id of it: of all maps of a running kernel only this one has it, and a
/// map's definition never changes.
#[derive(Debug, Serialize, Deserialize)]
struct Defined {
    id: u32,
    #[serde(flatten)]
    facts: MapFacts,
}

const FORMAT: u32 = 1;

impl Store {
    /// A pinned map of a program, with the kernel's number for it; `None`: there is none of that
    /// name.
    ///
    /// # Errors
    /// The pin cannot be opened, or is no map.
    pub fn open_map(
        &self,
        name: &ProgramName,
        fingerprint: &Fingerprint,
        map: &str,
    ) -> Result<Option<(u32, OwnedFd)>, Error> {
        let path = self.map_directory(name, fingerprint).join(pins::file_name(map));
        Ok(pinned(&path)?.map(|(file, id)| (id, file)))
    }

    /// Opens a program and pins its maps. Those that `keeps` lists are taken over from the load
    /// that it names, with their contents, and with what they were told to hold.
    ///
    /// # Errors
    /// Whatever is wrong with the program, or a map that is not the one that was made for the
    /// other load; nothing of the program stays pinned then.
    pub fn prepare_program(
        &self,
        name: &ProgramName,
        program: &ResolvedProgram,
        object: &[u8],
        rounding: StackRounding,
        known: Option<&ProgramFacts>,
        keeps: &BTreeMap<MapName, Fingerprint>,
    ) -> Result<(), Error> {
        let directory = self.program(name, &program.fingerprint());
        let maps = directory.join("maps");
        let member = || {
            let home = MapHome::Pinned(maps.clone());
            Member::prepare(object, program, &home, rounding, known)
        };
        if pins::exists(&directory.join("entries")) {
            return member().map(drop);
        }
        // What is left of an interrupted preparation is not what this one promises.
        pins::remove_directory(&directory)?;
        let prepare = || {
            let mut entries = BTreeMap::new();
            pins::make_directory(&maps)?;
            for (map, from) in keeps {
                let digest = self.take_over(name, from, map, &maps)?;
                entries.extend(digest.map(|digest| (map.clone(), digest)));
            }
            let member = member()?;
            let definitions = Definitions {
                format: FORMAT,
                order: self.next_order(name)?,
                object: program.object,
                maps: defined(member.map_facts(), &maps)?,
            };
            write(&directory.join("definitions"), &definitions)?;
            write(&directory.join("entries"), &entries)
        };
        let prepared = prepare();
        if prepared.is_err() {
            drop(pins::remove_directory(&directory));
            drop(self.remove_if_empty(directory.parent()));
        }
        prepared
    }

    /// Pins the maps of a program again that are not pinned any more. One that no loaded program
    /// has is gone from the kernel, and is made anew.
    ///
    /// # Errors
    /// Whatever is wrong with the program, or the kernel's answer.
    pub fn pin_maps(
        &self,
        name: &ProgramName,
        program: &ResolvedProgram,
        object: &[u8],
        rounding: StackRounding,
        known: Option<&ProgramFacts>,
    ) -> Result<(), Error> {
        let directory = self.program(name, &program.fingerprint());
        let (maps, path) = (directory.join("maps"), directory.join("definitions"));
        let Some(mut definitions) = read::<Definitions>(&path).filter(|d| d.format == FORMAT)
        else {
            let why = "is not there or of another version: nobody knows what was pinned".into();
            return Err(Error::Pin { path: path.display().to_string(), why });
        };
        pins::make_directory(&maps)?;
        let mut gone = Vec::new();
        for Defined { id, facts } in &definitions.maps {
            let pin = maps.join(pins::file_name(facts.name.as_str()));
            if pinned(&pin).ok().flatten().is_some_and(|(_, found)| found == *id) {
                continue;
            }
            // Whatever has its name in our directory is not the program's.
            pins::remove(&pin)?;
            if facts.initial == InitialContents::Slots {
                // The kernel emptied it when the pin went.
                gone.push(&facts.name);
                continue;
            }
            match MapHandle::from_map_id(*id) {
                Ok(map) => kernel::pin(map.as_fd(), &pin)?,
                Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => gone.push(&facts.name),
                Err(e) => {
                    let why = format!("cannot be pinned again: map {id}: {e}");
                    return Err(Error::Pin { path: pin.display().to_string(), why });
                }
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let entries = directory.join("entries");
        let mut told: BTreeMap<MapName, Sha256> = read(&entries).unwrap_or_default();
        told.retain(|map, _| !gone.contains(&map));
        write(&entries, &told)?;
        let home = MapHome::Pinned(maps.clone());
        let member = Member::prepare(object, program, &home, rounding, known)?;
        definitions.maps = defined(member.map_facts(), &maps)?;
        write(&path, &definitions)
    }

    /// A number above those of all pinned loads of a program.
    fn next_order(&self, name: &ProgramName) -> Result<u64, Error> {
        let loads = self.root.join("programs").join(pins::file_name(name.as_str()));
        let mut last = 0;
        for load in pins::list(&loads)? {
            let definitions: Option<Definitions> = read(&loads.join(load).join("definitions"));
            last = definitions.map_or(last, |definitions| definitions.order.max(last));
        }
        Ok(last.saturating_add(1))
    }

    /// Pins a map of another load of the program in `maps` too. Returns what it was told to hold.
    fn take_over(
        &self,
        name: &ProgramName,
        from: &Fingerprint,
        map: &MapName,
        maps: &Path,
    ) -> Result<Option<Sha256>, Error> {
        let directory = self.program(name, from);
        let file = pins::file_name(map.as_str());
        let path = directory.join("maps").join(&file);
        let made = made(&directory).and_then(|mut made| made.maps.remove(map));
        let (Some(MadeMap { id: Some(id), .. }), Some((fd, pinned))) = (made, pinned(&path)?)
        else {
            let why = format!(
                "is not there, or not the map that was made for {name}: it is planned again by itself"
            );
            return Err(Error::Pin { path: path.display().to_string(), why });
        };
        if id != pinned {
            let why = "was replaced by another map: it is planned again by itself".to_owned();
            return Err(Error::Pin { path: path.display().to_string(), why });
        }
        kernel::pin(fd.as_fd(), &maps.join(file))?;
        let entries: Option<BTreeMap<MapName, Sha256>> = read(&directory.join("entries"));
        Ok(entries.and_then(|mut entries| entries.remove(map)))
    }

    /// Makes a program's map hold exactly what the document lists, and remembers that it does.
    ///
    /// # Errors
    /// The kernel's answer; the map may then hold some entries of each.
    pub fn set_map_entries(
        &self,
        name: &ProgramName,
        program: &ResolvedProgram,
        map: &MapName,
        object: &[u8],
    ) -> Result<(), Error> {
        let directory = self.program(name, &program.fingerprint());
        let object = crate::Object::open(object)?;
        let entries = program.maps.get(map).map_or(&[][..], Vec::as_slice);
        // While the map is being written it holds neither the old entries nor the new ones, and
        // afterwards not what other loads that share it were told.
        self.forget_entries(name, &directory, map)?;
        maps::fill(&object, &directory.join("maps"), map, entries)?;
        let path = directory.join("entries");
        let mut known: BTreeMap<MapName, Sha256> = read(&path).unwrap_or_default();
        known.insert(map.clone(), entries_digest(entries));
        write(&path, &known)
    }

    /// Forgets what a map of the load in `directory` was told to hold, in the records of all loads
    /// of the program that have it.
    fn forget_entries(
        &self,
        name: &ProgramName,
        directory: &Path,
        map: &MapName,
    ) -> Result<(), Error> {
        let file = pins::file_name(map.as_str());
        let id = |directory: &Path| -> Result<Option<u32>, Error> {
            Ok(pinned(&directory.join("maps").join(&file))?.map(|(_, id)| id))
        };
        let shared = id(directory)?;
        let loads = self.root.join("programs").join(pins::file_name(name.as_str()));
        for load in pins::list(&loads)? {
            let load = loads.join(load);
            let path = load.join("entries");
            let mut known: BTreeMap<MapName, Sha256> = read(&path).unwrap_or_default();
            if known.contains_key(map) && id(&load)? == shared {
                known.remove(map);
                write(&path, &known)?;
            }
        }
        Ok(())
    }

    /// Unpins a program's maps. Those that another load took over stay as they are.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn release_program(
        &self,
        name: &ProgramName,
        fingerprint: &Fingerprint,
    ) -> Result<(), Error> {
        let path = self.program(name, fingerprint);
        // First the one that says that the program is prepared: an interrupted release must not
        // look like a program without some of its maps.
        pins::remove(&path.join("entries"))?;
        pins::remove_directory(&path)?;
        self.remove_if_empty(path.parent())
    }
}

/// What the pins in a prepared program's directory tell.
pub(super) fn observe(directory: &Path) -> ObservedProgram {
    let entries = read(&directory.join("entries")).unwrap_or_default();
    ObservedProgram { entries, made: made(directory) }
}

fn made(directory: &Path) -> Option<Made> {
    let path = directory.join("definitions");
    let Definitions { format, order, object, maps } = read(&path)?;
    if format != FORMAT {
        tracing::warn!("{}: written in form {format}, expected {FORMAT}", path.display());
        return None;
    }
    let found = maps.into_iter().map(|Defined { id, facts }| {
        let pin = directory.join("maps").join(pins::file_name(facts.name.as_str()));
        let same = pinned(&pin).ok().flatten().is_some_and(|(_, found)| found == id);
        (facts.name.clone(), MadeMap { facts, id: same.then_some(id) })
    });
    Some(Made { order, object, maps: found.collect() })
}

fn defined(facts: &[MapFacts], maps: &Path) -> Result<Vec<Defined>, Error> {
    let mut defined = Vec::with_capacity(facts.len());
    for facts in facts {
        // libbpf leaves out what this kernel cannot make and no loaded program uses.
        if let Some((_, id)) = pinned(&maps.join(pins::file_name(facts.name.as_str())))? {
            defined.push(Defined { id, facts: facts.clone() });
        }
    }
    Ok(defined)
}

/// The map at `path`, with its id; `None`: there is none.
fn pinned(path: &Path) -> Result<Option<(OwnedFd, u32)>, Error> {
    let Some(fd) = kernel::open_pin(path)? else { return Ok(None) };
    let info = MapInfo::new(fd.as_fd()).map_err(|e| {
        let why = format!("is not a map: {e}");
        Error::Pin { path: path.display().to_string(), why }
    })?;
    Ok(Some((fd, info.info.id)))
}
