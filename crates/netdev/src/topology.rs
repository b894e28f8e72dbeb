//! The processors of the host as sysfs tells of them.
//!
//! Files: `Documentation/ABI/testing/sysfs-devices-system-cpu`, `sysfs-devices-node`. A CPU that is
//! off has no `topology` directory, so nothing is known of its core.

use pointsman_model::cpu::{CoreKind, Cpu, CpuSet, Topology};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file of sysfs that says something else than it should.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct TopologyError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub source: io::Error,
}

/// Reads the processors; sysfs lies at `sys`.
///
/// # Errors
/// [`TopologyError`]: which CPUs there are cannot be read. Whatever else is missing is unknown.
pub fn topology(sys: &Path) -> Result<Topology, TopologyError> {
    let cpus = sys.join("devices/system/cpu");
    let present = list(&cpus.join("present"))?;
    // A kernel without hotplug has all of them on.
    let online = list(&cpus.join("online")).unwrap_or_else(|_| present.clone());
    let isolated = list(&cpus.join("isolated")).unwrap_or_default();
    let (nodes, distances) = nodes(&sys.join("devices/system/node"));
    // The PMUs of a hybrid x86 host (arch/x86/events/intel/core.c).
    let kind = |name| list(&sys.join("devices").join(name).join("cpus")).unwrap_or_default();
    let (fast, small) = (kind("cpu_core"), kind("cpu_atom"));
    let cpu = |id: u32| {
        let place = cpus.join(format!("cpu{id}/topology"));
        let siblings = list(&place.join("core_cpus_list"))
            .or_else(|_| list(&place.join("thread_siblings_list")))
            .unwrap_or_default();
        Cpu {
            id,
            online: online.contains(id),
            isolated: isolated.contains(id),
            node: nodes.iter().find(|(_, cpus)| cpus.contains(id)).map(|(node, _)| *node),
            socket: number(&place.join("physical_package_id")),
            siblings: if siblings.contains(id) { siblings } else { CpuSet::default() },
            kind: if fast.contains(id) {
                Some(CoreKind::Performance)
            } else {
                small.contains(id).then_some(CoreKind::Efficiency)
            },
        }
    };
    Ok(Topology { cpus: present.iter().map(cpu).collect(), distances })
}

/// The NUMA node of an interface of this network namespace; `None`: it has none, or firmware does
/// not tell.
#[must_use]
pub fn interface_node(sys: &Path, interface: &str) -> Option<u32> {
    if interface.contains('/') || matches!(interface, "" | "." | "..") {
        return None;
    }
    // -1: none.
    number(&sys.join("class/net").join(interface).join("device/numa_node"))
}

type Nodes = (Vec<(u32, CpuSet)>, BTreeMap<u32, BTreeMap<u32, u32>>);

/// The CPUs of each node, and how far the nodes are from each other.
fn nodes(directory: &Path) -> Nodes {
    let mut nodes = Vec::new();
    let mut rows = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse::<u32>().ok());
        let (Some(node), Ok(cpus)) = (number, list(&entry.path().join("cpulist"))) else {
            continue;
        };
        nodes.push((node, cpus));
        let row = fs::read_to_string(entry.path().join("distance")).unwrap_or_default();
        let row: Vec<u32> = row.split_whitespace().map_while(|text| text.parse().ok()).collect();
        rows.push((node, row));
    }
    nodes.sort_by_key(|(node, _)| *node);
    // A row has one number for each node that is there, in their order (drivers/base/node.c).
    let number_of = |row: Vec<u32>| nodes.iter().map(|(node, _)| *node).zip(row).collect();
    let distances = rows.into_iter().map(|(node, row)| (node, number_of(row))).collect();
    (nodes, distances)
}

/// Reads a list of CPUs.
pub(crate) fn list(path: &Path) -> Result<CpuSet, TopologyError> {
    let failed = |source| TopologyError { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    text.parse().map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// Two sockets of 64 cores with two threads, as a kernel shows them.
    fn two_by_64() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let root = sys.path();
        write(root, "devices/system/cpu/present", "0-255");
        write(root, "devices/system/cpu/online", "0-9,11-255");
        write(root, "devices/system/cpu/isolated", "8-63,136-191");
        for cpu in (0..256u32).filter(|cpu| *cpu != 10) {
            let core = cpu % 128;
            let place = format!("devices/system/cpu/cpu{cpu}/topology");
            write(root, &format!("{place}/physical_package_id"), &(core / 64).to_string());
            let siblings = format!("{core},{}", core + 128);
            let siblings = if core == 10 { "138".to_owned() } else { siblings };
            write(root, &format!("{place}/core_cpus_list"), &siblings);
        }
        for (node, cpus, distance) in [(0, "0-63,128-191", "10 32"), (1, "64-127,192-255", "32 10")]
        {
            write(root, &format!("devices/system/node/node{node}/cpulist"), cpus);
            write(root, &format!("devices/system/node/node{node}/distance"), distance);
        }
        write(root, "devices/system/node/has_cpu", "0-1");
        sys
    }

    #[test]
    fn a_large_machine_is_read_whole() {
        let sys = two_by_64();
        let topology = topology(sys.path()).unwrap();
        assert_eq!(topology.cpus.len(), 256);
        let cpu = |id| topology.cpu(id).unwrap();
        let seen = (cpu(200).socket, cpu(200).node, cpu(200).siblings.to_string());
        assert_eq!(seen, (Some(1), Some(1), "72,200".into()));
        assert!(cpu(8).isolated && !cpu(7).isolated && cpu(200).kind.is_none());
        // One that is off keeps its node alone.
        let off = cpu(10);
        assert!(!off.online && off.siblings.is_empty());
        assert_eq!((off.node, off.socket, off.core().to_string()), (Some(0), None, "10".into()));
        assert_eq!((topology.distance(0, 1), topology.distance(1, 1)), (32, 10));
    }

    #[test]
    fn hybrid_cores_and_missing_files_are_no_error() {
        let sys = tempfile::tempdir().unwrap();
        let root = sys.path();
        let error = topology(root).unwrap_err().to_string();
        assert!(error.contains("devices/system/cpu/present"), "{error}");
        write(root, "devices/system/cpu/present", "0-5");
        write(root, "devices/cpu_core/cpus", "0-3");
        write(root, "devices/cpu_atom/cpus", "4-5");
        let hybrid = topology(root).unwrap();
        assert_eq!(hybrid.online().to_string(), "0-5");
        let kinds: Vec<_> = hybrid.cpus.iter().filter_map(|cpu| cpu.kind).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == CoreKind::Performance).count(), 4);
        assert_eq!(kinds.len(), 6);
        write(root, "devices/system/cpu/present", "0-x");
        assert!(topology(root).unwrap_err().to_string().contains("0-x"));
    }

    #[test]
    fn this_host_can_be_read() {
        let topology = topology(Path::new("/sys")).unwrap();
        assert!(!topology.online().is_empty());
    }

    #[test]
    fn a_card_is_near_the_node_that_firmware_tells() {
        let sys = tempfile::tempdir().unwrap();
        write(sys.path(), "class/net/eth0/device/numa_node", "1");
        write(sys.path(), "class/net/eth1/device/numa_node", "-1");
        let node = |name| interface_node(sys.path(), name);
        assert_eq!((node("eth0"), node("eth1"), node("lo")), (Some(1), None, None));
        assert_eq!((node("../net/eth0"), node("..")), (None, None));
    }
}
