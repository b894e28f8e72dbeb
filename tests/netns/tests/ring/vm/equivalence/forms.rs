//! What a case gives in each form of its chain, and whether that is the same.

use super::case::{Case, Packet, Place};
use super::pool::{Contents, Make, Pool, Program};
use libbpf_rs::ProgramInput;
use pointsman_bpf::{Chain, Counters, Error, Slot, test_run};
use pointsman_fuse::layout::{ContextHome, Layout};
use pointsman_model::chain::{ExitCounts, Form};
use pointsman_model::{Action, Verdicts};
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
fn ordered<'a>(pool: &'a Pool, case: &'a Case) -> Result<Vec<(&'a Place, &'a Program)>, String> {
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
    let alone = one_by_one(&members, &case.packets)?;
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

fn same(form: &str, found: &Outcome, wanted: &Outcome) -> Result<(), String> {
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

/// Runs all packets through `run`, with the maps of one make of the members.
fn run(
    members: &[(&Place, &Program)],
    packets: &[Packet],
    make: Make,
    mut run: impl FnMut(&[u8]) -> Result<(u32, Vec<u8>), String>,
) -> Result<Outcome, String> {
    let programs: BTreeMap<&str, &Program> =
        members.iter().map(|(_, program)| (program.name.as_str(), *program)).collect();
    programs.values().for_each(|program| program.reset(make));
    let mut done = Vec::new();
    for packet in packets {
        for (name, verdict) in &packet.answers {
            if let Some(program) = programs.get(name.as_str()) {
                program.answer(make, *verdict);
            }
        }
        done.push(run(&packet.bytes)?);
    }
    let maps = programs.iter().map(|(name, p)| ((*name).to_owned(), p.contents(make))).collect();
    Ok(Outcome { packets: done, counts: None, maps })
}

fn run_fused(
    members: &[(&Place, &Program)],
    packets: &[Packet],
    chain: &Chain,
) -> Result<Outcome, String> {
    let mut outcome = run(members, packets, Make::Member, |packet| {
        let ran = test_run(chain.program(), packet, 1, 0).map_err(|e| e.to_string())?;
        Ok((ran.verdict, ran.packet))
    })?;
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
    let mut outcome = run(members, packets, Make::Step, |packet| chain.run(packet))?;
    outcome.counts = Some(chain.counts());
    Ok(outcome)
}

/// The documented rule, one program after the other.
fn one_by_one(members: &[(&Place, &Program)], packets: &[Packet]) -> Result<Outcome, String> {
    let mut counts = ExitCounts { members: vec![Verdicts::default(); members.len()], end: 0 };
    let mut outcome =
        run(members, packets, Make::Alone, |packet| play(members, packet.to_vec(), &mut counts))?;
    outcome.counts = Some(counts);
    Ok(outcome)
}

fn play(
    members: &[(&Place, &Program)],
    mut packet: Vec<u8>,
    counts: &mut ExitCounts,
) -> Result<(u32, Vec<u8>), String> {
    let mut meta = 0;
    for (at, (place, program)) in members.iter().enumerate() {
        let verdict = run_alone(program, &mut packet, &mut meta)?;
        let action = Action::ALL.into_iter().find(|action| action.code() == verdict);
        let goes_on = action.is_some_and(|action| place.actions.contains(action));
        // A packet is counted where it leaves; on the way only where it cannot be told from that.
        if !place.enforce || !goes_on || place.actions.len() > 1 {
            let mut all = counts.members[at].to_array();
            all[action.map_or(Verdicts::LEN - 1, |action| action as usize)] += 1;
            counts.members[at] = Verdicts::from_array(all);
        }
        if place.enforce && !goes_on {
            return Ok((verdict, packet));
        }
    }
    counts.end += 1;
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
