//! The program itself: how it starts, what it prints, how it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod start;
mod tls;

use reqwest::{Certificate, Client};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pointsman-control");

/// A running service. Killed when dropped.
struct Control {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Control {
    fn command(state: &Path) -> Command {
        let mut command = Command::new(PROGRAM);
        // By the environment, so that tests can say otherwise.
        command.env_remove("NOTIFY_SOCKET").env("POINTSMAN_CONTROL_STATE_DIR", state);
        command.env("POINTSMAN_LISTEN", "127.0.0.1:0").args(["--log-format", "json"]);
        command
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line of its standard output, which must have this field.
    fn told(&mut self, key: &str) -> String {
        let line = self.lines.next().expect("it prints").unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        value[key].as_str().unwrap_or_else(|| panic!("no {key} in {line}")).to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(trusted: Option<&str>) -> Client {
    let mut client = Client::builder().no_proxy();
    if let Some(pem) = trusted {
        let certificate = Certificate::from_pem(pem.as_bytes()).unwrap();
        client = client.tls_certs_only([certificate]);
    }
    client.build().unwrap()
}

/// Runs it to its end, which must come by itself.
fn ended(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// What it said in its one line of an error.
fn error_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 || text.lines().count() == 1, "{text}");
    text
}

fn run(case: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(case);
}
