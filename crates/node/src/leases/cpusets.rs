//! The CPUs of processes, read once for those that connect again and again: the more threads a
//! process has, the longer all other clients wait while it is looked at.

use super::people::Person;
use pointsman_model::cpu::CpuSet;
use pointsman_netdev::Roots;
use std::time::{Duration, Instant};

/// How long what was read is believed of a process that connects again.
const FRESH: Duration = Duration::from_secs(1);

/// Of how many processes it is remembered.
const MOST: usize = 64;

/// What was read of processes a short time ago.
#[derive(Debug, Default)]
pub(super) struct Cpusets(Vec<Known>);

#[derive(Debug)]
struct Known {
    pid: u32,
    /// When the process was started: another one may get its number.
    started: u64,
    cpus: CpuSet,
    read: Instant,
}

impl Cpusets {
    /// The CPUs that the process of `person` may run on; `None`: that cannot be read.
    pub(super) fn of(&mut self, person: &Person, roots: &Roots, now: Instant) -> Option<CpuSet> {
        self.0.retain(|known| now.saturating_duration_since(known.read) < FRESH);
        // Its number may be another's by now.
        if person.has_ended() {
            return None;
        }
        let process = person.pid().and_then(|pid| Some((pid, roots.started(pid)?)));
        let Some((pid, started)) = process else { return person.cpus(roots) };
        if let Some(known) = self.0.iter().find(|k| (k.pid, k.started) == (pid, started)) {
            return Some(known.cpus.clone());
        }
        let cpus = person.cpus(roots)?;
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Known { pid, started, cpus: cpus.clone(), read: now });
        Some(cpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_was_read_a_moment_ago_is_believed_of_the_same_process() {
        let host = tempfile::tempdir().unwrap();
        let roots = Roots { proc: host.path().join("proc"), sys: host.path().join("sys") };
        let process = roots.proc.join(std::process::id().to_string());
        fs::create_dir_all(process.join("task/1")).unwrap();
        let allow = |cpus: &str| {
            fs::write(process.join("task/1/status"), format!("Cpus_allowed_list:\t{cpus}\n"))
        };
        let start = |ticks: u32| {
            fs::write(process.join("stat"), format!("7 (x) S {} {ticks} 0", "0 ".repeat(18)))
        };
        let (one, _other) = UnixStream::pair().unwrap();
        let now = Instant::now();
        let (person, _) = Person::meet(one.into(), &roots, None, None, now).unwrap();
        let mut cpusets = Cpusets::default();
        let mut read = |at| cpusets.of(&person, &roots, at).map(|cpus| cpus.to_string());
        start(1).unwrap();
        allow("0-3").unwrap();
        assert_eq!(read(now).as_deref(), Some("0-3"));
        allow("4-7").unwrap();
        assert_eq!(read(now).as_deref(), Some("0-3"));
        start(2).unwrap();
        assert_eq!(read(now).as_deref(), Some("4-7"), "another process");
        allow("8").unwrap();
        assert_eq!(read(now + FRESH).as_deref(), Some("8"), "it is not believed for ever");
    }
}
