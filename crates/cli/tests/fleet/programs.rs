//! Uploads and downloads.

use crate::fake_control::{Answer, FakeControl, User, code, stderr, stdout};
use pointsman_model::Sha256;
use serde_json::{Value, json};
use std::fs;

fn program(object: &[u8], revision: u64) -> Value {
    json!({"name": "ddos", "revision": revision, "sha256": Sha256::of(object).to_string(),
           "bytes": object.len(), "uploaded_unix_ms": 0, "uploaded_by": "alice",
           "summary": {"licence": "GPL", "has_btf": true, "programs": [], "maps": [],
                       "globals": []}})
}

/// A library with one place, at first empty.
fn library() -> FakeControl {
    let mut kept: Option<(Vec<u8>, u64)> = None;
    let mut faster = true;
    FakeControl::new(move |request| {
        let path = "/v1/programs/ddos";
        if request.is(&format!("GET {path}")) {
            return match &kept {
                Some((object, revision)) => Answer::ok(&program(object, *revision)),
                None => Answer::not_found(),
            };
        }
        if request.is(&format!("GET {path}/object")) {
            return Answer::octets(&kept.as_ref().unwrap().0);
        }
        assert!(request.is(&format!("PUT {path}")), "{request:?}");
        assert_eq!(request.header("content-type"), Some("application/octet-stream"));
        let expected = match &kept {
            Some((_, revision)) => (Some(format!("\"{revision}\"")), None),
            None => (None, Some("*")),
        };
        let matches = request.header("if-match").map(str::to_owned);
        assert_eq!((matches, request.header("if-none-match")), expected);
        // Somebody else is faster, once.
        if std::mem::take(&mut faster) {
            kept = Some((b"another".to_vec(), 1));
            return Answer::conflict();
        }
        let revision = kept.as_ref().map_or(1, |(_, revision)| revision + 1);
        kept = Some((request.body.clone(), revision));
        Answer::ok(&program(&request.body, revision))
    })
}

#[test]
fn an_object_goes_up_and_comes_back_as_it_was() {
    let (control, user) = (library(), User::new());
    // More than one piece of a body.
    let object: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    let file = user.file("ddos.o", &object);
    let output = user.run(&control, &["program", "upload", "ddos", &file]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).starts_with("program ddos replaced"), "{output:?}");
    assert_eq!(stderr(&output), "", "no progress where nobody watches");

    let back = user.home().join("back.o");
    let output = user.run(&control, &["program", "get", "ddos", "-o", back.to_str().unwrap()]);
    assert_eq!((code(&output), stdout(&output)), (0, ""), "{output:?}");
    assert_eq!(fs::read(&back).unwrap(), object);
    assert_eq!(user.run(&control, &["program", "get", "ddos"]).stdout, object);

    // The same again is not sent.
    let puts = |control: &FakeControl| {
        control.lines().iter().filter(|line| line.starts_with("PUT")).count()
    };
    assert_eq!(puts(&control), 2);
    let output = user.run(&control, &["program", "upload", "ddos", &file]);
    assert!(stdout(&output).starts_with("program ddos is there already"), "{output:?}");
    assert_eq!(puts(&control), 2);
    let output = User::tell(&mut user.at(&control, &["program", "upload", "ddos", "-"]), b"new");
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(control.requests().last().unwrap().body, b"new");
}

#[test]
fn what_is_too_large_or_not_there_is_not_sent() {
    let user = User::new();
    let control = FakeControl::new(|_| panic!("nothing is sent"));
    let file = user.file("large.o", vec![0; (16 << 20) + 1]);
    let output = user.run(&control, &["program", "upload", "ddos", &file]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("larger than the limit of 16777216 bytes"), "{output:?}");
    let output = user.run(&control, &["program", "upload", "ddos", "/nonexistent.o"]);
    assert!(stderr(&output).contains("cannot read /nonexistent.o"), "{output:?}");
}

#[test]
fn an_object_that_is_not_what_it_is_said_to_be_is_not_written() {
    let user = User::new();
    let control = FakeControl::new(|request| match request.line.ends_with("/object") {
        true => Answer::octets(b"something else"),
        false => Answer::ok(&program(b"the object", 1)),
    });
    let file = user.file("kept.o", "as it was");
    let output = user.run(&control, &["program", "get", "ddos", "--output", &file]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert!(stderr(&output).contains("the object has sha256"), "{output:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "as it was");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let user = User::new();
    let control = FakeControl::new(|_| Answer::not_found());
    for arguments in [&["program", "show", "ddos"][..], &["program", "rm", "ddos", "-y"]] {
        let output = user.run(&control, arguments);
        assert_eq!(code(&output), 1);
        assert_eq!(stderr(&output), "pointsman: there is no program ddos\n");
    }
}
