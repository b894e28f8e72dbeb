//! What stands in a new dispatcher, and whether a program that passes everything must stand there
//! too.

use super::build::{Part, Placed};
use super::change::{Lone, Options, Source, Wanted, find};
use super::config::{Actions, FLAG_FRAGS, SlotConfig, Version};
use super::error::DispatcherError;
use super::order;
use super::program::PASS_NAME;
use super::read::Component;
use crate::chain::PROGRAM_NAME;
use pointsman_model::ActionSet;

/// The priority of our program that passes everything: the last that libxdp shows as a number.
const PASS_PRIORITY: u32 = i32::MAX.cast_unsigned();

/// The tags of its two instructions (`bpf/pointsman_pass.c`): the beginning of their SHA-1, and from
/// Linux 6.18 on of their SHA-256 (kernel/bpf/core.c, `bpf_prog_calc_tag`).
const PASS_TAGS: [[u8; 8]; 2] = [
    [0x3f, 0xed, 0x66, 0x67, 0x85, 0xa5, 0x7e, 0x53],
    [0xd4, 0xf8, 0x54, 0x2f, 0x2b, 0x42, 0xfa, 0xc5],
];

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
    // As libxdp would have it, only what comes brings what it needs.
    let asks = |part: &Placed<'_>| {
        (lone == Lone::Chain || matches!(part.part, Part::New(_))) && part.speaks_to_dispatcher()
    };
    alone || parts.iter().any(asks)
}

/// Whether a dispatcher of `version` is to be bound to its device: `old` says whether the one that
/// runs is, `adds` whether programs come to it.
///
/// libxdp's rule: a program loaded for a dispatcher of the one kind can never be in one of the other,
/// so whoever adds must mean the kind that there is. Who only moves or removes need not say.
pub(super) fn is_bound(
    version: Version,
    old: Option<bool>,
    options: &Options,
    adds: bool,
) -> Result<bool, DispatcherError> {
    let why = match (old, options.bound) {
        (None | Some(false), false) => return Ok(false),
        (_, true) if version < Version::V3 => "version 2 of the protocol knows no bound ones",
        (None | Some(true), true) => return Ok(true),
        (Some(true), false) if !adds => return Ok(true),
        (Some(true), false) => "those that run are bound, and the new ones are not",
        (Some(false), true) => "those that run are not bound",
    };
    Err(DispatcherError::Bound { why })
}

/// Whether a program is the one of ours that passes everything, wherever it stands: others may move
/// it, and what only bears its name is not ours.
pub(super) fn is_pass(component: &Component) -> bool {
    component.name == PASS_NAME && PASS_TAGS.contains(&component.raw_tag)
}

/// Its place: behind all others.
pub(super) fn passing(part: Part<'_>) -> Placed<'_> {
    let flags = FLAG_FRAGS;
    let slot = SlotConfig { priority: PASS_PRIORITY, actions: ActionSet::PASS.into(), flags };
    Placed { part, slot }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::Sha256;

    #[test]
    fn our_pass_program_is_known_by_its_instructions() {
        let object: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pointsman_pass.o"));
        // w0 = 2; exit
        let code = [0xb4, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
        assert!(object.windows(code.len()).any(|part| part == code), "its tags are others now");
        let tag: String = PASS_TAGS[1].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(Sha256::of(&code).to_string().contains(&tag));
    }

    #[test]
    fn programs_of_a_dispatcher_are_all_bound_or_none_is() {
        let bound = |version, old, asked, adds| {
            let options = Options { bound: asked, ..Options::default() };
            is_bound(version, old, &options, adds).map_err(|error| error.to_string())
        };
        for version in [Version::V2, Version::V3] {
            for adds in [false, true] {
                assert_eq!(bound(version, None, false, adds), Ok(false));
                assert_eq!(bound(version, Some(false), false, adds), Ok(false));
            }
        }
        assert_eq!(bound(Version::V3, None, true, true), Ok(true));
        assert_eq!(bound(Version::V3, Some(true), true, true), Ok(true));
        assert_eq!(bound(Version::V3, Some(true), false, false), Ok(true));
        for (version, old, asked, says) in [
            (Version::V3, Some(true), false, "those that run are bound"),
            (Version::V3, Some(false), true, "those that run are not bound"),
            (Version::V2, None, true, "version 2"),
            (Version::V2, Some(false), true, "version 2"),
        ] {
            let error = bound(version, old, asked, true).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
