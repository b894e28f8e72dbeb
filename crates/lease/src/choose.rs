//! Which CPUs to give somebody who wants some number of them, near something.

use crate::{Lease, Why};
use pointsman_model::cpu::{CoreKind, Cpu, CpuSet, Topology};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// How many CPUs to run on.
    pub count: u32,
    /// The NUMA node to be near; `None`: any, but all near each other.
    pub near: Option<u32>,
    /// Whether nobody else may run on the other CPUs of the cores: they are leased too, and idle.
    pub whole_cores: bool,
}

/// Chooses free CPUs that run: in `allowed` (`None`: all), neither `reserved` nor `taken`.
///
/// Near CPUs come first, and within a node: isolated ones, then fast cores, then cores on which
/// nobody else runs, and the core of CPU 0 last, because the kernel's own work is there.
///
/// # Errors
/// [`Why::TooFew`]: there are not enough, wherever they are.
pub fn choose(
    topology: &Topology,
    allowed: Option<&CpuSet>,
    reserved: &CpuSet,
    taken: &CpuSet,
    wish: &Wish,
) -> Result<Vec<Lease>, Why> {
    let free = |cpu: u32| !reserved.contains(cpu) && !taken.contains(cpu);
    let alone = |cpu: &Cpu| cpu.core().iter().all(|sibling| sibling == cpu.id || free(sibling));
    let fits = |cpu: &&Cpu| {
        cpu.online && free(cpu.id) && allowed.is_none_or(|allowed| allowed.contains(cpu.id))
    };
    let mut candidates: Vec<&Cpu> = topology.cpus.iter().filter(fits).collect();
    if wish.whole_cores {
        let mut cores = CpuSet::default();
        candidates.retain(|cpu| {
            let first = alone(cpu) && !cores.contains(cpu.id);
            if first {
                cores.join(&cpu.core());
            }
            first
        });
    }
    let home = wish.near.or_else(|| roomiest(&candidates));
    let rank = |cpu: &&Cpu| {
        let distance = home.zip(cpu.node).map_or(0, |(home, node)| topology.distance(home, node));
        let small = cpu.kind == Some(CoreKind::Efficiency);
        let shared = !alone(cpu);
        (distance, cpu.node, !cpu.isolated, small, shared, cpu.core().contains(0), cpu.id)
    };
    candidates.sort_by_key(rank);
    let available = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    if available < wish.count {
        return Err(Why::TooFew { wanted: wish.count, available });
    }
    let count = usize::try_from(wish.count).unwrap_or(usize::MAX);
    let mut leases = Vec::new();
    for cpu in candidates.into_iter().take(count) {
        leases.push(Lease { id: cpu.id, cpu: Some(cpu.id), idle: false });
        if wish.whole_cores {
            let core = cpu.core();
            let others = core.iter().filter(|other| *other != cpu.id);
            leases.extend(others.map(|other| Lease { id: other, cpu: Some(other), idle: true }));
        }
    }
    Ok(leases)
}

/// The node with the most candidates; of several the lowest.
fn roomiest(candidates: &[&Cpu]) -> Option<u32> {
    let mut counts = BTreeMap::<u32, usize>::new();
    for node in candidates.iter().filter_map(|cpu| cpu.node) {
        *counts.entry(node).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(node, count)| (*count, Reverse(*node))).map(|(node, _)| node)
}

#[cfg(test)]
mod tests;
