//! In the place of the original, as docs/mtl.md has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Service, UNIT, assert_held, get, holder, run, systemctl};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// Where the package keeps an administrator's options.
const OPTIONS: &str = "/etc/default/pointsman-node";

/// What docs/mtl.md tells an operator to lay down.
fn drop_in() -> &'static str {
    let page = include_str!("../../../../../docs/mtl.md");
    let behind = page.split_once("```ini\n").expect("the page has the drop-in").1;
    behind.split_once("```").expect("an end of it").0
}

#[test]
fn scripts_find_it_under_the_originals_name() {
    let Some(service) = Service::start("systemd::original::name") else { return };
    // As the package installs it.
    assert_eq!(fs::read_link("/usr/bin/MtlManager").unwrap(), Path::new("pointsman-node"));
    fs::create_dir_all("/etc/default").unwrap();
    fs::write(OPTIONS, "POINTSMAN_NODE_OPTIONS=\"--max-clients 77\"\n").unwrap();
    service.drop_in(drop_in());
    systemctl(&["restart", UNIT]);
    service.assert_active(0);
    let found = run(Command::new("pgrep").args(["-x", "MtlManager"]));
    assert_eq!(found.trim(), service.keeper().number.to_string(), "it, and nothing beside it");
    let line = fs::read_to_string(service.keeper().file("cmdline")).unwrap();
    assert!(line.ends_with("--fd-store\0--max-clients\x0077\0"), "{line:?}");
    let mut client = holder(3);
    let engine = service.engine();
    systemctl(&["reload", UNIT]);
    engine.wait();
    assert_held(&mut client, 3);
    systemctl(&["restart", UNIT]);
    assert_held(&mut client, 3);
    assert_eq!(service.stop(), "success exited 0");
    assert!(client.ended().unwrap());
    systemctl(&["start", UNIT]);
    assert_eq!(get(&mut super::client(), 3), 0);
    fs::remove_file(OPTIONS).unwrap();
}

/// Containers have the directory mounted, and another manager may serve from it.
#[test]
fn the_directory_of_the_socket_is_nobodys_alone() {
    let Some(service) = Service::start("systemd::original::directory") else { return };
    let directory = Path::new("/run/imtl");
    let inode = fs::metadata(directory).unwrap().ino();
    let others = directory.join("others.sock");
    let _listener = UnixListener::bind(&others).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o775)).unwrap();
    assert_eq!(service.stop(), "success exited 0");
    systemctl(&["start", UNIT]);
    let found = fs::metadata(directory).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o777), (inode, 0o775), "it is as it was");
    assert!(others.exists());
    assert_eq!(get(&mut super::client(), 3), 0, "and it is served from it");
    // Where it is missing, it is made.
    systemctl(&["stop", UNIT]);
    fs::remove_dir_all(directory).unwrap();
    systemctl(&["start", UNIT]);
    assert_eq!(get(&mut super::client(), 3), 0);
}
