//! The machine: sockets, NUMA nodes, cores and their threads, with who holds them.
//!
//! Cores next to each other of which the same can be said are one line, so a machine of hundreds
//! of CPUs fits on a screen.

use super::instances::refusing;
use super::table::{Column, cell, lines, table};
use super::text::{Tone, count};
use crate::output::Look;
use pointsman_model::cpu::{CoreKind, Cpu, CpuSet, Topology};
use pointsman_model::lease::{Held, LcoreIds, Lcores};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The whole machine.
pub(crate) fn lcores(look: Look, lcores: &Lcores) -> String {
    let Lcores { topology, reserved: _, limit, lcore_ids, held, refusing: why } = lcores;
    let mut text = refusing(look, why.as_deref());
    text += &machine(topology);
    let ids = match lcore_ids {
        LcoreIds::Auto => "found out for each client",
        LcoreIds::Physical => "numbers of CPUs",
        LcoreIds::Remapped => "places in the client's cpuset",
    };
    let _ = writeln!(text, "lcore ids: {ids}, below {limit}");
    for ((socket, node), cpus) in places(topology) {
        let name = |what: &str, number: Option<u32>| {
            number.map_or_else(|| format!("{what} unknown"), |number| format!("{what} {number}"))
        };
        let title = format!("{}, {}", name("socket", socket), name("node", node));
        let _ = writeln!(text, "\n{}", look.paint(Tone::Heading, &title));
        let mut rows = table(
            look,
            &[("CORES", Column::Number), ("CPUS", Column::Text), ("HELD BY", Column::Text)],
        );
        for Run { cores, threads, states } in runs(lcores, &cpus) {
            let cpus: Vec<_> = threads.iter().map(ToString::to_string).collect();
            let all_same = states.iter().collect::<BTreeSet<_>>().len() == 1;
            let states = if all_same { states[..1].join("") } else { states.join(" + ") };
            rows.add_row([cell(cores), cell(cpus.join(" + ")), cell(states)]);
        }
        text += &lines(&rows);
    }
    let odd: Vec<&Held> = held.iter().filter(|held| is_odd(held)).collect();
    if !odd.is_empty() {
        let _ = writeln!(text, "\n{}", look.paint(Tone::Heading, "lcores with more to say"));
    }
    for Held { instance, owner, lcore } in odd {
        let cpu = lcore.cpu.map_or(String::new(), |cpu| format!(" is CPU {cpu}"));
        let notes = lcore.notes.iter().fold(String::new(), |text, note| text + "; " + note);
        let _ = writeln!(text, "  lcore {}{cpu} of instance {instance} ({owner}){notes}", lcore.id);
    }
    text
}

/// Whether a drawing of CPUs does not say all of it.
fn is_odd(held: &Held) -> bool {
    held.lcore.cpu != Some(held.lcore.id) || !held.lcore.notes.is_empty()
}

fn machine(topology: &Topology) -> String {
    let cpus = &topology.cpus;
    let different =
        |of: fn(&Cpu) -> Option<u32>| cpus.iter().filter_map(of).collect::<BTreeSet<_>>();
    let cores: BTreeSet<CpuSet> = cpus.iter().map(Cpu::core).collect();
    let off = cpus.iter().filter(|cpu| !cpu.online).count();
    let parts = [
        count(different(|cpu| cpu.socket).len(), "socket"),
        count(different(|cpu| cpu.node).len(), "NUMA node"),
        count(cores.len(), "core"),
        count(cpus.len(), "CPU"),
    ];
    let off = if off > 0 { format!(" ({off} offline)") } else { String::new() };
    format!("{}{off}\n", parts.join(", "))
}

type Place = (Option<u32>, Option<u32>);

/// The CPUs by socket and NUMA node. One that is off has no socket: it goes where its node is.
fn places(topology: &Topology) -> BTreeMap<Place, Vec<&Cpu>> {
    let mut places = BTreeMap::<Place, Vec<&Cpu>>::new();
    let sockets: BTreeMap<_, _> =
        topology.cpus.iter().filter_map(|cpu| Some((cpu.node?, cpu.socket?))).collect();
    for cpu in &topology.cpus {
        let socket = cpu.socket.or_else(|| sockets.get(&cpu.node?).copied());
        places.entry((socket, cpu.node)).or_default().push(cpu);
    }
    places
}

/// Cores next to each other of which the same can be said.
struct Run {
    cores: usize,
    /// Their first threads, their second ones, ...
    threads: Vec<CpuSet>,
    /// What is said of each thread.
    states: Vec<String>,
}

fn runs(lcores: &Lcores, cpus: &[&Cpu]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for cpu in cpus {
        let core = cpu.core();
        if core.iter().next() != Some(cpu.id) {
            continue;
        }
        let threads: Vec<CpuSet> = core.iter().map(|id| [id].into_iter().collect()).collect();
        let states: Vec<String> = core.iter().map(|id| state(lcores, id)).collect();
        match runs.last_mut() {
            Some(run) if run.states == states => {
                run.cores += 1;
                for (all, one) in run.threads.iter_mut().zip(&threads) {
                    all.join(one);
                }
            }
            _ => runs.push(Run { cores: 1, threads, states }),
        }
    }
    runs
}

fn state(lcores: &Lcores, id: u32) -> String {
    let cpu = lcores.topology.cpu(id);
    let held = lcores.held.iter().find(|held| held.lcore.cpu == Some(id));
    let mut text = match held {
        Some(Held { instance, owner, lcore }) if lcore.idle => {
            format!("kept idle for {instance} ({owner})")
        }
        Some(Held { instance, owner, .. }) => format!("{instance} ({owner})"),
        None if lcores.reserved.contains(id) => "reserved".to_owned(),
        None => "free".to_owned(),
    };
    if held.is_some() && lcores.reserved.contains(id) {
        text += ", reserved";
    }
    for (is, what) in [
        (cpu.is_some_and(|cpu| !cpu.online), ", offline"),
        (held.is_none() && cpu.is_some_and(|cpu| cpu.isolated), ", isolated"),
        (cpu.is_some_and(|cpu| cpu.kind == Some(CoreKind::Efficiency)), ", efficiency core"),
    ] {
        if is {
            text += what;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::PLAIN;
    use pointsman_model::lease::LcoreLease;

    fn two_by_64() -> Topology {
        let cpu = |id: u32| {
            let core = id % 128;
            Cpu {
                id,
                online: id != 127,
                isolated: (32..64).contains(&core),
                node: Some(core / 64),
                socket: (id != 127).then_some(core / 64),
                siblings: match id {
                    127 => CpuSet::default(),
                    255 => [255].into_iter().collect(),
                    _ => [core, core + 128].into_iter().collect(),
                },
                kind: None,
            }
        };
        Topology { cpus: (0..256).map(cpu).collect(), distances: BTreeMap::new() }
    }

    #[test]
    fn a_machine_of_256_cpus_fits_on_a_screen() {
        let held = |id: u32, cpu, idle, notes: &[&str]| {
            let notes = notes.iter().map(ToString::to_string).collect();
            let lcore = LcoreLease { id, cpu, idle, notes };
            Held { instance: 3, owner: "ffmpeg pid 4711".into(), lcore }
        };
        let mut all: Vec<_> = (40..43).map(|id| held(id, Some(id), false, &[])).collect();
        all.extend((168..171).map(|id| held(id, Some(id), true, &[])));
        all.push(held(1, Some(70), false, &[]));
        all.push(held(900, None, false, &["unmapped: no CPU has this number"]));
        let machine = Lcores {
            topology: two_by_64(),
            reserved: "0-1,128-129".parse().unwrap(),
            limit: 1024,
            lcore_ids: LcoreIds::Auto,
            held: all,
            refusing: None,
        };
        let text = lcores(PLAIN, &machine);
        assert!(text.lines().count() < 40);
        insta::assert_snapshot!(text, @"
        2 sockets, 2 NUMA nodes, 129 cores, 256 CPUs (1 offline)
        lcore ids: found out for each client, below 1024

        socket 0, node 0
          CORES  CPUS             HELD BY
              2  0-1 + 128-129    reserved
             30  2-31 + 130-159   free
              8  32-39 + 160-167  free, isolated
              3  40-42 + 168-170  3 (ffmpeg pid 4711) + kept idle for 3 (ffmpeg pid 4711)
             21  43-63 + 171-191  free, isolated

        socket 1, node 1
          CORES  CPUS              HELD BY
              6  64-69 + 192-197   free
              1  70 + 198          3 (ffmpeg pid 4711) + free
             56  71-126 + 199-254  free
              1  127               free, offline
              1  255               free

        lcores with more to say
          lcore 1 is CPU 70 of instance 3 (ffmpeg pid 4711)
          lcore 900 of instance 3 (ffmpeg pid 4711); unmapped: no CPU has this number
        ");
    }
}
