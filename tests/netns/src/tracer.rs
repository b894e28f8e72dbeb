//! strace on one thread of a daemon: what it calls, and SIGKILL before a chosen call.

use crate::daemon::Host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the thread may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// strace, attached.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    trace: PathBuf,
    _stderr: BufReader<ChildStderr>,
}

impl Tracer {
    /// Kills the daemon when its thread of this name is about to make a system call: the `when`-th
    /// of its kind from now. `None`: there is no strace here.
    ///
    /// # Panics
    /// There is no such thread, not even in a daemon that runs next.
    #[must_use]
    pub fn killing(host: &Host, thread: &str, call: &str, when: usize) -> Option<Self> {
        Self::attach(host, thread, &format!("--inject={call}:signal=KILL:when={when}"))
    }

    /// Writes down which of these system calls the thread makes.
    ///
    /// # Panics
    /// As [`Self::killing`].
    #[must_use]
    pub fn listening(host: &Host, thread: &str, calls: &str) -> Option<Self> {
        Self::attach(host, thread, &format!("--trace={calls}"))
    }

    fn attach(host: &Host, thread: &str, option: &str) -> Option<Self> {
        let start = Instant::now();
        loop {
            let task = task(host, thread);
            match task.map(|task| Self::attach_to(&task, host.path("trace"), option)) {
                Some(Ok(Some(tracer))) => return Some(tracer),
                Some(Err(())) => return None,
                // It has ended since, or starts at this moment.
                Some(Ok(None)) | None => {}
            }
            assert!(start.elapsed() < PATIENCE, "no thread {thread} to attach to");
        }
    }

    fn attach_to(task: &OsStr, trace: PathBuf, option: &str) -> Result<Option<Self>, ()> {
        let child = Command::new("strace")
            .arg("--attach")
            .arg(task)
            .arg("--output")
            .arg(&trace)
            .arg(option)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(()),
            child => child.expect("strace"),
        };
        let mut said = String::new();
        // Kept, for what it says when it lets go.
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        stderr.read_line(&mut said).expect("what it says");
        let tracer = Self { child, trace, _stderr: stderr };
        if said.ends_with(" attached\n") {
            return Ok(Some(tracer));
        }
        // The thread may have ended since; all else stays so.
        assert!(said.contains("No such process"), "strace: {said}");
        Ok(None)
    }

    /// Waits until the daemon is dead, however that came.
    ///
    /// # Panics
    /// It is not: the call did not come.
    #[track_caller]
    pub fn ended(&mut self) {
        assert!(self.ended_within(PATIENCE), "the call that was waited for does not come");
    }

    /// Whether the daemon is dead within that time.
    ///
    /// # Panics
    /// strace is lost.
    pub fn ended_within(&mut self, time: Duration) -> bool {
        if self.child.try_wait().expect("strace").is_some() {
            return true;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let file = pidfd_open(pid.expect("a process id"), PidfdFlags::empty()).expect("strace");
        let time = Timespec::try_from(time).expect("a time");
        let ready = poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&time)).expect("a poll");
        if ready > 0 {
            self.child.wait().expect("an end");
        }
        ready > 0
    }

    /// Waits until the daemon is dead, and makes sure that it died where it was meant to.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn died(mut self, call: &str) {
        self.ended();
        let trace = fs::read_to_string(&self.trace).expect("a trace");
        let last = trace.lines().rfind(|line| !line.starts_with("---") && !line.starts_with("+++"));
        let last = last.unwrap_or_default();
        assert!(last.starts_with(call), "meant to die at {call}, and died at {last}");
        assert!(trace.contains("+++ killed by SIGKILL +++"), "{trace}");
    }

    /// Lets go of the daemon. The calls that were made, each with its number among its kind.
    ///
    /// # Panics
    /// strace is lost.
    #[must_use]
    pub fn calls(mut self) -> Vec<(String, usize)> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), Signal::INT).expect("it runs");
        self.ended();
        let trace = fs::read_to_string(&self.trace).expect("a trace");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let calls = trace.lines().filter_map(|line| {
            let (call, _) = line.split_once('(')?;
            let is_name = call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let count = counts.entry(call).or_default();
            *count += 1;
            is_name.then(|| (call.to_owned(), *count))
        });
        calls.collect()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The thread, if there is one now.
fn task(host: &Host, thread: &str) -> Option<OsString> {
    let engine = fs::read_to_string(host.path("run/engine.pid")).ok()?;
    let tasks = fs::read_dir(format!("/proc/{}/task", engine.trim())).ok()?;
    let is_it = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == thread)
    };
    let mut tasks = tasks.flatten().map(|entry| entry.path());
    Some(tasks.find(is_it)?.file_name()?.to_owned())
}
