//! Which members are inlined, which are called, and whether the chain fits at all.

use pointsman_model::chain::Form;
use pointsman_model::facts::ProgramFacts;

/// The kernel's limit for the frames of one call path, in bytes (`MAX_BPF_STACK`).
pub const MAX_STACK: u32 = 512;

/// Frames above a subprogram that tail-calls must stay below this, in bytes (verifier.c,
/// `check_max_stack_depth_subprog`, since 5.10).
pub const MAX_STACK_ABOVE_TAIL_CALL: u32 = 256;

/// The kernel's limit for the maps that one program refers to (`MAX_USED_MAPS`).
pub const MAX_USED_MAPS: u32 = 64;

/// How this kernel's verifier counts a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackRounding {
    /// To 32 bytes, and at least 32: all kernels before 6.9, and programs without a JIT.
    To32,
    /// To 16 bytes, an empty frame is free: 6.9 and later with a JIT.
    To16,
}

impl StackRounding {
    /// The bytes that a frame of `depth` bytes counts.
    #[must_use]
    pub const fn round(self, depth: u32) -> u32 {
        match self {
            Self::To32 => (if depth == 0 { 1 } else { depth }).next_multiple_of(32),
            Self::To16 => depth.next_multiple_of(16),
        }
    }
}

/// How the members of a chain are built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Per member.
    pub forms: Vec<Form>,
    /// Where the context pointer is kept between members.
    pub context: ContextHome,
    /// Whether the fused program takes packets of several buffers: only if every member does.
    pub frags: bool,
    /// Whether the fused program declares a GPL-compatible licence: only if every member does.
    pub gpl: bool,
}

/// Where the context pointer is kept while members run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextHome {
    /// Nowhere: one member, which finds it in r1.
    Nowhere,
    /// In eight bytes of stack that end this many bytes above `slot`: the store goes to
    /// `r10 + slot`.
    Slot {
        /// Offset from the frame pointer: negative, a multiple of 8.
        slot: i16,
    },
    /// In r6, which called members must preserve. Only where every member is called.
    R6,
}

/// Why members cannot share a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoesNotFit {
    /// The stack of a member and of the chain's frame is too deep even when every member is
    /// called.
    #[error(
        "the stack does not fit: {member} needs {needed} bytes below the chain's frame, and \
         {available} of the kernel's {MAX_STACK} are left; use less stack there, or put it into a \
         chain of its own"
    )]
    Stack {
        /// The member with the deepest stack.
        member: String,
        /// Bytes it needs, frames rounded as the kernel does.
        needed: u32,
        /// Bytes it can have.
        available: u32,
    },
    /// A tail-calling subprogram lies too deep.
    #[error(
        "the stack does not fit: {member} tail-calls below {above} bytes of frames, and the kernel \
         allows it below less than {MAX_STACK_ABOVE_TAIL_CALL} only; use less stack in its callers"
    )]
    TailCall {
        /// The member that tail-calls.
        member: String,
        /// Bytes of the frames above.
        above: u32,
    },
    /// A member needs GPL-only helpers and another's licence forbids them.
    #[error(
        "the licences do not go together: {needs} calls helpers reserved for GPL-compatible \
         programs, and {forbids} does not declare a GPL-compatible licence"
    )]
    Licence {
        /// The member that calls them.
        needs: String,
        /// The member that is not GPL-compatible.
        forbids: String,
    },
    /// A member that takes several buffers tail-calls to programs that do, and another does not.
    #[error(
        "frags do not go together: {tail_calls} (xdp.frags) tail-calls, so its whole chain must \
         take packets of several buffers, and {without} does not; build {without} as xdp.frags or \
         {tail_calls} without"
    )]
    Frags {
        /// The member that tail-calls.
        tail_calls: String,
        /// A member without frags.
        without: String,
    },
    /// More maps than one program may refer to.
    #[error(
        "the maps do not fit: the members use {used} and the chain one for its counters, and the \
         kernel allows a program {MAX_USED_MAPS}; {most} uses most, {most_used}"
    )]
    Maps {
        /// Maps of all members.
        used: u32,
        /// The member that uses most.
        most: String,
        /// How many it uses.
        most_used: u32,
    },
    /// A member that cannot be part of any fused program.
    #[error("{member} cannot be fused: {why}")]
    Member {
        /// The member.
        member: String,
        /// Why.
        why: String,
    },
}

/// Decides how `members` (name and facts, in the order they run) are built in.
///
/// All are inlined except those that tail-call, themselves or in a subprogram; where the stack does not fit then, those with the
/// largest frames are called instead, and in the end all.
///
/// # Errors
/// [`DoesNotFit`] with the figures, or the members that do not go together.
pub fn layout(
    members: &[(&str, &ProgramFacts)],
    rounding: StackRounding,
) -> Result<Layout, DoesNotFit> {
    for &(name, facts) in members {
        if let Some(why) = &facts.unfusable {
            return Err(DoesNotFit::Member { member: name.to_owned(), why: why.clone() });
        }
    }
    check_maps(members)?;
    let frags = check_frags(members)?;
    let gpl = check_licence(members)?;
    // A tail call in a subprogram forbids inlining as well: Linux 6.1 takes the constant behind it
    // for the subprogram's result, and deletes what the chain does with any other. Behind a
    // global function, which is what a called member is, it assumes nothing.
    let by_need = |(_, facts): &(&str, &ProgramFacts)| {
        if facts.has_tail_call() { Form::Called } else { Form::Inlined }
    };
    let mut forms: Vec<Form> = members.iter().map(by_need).collect();
    loop {
        let context = context_home(members, &forms);
        match check_stack(members, &forms, context, rounding) {
            Ok(()) => return Ok(Layout { forms, context, frags, gpl }),
            Err(problem) => match largest_inlined(members, &forms) {
                Some(at) => forms[at] = Form::Called,
                None => return Err(problem),
            },
        }
    }
}

fn check_maps(members: &[(&str, &ProgramFacts)]) -> Result<(), DoesNotFit> {
    // The same program at several places uses the same maps.
    let mut distinct: Vec<&ProgramFacts> = Vec::new();
    for (_, facts) in members {
        if !distinct.iter().any(|known| std::ptr::eq(*known, *facts)) {
            distinct.push(facts);
        }
    }
    let used = distinct.iter().map(|facts| facts.used_maps).sum();
    match members.iter().max_by_key(|(_, facts)| facts.used_maps) {
        Some((most, facts)) if used >= MAX_USED_MAPS => {
            Err(DoesNotFit::Maps { used, most: (*most).to_owned(), most_used: facts.used_maps })
        }
        _ => Ok(()),
    }
}

fn check_frags(members: &[(&str, &ProgramFacts)]) -> Result<bool, DoesNotFit> {
    let Some((without, _)) = members.iter().find(|(_, facts)| !facts.frags) else {
        // An empty chain looks at nothing, so it takes whatever comes.
        return Ok(true);
    };
    // A PROG_ARRAY belongs to programs with or without frags, never both.
    let tail_calls = |facts: &ProgramFacts| facts.tail_calls || facts.tail_call_depth.is_some();
    match members.iter().find(|(_, facts)| facts.frags && tail_calls(facts)) {
        Some((name, _)) => Err(DoesNotFit::Frags {
            tail_calls: (*name).to_owned(),
            without: (*without).to_owned(),
        }),
        None => Ok(false),
    }
}

fn check_licence(members: &[(&str, &ProgramFacts)]) -> Result<bool, DoesNotFit> {
    let Some((forbids, _)) = members.iter().find(|(_, facts)| !facts.gpl_compatible) else {
        return Ok(true);
    };
    match members.iter().find(|(_, facts)| facts.needs_gpl) {
        Some((needs, _)) => {
            Err(DoesNotFit::Licence { needs: (*needs).to_owned(), forbids: (*forbids).to_owned() })
        }
        None => Ok(false),
    }
}

/// The slot lies just below the deepest use of the inlined members that run before the last one:
/// when the last one runs, the context has been read for the last time.
fn context_home(members: &[(&str, &ProgramFacts)], forms: &[Form]) -> ContextHome {
    if members.len() < 2 {
        return ContextHome::Nowhere;
    }
    if forms.iter().all(|&form| form == Form::Called) {
        return ContextHome::R6;
    }
    let deepest = inlined(members, forms)
        .filter(|&(at, _)| at + 1 < members.len())
        .map(|(_, facts)| facts.main_stack.next_multiple_of(8))
        .max()
        .unwrap_or(0);
    // At most 512 + 8; the check of the stack refuses what is too deep.
    ContextHome::Slot { slot: -i16::try_from(deepest + 8).unwrap_or(i16::MAX) }
}

fn inlined<'a>(
    members: &'a [(&str, &ProgramFacts)],
    forms: &'a [Form],
) -> impl Iterator<Item = (usize, &'a ProgramFacts)> {
    let with_form = members.iter().zip(forms).enumerate();
    with_form
        .filter(|(_, (_, form))| **form == Form::Inlined)
        .map(|(at, ((_, facts), _))| (at, *facts))
}

fn check_stack(
    members: &[(&str, &ProgramFacts)],
    forms: &[Form],
    context: ContextHome,
    rounding: StackRounding,
) -> Result<(), DoesNotFit> {
    let slot = match context {
        ContextHome::Slot { slot } => u32::from(slot.unsigned_abs()),
        ContextHome::Nowhere | ContextHome::R6 => 0,
    };
    let own =
        inlined(members, forms).map(|(_, facts)| facts.main_stack).max().unwrap_or(0).max(slot);
    let frame = rounding.round(own);
    for ((name, facts), form) in members.iter().zip(forms) {
        // What comes below the chain's frame, and which frames lie above a tail call.
        let (needed, above) = match form {
            Form::Inlined => (facts.called_stack, facts.tail_call_depth),
            Form::Called => {
                let main = rounding.round(facts.main_stack);
                let below = facts.tail_call_depth.map(|depth| depth + main);
                (main + facts.called_stack, below.or(facts.tail_calls.then_some(0)))
            }
        };
        let available = MAX_STACK.saturating_sub(frame);
        if own > MAX_STACK || needed > available {
            return Err(DoesNotFit::Stack { member: (*name).to_owned(), needed, available });
        }
        if let Some(above) = above.map(|depth| depth + frame)
            && above >= MAX_STACK_ABOVE_TAIL_CALL
        {
            return Err(DoesNotFit::TailCall { member: (*name).to_owned(), above });
        }
    }
    Ok(())
}

/// The inlined member whose frame costs the chain most.
fn largest_inlined(members: &[(&str, &ProgramFacts)], forms: &[Form]) -> Option<usize> {
    inlined(members, forms).max_by_key(|(_, facts)| facts.main_stack).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::EntryName;

    fn facts(main_stack: u32, called_stack: u32) -> ProgramFacts {
        ProgramFacts {
            entry: EntryName::new("main").unwrap(),
            tag: String::new(),
            main_instructions: 2,
            instructions: 2,
            verified_instructions: 2,
            main_stack,
            called_stack,
            tail_calls: false,
            tail_call_depth: None,
            frags: false,
            redirects: false,
            gpl_compatible: true,
            needs_gpl: false,
            side_effects: vec![],
            maps: vec![],
            used_maps: 0,
            unfusable: None,
        }
    }

    fn lay(members: &[&ProgramFacts], rounding: StackRounding) -> Result<Layout, DoesNotFit> {
        let named: Vec<_> = members.iter().map(|facts| ("member", *facts)).collect();
        layout(&named, rounding)
    }

    #[test]
    fn the_slot_lies_below_what_runs_before_the_last() {
        let both = lay(&[&facts(20, 0), &facts(400, 0)], StackRounding::To32).unwrap();
        assert_eq!(both.context, ContextHome::Slot { slot: -32 });
        let one = lay(&[&facts(512, 0)], StackRounding::To32).unwrap();
        assert_eq!((one.context, one.forms), (ContextHome::Nowhere, vec![Form::Inlined]));
    }

    #[test]
    fn a_full_frame_before_another_member_is_called() {
        let big = facts(512, 0);
        let error = lay(&[&big, &facts(0, 0)], StackRounding::To32).unwrap_err();
        assert_eq!(
            error,
            DoesNotFit::Stack { member: "member".into(), needed: 512, available: 480 }
        );
        let fits = lay(&[&big, &facts(0, 0)], StackRounding::To16).unwrap();
        assert_eq!(fits.context, ContextHome::R6);
        let fits = lay(&[&facts(480, 0), &facts(0, 0)], StackRounding::To32).unwrap();
        assert_eq!(fits.forms, [Form::Inlined, Form::Inlined]);
    }

    #[test]
    fn calling_the_largest_makes_room_for_anothers_subprograms() {
        let deep = facts(100, 256);
        let layout = lay(&[&facts(300, 0), &deep], StackRounding::To32).unwrap();
        assert_eq!(layout.forms, [Form::Called, Form::Inlined]);
    }

    #[test]
    fn a_tail_call_is_called_and_needs_a_shallow_frame() {
        let mut tail = facts(8, 0);
        tail.tail_calls = true;
        let layout = lay(&[&facts(300, 0), &tail], StackRounding::To32).unwrap();
        assert_eq!((layout.forms, layout.context), (vec![Form::Called; 2], ContextHome::R6));
        let mut below = facts(40, 64);
        below.tail_call_depth = Some(256);
        let error = lay(&[&below], StackRounding::To32).unwrap_err();
        assert_eq!(error, DoesNotFit::TailCall { member: "member".into(), above: 352 });
    }

    #[test]
    fn the_kernels_limit_of_maps_is_told_with_the_figures() {
        let (mut few, mut many) = (facts(0, 0), facts(0, 0));
        (few.used_maps, many.used_maps) = (1, 62);
        assert!(lay(&[&few, &many], StackRounding::To16).is_ok());
        assert!(lay(&[&few, &many, &few], StackRounding::To16).is_ok(), "one program, twice");
        let other = few.clone();
        let error = lay(&[&few, &many, &other], StackRounding::To16).unwrap_err();
        let maps = DoesNotFit::Maps { used: 64, most: "member".into(), most_used: 62 };
        assert_eq!(error, maps);
    }

    #[test]
    fn frags_and_licences_are_all_or_none() {
        let (plain, mut frags) = (facts(0, 0), facts(0, 0));
        frags.frags = true;
        assert!(lay(&[&frags, &frags], StackRounding::To16).unwrap().frags);
        assert!(!lay(&[&frags, &plain], StackRounding::To16).unwrap().frags);
        frags.tail_calls = true;
        assert!(matches!(
            lay(&[&frags, &plain], StackRounding::To16),
            Err(DoesNotFit::Frags { .. })
        ));
        let (mut free, mut gpl) = (facts(0, 0), facts(0, 0));
        free.gpl_compatible = false;
        assert!(!lay(&[&free, &gpl], StackRounding::To16).unwrap().gpl);
        gpl.needs_gpl = true;
        assert!(matches!(
            lay(&[&free, &gpl], StackRounding::To16),
            Err(DoesNotFit::Licence { .. })
        ));
    }
}
