//! What stands in a new dispatcher, and whether a program that passes everything must stand there
//! too.

use super::build::{Part, Placed};
use super::change::{Lone, Source, Wanted, find};
use super::config::{Actions, FLAG_FRAGS, SlotConfig};
use super::error::DispatcherError;
use super::order;
use super::program::PASS_NAME;
use super::read::Component;
use crate::chain::PROGRAM_NAME;
use pointsman_model::ActionSet;

/// The priority of our program that passes everything: the last that libxdp shows as a number.
const PASS_PRIORITY: u32 = i32::MAX.cast_unsigned();

/// Finds a program that is wanted.
pub(super) fn place<'a>(
    wanted: &Wanted<'a>,
    running: &'a [Component],
) -> Result<Placed<'a>, DispatcherError> {
    let (part, flags) = match wanted.source {
        Source::Kept(id) => {
            let component = find(running, id)?;
            (Part::Kept(component), component.flags)
        }
        Source::Loaded(component) => (Part::Kept(component), component.flags),
        Source::New(program) => (Part::New(program), program.flags()),
    };
    let Wanted { priority, actions, .. } = *wanted;
    Ok(Placed { part, slot: SlotConfig { priority, actions, flags } })
}

impl Placed<'_> {
    pub(super) fn rank(&self) -> order::Rank<'_> {
        match self.part {
            Part::Kept(component) => {
                order::Rank { priority: self.slot.priority, ..component.rank() }
            }
            Part::New(program) => program.rank(self.slot.priority),
        }
    }

    pub(super) fn id(&self) -> Option<u32> {
        match self.part {
            Part::Kept(component) => Some(component.id),
            Part::New(program) => program.id(),
        }
    }

    /// Whether what it answers makes sense to a dispatcher alone.
    fn speaks_to_dispatcher(&self) -> bool {
        match self.part {
            Part::Kept(component) => {
                // Of a slot of ours the name is that of a member; its types tell.
                self.slot.actions == Actions::default() && component.knows(PROGRAM_NAME)
            }
            Part::New(program) => program.answer().is_some_and(|answer| answer.needs_company),
        }
    }
}

/// Whether a program that passes everything must stand behind the others.
pub(super) fn needs_company(parts: &[Placed<'_>], lone: Lone) -> bool {
    let alone = match (parts, lone) {
        ([only], Lone::Chain) => !only.slot.actions.is_pass(),
        _ => false,
    };
    alone || parts.iter().any(Placed::speaks_to_dispatcher)
}

/// Whether a program is the one of ours that passes everything.
pub(super) fn is_pass(component: &Component) -> bool {
    component.name == PASS_NAME && component.priority == PASS_PRIORITY
}

/// Its place: behind all others.
pub(super) fn passing(part: Part<'_>) -> Placed<'_> {
    let flags = FLAG_FRAGS;
    let slot = SlotConfig { priority: PASS_PRIORITY, actions: ActionSet::PASS.into(), flags };
    Placed { part, slot }
}
