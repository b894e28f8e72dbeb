//! What procfs tells of a process: the CPUs it may run on, its name, whether it runs.
//!
//! No file that is read here waits for the process: none needs its memory map.

use crate::topology::list;
use pointsman_model::cpu::CpuSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The most threads of a process that are looked at: a client may have started as many as it likes,
/// and all others wait meanwhile.
const MOST_THREADS: usize = 512;

/// How a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs, or could.
    Running,
    /// It is stopped, or waits for a disk.
    Stuck,
    /// It has ended.
    Ended,
}

/// Where things are found: the roots of procfs and sysfs.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

impl Roots {
    /// The CPUs that process `pid` may run on: those that the threads of the process are allowed,
    /// as far as they are in its cgroup's cpuset. `None`: neither can be read.
    ///
    /// All threads are looked at, because DPDK lets each of its threads run on one CPU only, the
    /// first one included.
    #[must_use]
    pub fn cpus_of(&self, pid: u32) -> Option<CpuSet> {
        let process = self.proc.join(pid.to_string());
        let cgroup = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let cpuset = self.cpuset_of(&cgroup).filter(|cpus| !cpus.is_empty());
        let allowed = affinity(&process, cpuset.as_ref()).filter(|cpus| !cpus.is_empty());
        match (cpuset, allowed) {
            (Some(cpuset), Some(allowed)) => {
                let both = cpuset.and(&allowed);
                // Read at two moments: a cpuset that was changed in between meets nothing.
                Some(if both.is_empty() { allowed } else { both })
            }
            (one, other) => one.or(other),
        }
    }

    /// The cpuset of a cgroup that `/proc/PID/cgroup` names (cgroups(7)): that of the nearest one
    /// upwards that has one.
    fn cpuset_of(&self, cgroup: &str) -> Option<CpuSet> {
        let root = self.sys.join("fs/cgroup");
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let (root, file) = match controllers {
                "" => (root.clone(), "cpuset.cpus.effective"),
                named if named.split(',').any(|name| name == "cpuset") => {
                    (root.join("cpuset"), "cpuset.effective_cpus")
                }
                _ => continue,
            };
            let path = Path::new(path.trim_start_matches('/'));
            // `/..`: it is outside of what this process sees of the hierarchy.
            if path.components().any(|part| !matches!(part, Component::Normal(_))) {
                continue;
            }
            let found = path.ancestors().find_map(|at| list(&root.join(at).join(file)).ok());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The name of a program, as the process has set it; any bytes.
    #[must_use]
    pub fn name_of(&self, pid: u32) -> Option<Vec<u8>> {
        let mut name = fs::read(self.proc.join(pid.to_string()).join("comm")).ok()?;
        name.pop_if(|last| *last == b'\n');
        Some(name)
    }

    /// When a process was started, in clock ticks since the host was (`starttime` of
    /// `proc_pid_stat(5)`): with its number, the process itself. `None`: that cannot be read.
    #[must_use]
    pub fn started(&self, pid: u32) -> Option<u64> {
        let stat = fs::read_to_string(self.proc.join(pid.to_string()).join("stat")).ok()?;
        let (_, after) = stat.rsplit_once(')')?;
        after.split_ascii_whitespace().nth(19)?.parse().ok()
    }

    /// How a process stands; `None`: that cannot be read.
    #[must_use]
    pub fn state_of(&self, pid: u32) -> Option<ProcessState> {
        let stat = fs::read(self.proc.join(pid.to_string()).join("stat")).ok()?;
        // The name before it is in brackets and may have any character (proc_pid_stat(5)).
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        match stat.get(end + 2)? {
            b'T' | b't' | b'D' => Some(ProcessState::Stuck),
            b'Z' | b'X' => Some(ProcessState::Ended),
            _ => Some(ProcessState::Running),
        }
    }
}

/// What the threads are allowed, all together: as far as it takes to have all of `enough`.
fn affinity(process: &Path, enough: Option<&CpuSet>) -> Option<CpuSet> {
    let threads = fs::read_dir(process.join("task")).ok()?;
    let mut all = CpuSet::default();
    for thread in threads.flatten().take(MOST_THREADS) {
        // A thread may end meanwhile.
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if let Some(Ok(cpus)) = allowed.map(str::parse) {
            all.join(&cpus);
        }
        if enough.is_some_and(|enough| enough.and(&all) == *enough) {
            break;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn cpus(&self) -> Option<String> {
            self.roots().cpus_of(7).map(|cpus| cpus.to_string())
        }

        fn roots(&self) -> Roots {
            Roots { proc: self.0.path().join("proc"), sys: self.0.path().join("sys") }
        }
    }

    #[test]
    fn the_cpuset_is_that_of_the_nearest_cgroup_that_has_one() {
        let host = Host::new();
        assert_eq!(host.cpus(), None);
        host.write("proc/7/cgroup", "0::/pods/media/inner\n");
        host.write("sys/fs/cgroup/cpuset.cpus.effective", "0-15\n");
        assert_eq!(host.cpus().as_deref(), Some("0-15"));
        host.write("sys/fs/cgroup/pods/media/cpuset.cpus.effective", "4-7\n");
        assert_eq!(host.cpus().as_deref(), Some("4-7"));
        // What threads are allowed narrows it; DPDK's first thread has one CPU only.
        for (thread, cpus) in [(7, "4"), (8, "5"), (9, "6")] {
            let status = format!("Name:\tx\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t0\n");
            host.write(&format!("proc/7/task/{thread}/status"), &status);
        }
        assert_eq!(host.cpus().as_deref(), Some("4-6"));
        // An empty cpuset is one that was not set.
        host.write("sys/fs/cgroup/pods/media/cpuset.cpus.effective", "\n");
        assert_eq!(host.cpus().as_deref(), Some("4-6"));
        // Changed between two reads.
        host.write("sys/fs/cgroup/pods/media/cpuset.cpus.effective", "12-13\n");
        assert_eq!(host.cpus().as_deref(), Some("4-6"));
    }

    #[test]
    fn the_first_version_of_cgroups_is_read_too_and_foreign_paths_are_not() {
        let host = Host::new();
        host.write("proc/7/cgroup", "9:memory:/a\n5:cpu,cpuset:/a/b\n1:name=systemd:/\n");
        host.write("sys/fs/cgroup/cpuset/a/cpuset.effective_cpus", "2-3\n");
        assert_eq!(host.cpus().as_deref(), Some("2-3"));
        host.write("sys/fs/cgroup/cpuset.cpus.effective", "0-15\n");
        for outside in ["0::/../other\n", "garbage\n", "0::\n", ""] {
            host.write("proc/7/cgroup", outside);
            let expected = (outside == "0::\n").then_some("0-15");
            assert_eq!(host.cpus().as_deref(), expected, "{outside:?}");
        }
    }

    #[test]
    fn a_name_with_brackets_hides_no_state() {
        let host = Host::new();
        for (state, expected) in [
            ("S", ProcessState::Running),
            ("R", ProcessState::Running),
            ("T", ProcessState::Stuck),
            ("D", ProcessState::Stuck),
            ("Z", ProcessState::Ended),
        ] {
            host.write("proc/7/stat", &format!("7 (a) T (b) {state} 1 7 7"));
            assert_eq!(host.roots().state_of(7), Some(expected));
        }
        host.write("proc/7/stat", "7 (a");
        assert_eq!(host.roots().state_of(7), None);
        host.write("proc/7/comm", "a\nb\n");
        assert_eq!(host.roots().name_of(7).as_deref(), Some(&b"a\nb"[..]));
    }

    #[test]
    fn threads_are_looked_at_until_they_may_run_on_all_of_the_cpuset_and_no_more_than_so_many() {
        let host = Host::new();
        let thread = |number: usize, cpus: &str| {
            let status = format!("Cpus_allowed_list:\t{cpus}\n");
            host.write(&format!("proc/7/task/{number}/status"), &status);
        };
        host.write("proc/7/cgroup", "0::/\n");
        host.write("sys/fs/cgroup/cpuset.cpus.effective", "0-3\n");
        (0..MOST_THREADS + 8).for_each(|number| thread(number, &number.to_string()));
        let seen = affinity(&host.0.path().join("proc/7"), None).unwrap();
        assert_eq!(seen.iter().count(), MOST_THREADS);
        (0..MOST_THREADS + 8).for_each(|number| thread(number, &format!("0-3,{}", number + 8)));
        let enough = "0-3".parse().unwrap();
        let seen = affinity(&host.0.path().join("proc/7"), Some(&enough)).unwrap();
        assert_eq!(seen.iter().count(), 5, "one thread says it all");
        assert_eq!(host.cpus().as_deref(), Some("0-3"));
    }

    #[test]
    fn when_a_process_was_started_is_told_whatever_its_name() {
        let host = Host::new();
        host.write("proc/7/stat", &format!("7 (a) 1 (b) S {} 4711 22", "0 ".repeat(18)));
        assert_eq!(host.roots().started(7), Some(4711));
        host.write("proc/7/stat", "7 (a) S 1");
        assert_eq!(host.roots().started(7), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let roots = Roots::default();
        let me = std::process::id();
        assert!(roots.cpus_of(me).is_some_and(|cpus| !cpus.is_empty()));
        assert_eq!(roots.state_of(me), Some(ProcessState::Running));
        assert!(roots.started(me).is_some_and(|ticks| ticks > 0));
    }
}
