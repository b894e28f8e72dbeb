//! Binaries that are installed while clients are connected, good ones and bad ones.

use crate::scene::{Keeper, echo, record};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Puts a binary in the place of the one that is there, as a package manager does.
fn install(keeper: &Keeper, aside: &Path) {
    fs::rename(aside, keeper.path("program")).unwrap();
}

fn script(keeper: &Keeper, text: &str) -> std::path::PathBuf {
    let path = keeper.path("aside");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn copy(keeper: &Keeper, from: &Path) -> std::path::PathBuf {
    let path = keeper.path("aside");
    fs::copy(from, &path).unwrap();
    path
}

fn runs(keeper: &Keeper) -> u64 {
    fs::metadata(format!("/proc/{}/exe", keeper.engine())).unwrap().ino()
}

#[test]
fn a_bad_binary_is_given_up_for_the_one_that_worked_and_clients_stay() {
    let mut keeper = Keeper::start();
    let mut client = keeper.client();
    client.echo(&record(b"echo", 1));
    let worked = runs(&keeper);
    let bad: [fn(&Keeper) -> std::path::PathBuf; 4] = [
        // No program at all, one that fails, one that ends well, and one that is not for here.
        |keeper| script(keeper, "rubbish"),
        |keeper| copy(keeper, Path::new("/bin/false")),
        |keeper| copy(keeper, Path::new("/bin/true")),
        |keeper| {
            let path = script(keeper, "x");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            path
        },
    ];
    for (round, bad) in (1..).zip(bad) {
        install(&keeper, &bad(&keeper));
        client.send(&record(b"echo", round));
        assert!(client.reply() == record(b"echo", round));
        keeper.signal(Signal::HUP);
        // The first one that is ready again is the one that worked.
        keeper.ready();
        client.echo(&record(b"echo", 100 + round));
        assert_eq!(runs(&keeper), worked);
        let log = keeper.log();
        let told = log.matches("failed 5 times in a row").count();
        assert_eq!(told as u64, round, "{log}");
    }
    // It is started again if it dies, although it is not what is installed.
    client.echo(&record(b"CRSH", 1));
    keeper.ready();
    assert_eq!(runs(&keeper), worked);
    // A missing one is as bad; and a good one, once it is installed, is taken.
    fs::remove_file(keeper.path("program")).unwrap();
    keeper.signal(Signal::HUP);
    keeper.ready();
    assert_eq!(runs(&keeper), worked);
    install(&keeper, &copy(&keeper, &echo()));
    let installed = fs::metadata(keeper.path("program")).unwrap().ino();
    keeper.signal(Signal::HUP);
    keeper.ready();
    assert_eq!(runs(&keeper), installed);
    client.echo(&record(b"echo", 2));
}

/// It serves, and dies of what the one before could do: so it never serves for long.
#[test]
fn a_binary_that_serves_and_dies_soon_is_given_up_too() {
    let mut keeper = Keeper::start();
    let mut client = keeper.client();
    let worked = runs(&keeper);
    install(&keeper, &copy(&keeper, &echo()));
    keeper.signal(Signal::HUP);
    keeper.ready();
    assert_ne!(runs(&keeper), worked);
    for round in 0..5 {
        client.echo(&record(b"CRSH", round));
        keeper.ready();
    }
    assert_eq!(runs(&keeper), worked, "{}", keeper.log());
    client.echo(&record(b"echo", 9));
}

/// A kill from outside is no fault of the binary.
#[test]
fn a_binary_that_others_kill_is_kept() {
    let mut keeper = Keeper::start();
    install(&keeper, &copy(&keeper, &echo()));
    let installed = fs::metadata(keeper.path("program")).unwrap().ino();
    keeper.signal(Signal::HUP);
    keeper.ready();
    for _ in 0..7 {
        rustix::process::kill_process(keeper.engine(), Signal::KILL).unwrap();
        keeper.ready();
    }
    assert_eq!(runs(&keeper), installed, "{}", keeper.log());
}
