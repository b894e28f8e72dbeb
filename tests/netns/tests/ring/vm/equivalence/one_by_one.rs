//! The reference: libbpf loads each program by itself, and the documented rule is played here.

use super::case::{Packet, Place};
use super::forms::{Outcome, run};
use super::pool::{Make, Program};
use libbpf_rs::ProgramInput;
use pointsman_bpf::dispatcher::Actions;
use pointsman_model::chain::ExitCounts;
use pointsman_model::{Action, Verdicts};
use std::ops::Range;

/// What joins the members of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// The documented rule, from the first to the last.
    Chain,
    /// A dispatcher that runs several slots.
    Slots {
        /// The members of each slot in the order they run, and what the dispatcher is told of it.
        slots: &'a [(Range<usize>, Actions)],
        /// Whether it is libxdp's.
        libxdp: bool,
    },
    /// libxdp's chain of one: the verdict is the packet's.
    Replaced,
}

/// What the reference did.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) outcome: Outcome,
    /// How many packets every member of a slot let go on, by slot.
    pub(super) passed: Vec<u64>,
}

impl Way<'_> {
    /// Whether a dispatcher goes on after what a slot answers.
    fn goes_on(&self, answer: u32, actions: Actions) -> bool {
        let Self::Slots { libxdp, .. } = *self else { return false };
        // Nobody's action, set for everybody: what unfilled slots answer.
        let told = u64::from(actions.bits()) | 1 << 31;
        match answer {
            0..64 => told >> answer & 1 == 1,
            // libxdp's shift takes a verdict modulo 64.
            _ => libxdp && told >> (answer % 64) & 1 == 1,
        }
    }
}

/// Plays the rule, one program after the other.
///
/// # Errors
/// The kernel does not run a program.
pub(super) fn one_by_one(
    members: &[(&Place, &Program)],
    packets: &[Packet],
    way: &Way<'_>,
) -> Result<Played, String> {
    let whole = [(0..members.len(), Actions::default())];
    let slots = match way {
        Way::Slots { slots, .. } => *slots,
        Way::Chain | Way::Replaced => &whole,
    };
    let mut counts = vec![Verdicts::default(); members.len()];
    let mut passed = vec![0; slots.len()];
    let mut outcome = run(
        members,
        packets,
        |_| Make::Alone,
        |packet| play(members, slots, way, packet.to_vec(), &mut counts, &mut passed),
    )?;
    outcome.counts = Some(ExitCounts { members: counts, end: *passed.last().unwrap_or(&0) });
    Ok(Played { outcome, passed })
}

fn play(
    members: &[(&Place, &Program)],
    slots: &[(Range<usize>, Actions)],
    way: &Way<'_>,
    mut packet: Vec<u8>,
    counts: &mut [Verdicts],
    passed: &mut [u64],
) -> Result<(u32, Vec<u8>), String> {
    let mut meta = 0;
    'slots: for ((range, actions), passed) in slots.iter().zip(passed) {
        for at in range.clone() {
            let (place, program) = members[at];
            let verdict = run_alone(program, &mut packet, &mut meta)?;
            let action = Action::ALL.into_iter().find(|action| action.code() == verdict);
            let goes_on = action.is_some_and(|action| place.actions.contains(action));
            // A packet is counted where it leaves; on the way only where it cannot be told from that.
            if !place.enforce || !goes_on || place.actions.len() > 1 {
                let mut all = counts[at].to_array();
                all[action.map_or(Verdicts::LEN - 1, |action| action as usize)] += 1;
                counts[at] = Verdicts::from_array(all);
            }
            if matches!(way, Way::Replaced) {
                return Ok((verdict, packet));
            }
            if place.enforce && !goes_on {
                if way.goes_on(verdict, *actions) {
                    continue 'slots;
                }
                return Ok((verdict, packet));
            }
        }
        *passed += 1;
    }
    Ok((Action::Pass.code(), packet))
}

/// Runs the program as libbpf loaded it. The packet starts with `meta` bytes of metadata.
fn run_alone(program: &Program, packet: &mut Vec<u8>, meta: &mut u32) -> Result<u32, String> {
    let name = &program.name;
    let length = u32::try_from(packet.len()).expect("a short packet");
    // struct xdp_md: data, data_end, data_meta, and three that stay zero.
    let mut context: Vec<u8> =
        [*meta, length, 0, 0, 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    let mut context_out = context.clone();
    let mut out = vec![0; packet.len() + 512];
    let room = out.len();
    let loaded = program.alone.progs_mut().find(|loaded| *loaded.name() == *program.entry);
    let input = ProgramInput {
        context_in: Some(&mut context),
        context_out: Some(&mut context_out),
        data_in: Some(packet),
        data_out: Some(&mut out),
        ..ProgramInput::default()
    };
    let ran = loaded.expect("the entry").test_run(input);
    let ran = ran.map_err(|e| format!("{name} alone: {e}"))?;
    let after = ran.data.expect("the packet").to_vec();
    assert!(after.len() < room, "{name}: the packet is cut");
    let context = ran.context.expect("the context");
    *meta = u32::from_ne_bytes(context[..4].try_into().expect("four bytes"));
    let verdict = ran.return_value;
    *packet = after;
    Ok(verdict)
}
