//! The interrupts of an interface's queues, and the CPUs that take them.
//!
//! Files: `/sys/class/net/*/device/msi_irqs`, `/proc/interrupts` and `/proc/irq/*/smp_affinity_list`
//! (`Documentation/core-api/irq/irq-affinity.rst`). A daemon such as irqbalance may move what is set
//! here.

use crate::sysfs::{Sysfs, TuneError, read, write};
use pointsman_model::cpu::CpuSet;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One interrupt of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// What its driver calls it; `None`: it is not in use.
    pub name: Option<String>,
    /// The queue it is for, as far as its name tells; `None`: another purpose, or unknown.
    pub queue: Option<u32>,
}

impl Sysfs {
    /// The interrupts of an interface, ascending; procfs lies at `proc`. Empty: it has none of its
    /// own, as all that is virtual.
    ///
    /// # Errors
    /// [`TuneError`]: there is no such interface, or `/proc/interrupts` cannot be read.
    pub fn interrupts(
        &self,
        name: &str,
        index: u32,
        proc: &Path,
    ) -> Result<Vec<Interrupt>, TuneError> {
        let device = self.interface(name, index)?.join("device");
        // A virtio device's are those of the card it is on.
        let numbers = [device.join("msi_irqs"), device.join("../msi_irqs")];
        let numbers = numbers.iter().map(|directory| numbers_in(directory));
        let numbers = numbers.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let path = proc.join("interrupts");
        let text = fs::read_to_string(&path).map_err(|source| TuneError::Read { path, source })?;
        let names = names(&text);
        let interrupt = |number: u32| {
            let name = names.get(&number).cloned();
            let queue = name.as_deref().and_then(queue_of);
            Interrupt { number, name, queue }
        };
        Ok(numbers.into_iter().map(interrupt).collect())
    }
}

/// The CPUs that may take an interrupt; procfs lies at `proc`.
///
/// # Errors
/// [`TuneError::Read`]: there is no such interrupt.
pub fn affinity(proc: &Path, interrupt: u32) -> Result<CpuSet, TuneError> {
    read(&file(proc, interrupt))
}

/// Lets only `cpus` take an interrupt; who could before.
///
/// # Errors
/// [`TuneError`]: there is no such interrupt, none of the CPUs is on, or the kernel manages it
/// itself. Then nothing is changed.
pub fn set_affinity(proc: &Path, interrupt: u32, cpus: &CpuSet) -> Result<CpuSet, TuneError> {
    let before = affinity(proc, interrupt)?;
    write(&file(proc, interrupt), &cpus.to_string())?;
    Ok(before)
}

fn file(proc: &Path, interrupt: u32) -> std::path::PathBuf {
    proc.join("irq").join(interrupt.to_string()).join("smp_affinity_list")
}

fn numbers_in(directory: &Path) -> BTreeSet<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The names by number, from the text of `/proc/interrupts`: a number, a count for each CPU, and
/// what follows, of which the name is the last word. Of one that is shared, the last name.
fn names(text: &str) -> BTreeMap<u32, String> {
    let cpus = text.lines().next().map_or(0, |head| head.split_whitespace().count());
    let line = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        // At least the kind of controller stands between the counts and the name.
        let name = rest.split_whitespace().skip(cpus + 1).last()?;
        Some((number, name.to_owned()))
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// The queue that an interrupt is for, by its driver's name for it.
///
/// Receive queues only: a name that says it is for sending, for the link or for the firmware has
/// none. Drivers: `eth0-TxRx-3` (ixgbe, igb), `i40e-eth0-TxRx-3`, `ice-eth0-TxRx-3`, `iavf-eth0-TxRx-3`,
/// `mlx5_comp3@pci:0000:01:00.0`, `mlx4-4@0000:01:00.0`, `virtio0-input.3`, `ena-eth0-Tx-Rx-3`,
/// `gve-ntfy-blk3@...`, `bnxt: eth0-TxRx-3`, `nfp-...-rxtx-3`, `eth0-rx-3`, `eth0-q3`.
fn queue_of(name: &str) -> Option<u32> {
    let own = name.split('@').next().unwrap_or(name).to_ascii_lowercase();
    let digits = own.len() - own.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (head, number) = own.split_at(own.len() - digits);
    let number = number.parse().ok()?;
    let receives = ["txrx-", "tx-rx-", "rxtx-", "-rx-", "_comp", "-input.", "ntfy-blk", "-q"];
    receives.iter().any(|word| head.ends_with(word)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERRUPTS: &str = "\
            CPU0       CPU1
   1:          9          0  IR-IO-APIC    1-edge      i8042
  16:          0          0  IR-IO-APIC   16-fasteoi   uhci_hcd:usb1, eth9
 120:          0          5  IR-PCI-MSIX-0000:01:00.0    0-edge      ice-eth0:misc
 121:      77777          0  IR-PCI-MSIX-0000:01:00.0    1-edge      ice-eth0-TxRx-0
 122:          0      88888  IR-PCI-MSIX-0000:01:00.0    2-edge      ice-eth0-TxRx-1
 NMI:          0          0   Non-maskable interrupts
 ERR:          0
";

    fn fixture() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/class/net/eth0/ifindex", "2\n");
        write("sys/class/net/lo/ifindex", "1\n");
        for number in [120, 121, 122, 123] {
            write(&format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msix\n");
            write(&format!("proc/irq/{number}/smp_affinity_list"), "0-1\n");
        }
        write("proc/interrupts", INTERRUPTS);
        root
    }

    #[test]
    fn interrupts_are_found_with_their_queues() {
        let root = fixture();
        let (sys, proc) = (Sysfs::at(&root.path().join("sys")), root.path().join("proc"));
        let found = sys.interrupts("eth0", 2, &proc).unwrap();
        let short: Vec<_> = found.iter().map(|it| (it.number, it.queue)).collect();
        assert_eq!(short, [(120, None), (121, Some(0)), (122, Some(1)), (123, None)]);
        assert_eq!(found[0].name.as_deref(), Some("ice-eth0:misc"));
        assert_eq!(found[3].name, None);
        assert_eq!(sys.interrupts("lo", 1, &proc).unwrap(), []);
        assert!(sys.interrupts("eth0", 1, &proc).is_err());
    }

    #[test]
    fn the_interrupts_of_a_virtio_card_are_its_bus_devices() {
        let root = fixture();
        let at = root.path().join("sys/class/net/eth1");
        fs::create_dir_all(at.join("device")).unwrap();
        fs::create_dir_all(at.join("msi_irqs/121")).unwrap();
        fs::write(at.join("ifindex"), "3").unwrap();
        let sys = Sysfs::at(&root.path().join("sys"));
        let found = sys.interrupts("eth1", 3, &root.path().join("proc")).unwrap();
        assert_eq!(found.iter().map(|it| it.number).collect::<Vec<_>>(), [121]);
    }

    #[test]
    fn affinity_is_set_and_restored() {
        let root = fixture();
        let proc = root.path().join("proc");
        let one: CpuSet = "1".parse().unwrap();
        let before = set_affinity(&proc, 121, &one).unwrap();
        assert_eq!(before.to_string(), "0-1");
        assert_eq!(affinity(&proc, 121).unwrap(), one);
        // A file is longer than what is written over its beginning; the kernel's are not.
        assert_eq!(set_affinity(&proc, 122, &before).unwrap(), before);
        let message = set_affinity(&proc, 5, &one).unwrap_err().to_string();
        assert!(message.contains("irq/5/smp_affinity_list"), "{message}");
    }

    #[test]
    fn names_of_drivers_tell_the_queue() {
        for (name, queue) in [
            ("eth0-TxRx-3", Some(3)),
            ("i40e-enp1s0f0-TxRx-12", Some(12)),
            ("mlx5_comp3@pci:0000:01:00.0", Some(3)),
            ("mlx5_async0@pci:0000:01:00.0", None),
            ("virtio0-input.2", Some(2)),
            ("virtio0-output.2", None),
            ("virtio0-config", None),
            ("ens5-Tx-Rx-1", Some(1)),
            ("eth0-rx-7", Some(7)),
            ("eth0-tx-7", None),
            ("ice-eth0:misc", None),
            ("eth0", None),
            ("i8042", None),
            ("", None),
            ("eth0-TxRx-99999999999", None),
        ] {
            assert_eq!(queue_of(name), queue, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text: String) {
            for name in names(&text).values() {
                let _ = queue_of(name);
            }
        }
    }
}
