//! What the examples say where something is wrong.

use crate::fake::{Fake, Says, nowhere};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An example, which cargo builds with the tests: in TARGET/debug/examples beside TARGET/debug/deps.
fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(Path::parent).unwrap();
    profile.join("examples").join(name)
}

#[track_caller]
fn fails(name: &str, manager: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(example(name));
    let output = command.args(arguments).env("MTL_MANAGER_SOCK_PATH", manager).output();
    let Output { status, stderr, .. } = output.unwrap();
    assert!(!status.success(), "{name} {arguments:?}");
    String::from_utf8(stderr).unwrap()
}

#[test]
fn examples_say_what_they_want() {
    for name in ["receiver", "sender"] {
        let output = Command::new(example(name)).arg("--help").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains("--interface"), "{said}");
    }
    let nobody = Path::new("/no/manager");
    let said = fails("receiver", nobody, &["--interface", "lo", "--port", "0"]);
    assert!(said.contains("invalid value '0' for '--port"), "{said}");
    let said = fails("receiver", nobody, &["--interface", "lo", "--map", "/x"]);
    assert!(said.contains("--queue"), "{said}");
    let addresses = ["--source", "10.0.0.1", "--destination", "10.0.0.2"];
    let said = fails("sender", nobody, &[&["--interface", "no-such"][..], &addresses].concat());
    assert!(said.contains("there is no interface no-such here"), "{said}");
}

#[test]
fn the_receiver_names_interface_manager_and_reason() {
    let directory = tempfile::tempdir().unwrap();
    let socket = nowhere(directory.path());
    let said = fails("receiver", &socket, &["--interface", "no-such", "--port", "1"]);
    assert!(said.contains("there is no interface no-such here"), "{said}");
    let said = fails("receiver", &socket, &["--interface", "lo", "--port", "1"]);
    assert!(
        said.contains(socket.to_str().unwrap()) && said.contains("does pointsman-node"),
        "{said}"
    );

    let arguments = ["--interface", "lo", "--port", "1"];
    let fake = Fake::saying(vec![Says::Record(201, -95)]);
    let said = fails("receiver", &fake.socket(), &arguments);
    assert!(said.contains("cannot use lo") && said.contains("it cannot do that here"), "{said}");
    fake.heard();
    let fake = Fake::saying(vec![Says::Record(201, 0), Says::Record(202, -28)]);
    let said = fails("receiver", &fake.socket(), &arguments);
    assert!(said.contains("a queue of interface") && said.contains("none is left"), "{said}");
    assert_eq!(fake.heard().len(), 2, "it asks for nothing that it cannot use");
}
