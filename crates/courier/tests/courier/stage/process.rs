//! The real binary.

use super::{CREDENTIAL, NODE, Stage};
use serde_json::json;
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_pointsman-courier");

/// A generous limit for what happens within a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that has no event of its own to wait for.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A courier that runs, and is killed when it is forgotten.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Stage {
    /// What an enrolment would have written.
    pub(crate) fn enrolled(&self) {
        let control = self.server.url.as_str();
        let config = json!({"schema": "pointsman.courier/v1", "fleet": "lab", "node": NODE,
            "control": control, "credential": CREDENTIAL});
        let path = self.path("courier.json");
        fs::write(&path, config.to_string()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let key = self.fleet.key.public_key().to_base64().to_owned();
        let fleet = json!({"fleet": "lab", "node": NODE, "public_key": key});
        fs::write(self.path("fleet.json"), fleet.to_string()).unwrap();
    }

    /// `pointsman-courier run` with this stage's directories.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        self.arguments(&mut command, more);
        command
    }

    pub(crate) fn arguments(&self, command: &mut Command, more: &[&str]) {
        let option =
            |name: &str, file: &str| [name.to_owned(), self.path(file).display().to_string()];
        command.args(["run", "--log-format", "json", "--poll-interval", "100ms"]);
        command
            .args(option("--config", "courier.json"))
            .args(option("--node-config", "fleet.json"))
            .args(option("--drop", "drop"))
            .args(option("--cache", "cache"))
            .args(option("--node", "node.sock"))
            .args(more);
        if !more.contains(&"--metrics-listen") {
            command.args(["--metrics-listen", "off"]);
        }
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NOTIFY_SOCKET"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
    }

    pub(crate) fn start(&self, more: &[&str]) -> Running {
        Running::spawn(self.command(more), &self.path("log"))
    }
}

impl Running {
    pub(crate) fn spawn(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = command.stderr(file).stdout(Stdio::null()).spawn().unwrap();
        Self { child, log: log.to_owned() }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn await_log(&self, text: &str) {
        eventually(text, || self.log().contains(text).then_some(()));
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let mut text = String::new();
            let _ = File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
            eprintln!("{text}");
        }
    }
}

/// Runs something to its end.
pub(crate) fn output(mut command: Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}
