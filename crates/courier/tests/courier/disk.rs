//! Disks that are full, read-only, or not ours.

use crate::stage::process::{BINARY, Running, eventually};
use crate::stage::{NODE, Stage, run};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// A courier whose drop directory is a small file system, in a mount namespace of its own. What it
/// has there is looked at through /proc.
fn on_a_small_disk(stage: &Stage) -> Option<(Running, PathBuf)> {
    let drop = stage.path("drop");
    fs::create_dir_all(&drop).unwrap();
    let mut shell = Command::new(BINARY);
    stage.arguments(&mut shell, &[]);
    let script = r#"mount -t tmpfs -o size=256k none "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&drop).arg(BINARY).args(shell.get_args());
    let courier = Running::spawn(command, &stage.path("log"));
    let inside = PathBuf::from(format!("/proc/{}/root{}", courier.child.id(), drop.display()));
    Some((courier, inside))
}

#[test]
fn a_full_disk_is_an_error_that_says_so_and_the_old_state_stays() {
    let test = "disk::a_full_disk_is_an_error_that_says_so_and_the_old_state_stays";
    if !rustix::process::geteuid().is_root() {
        println!("SKIP {test}: needs root");
        return;
    }
    let mut stage = Stage::new();
    stage.enrolled();
    let small = stage.fleet.object(&[1; 10_000]);
    stage.fleet.publish_one(NODE, 1, std::slice::from_ref(&small));
    let Some((courier, drop)) = on_a_small_disk(&stage) else { return };
    let key = stage.fleet.key.public_key().clone();
    let in_place = || {
        drop.join("snapshot.cdb")
            .exists()
            .then(|| crate::stage::watcher::generation(&drop, &key))?
    };
    eventually("generation 1", || (in_place() == Some(1)).then_some(()));
    let file = drop.join("snapshot.cdb");
    let before = fs::read(&file).unwrap();

    // An object that does not fit.
    let large = stage.fleet.object(&vec![2; 400_000]);
    stage.fleet.publish_one(NODE, 2, std::slice::from_ref(&large));
    courier.await_log("free space");
    let log = courier.log();
    assert!(log.contains("disk_full") && log.contains(&large.sha256.to_string()), "{log}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let unfinished = || fs::read_dir(drop.join(".courier")).unwrap().count() - 1;
    eventually("the part to be given up", || (unfinished() == 0).then_some(()));
    stage.server.await_seen(|seen| {
        seen.iter().any(|seen| String::from_utf8_lossy(&seen.body).contains("free space"))
    });

    // A record that does not fit: somebody else has taken the rest of the disk.
    fs::write(drop.join(".courier/ballast"), vec![0; 300_000]).unwrap_err();
    stage.fleet.publish_one(NODE, 3, &[small]);
    stage.server.take();
    stage.server.await_seen(|seen| {
        seen.iter().any(|seen| seen.path.contains("shards/"))
            && seen.iter().filter(|seen| seen.path == "/v1/report").count() > 1
    });
    assert_eq!(fs::read(&file).unwrap(), before);

    // There is room again.
    fs::remove_file(drop.join(".courier/ballast")).unwrap();
    eventually("generation 3", || (in_place() == Some(3)).then_some(()));
    courier.await_log("source: well again");
    assert!(courier.stop().success());
}

#[test]
fn a_directory_of_somebody_else_is_named_with_what_to_do() {
    let mut stage = Stage::new();
    stage.fleet.publish_one(NODE, 1, &[]);
    fs::create_dir(stage.path("parent")).unwrap();
    fs::set_permissions(stage.path("parent"), Permissions::from_mode(0o500)).unwrap();
    let open = |drop: &str| stage.open(drop);
    let error = open("not/there").unwrap_err().to_string();
    assert!(error.contains("cannot create") && error.contains("not/there"), "{error}");
    fs::write(stage.path("file"), "").unwrap();
    let error = open("file").unwrap_err().to_string();
    assert!(error.contains("cannot open") && error.contains("file"), "{error}");
    if rustix::process::geteuid().is_root() {
        println!("SKIP disk::a_directory_of_somebody_else_is_named_with_what_to_do: root may all");
        return;
    }
    let error = open("parent/drop").unwrap_err().to_string();
    assert!(error.contains("chown"), "{error}");
}

#[test]
fn links_in_the_drop_directory_lead_nowhere() {
    let mut stage = Stage::new();
    let object = stage.fleet.object(b"object");
    stage.fleet.publish_one(NODE, 1, std::slice::from_ref(&object));
    let elsewhere = stage.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let victim = elsewhere.join("victim");
    fs::write(&victim, "precious").unwrap();
    let link = |name: &str| {
        let _ = fs::remove_file(stage.path(name));
        std::os::unix::fs::symlink(&victim, stage.path(name)).unwrap();
    };
    let mut courier = stage.courier();
    link("drop/snapshot.cdb");
    link(&format!("drop/objects/{}", object.sha256));
    link(&format!("drop/.courier/{}.part", object.sha256));
    link("drop/.courier/snapshot.cdb.part");
    link("cache/record");
    link("cache/state.json.part");
    run(courier.poll_once()).unwrap();
    assert_eq!(stage.in_place(), Some(1));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    drop(courier);
    // A directory that is one.
    fs::remove_dir_all(stage.path("drop/objects")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, stage.path("drop/objects")).unwrap();
    let error = stage.open("drop").unwrap_err();
    assert!(error.to_string().contains("drop/objects"), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
}
