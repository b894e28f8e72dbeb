//! The packaged unit, started and stopped by a real service manager.
//!
//! These tests change the host that they run on. So they run where `cargo xtask` has said that it
//! is an emulated machine, and nowhere else.

mod life;
mod original;
mod sandbox;

use pointsman_imtl_client::{Client, Dialect, request};
use pointsman_netns::daemon::cli;
use pointsman_netns::netns::{Netns, Pair};
use pointsman_netns::skip;
use pointsman_netns::traffic::received;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNIT: &str = "pointsman-node.service";
const UNIT_FILE: &str = "/usr/lib/systemd/system/pointsman-node.service";
const SOCKET: &str = "/var/run/imtl/mtl_manager.sock";
const DROP_INS: &str = "/run/systemd/system/pointsman-node.service.d";

/// Longer than anything takes that comes at all, on an emulated machine with a busy host.
const PATIENCE: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

/// The unit, started; stopped and emptied when dropped.
struct Service;

impl Service {
    /// Starts it, or says why that cannot be tried here.
    fn start(test: &str) -> Option<Self> {
        let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
        if std::env::var("POINTSMAN_RING").as_deref() != Ok("systemd") || first.trim() != "systemd"
        {
            skip(test, "not in the machine of `cargo xtask vm --systemd`");
            return None;
        }
        // Whatever fails below leaves nothing to the next test.
        let service = Self;
        systemctl(&["start", UNIT]);
        Some(service)
    }

    /// The process that systemd looks after: the keeper.
    fn keeper(&self) -> Process {
        Process::open(&self.property("MainPID"))
    }

    /// The keeper's child.
    fn engine(&self) -> Process {
        Process::open(&fs::read_to_string("/run/pointsman/engine.pid").expect("a daemon"))
    }

    fn property(&self, name: &str) -> String {
        let shown = systemctl(&["show", "--value", "--property", name, UNIT]);
        shown.trim().to_owned()
    }

    /// Changes the unit as an operator does, for the next start.
    fn drop_in(&self, text: &str) {
        fs::create_dir_all(DROP_INS).expect("a directory");
        fs::write(Path::new(DROP_INS).join("test.conf"), text).expect("a drop-in");
        systemctl(&["daemon-reload"]);
    }

    /// Stops the unit. What systemd says of its end: the result, and how and with what code the main
    /// process ended. A unit that has ended is forgotten, so what it runs at its end writes it down.
    fn stop(&self) -> String {
        let ended = Path::new("/var/lib/pointsman/ended");
        let words = "$SERVICE_RESULT $EXIT_CODE $EXIT_STATUS";
        let line = format!("ExecStopPost=/bin/sh -c 'echo {words} > {}'", ended.display());
        fs::create_dir_all(DROP_INS).expect("a directory");
        let text = format!("[Service]\n{line}\n");
        fs::write(Path::new(DROP_INS).join("ended.conf"), text).expect("a drop-in");
        systemctl(&["daemon-reload"]);
        systemctl(&["stop", UNIT]);
        fs::read_to_string(ended).expect("it was run").trim().to_owned()
    }

    /// That the unit runs, and how often systemd had to start it again.
    #[track_caller]
    fn assert_active(&self, restarts: u32) {
        let names = ["ActiveState", "SubState", "NRestarts"];
        let found = names.map(|name| self.property(name));
        assert_eq!(found, ["active", "running", &restarts.to_string()]);
    }

    /// Chains on `lo` of the unit's own namespace and on `v1` of another one, which passes no UDP
    /// port but 5999.
    fn apply(&self, other: &Netns) {
        let document = json!({
            "schema": "pointsman.node/v1", "node": "test", "generation": 1,
            "programs": {"count": {"builtin": "counting-pass"}, "ports": {"builtin": "udp-port-filter",
                "maps": {"ports": {"entries": [{"key": 5999, "value": 1}]}}}},
            "interfaces": {
                "lo": {"xdp": {"chain": [{"program": "count"}]}},
                (format!("{}/v1", other.name())): {"xdp": {"chain": [{"program": "ports"}]}}
            }
        });
        let path = Path::new("/run/document.json");
        fs::write(path, document.to_string()).expect("a document");
        let answer = cli(&["--json", "apply", "/run/document.json"], b"");
        assert_eq!(answer.code, 0, "{answer:#?}");
        self.assert_chains();
    }

    /// Which fused programs run, once both hooks do.
    #[track_caller]
    fn assert_chains(&self) -> Vec<Value> {
        let answer = cli(&["--json", "status"], b"");
        assert_eq!(answer.code, 0, "{answer:#?}");
        let hooks = answer.value["hooks"].as_array().cloned().unwrap_or_default();
        assert_eq!(hooks.len(), 2, "{hooks:#?}");
        assert!(hooks.iter().all(|hook| hook["state"] == "running"), "{hooks:#?}");
        hooks.into_iter().map(|hook| hook["fused"].clone()).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (program, arguments) in [
                ("systemctl", &["status", "--no-pager", "--full", UNIT][..]),
                ("journalctl", &["--no-pager", "--lines", "100", "--output", "short-monotonic"]),
            ] {
                if let Ok(output) = Command::new(program).args(arguments).output() {
                    eprintln!("{program}:\n{}", String::from_utf8_lossy(&output.stdout));
                }
            }
        }
        // Each of these may have nothing to do.
        let _ = cli(&["drain", "--yes"], b"");
        let _ = fs::remove_dir_all(DROP_INS);
        for arguments in [&["daemon-reload"][..], &["stop", UNIT], &["reset-failed", UNIT]] {
            let _ = Command::new("systemctl").args(arguments).output();
        }
        let _ = fs::remove_dir_all("/var/lib/pointsman");
    }
}

/// A process that cannot be taken for a later one of its number.
struct Process {
    number: u32,
    pidfd: OwnedFd,
}

impl Process {
    #[track_caller]
    fn open(number: &str) -> Self {
        let number: i32 = number.trim().parse().expect("a process id");
        let pid = Pid::from_raw(number).expect("a process");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
        Self { number: pid.as_raw_nonzero().get().unsigned_abs(), pidfd }
    }

    fn kill(&self) {
        pidfd_send_signal(&self.pidfd, Signal::KILL).expect("it runs");
        self.wait();
    }

    #[track_caller]
    fn wait(&self) {
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&PATIENCE));
        assert_eq!(ended, Ok(1), "{} does not end", self.number);
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.number.to_string()).join(name)
    }
}

/// Runs `systemctl`, which waits until what it was told is done.
#[track_caller]
fn systemctl(arguments: &[&str]) -> String {
    run(Command::new("systemctl").args(arguments))
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it can be run");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {stderr}");
    String::from_utf8_lossy(&stdout).into_owned()
}

/// A client that has the lcore.
fn holder(lcore: u16) -> Client {
    let mut client = client();
    assert_eq!(get(&mut client, lcore), 0, "granted");
    client
}

fn client() -> Client {
    Client::register(Path::new(SOCKET), Dialect::Libmtl).expect("a client")
}

#[track_caller]
fn get(client: &mut Client, lcore: u16) -> i32 {
    client.ask(&request::get_lcore(lcore)).expect("an answer").value
}

/// That `client` is served, still has the lcore, and nobody else gets it.
#[track_caller]
fn assert_held(client: &mut Client, lcore: u16) {
    let alive = client.ask(&request::heartbeat(7)).expect("it is connected still");
    assert_eq!((alive.kind, alive.value), (204, 7));
    assert!(get(&mut self::client(), lcore) < 0, "it has an owner");
    let put = request::put_lcore(client.dialect(), lcore);
    assert_eq!(client.ask(&put).expect("an answer").value, 0, "given back by its owner");
    assert_eq!(get(client, lcore), 0, "and taken again");
}

/// That the chain on `v1` decides, whether or not anybody runs who looks after it.
#[track_caller]
fn assert_filtered(pair: &Pair) {
    assert_eq!(received(pair, &[5001], 5999, 5), [0]);
}
