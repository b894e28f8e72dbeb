use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;

/// `sockets` of `nodes` NUMA nodes of `cores` cores; the second threads are numbered after all
/// first ones, as firmware does.
fn machine(sockets: u32, nodes: u32, cores: u32, threads: u32) -> Topology {
    let all = sockets * nodes * cores;
    let cpu = |id: u32| {
        let core = id % all;
        Cpu {
            id,
            online: true,
            isolated: false,
            node: Some(core / cores),
            socket: Some(core / cores / nodes),
            siblings: (0..threads).map(|thread| core + thread * all).collect(),
            kind: None,
        }
    };
    let count = sockets * nodes;
    let row = |from: u32| {
        let far = |to| {
            if from == to {
                10
            } else if from / nodes == to / nodes {
                12
            } else {
                32
            }
        };
        (from, (0..count).map(|to| (to, far(to))).collect())
    };
    Topology {
        cpus: (0..all * threads).map(cpu).collect(),
        distances: (0..count).map(row).collect(),
    }
}

/// A desktop with fast cores of two threads and small cores of one.
fn hybrid() -> Topology {
    let mut topology = machine(1, 1, 8, 1);
    for cpu in &mut topology.cpus {
        let fast = cpu.id < 4;
        cpu.kind = Some(if fast { CoreKind::Performance } else { CoreKind::Efficiency });
        if fast {
            cpu.siblings = [cpu.id & !1, cpu.id | 1].into_iter().collect();
        }
    }
    topology
}

fn cpus(leases: &[Lease], idle: bool) -> CpuSet {
    leases.iter().filter(|lease| lease.idle == idle).filter_map(|lease| lease.cpu).collect()
}

fn chosen(topology: &Topology, taken: &str, wish: &Wish) -> (String, String) {
    let (none, taken) = (CpuSet::default(), taken.parse().unwrap());
    let leases = choose(topology, None, &none, &taken, wish).unwrap();
    (cpus(&leases, false).to_string(), cpus(&leases, true).to_string())
}

#[test]
fn three_whole_cores_near_a_card_on_a_large_machine() {
    let two_by_64 = machine(2, 1, 64, 2);
    let wish = Wish { count: 3, near: Some(1), whole_cores: true };
    let said = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(chosen(&two_by_64, "", &wish), said("64-66", "192-194"));
    // A thread that somebody has takes its core out.
    assert_eq!(chosen(&two_by_64, "64,193", &wish), said("66-68", "194-196"));
    // CPU 0's core comes last on its node.
    let near_0 = Wish { near: Some(0), ..wish.clone() };
    assert_eq!(chosen(&two_by_64, "", &near_0), said("1-3", "129-131"));
    // Without whole cores, those on which nobody else runs come first.
    let shared = Wish { whole_cores: false, ..wish };
    assert_eq!(chosen(&two_by_64, "64", &shared), said("65-67", ""));
}

#[test]
fn sub_numa_nodes_hybrid_cores_and_isolation_count() {
    // What does not fit on a node goes to its socket's other node before the other socket.
    let split = machine(2, 2, 4, 1);
    let wish = Wish { count: 6, near: Some(3), whole_cores: true };
    assert_eq!(chosen(&split, "", &wish).0, "8-9,12-15");
    let wish = Wish { count: 4, near: None, whole_cores: false };
    assert_eq!(chosen(&split, "0-1", &wish).0, "4-7", "all on the node with the most room");

    let wish = Wish { count: 2, near: None, whole_cores: true };
    assert_eq!(chosen(&hybrid(), "", &wish).0, "0,2");
    let wish = Wish { count: 3, near: None, whole_cores: true };
    assert_eq!(chosen(&hybrid(), "", &wish).0, "0,2,4", "small cores when no fast one is left");

    let mut isolated = machine(1, 1, 8, 1);
    for cpu in &mut isolated.cpus[6..] {
        cpu.isolated = true;
    }
    let wish = Wish { count: 2, near: None, whole_cores: false };
    assert_eq!(chosen(&isolated, "", &wish).0, "6-7");
}

#[test]
fn too_few_is_said_with_numbers() {
    let wish = Wish { count: 65, near: None, whole_cores: true };
    let taken: CpuSet = "0-63".parse().unwrap();
    let none = CpuSet::default();
    let why = choose(&machine(2, 1, 64, 2), None, &none, &taken, &wish).unwrap_err();
    assert_eq!(why, Why::TooFew { wanted: 65, available: 64 });
}

fn sets() -> impl Strategy<Value = CpuSet> {
    prop::collection::btree_set(0u32..40, 0..16).prop_map(|set| set.into_iter().collect())
}

proptest! {
    /// Whatever is taken, reserved or off: what is chosen is free, is as much as was asked for,
    /// and nothing nearer was left; and if there is enough, it is found.
    #[test]
    fn a_choice_is_free_whole_near_and_found_if_there_is_one(
        mut topology in select(vec![machine(2, 2, 4, 2), machine(1, 1, 16, 1), machine(2, 1, 8, 2), hybrid()]),
        off in sets(), reserved in sets(), taken in sets(), allowed in prop::option::of(sets()),
        near in prop::option::of(0u32..5), whole_cores: bool, count in 0u32..12,
    ) {
        for cpu in &mut topology.cpus {
            cpu.online = !off.contains(cpu.id);
        }
        let wish = Wish { count, near, whole_cores };
        let result = choose(&topology, allowed.as_ref(), &reserved, &taken, &wish);
        let free = |cpu: u32| !taken.contains(cpu) && !reserved.contains(cpu);
        let fits = |cpu: &&Cpu| {
            let mine = allowed.as_ref().is_none_or(|allowed| allowed.contains(cpu.id));
            let whole = !whole_cores || cpu.core().iter().all(free);
            cpu.online && mine && free(cpu.id) && whole
        };
        let possible: Vec<&Cpu> = topology.cpus.iter().filter(fits).collect();
        let cores: BTreeSet<CpuSet> = possible.iter().map(|cpu| cpu.core()).collect();
        let most = if whole_cores { cores.len() } else { possible.len() };
        let Ok(leases) = result else {
            prop_assert!(most < count as usize, "{most} were there");
            return Ok(());
        };
        prop_assert!(most >= count as usize);
        let (work, idle) = (cpus(&leases, false), cpus(&leases, true));
        prop_assert_eq!(work.len(), count as usize);
        prop_assert_eq!(work.len() + idle.len(), leases.len(), "each CPU once");
        prop_assert!(work.iter().all(|cpu| possible.iter().any(|other| other.id == cpu)));
        prop_assert!(idle.iter().all(free) && !work.meets(&idle));
        for cpu in work.iter().filter_map(|cpu| topology.cpu(cpu)) {
            let rest: CpuSet = cpu.core().iter().filter(|other| *other != cpu.id).collect();
            prop_assert!(!whole_cores || rest.and(&idle) == rest, "the core is whole");
        }
        if let Some(near) = near {
            let far = |cpu: &Cpu| cpu.node.map_or(0, |node| topology.distance(near, node));
            let mine: CpuSet = work.iter().chain(idle.iter()).collect();
            let farthest = work.iter().filter_map(|cpu| topology.cpu(cpu)).map(far).max();
            let left = possible.iter().filter(|cpu| !mine.contains(cpu.id)).map(|cpu| far(cpu)).min();
            prop_assert!(farthest.zip(left).is_none_or(|(farthest, left)| farthest <= left));
        }
    }
}
