//! Which CPU an lcore id is.
//!
//! DPDK gives its lcores numbers of its own. Without `--remap-lcore-ids` they are the numbers of
//! the CPUs; with it, id n is the n-th CPU of those the process may run on. Nobody tells which of
//! the two a client does, so it is found out: an id that is a place in the client's cpuset and no
//! CPU of it can only be re-mapped. What is neither is a token without a CPU, as DPDK's `--lcores`
//! allows.

use pointsman_model::cpu::CpuSet;
use pointsman_model::lease::{LcoreIds, Mapping};

/// Where an id leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How the client's ids are read from now on.
    pub mapping: Mapping,
    /// The CPU; `None`: the id is a token alone.
    pub cpu: Option<u32>,
}

/// Finds the CPU that `id` is, for a client with this `cpuset` (`None`: it cannot be read) whose
/// ids were read by `before` so far. `exists` tells whether the host has a CPU, on or off.
#[must_use]
pub fn place(
    id: u32,
    ids: LcoreIds,
    before: Option<Mapping>,
    cpuset: Option<&CpuSet>,
    exists: impl Fn(u32) -> bool,
) -> Place {
    let mapping = match (ids, cpuset) {
        (LcoreIds::Physical, _) => Mapping::Physical,
        (_, None) => Mapping::PhysicalAssumed,
        (LcoreIds::Remapped, Some(_)) => Mapping::Remapped,
        (LcoreIds::Auto, Some(_)) if before == Some(Mapping::Remapped) => Mapping::Remapped,
        (LcoreIds::Auto, Some(cpus)) if !cpus.contains(id) && nth(cpus, id).is_some() => {
            Mapping::Remapped
        }
        (LcoreIds::Auto, Some(_)) => Mapping::Physical,
    };
    let cpu = match (mapping, cpuset) {
        (Mapping::Remapped, Some(cpus)) => nth(cpus, id),
        _ => Some(id),
    };
    Place { mapping, cpu: cpu.filter(|cpu| exists(*cpu)) }
}

fn nth(cpus: &CpuSet, id: u32) -> Option<u32> {
    usize::try_from(id).ok().and_then(|at| cpus.nth(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(id: u32, ids: LcoreIds, before: Option<Mapping>, cpus: Option<&str>) -> Place {
        let cpus = cpus.map(|cpus| cpus.parse().unwrap());
        place(id, ids, before, cpus.as_ref(), |cpu| cpu < 16)
    }

    #[test]
    fn an_id_outside_the_cpuset_shows_that_ids_are_remapped() {
        use Mapping::{Physical, PhysicalAssumed, Remapped};
        let auto = LcoreIds::Auto;
        for (id, before, cpus, mapping, cpu) in [
            (5, None, Some("4-7"), Physical, Some(5)),
            (1, None, Some("4-7"), Remapped, Some(5)),
            // Once shown, it holds for ids that are CPUs of the set too.
            (4, Some(Remapped), Some("2-9"), Remapped, Some(6)),
            (4, Some(Physical), Some("2-9"), Physical, Some(4)),
            // Neither a CPU of the set nor a place in it: it shows nothing.
            (9, None, Some("4-7"), Physical, Some(9)),
            (900, None, Some("4-7"), Physical, None),
            (900, Some(Remapped), Some("4-7"), Remapped, None),
            (3, None, None, PhysicalAssumed, Some(3)),
            (0, None, Some(""), Physical, Some(0)),
        ] {
            assert_eq!(at(id, auto, before, cpus), Place { mapping, cpu }, "{id} of {cpus:?}");
        }
    }

    #[test]
    fn an_operator_may_say_what_ids_mean() {
        let place = |mapping, cpu| Place { mapping, cpu };
        let physical = at(1, LcoreIds::Physical, Some(Mapping::Remapped), Some("4-7"));
        assert_eq!(physical, place(Mapping::Physical, Some(1)));
        let remapped = at(4, LcoreIds::Remapped, None, Some("2-9"));
        assert_eq!(remapped, place(Mapping::Remapped, Some(6)));
        let blind = at(4, LcoreIds::Remapped, None, None);
        assert_eq!(blind, place(Mapping::PhysicalAssumed, Some(4)));
    }

    proptest! {
        #[test]
        fn remapped_ids_of_a_client_are_different_cpus_of_its_set(
            cpus in prop::collection::btree_set(0u32..64, 1..20),
        ) {
            let cpus: CpuSet = cpus.into_iter().collect();
            let places = (0..64).filter_map(|id| {
                place(id, LcoreIds::Remapped, None, Some(&cpus), |_| true).cpu
            });
            prop_assert_eq!(places.collect::<Vec<_>>(), cpus.iter().collect::<Vec<_>>());
        }
    }
}
