//! The C client: it compiles without a warning wherever it may be included, and talks as the Rust
//! one does.

use crate::fake::{Fake, Says, nowhere, record};
use pointsman_xsk::manager::Manager;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the header and its example are.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A compiler that takes every warning for an error.
fn strict(compiler: &str) -> Command {
    let told = std::env::var_os(if compiler == "cc" { "CC" } else { "CXX" });
    let mut command = Command::new(told.unwrap_or_else(|| compiler.into()));
    command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"]).arg(root().join("include"));
    command
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn compile(source: &Path, into: &Path) -> PathBuf {
    let program = into.join(source.file_stem().unwrap());
    succeeds(strict("cc").arg(source).arg("-o").arg(&program));
    program
}

fn exchange(script: Vec<Says>, milliseconds: u32) -> (String, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manager/exchange.c");
    let program = compile(&source, directory.path());
    let fake = Fake::saying(script);
    let mut command = Command::new(program);
    let Output { stdout, .. } =
        command.arg(fake.socket()).args(["7", &milliseconds.to_string()]).output().unwrap();
    (String::from_utf8(stdout).unwrap(), fake.heard())
}

#[test]
fn header_and_example_compile_without_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let header = root().join("include/pointsman.h");
    for dialect in ["c99", "c11", "gnu17"] {
        let standard = format!("-std={dialect}");
        let check = ["-Wpedantic", "-fsyntax-only", "-x", "c", &standard];
        succeeds(strict("cc").args(check).arg(&header));
    }
    // Headers are for C++ as well, and not everybody has a compiler for it.
    if Command::new("c++").arg("--version").output().is_ok() {
        let check = ["-Wpedantic", "-fsyntax-only", "-x", "c++", "-std=c++17"];
        succeeds(strict("c++").args(check).arg(&header));
    }
    compile(&root().join("examples/receiver.c"), directory.path());
}

#[test]
fn the_c_client_asks_as_the_rust_one_does() {
    let done = || Says::Record(201, 0);
    let script = || {
        let beat = |number| Says::Record(204, number);
        let numbers = [Says::Record(202, 3), Says::WithNull(b" ".to_vec()), done()];
        let rest = [Says::Record(203, 9), done(), done(), Says::Record(201, -22), beat(2)];
        [vec![beat(1), done()], numbers.to_vec(), rest.to_vec()].concat()
    };
    let (said, by_c) = exchange(script(), 10_000);
    let wanted = "connect 0 done\nheartbeat 0 done\nregister 0 done\nqueue 3 done\n\
        map -61 the manager has none for this client\nport 0 done\nsteer 9 done\nunsteer 0 done\n\
        no port 0 done\n\
        no queue -22 there is no such thing, or this client does not have it\nheartbeat 0 done\n";
    assert_eq!(said, wanted);

    let fake = Fake::saying(script());
    let mut manager = Manager::connect(&fake.socket()).unwrap();
    manager.heartbeat().unwrap();
    manager.register(&[7]).unwrap();
    manager.take_queue(7).unwrap();
    manager.map(7).unwrap_err();
    manager.add_port(7, 20_000).unwrap();
    manager.steer(7, 20_000, 3).unwrap();
    manager.unsteer(7, 9).unwrap();
    manager.delete_port(7, 20_000).unwrap();
    manager.give_queue(7, 3).unwrap_err();
    manager.heartbeat().unwrap();
    drop(manager);
    let mut by_rust = fake.heard();
    // The one thing that differs is whose process it is.
    by_rust[1][12..16].copy_from_slice(&by_c[1][12..16]);
    assert_eq!(by_c, by_rust);
}

#[test]
fn the_c_client_takes_every_failure_as_one() {
    // Silence, a late answer, and what is no map in 1.1.
    let late = [record(204, 1), record(201, 0)].concat();
    let script = vec![
        Says::Nothing,
        Says::Bytes(late),
        Says::Record(202, -28),
        Says::Bytes(b"E".to_vec()),
        Says::Record(201, -16),
        Says::Record(203, -95),
        Says::Record(202, 0),
    ];
    let (said, _) = exchange(script, 300);
    let wanted = "connect 0 done\nheartbeat -110 the manager does not answer\nregister 0 done\n\
        queue -28 none is left, or this client has as many as it may\n\
        map -61 the manager has none for this client\nport -16 somebody else has it\n\
        steer -95 the manager cannot do that here\n\
        unsteer -71 what came is no answer: is that a manager?\n";
    assert!(said.starts_with(wanted), "{said}");
    // From there on nothing is asked any more.
    assert_eq!(said.matches("-107 the connection was lost before").count(), 3, "{said}");

    for (says, wanted) in [
        (Says::End, "register -104 the manager ended the connection"),
        (Says::Bytes(b"HTTP/1.1 400 Bad Request".to_vec()), "register -71"),
        (Says::Bytes(record(201, 0)[..50].to_vec()), "register -71"),
        (Says::Bytes(b"E".to_vec()), "register -71"),
        (Says::Record(201, 7), "register -71"),
    ] {
        let (said, _) = exchange(vec![Says::Record(204, 1), says], 300);
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn the_example_names_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = compile(&root().join("examples/receiver.c"), directory.path());
    let socket = nowhere(directory.path());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&receiver);
        command.args(arguments).env("MTL_MANAGER_SOCK_PATH", &socket).output().unwrap()
    };
    let says = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&["--help"]).status.success());
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(says(&["lo", "65536"]), "receiver: 65536 is no UDP port\n");
    assert_eq!(says(&["lo", "-1"]), "receiver: -1 is no UDP port\n");
    assert_eq!(says(&["no-such", "1"]), "receiver: there is no interface no-such here\n");
    let nobody = "receiver: cannot connect to the manager: no manager runs there\n";
    assert_eq!(says(&["lo", "1"]), nobody);
}
