//! What a case gives in each form of its chain, and whether that is the same.

use super::case::{Case, Packet, Place};
use super::one_by_one::{Way, one_by_one};
use super::pool::{Contents, Make, Pool, Program};
use pointsman_bpf::{Chain, Counters, Error, Slot, test_run};
use pointsman_fuse::layout::{ContextHome, Layout};
use pointsman_model::chain::{ExitCounts, Form};
use pointsman_netns::members::rounding;
use std::collections::BTreeMap;

/// What a form of a chain did.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// Per packet the verdict, and the packet behind it.
    pub(super) packets: Vec<(u32, Vec<u8>)>,
    /// `None`: the form does not count.
    pub(super) counts: Option<ExitCounts>,
    /// By program.
    pub(super) maps: BTreeMap<String, Contents>,
}

/// How a case went that is right.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried {
    /// The chain does not fit into a program, and is refused with the figures.
    pub(super) too_deep: bool,
    /// The chain has called members by need.
    pub(super) called: bool,
    /// The chain fits, but not with all members called.
    pub(super) only_inlined: bool,
    /// Packets of several buffers.
    pub(super) several_buffers: usize,
}

/// The members of a case in the order they run.
pub(super) fn ordered<'a>(
    pool: &'a Pool,
    case: &'a Case,
) -> Result<Vec<(&'a Place, &'a Program)>, String> {
    let known = |place: &'a Place| {
        let program = pool.program(&place.program);
        program.map(|program| (place, program)).ok_or_else(|| format!("no {}", place.program))
    };
    let mut members = case.members.iter().map(known).collect::<Result<Vec<_>, _>>()?;
    members.sort_by_key(|(place, program)| (place.priority, program.entry, place.name.clone()));
    Ok(members)
}

/// Runs a case in all forms. `tamper` may falsify what the fused form did, to try the test itself.
///
/// # Errors
/// What is not the same, or does not load.
pub(super) fn compare(
    pool: &Pool,
    case: &Case,
    tamper: impl Fn(&mut Outcome),
) -> Result<Tried, String> {
    let members = ordered(pool, case)?;
    let slots: Vec<_> = case
        .members
        .iter()
        .map(|place| Slot {
            name: &place.name,
            member: &pool.program(&place.program).expect("known above").member,
            actions: place.actions,
            enforce: place.enforce,
            priority: place.priority,
        })
        .collect();
    let chain = match Chain::fuse(&slots, rounding(), case.counted) {
        Ok(chain) => chain,
        Err(Error::DoesNotFit(_)) => return Ok(Tried { too_deep: true, ..Tried::default() }),
        Err(e) => return Err(format!("fused: {e}\n{}", e.log().unwrap_or(""))),
    };
    let alone = one_by_one(&members, &case.packets, &Way::Chain)?.outcome;
    let mut fused = run_fused(&members, &case.packets, &chain)?;
    tamper(&mut fused);
    same("fused", &fused, &alone)?;
    same("joined by tail calls", &tail_calls(pool, &members, &case.packets)?, &alone)?;

    let layout = chain.layout();
    let mut tried = Tried {
        called: layout.forms.contains(&Form::Called),
        several_buffers: case.packets.iter().filter(|p| p.bytes.len() > 4096).count(),
        ..Tried::default()
    };
    let others =
        [("called", calling(layout, |_| true)), ("mixed", calling(layout, |at| at % 2 == 0))];
    for (name, other) in others.into_iter().filter(|(_, other)| other != layout) {
        match Chain::fuse_as(&slots, other, case.counted) {
            Ok(chain) => same(name, &run_fused(&members, &case.packets, &chain)?, &alone)?,
            // Frames of called members lie below the chain's own: more may not fit.
            Err(e) if e.log().is_some_and(|log| log.contains("stack")) => tried.only_inlined = true,
            Err(e) => return Err(format!("{name}: {e}\n{}", e.log().unwrap_or(""))),
        }
    }
    Ok(tried)
}

/// The layout with more members called.
fn calling(layout: &Layout, called: impl Fn(usize) -> bool) -> Layout {
    let mut other = layout.clone();
    for (at, form) in other.forms.iter_mut().enumerate() {
        if called(at) {
            *form = Form::Called;
        }
    }
    if other.forms.len() > 1 && other.forms.iter().all(|&form| form == Form::Called) {
        other.context = ContextHome::R6;
    }
    other
}

pub(super) fn same(form: &str, found: &Outcome, wanted: &Outcome) -> Result<(), String> {
    for (at, (found, wanted)) in found.packets.iter().zip(&wanted.packets).enumerate() {
        if found.0 != wanted.0 {
            let (found, wanted) = (found.0, wanted.0);
            return Err(format!("{form}: packet {at}: verdict {found}, one by one {wanted}"));
        }
        if found.1 != wanted.1 {
            let (found, wanted) = (&found.1, &wanted.1);
            return Err(format!(
                "{form}: packet {at} becomes\n{found:02x?}, one by one\n{wanted:02x?}"
            ));
        }
    }
    if let Some(found) = &found.counts
        && Some(found) != wanted.counts.as_ref()
    {
        return Err(format!("{form}: counts {found:?}, one by one {:?}", wanted.counts));
    }
    for (program, wanted) in &wanted.maps {
        let found = &found.maps[program];
        if found != wanted {
            return Err(format!("{form}: maps of {program} {found:?}, one by one {wanted:?}"));
        }
    }
    Ok(())
}

/// Runs all packets through `run`, with the maps of one make of each member.
pub(super) fn run<'m>(
    members: &[(&Place, &Program)],
    packets: &[Packet],
    make: impl Fn(&Program) -> Make<'m>,
    mut run: impl FnMut(&[u8]) -> Result<(u32, Vec<u8>), String>,
) -> Result<Outcome, String> {
    let programs: BTreeMap<&str, &Program> =
        members.iter().map(|(_, program)| (program.name.as_str(), *program)).collect();
    programs.values().for_each(|program| program.reset(make(program)));
    let mut done = Vec::new();
    for packet in packets {
        for (name, verdict) in &packet.answers {
            if let Some(program) = programs.get(name.as_str()) {
                program.answer(make(program), *verdict);
            }
        }
        done.push(run(&packet.bytes)?);
    }
    let maps = programs.iter().map(|(name, p)| ((*name).to_owned(), p.contents(make(p)))).collect();
    Ok(Outcome { packets: done, counts: None, maps })
}

pub(super) fn run_fused(
    members: &[(&Place, &Program)],
    packets: &[Packet],
    chain: &Chain,
) -> Result<Outcome, String> {
    let mut outcome = run(
        members,
        packets,
        |_| Make::Member,
        |packet| {
            let ran = test_run(chain.program(), packet, 1, 0).map_err(|e| e.to_string())?;
            Ok((ran.verdict, ran.packet))
        },
    )?;
    let counts = chain.counters().map(Counters::read).transpose();
    outcome.counts = counts.map_err(|e| e.to_string())?;
    Ok(outcome)
}

fn tail_calls(
    pool: &Pool,
    members: &[(&Place, &Program)],
    packets: &[Packet],
) -> Result<Outcome, String> {
    let chain = pool.tail_calls.lay(members);
    let mut outcome = run(members, packets, |_| Make::Step, |packet| chain.run(packet))?;
    outcome.counts = Some(chain.counts());
    Ok(outcome)
}
