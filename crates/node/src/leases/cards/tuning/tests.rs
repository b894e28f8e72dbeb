//! Tuning of an interface whose sysfs and procfs are directories: the loopback's number is real.

use super::*;
use std::fs;

struct Host {
    directory: tempfile::TempDir,
    footprints: Footprints,
}

impl Host {
    /// Four queues with an interrupt each, 120 to 123, and one for the link.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let footprints = Footprints::open(directory.path());
        let host = Self { directory, footprints };
        host.write("sys/class/net/lo/ifindex", "1\n");
        host.write("sys/class/net/lo/napi_defer_hard_irqs", "0\n");
        host.write("sys/class/net/lo/gro_flush_timeout", "0\n");
        let mut text = "      CPU0\n".to_owned();
        for queue in 0..5 {
            let name = if queue == 4 { "lo:misc".to_owned() } else { format!("lo-TxRx-{queue}") };
            text += &format!(" {}: 0 PCI-MSIX-0 {queue}-edge {name}\n", 120 + queue);
            host.write(&format!("sys/class/net/lo/device/msi_irqs/{}", 120 + queue), "msix\n");
            host.set(120 + queue, "0-7");
        }
        host.write("proc/interrupts", &text);
        host
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn set(&self, interrupt: u32, cpus: &str) {
        self.write(&format!("proc/irq/{interrupt}/smp_affinity_list"), cpus);
    }

    /// Who takes the interrupts. A file keeps what is longer than what is written over it; the
    /// kernel's do not, so the tests' lists are equally long.
    fn cpus(&self) -> Vec<String> {
        let at = |it| self.directory.path().join(format!("proc/irq/{it}/smp_affinity_list"));
        (120..125).map(|it| fs::read_to_string(at(it)).unwrap()).collect()
    }

    fn tune(&mut self, tuned: &Tuned<'_>) -> Vec<Trouble> {
        let path = self.directory.path();
        let roots = Roots { proc: path.join("proc"), sys: path.join("sys") };
        let place = Place { namespace: None, index: 1 };
        tune(&mut self.footprints, &roots, &place, None, tuned)
    }

    /// Another daemon comes.
    fn restart(&mut self) {
        self.footprints = Footprints::open(self.directory.path());
    }
}

fn set(cpus: &str) -> CpuSet {
    cpus.parse().unwrap()
}

fn entry(queues: Option<&[u32]>, interrupts: InterruptsSpec) -> TuningSpec {
    let queues = queues.map(|queues| queues.iter().copied().collect());
    TuningSpec { queues, polling: None, interrupts: Some(interrupts) }
}

const NOTHING: Tuned<'_> = Tuned { tuning: &[], receive: 4, held: None, others: None };

#[test]
fn interrupts_go_beside_the_lcores_that_are_leased_and_back() {
    let mut host = Host::new();
    let tuning = [
        entry(Some(&[2, 3]), InterruptsSpec::BesideLcores),
        entry(None, InterruptsSpec::Cpus(set("0-1"))),
    ];
    let held = BTreeMap::from([(2, Some(set("4-5")))]);
    let others = set("2-7");
    let tuned = Tuned { tuning: &tuning, held: Some(&held), others: Some(&others), ..NOTHING };
    assert_eq!(host.tune(&tuned), []);
    assert_eq!(host.cpus(), ["0-1", "0-1", "4-5", "2-7", "0-7"]);
    host.restart();
    // Somebody else leases, and this one moves.
    let held = BTreeMap::from([(2, Some(set("6-7"))), (3, None)]);
    let tuned = Tuned { held: Some(&held), ..tuned };
    let [(section, why)] = &host.tune(&tuned)[..] else { panic!("one trouble") };
    assert!(section == "/0/interrupts" && why.starts_with("queue 3: every CPU is"), "{why}");
    assert_eq!(host.cpus()[2], "6-7");
    // What somebody else has set since is his.
    host.set(120, "3-3");
    assert_eq!(host.tune(&NOTHING), []);
    assert_eq!(host.cpus(), ["3-3", "0-7", "0-7", "0-7", "0-7"]);
    let place = Place { namespace: None, index: 1 };
    assert_eq!(host.footprints.settings(&place), None);
}

#[test]
fn an_interrupt_that_does_not_move_is_told_and_the_others_move() {
    let mut host = Host::new();
    fs::remove_file(host.directory.path().join("proc/irq/121/smp_affinity_list")).unwrap();
    let tuning = [
        entry(Some(&[1, 2]), InterruptsSpec::Cpus(set("4-5"))),
        entry(Some(&[7]), InterruptsSpec::Cpus(set("4-5"))),
    ];
    let troubles = host.tune(&Tuned { tuning: &tuning, ..NOTHING });
    let [missing, failed] = &troubles[..] else { panic!("{troubles:?}") };
    assert_eq!(missing.0, "/1/queues");
    assert_eq!(missing.1, "queue 7 does not exist: there are 4 receive queues");
    assert!(failed.0 == "/0/interrupts" && failed.1.contains("irq/121/"), "{failed:?}");
    host.set(121, "0-7");
    assert_eq!(host.cpus(), ["0-7", "0-7", "4-5", "0-7", "0-7"]);
}

#[test]
fn polling_of_all_queues_is_set_and_given_back_and_single_ones_are_told_where_they_cannot() {
    let mut host = Host::new();
    let polling = Some(Polling { defer_hard_irqs: 2, gro_flush_timeout: 7 });
    let all = TuningSpec { queues: None, polling, interrupts: None };
    let one = TuningSpec { queues: Some([1].into()), ..all.clone() };
    let troubles = host.tune(&Tuned { tuning: &[all, one], ..NOTHING });
    let [(section, why)] = &troubles[..] else { panic!("{troubles:?}") };
    assert!(section == "/1/busy_poll" && why.starts_with("queue 1: nothing polls it"), "{why}");
    let read = |host: &Host, name: &str| {
        fs::read_to_string(host.directory.path().join("sys/class/net/lo").join(name)).unwrap()
    };
    assert_eq!(read(&host, "gro_flush_timeout").trim(), "7");
    assert_eq!(read(&host, "napi_defer_hard_irqs").trim(), "2");
    host.restart();
    assert_eq!(host.tune(&NOTHING), []);
    assert_eq!(read(&host, "gro_flush_timeout").trim(), "0");
}
