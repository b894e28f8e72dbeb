//! Building chains: fused, loaded and pinned, and not yet attached.

use super::{ChainMember, Store, write};
use crate::chain::{Chain, Slot};
use crate::dispatcher::{DispatcherError, Program};
use crate::error::Error;
use crate::kernel;
use crate::maps::MapHome;
use crate::member::Member;
use crate::pins;
use pointsman_fuse::layout::StackRounding;
use pointsman_model::chain::{ChainId, ChainRecord, Form, MemberSpec, SlotSpec};
use std::os::fd::AsFd as _;
use std::path::Path;

impl Store {
    /// Fuses and pins a chain of `members`, in the record's order: as one program, or as one for
    /// each of its slots.
    ///
    /// # Errors
    /// Whatever is wrong with the members; nothing of the chain stays pinned then.
    pub fn build_chain(
        &self,
        chain: &ChainId,
        record: &ChainRecord,
        members: &[ChainMember<'_>],
        rounding: StackRounding,
    ) -> Result<(), Error> {
        let path = self.chain(chain);
        let spec = &record.spec;
        let mut prepared = Vec::with_capacity(members.len());
        for (spec, member) in spec.members.iter().zip(members) {
            let maps = MapHome::Pinned(self.map_directory(&spec.program, &spec.fingerprint));
            let ChainMember { program, object, known } = member;
            prepared.push(Member::prepare(object, program, &maps, rounding, *known)?);
        }
        let places: Vec<_> = spec.members.iter().zip(&prepared).map(placed).collect();
        let order = |spec: &MemberSpec| (spec.priority, spec.entry.clone(), spec.program.clone());
        let in_slots: usize = spec.slots.iter().map(|slot| slot.members).sum();
        // Counters are read by the record: it must say what was built.
        if !spec.members.is_sorted_by_key(order)
            || places.len() != spec.members.len()
            || !(spec.slots.is_empty() || in_slots == places.len())
        {
            return Err(planned_otherwise(&path));
        }
        if pins::exists(&path) {
            let why = "is there already".into();
            return Err(Error::Pin { path: path.display().to_string(), why });
        }
        let pinned = if spec.slots.is_empty() {
            let fused = Chain::fuse(&places, rounding, true)?;
            as_planned(&path, &fused.layout().forms, &spec.members)?;
            pin_chain(&path, &fused, record)
        } else {
            let programs = self.load_slots(chain, record, &places, rounding)?;
            pin_slots(&path, &programs, record)
        };
        if pinned.is_err() {
            drop(pins::remove_directory(&path));
        }
        pinned
    }

    /// The programs of a chain's slots, loaded.
    fn load_slots(
        &self,
        chain: &ChainId,
        record: &ChainRecord,
        places: &[Slot<'_>],
        rounding: StackRounding,
    ) -> Result<Vec<Program>, Error> {
        let path = self.chain(chain);
        let refused = |source| refused(&chain.hook.interface.to_string(), source);
        let mut programs: Vec<Program> = Vec::with_capacity(record.spec.slots.len());
        let mut rest = places;
        for (members, slot) in record.spec.parts() {
            let Some(slot) = slot else { continue };
            let (part, behind) = rest.split_at(members.len());
            rest = behind;
            let name = slot.name.as_str();
            let program = Program::slot(name, part, slot.own, rounding).map_err(refused)?;
            let forms = program.layout().map_or(&[][..], |layout| &layout.forms);
            as_planned(&path, forms, members)?;
            let answer = program.answer().map(|answer| answer.actions);
            if answer != Some(slot.actions) || program.frags() != slot.frags {
                return Err(planned_otherwise(&path));
            }
            programs.push(program);
        }
        self.dispatcher.load(&programs).map_err(refused)?;
        let slots = record.spec.slots.iter().zip(&programs);
        let slots: Vec<(&SlotSpec, &Program)> = slots.collect();
        for pair in slots.windows(2) {
            let [(one, first), (other, second)] = pair else { continue };
            // Of two of the same priority and name the tag decides, which nobody plans.
            if !first.runs_before(one.priority, second, other.priority) {
                let why = format!(
                    "slots {} and {} of priority {} would run the other way round in a dispatcher: \
                     give them different priorities, or let them share a slot",
                    one.name, other.name, one.priority
                );
                return Err(Error::Pin { path: path.display().to_string(), why });
            }
        }
        Ok(programs)
    }
}

fn placed<'a>((spec, member): (&'a MemberSpec, &'a Member)) -> Slot<'a> {
    Slot {
        name: spec.program.as_str(),
        member,
        actions: spec.chain_call_actions,
        enforce: spec.enforce,
        priority: spec.priority,
    }
}

fn planned_otherwise(path: &Path) -> Error {
    let why = "was planned otherwise than it is built: it is planned again by itself".into();
    Error::Pin { path: path.display().to_string(), why }
}

fn as_planned(path: &Path, built: &[Form], planned: &[MemberSpec]) -> Result<(), Error> {
    let same = built.iter().eq(planned.iter().map(|member| &member.form));
    same.then_some(()).ok_or_else(|| planned_otherwise(path))
}

/// What the dispatcher of an interface answered, as an error of the interface.
pub(super) fn refused(interface: &str, source: DispatcherError) -> Error {
    match source {
        DispatcherError::Other(error) => error,
        source => Error::Dispatcher { interface: interface.to_owned(), source: Box::new(source) },
    }
}

fn pin_chain(path: &Path, fused: &Chain, record: &ChainRecord) -> Result<(), Error> {
    pins::make_directory(path)?;
    if let Some(counters) = fused.counters() {
        kernel::pin(counters.map().as_fd(), &path.join("counters"))?;
    }
    write(&path.join("record"), record)?;
    kernel::pin(fused.program(), &path.join("program"))
}

fn pin_slots(path: &Path, programs: &[Program], record: &ChainRecord) -> Result<(), Error> {
    for (at, program) in programs.iter().enumerate() {
        let slot = path.join("slots").join(at.to_string());
        pins::make_directory(&slot)?;
        if let Some(counters) = program.counters() {
            kernel::pin(counters.map().as_fd(), &slot.join("counters"))?;
        }
        let loaded = program.loaded().ok_or_else(|| planned_otherwise(&slot))?;
        kernel::pin(loaded, &slot.join("program"))?;
    }
    write(&path.join("record"), record)
}
