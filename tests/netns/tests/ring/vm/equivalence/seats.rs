//! Where the members of a case are in a dispatcher: which share a slot, and what the dispatcher is
//! told of each slot.

use super::case::{Place, Seat};
use super::pool::Program;
use pointsman_bpf::dispatcher::{Actions, MAX_PROGRAMS};
use pointsman_bpf::release_at_least;
use pointsman_model::{Action, ActionSet};
use pointsman_netns::object_path;
use std::ops::Range;

/// The members of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seated {
    /// In the order they run.
    pub(super) range: Range<usize>,
    pub(super) kind: Kind,
    /// What the dispatcher is told: the verdicts after which it goes on.
    pub(super) actions: ActionSet,
}

/// How a slot's program is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Fused of all its members.
    Fused,
    /// The only member's own program, loaded by ours.
    Own,
    /// The same, loaded by libxdp's tool.
    Theirs,
}

impl Seated {
    /// What a dispatcher is told in these numbers.
    pub(super) fn told(&self) -> (Range<usize>, Actions) {
        (self.range.clone(), self.actions.into())
    }

    /// Its priority: slots run in this order whatever their programs are called.
    pub(super) fn priority(at: usize) -> u32 {
        10 * (at as u32 + 1)
    }
}

/// The slots of a case's members, no more than there is room for. `seat` may seat a member
/// elsewhere than the case does.
pub(super) fn seated(members: &[(&Place, &Program)], seat: impl Fn(Seat) -> Seat) -> Vec<Seated> {
    let all = cut(members, &seat, MAX_PROGRAMS);
    // Room for the program that passes everything: needed now or when some of them have gone.
    if all.len() == MAX_PROGRAMS && all.iter().any(|slot| slot.actions != ActionSet::PASS) {
        return cut(members, &seat, MAX_PROGRAMS - 1);
    }
    all
}

fn cut(members: &[(&Place, &Program)], seat: &impl Fn(Seat) -> Seat, most: usize) -> Vec<Seated> {
    let mut slots: Vec<Seated> = Vec::new();
    for at in 0..members.len() {
        let seat = possible(members, at, seat(members[at].0.seat));
        let room = slots.len() < most;
        match slots.last_mut() {
            Some(last) if !room || seat == Seat::Shared && last.kind == Kind::Fused => {
                last.range.end = at + 1;
                last.kind = Kind::Fused;
            }
            _ => {
                let kind = match seat {
                    Seat::Own => Kind::Own,
                    Seat::Theirs => Kind::Theirs,
                    Seat::Shared | Seat::Begins => Kind::Fused,
                };
                slots.push(Seated { range: at..at + 1, kind, actions: ActionSet::EMPTY });
            }
        }
    }
    for slot in &mut slots {
        slot.actions = told(slot.kind, &members[slot.range.clone()]);
    }
    slots
}

/// The seat that a member can have.
fn possible(members: &[(&Place, &Program)], at: usize, seat: Seat) -> Seat {
    let (place, program) = members[at];
    match seat {
        // A dispatcher acts on every verdict, and wants types of what it runs.
        Seat::Own | Seat::Theirs if !place.enforce || program.entry == "nobtf" => Seat::Begins,
        Seat::Theirs => {
            // Their tool takes a file as it is, and "no actions" for "not said". A program in
            // two places shares its maps.
            let once = members.iter().filter(|(_, other)| other.name == program.name).count() == 1;
            let file = program.is_plain() && object_path(program.object).exists();
            // Since 6.13, and in stable kernels before, a program that resizes packets replaces a
            // function only of a dispatcher that says it does so (81f6d0530ba0, "bpf: check
            // changes_pkt_data property for extension programs"). Theirs does not, and takes in
            // no slot of ours either that has such a program.
            let resizes = members.iter().any(|(_, other)| other.object == "adjust")
                && release_at_least(6, 12);
            let can = once && file && !resizes && !place.actions.is_empty();
            if can { Seat::Theirs } else { Seat::Own }
        }
        seat => seat,
    }
}

/// What the dispatcher is told, as the design has it: of a shared slot PASS where every member
/// that is acted upon goes on after PASS, else nothing.
fn told(kind: Kind, members: &[(&Place, &Program)]) -> ActionSet {
    if kind != Kind::Fused {
        return members[0].0.actions;
    }
    let mut enforced = members.iter().filter(|(place, _)| place.enforce);
    match enforced.all(|(place, _)| place.actions.contains(Action::Pass)) {
        true => ActionSet::PASS,
        false => ActionSet::EMPTY,
    }
}

/// Whether our program that passes everything stands behind these slots: behind a shared one that
/// answers what a dispatcher alone understands, and behind a lone one whose actions matter.
pub(super) fn has_company(slots: &[Seated]) -> bool {
    let speaks = |slot: &Seated| slot.kind == Kind::Fused && slot.actions == ActionSet::EMPTY;
    let alone = matches!(slots, [only] if only.actions != ActionSet::PASS);
    alone || slots.iter().any(speaks)
}
