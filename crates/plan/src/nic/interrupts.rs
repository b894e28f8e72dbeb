//! Which CPUs take the interrupts of queues whose owners keep CPUs busy.

use pointsman_model::cpu::{CpuSet, Topology};

/// The CPUs beside the lcores of an owner: they run, nobody has leased them, the scheduler does not
/// leave them alone, and they are on a NUMA node of the owner's, if there are such. Of these, those
/// whose core has no leased CPU at all, if there are such: a busy sibling slows both down.
///
/// `own`: the CPUs of whoever holds the queue; empty: nobody, or somebody without. `leased`: all
/// that anybody has. `None`: no CPU is left.
#[must_use]
pub fn beside(topology: &Topology, own: &CpuSet, leased: &CpuSet) -> Option<CpuSet> {
    let cpus = || topology.cpus.iter();
    let left: Vec<_> =
        cpus().filter(|cpu| cpu.online && !cpu.isolated && !leased.contains(cpu.id)).collect();
    let nodes: Vec<u32> =
        cpus().filter(|cpu| own.contains(cpu.id)).filter_map(|cpu| cpu.node).collect();
    let near: Vec<_> = left
        .iter()
        .copied()
        .filter(|cpu| cpu.node.is_some_and(|node| nodes.contains(&node)))
        .collect();
    let left = if near.is_empty() { left } else { near };
    let quiet: CpuSet =
        left.iter().filter(|cpu| !cpu.siblings.meets(leased)).map(|cpu| cpu.id).collect();
    let all: CpuSet = left.iter().map(|cpu| cpu.id).collect();
    [quiet, all].into_iter().find(|set| !set.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::cpu::Cpu;
    use proptest::prelude::*;

    /// Two nodes of four CPUs, two to a core.
    fn topology(offline: &CpuSet, isolated: &CpuSet) -> Topology {
        let cpu = |id: u32| Cpu {
            id,
            online: !offline.contains(id),
            isolated: isolated.contains(id),
            node: Some(id / 4),
            socket: None,
            siblings: [id & !1, id | 1].into_iter().collect(),
            kind: None,
        };
        Topology { cpus: (0..8).map(cpu).collect(), ..Topology::default() }
    }

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    #[test]
    fn interrupts_go_near_the_lcores_and_never_onto_them() {
        let all = topology(&set(""), &set(""));
        assert_eq!(beside(&all, &set("4"), &set("4")), Some(set("6-7")));
        assert_eq!(beside(&all, &set("4-6"), &set("4-6")), Some(set("7")), "better than far away");
        assert_eq!(beside(&all, &set("4-7"), &set("4-7")), Some(set("0-3")));
        assert_eq!(beside(&all, &set(""), &set("0")), Some(set("2-7")), "nobody holds the queue");
        assert_eq!(beside(&all, &set("0"), &set("0-7")), None);
        let few = topology(&set("6"), &set("7"));
        assert_eq!(beside(&few, &set("4"), &set("4")), Some(set("5")));
    }

    proptest! {
        #[test]
        fn a_leased_cpu_takes_no_interrupt(own: u8, leased: u8, offline: u8, isolated: u8) {
            let set = |bits: u8| (0..8).filter(|bit| bits & (1 << bit) != 0).collect::<CpuSet>();
            let (own, leased) = (set(own & leased), set(leased));
            let free = |cpu: u32| {
                !leased.contains(cpu) && offline & (1 << cpu) == 0 && isolated & (1 << cpu) == 0
            };
            let topology = topology(&set(offline), &set(isolated));
            match beside(&topology, &own, &leased) {
                Some(cpus) => {
                    prop_assert!(!cpus.is_empty() && cpus.iter().all(free));
                }
                None => prop_assert!(!(0..8).any(free)),
            }
        }
    }
}
