//! In the place of the original: its name, its options, its exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::clients::socket;
use super::scene;
use pointsman_imtl_client::{Client, Dialect, request};
use pointsman_netns::daemon::{Host, binary};
use rustix::process::Signal;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// The daemon's command under the original's name.
fn original(host: &Host) -> Command {
    renamed(host, &host.command())
}

pub(super) fn renamed(host: &Host, plain: &Command) -> Command {
    let link = host.path("MtlManager");
    let _ = std::fs::remove_file(&link);
    symlink(binary("pointsman-node"), &link).unwrap();
    let mut command = Command::new(link);
    command.args(plain.get_args()).env_remove("NOTIFY_SOCKET");
    command
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned()
}

#[test]
fn it_bears_the_originals_name_and_ends_as_that_did() {
    let (host, pair) = scene();
    let mut command = original(&host);
    command.stdout(std::fs::File::create(host.path("stdout")).unwrap());
    let daemon = host.start_as(&pair.right, command).unwrap();
    assert_eq!(name_of(daemon.pid()), "MtlManager", "pgrep -x finds it");
    assert_eq!(name_of(daemon.engine()), "pointsman-node", "and only it");
    let mut client = Client::register(&socket(&host), Dialect::Libmtl).unwrap();
    for request in [request::get_lcore(3), request::put_lcore(Dialect::Libmtl, 3)] {
        assert_eq!(client.ask(&request).unwrap().value, 0);
    }

    // B-23: a second one, with a run directory of its own, leaves this one alone.
    let other = Host::new().unwrap();
    let mut second = original(&other);
    second.arg("--sock-path").arg(socket(&host));
    let second = pair.right.run(move || second.output()).unwrap();
    assert_eq!(second.status.code(), Some(255), "{second:?}");
    let said = String::from_utf8_lossy(&second.stdout);
    assert!(said.contains("mtl_manager.sock is in use"), "{said}");
    Client::register(&socket(&host), Dialect::Mtlm).expect("the first one serves on");

    assert_eq!(daemon.stop(Signal::INT).unwrap().code(), Some(0));
    assert!(client.ended().unwrap());
    assert!(!socket(&host).exists(), "B-30: it is left");
    // What scripts wait for.
    let log = std::fs::read_to_string(host.path("stdout")).unwrap();
    for line in ["MTL Manager version: ", "MTL Manager is running on ", "MTL Manager exited."] {
        assert_eq!(log.matches(&format!("] [INFO] {line}")).count(), 1, "{line:?} in {log}");
    }
    // And what they read of each client.
    let pid = std::process::id();
    for text in ["Registered, ", "Added lcore 3\n", "Removed lcore 3\n"] {
        let line = format!("] [INFO] [Instance tests:{pid}] {text}");
        assert!(log.contains(&line), "{line:?} is not in {log}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_rights_are_set() {
    let (host, pair) = scene();
    let stale = host.path("elsewhere.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let mut command = original(&host);
    command.arg("--imtl-socket").arg(&stale);
    command.args(["--socket-mode", "0660", "--socket-group", "7", "--max-clients", "10"]);
    let daemon = host.start_as(&pair.right, command).unwrap();
    let _client = Client::register(&stale, Dialect::Mtlm).unwrap();
    let found = std::fs::metadata(&stale).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, 7));
    drop(daemon);
}

#[test]
fn what_it_is_asked_it_answers_without_starting() {
    let (host, _pair) = scene();
    let ask = |option: &str| {
        let output = original(&host).arg(option).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{option}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Scripts look for "version" followed by what it is.
    let version = ask("--version");
    assert!(version.starts_with("MtlManager version: "), "{version}");
    let path = ask("--print-sock-path");
    assert_eq!(Path::new(path.trim()), socket(&host));
    let help = ask("--help");
    for option in ["--imtl-socket", "--socket-mode", "--socket-group", "--max-clients"] {
        assert!(help.contains(option), "{help}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let (host, pair) = scene();
    let mut command = original(&host);
    command.args(["--sock-path", "/proc/no/such/mtl_manager.sock"]);
    let output = pair.right.run(move || command.output()).unwrap();
    assert_eq!(output.status.code(), Some(251), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("cannot create /proc/no/such"), "{said}");
}
