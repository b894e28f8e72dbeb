//! A server process that ends with the test, however the test ends.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Starts what follows its own name and stops it when its standard input ends: the kernel closes
/// the other end also of a test that was killed. The first line tells the server's process id.
/// PostgreSQL ends at once by SIGQUIT, which the shell has others ignore: they end by SIGTERM.
const SCRIPT: &str =
    "\"$@\" </dev/null >&2 & echo $!; read -r _; kill -QUIT $!; kill -TERM $!; wait";

/// A running server.
#[derive(Debug)]
pub(crate) struct Leash {
    shell: Child,
    hold: Option<ChildStdin>,
    server: Pid,
}

impl Leash {
    /// Starts `command` in its directory and environment. What it tells goes into a file.
    pub(crate) fn start(command: &Command, log: &Path) -> Self {
        let log = File::options().append(true).create(true).open(log).expect("a log file");
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            shell.current_dir(directory);
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut shell = shell.spawn().expect("sh starts");
        let mut first = String::new();
        let mut output = BufReader::new(shell.stdout.take().expect("stdout is a pipe"));
        output.read_line(&mut first).expect("the shell tells");
        let server = first.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        Self { hold: shell.stdin.take(), shell, server }
    }

    /// Kills the server as a power cut would, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        let _ = kill_process(self.server, Signal::KILL);
        self.end();
    }

    /// Whether the server has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        rustix::process::test_kill_process(self.server).is_err()
    }

    fn end(&mut self) {
        drop(self.hold.take());
        let _ = self.shell.wait();
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.end();
    }
}
