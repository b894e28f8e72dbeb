//! Hosts on which no chain can run: leases are served there as well.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::clients::socket;
use super::dropin::renamed;
use super::{notes, passing, scene};
use pointsman_imtl_client::request::{get_lcore, put_lcore};
use pointsman_imtl_client::{Client, Dialect};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ADVICE: &str = "mount -t bpf bpf /sys/fs/bpf";

/// A BPF filesystem that is mounted while the daemon runs.
struct Late(PathBuf);

impl Late {
    fn mount(path: &Path) -> Self {
        mount("bpf", path, "bpf", MountFlags::empty(), None).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        if let Err(error) = unmount(&*self.0, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

#[test]
fn without_a_bpf_filesystem_lcores_are_served_and_chains_refused_until_one_is_mounted() {
    let (host, pair) = scene();
    let pins = host.path("pins");
    fs::create_dir(&pins).unwrap();
    let command = renamed(&host, &host.command_with(&pins.join("pointsman")));
    let daemon = host.start_as(&pair.right, command).unwrap();
    let mut client = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    assert_eq!(client.ask(&get_lcore(3)).unwrap().value, 0);
    let status = daemon.status();
    assert!(notes(&status, "no chain can run on this host") && notes(&status, ADVICE));
    let health = daemon.ask(&["doctor"], b"").value.to_string();
    assert!(health.contains("mount -t bpf bpf"), "{health}");

    // A chain is refused by name, and the rest of its document is in force.
    let mut document = passing(1);
    document["lcores"] = json!({"reserve": [1]});
    let answer = daemon.apply(&document);
    assert_eq!(answer.code, 3, "{answer:#?}");
    let refusal = &answer.value["refusals"][0];
    assert_eq!(refusal["hook"]["interface"], "v1", "{refusal:#}");
    assert!(refusal["message"].as_str().is_some_and(|why| why.contains(ADVICE)), "{refusal:#}");
    let lcores = daemon.ask(&["lcores"], b"").value;
    assert_eq!(lcores["reserved"], "1", "{lcores:#}");

    // A crash is survived here too.
    daemon.kill_engine().unwrap();
    daemon.ready_again().unwrap();
    assert_eq!(client.ask(&put_lcore(Dialect::Libmtl, 3)).unwrap().value, 0);
    assert_eq!(client.ask(&get_lcore(3)).unwrap().value, 0);

    let late = Late::mount(&pins);
    let mut again = passing(2);
    again["lcores"] = document["lcores"].clone();
    daemon.apply_whole(&again);
    assert_eq!(daemon.hook()["state"], "running");
    assert!(!notes(&daemon.status(), "no chain can run"));
    assert_eq!(client.ask(&put_lcore(Dialect::Libmtl, 3)).unwrap().value, 0, "it is held still");
    assert_eq!(daemon.ask(&["drain", "--yes"], b"").code, 0);
    assert_eq!(daemon.stop(Signal::INT).unwrap().code(), Some(0));
    drop(late);
}

/// As the original does: whoever may write to the directory of the socket may start it.
#[test]
fn without_privileges_lcores_are_served() {
    let (host, pair) = scene();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    // A copy, because nobody may read where the tests are built.
    let copy = host.path("pointsman-node");
    fs::copy(host.command().get_program(), &copy).unwrap();
    command.arg(copy).args(host.command().get_args()).env_remove("NOTIFY_SOCKET");
    fs::set_permissions(host.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    for directory in ["run", "state"] {
        fs::create_dir(host.path(directory)).unwrap();
        std::os::unix::fs::chown(host.path(directory), Some(65534), Some(65534)).unwrap();
    }
    let daemon = host.start_open_to(&pair.right, command, 65534).unwrap();
    let mut client = Client::register(&socket(&host), Dialect::Mtlm).unwrap();
    assert_eq!(client.ask(&get_lcore(3)).unwrap().value, 0);
    let status = daemon.status();
    assert!(notes(&status, "no chain can run on this host") && notes(&status, "CAP_BPF"));
    assert_eq!(daemon.apply(&passing(1)).code, 3);
    drop(client);
}
