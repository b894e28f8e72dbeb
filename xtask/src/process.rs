//! Children whose output is read line by line, and which never outlive their welcome.

use crate::interrupt::{self, Group};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, or by a signal that was passed on to it.
    Exited(ExitStatus),
    /// It took longer than allowed and was killed, with all it had started.
    TimedOut,
}

impl Ended {
    pub(crate) fn is_success(self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }
}

/// Runs a child in a process group of its own and hands over each line of its output.
///
/// Where `command`'s stderr is to be read too, the caller pipes it; otherwise it is inherited.
/// What the child leaves running in its group is killed when it ends.
pub(crate) fn stream(
    command: &mut Command,
    limit: Option<Duration>,
    mut on_line: impl FnMut(&str),
) -> Result<Ended> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let leader = Pid::from_child(&child);
    let group = Group::register(leader);

    let (sender, events) = channel();
    let readers: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    let mut open = 0;
    for reader in readers.into_iter().flatten() {
        open += 1;
        let sender = sender.clone();
        std::thread::spawn(move || read_lines(reader, &sender));
    }
    std::thread::spawn(move || {
        // NOWAIT: the child stays a zombie, so its group's number is not given to anybody else
        // before the group is killed below.
        let _ = waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let _ = sender.send(Event::Exited);
    });
    let timed_out = pump(&events, &group, deadline, open, &mut on_line);
    let status = child.wait().with_context(|| format!("cannot wait for {program}"))?;
    Ok(if timed_out { Ended::TimedOut } else { Ended::Exited(status) })
}

#[derive(Debug)]
enum Event {
    Line(String),
    Closed,
    Exited,
}

fn read_lines(reader: impl Read, events: &Sender<Event>) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    // Bytes, not `lines()`: a test may print what is not UTF-8, and a console prints CR LF.
    while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        if events.send(Event::Line(line)).is_err() {
            return;
        }
        bytes.clear();
    }
    let _ = events.send(Event::Closed);
}

/// Takes events until the child has exited and its output is read. Whether it timed out.
fn pump(
    events: &Receiver<Event>,
    group: &Group,
    deadline: Option<Instant>,
    mut open: usize,
    on_line: &mut impl FnMut(&str),
) -> bool {
    let (mut exited, mut timed_out, mut deadline) = (false, false, deadline);
    while !exited || open > 0 {
        let event = match deadline {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(Event::Line(line)) => on_line(&line),
            Ok(Event::Closed) => open -= 1,
            Ok(Event::Exited) => {
                exited = true;
                group.kill();
                // What left the group may hold the pipe: its output is no longer ours to wait for.
                deadline = Some(Instant::now() + Duration::from_secs(2));
            }
            Err(RecvTimeoutError::Timeout) if exited => break,
            Err(RecvTimeoutError::Timeout) => {
                timed_out = true;
                deadline = None;
                group.kill();
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    timed_out
}

/// Runs a short command to its end and gives its standard output; its error output is part of the
/// error. Ctrl-C does not reach it, however often it is pressed: cleaning up is done this way.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    captured(command, false)
}

/// The same for a command that may take long: a signal ends it.
pub(crate) fn capture_long(command: &mut Command) -> Result<String> {
    captured(command, true)
}

fn captured(command: &mut Command, is_long: bool) -> Result<String> {
    let shown = shown(command);
    // A terminal sends Ctrl-C to its foreground's process group: this child leaves it.
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let _group = is_long.then(|| Group::register(Pid::from_child(&child)));
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {shown}"))?;
    if !output.status.success() {
        if is_long && interrupt::pending() {
            bail!("interrupted");
        }
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Option<Duration>) -> (Ended, Vec<String>) {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        let ended = stream(command.args(["-c", script]), limit, |line| lines.push(line.to_owned()));
        (ended.unwrap(), lines)
    }

    #[test]
    fn lines_arrive_without_their_ends_and_the_exit_code_counts() {
        let (ended, lines) = sh(r"printf 'one\r\ntwo'; exit 3", None);
        assert_eq!(lines, ["one", "two"]);
        assert!(matches!(ended, Ended::Exited(status) if status.code() == Some(3)), "{ended:?}");
    }

    #[test]
    fn a_child_over_its_time_is_killed_with_what_it_started() {
        let (ended, lines) = sh("sleep 600 & echo $!; wait", Some(Duration::from_millis(500)));
        assert_eq!(ended, Ended::TimedOut);
        assert_ends(&lines[0]);
    }

    #[test]
    fn what_a_child_leaves_running_is_killed() {
        let (ended, lines) = sh("sleep 600 & echo $!", None);
        assert!(ended.is_success());
        assert_ends(&lines[0]);
    }

    /// Waits until a process that must have been killed is gone. An orphan is a zombie until
    /// somebody reaps it; its pidfd is readable as soon as it has exited.
    fn assert_ends(pid: &str) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::process::{PidfdFlags, pidfd_open};
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        match pidfd_open(pid, PidfdFlags::empty()) {
            Err(error) => assert_eq!(error, rustix::io::Errno::SRCH),
            Ok(pidfd) => {
                let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
                let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(poll(&mut polled, Some(&limit)).unwrap(), 1, "{pid:?} still runs");
            }
        }
    }

    #[test]
    fn what_is_captured_is_not_in_the_group_that_the_terminal_interrupts() {
        // Field 5 of a process's stat is its process group; nothing else has spaces in it here.
        let stat = capture(Command::new("cat").arg("/proc/self/stat")).unwrap();
        let fields: Vec<_> = stat.split_whitespace().collect();
        assert_eq!(fields[4], fields[0], "{stat}");
    }

    #[test]
    fn a_failed_command_names_itself_and_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo no >&2; false"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.ends_with(": no"), "{text}");
    }
}
