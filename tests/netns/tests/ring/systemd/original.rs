//! In the place of the original, as docs/mtl.md has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Service, UNIT, assert_held, get, holder, run, systemctl};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What docs/mtl.md tells an operator to lay down.
const DROP_IN: &str = "[Service]\nExecStart=\nExecStart=/usr/local/bin/MtlManager --fd-store\n";

#[test]
fn scripts_find_it_under_the_originals_name() {
    let Some(service) = Service::start("systemd::original::name") else { return };
    let link = Path::new("/usr/local/bin/MtlManager");
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink("/usr/bin/pointsman-node", link).unwrap();
    service.drop_in(DROP_IN);
    systemctl(&["restart", UNIT]);
    service.assert_active(0);
    let found = run(Command::new("pgrep").args(["-x", "MtlManager"]));
    assert_eq!(found.trim(), service.keeper().number.to_string(), "it, and nothing beside it");
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
}
