//! Policies: made, replaced, compared, edited.

use crate::fake_control::{Answer, FakeControl, User, code, stderr, stdout};
use crate::samples::{change, diff, policy, spec};
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::{NodeOutcome, PolicyDiff};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Output;

/// A control plane with one policy in it. `faster`: what somebody else saves before the first
/// save arrives.
fn control(faster: Option<Value>) -> FakeControl {
    let mut kept = (3, spec());
    let mut faster = faster;
    FakeControl::new(move |request| {
        if request.is("GET /v1/policies/guard") {
            return Answer::ok(&policy(kept.0, &kept.1));
        }
        if request.is("POST /v1/policies/guard/diff") {
            return Answer::ok(&diff(vec![change("edge-1", NodeOutcome::Changed)]));
        }
        assert!(request.is("PUT /v1/policies/guard"), "{request:?}");
        if let Some(other) = faster.take() {
            kept = (4, other);
        }
        if request.header("if-match") != Some(&format!("\"{}\"", kept.0)) {
            return Answer::conflict();
        }
        let new: Value = request.json();
        if new.get("interface").is_none() {
            let error = [("/interface", "missing field")];
            return Answer::problem(422, ProblemKind::InvalidDocument, &error);
        }
        kept = (kept.0 + 1, new);
        Answer::ok(&policy(kept.0, &kept.1))
    })
}

/// Edits with a shell command that gets the file as `$1`.
fn edit(user: &User, control: &FakeControl, script: &str, arguments: &[&str]) -> Output {
    let editor = user.file("editor.sh", script);
    let arguments = [&["policy", "edit", "guard"], arguments].concat();
    user.at(control, &arguments).env("EDITOR", format!("sh {editor}")).output().unwrap()
}

fn puts(control: &FakeControl) -> Vec<Value> {
    let puts = control.requests().into_iter().filter(|request| request.line.starts_with("PUT"));
    puts.map(|request| request.json()).collect()
}

/// Where an error says that what was written is kept.
fn kept(output: &Output) -> PathBuf {
    let text = stderr(output);
    let path = text.split("what was written is kept in ").nth(1);
    path.unwrap_or_else(|| panic!("{text}")).lines().next().unwrap().into()
}

#[test]
fn a_new_policy_is_made_and_one_that_is_there_is_not_overwritten() {
    let user = User::new();
    let there = FakeControl::new(|request| {
        assert_eq!(request.header("if-none-match"), Some("*"));
        Answer::conflict()
    });
    let file = user.file("guard.json", spec().to_string());
    let output = user.run(&there, &["policy", "create", "guard", &file]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("policy guard is there already"), "{output:?}");
    let empty = FakeControl::new(|request| Answer::ok(&policy(1, &request.json())));
    let mut command = user.at(&empty, &["policy", "create", "guard", "-"]);
    let output = User::tell(&mut command, spec().to_string().as_bytes());
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).starts_with("policy guard made (revision 1)\n"), "{output:?}");
}

#[test]
fn a_put_replaces_what_is_there_or_only_a_revision() {
    let user = User::new();
    let file = user.file("guard.json", spec().to_string());
    let faster = control(Some(json!({"selector": {"all": true}, "interface": "x", "chain": []})));
    let output = user.run(&faster, &["policy", "put", "guard", &file]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("revision 4 -> 5"), "{output:?}");
    let output = user.run(&faster, &["policy", "put", "guard", &file, "--if-revision", "4"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains("says 412"), "{output:?}");
    let output = user.run(&faster, &["policy", "put", "guard", &file, "--if-revision", "5"]);
    assert_eq!(code(&output), 0, "{output:?}");
}

#[test]
fn a_difference_ends_with_a_code_for_nothing_something_and_refused() {
    let user = User::new();
    let file = user.file("guard.json", "{}");
    let none = PolicyDiff { policy: String::new(), nodes: vec![] };
    for (would, expected) in [
        (none, 0),
        (diff(vec![]), 4),
        (diff(vec![change("a", NodeOutcome::Changed)]), 4),
        (diff(vec![change("a", NodeOutcome::Changed), change("b", NodeOutcome::WouldEmpty)]), 3),
    ] {
        let control = FakeControl::new(move |_| Answer::ok(&would));
        let output = user.run(&control, &["policy", "diff", "guard", &file]);
        assert_eq!(code(&output), expected, "{output:?}");
        assert_eq!(control.requests()[0].body, b"{}");
        let output = user.run(&control, &["policy", "diff", "guard", "--rm"]);
        assert_eq!(code(&output), expected);
        assert_eq!(control.requests()[1].body, b"null");
    }
}

#[test]
fn an_edit_saves_over_what_was_read() {
    let (control, user) = (control(None), User::new());
    let output = edit(&user, &control, "sed -i 's/: 10/: 20/' \"$1\"", &["--yes"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("revision 3 -> 4"), "{output:?}");
    assert_eq!(puts(&control)[0]["chain"][0]["priority"], 20);
    // Nothing is left behind but the editor.
    let left: Vec<_> = fs::read_dir(user.home()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["editor.sh"]);

    let output = edit(&user, &control, "true", &["--yes"]);
    assert!(stdout(&output).contains("policy guard stays as it is (revision 4)"), "{output:?}");
    assert_eq!(puts(&control).len(), 1);
}

#[test]
fn changes_of_two_people_go_together_where_they_can() {
    let mut theirs = spec();
    theirs["description"] = json!("of alice");
    let (control, user) = (control(Some(theirs)), User::new());
    let output = edit(&user, &control, "sed -i 's/: 10/: 20/' \"$1\"", &["--yes"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stderr(&output).contains("alice changed it meanwhile (revision 4)"), "{output:?}");
    let saved = puts(&control).pop().unwrap();
    assert_eq!(saved["description"], "of alice");
    assert_eq!(saved["chain"][0]["priority"], 20);
}

#[test]
fn changes_of_the_same_are_a_conflict_and_nothing_written_is_lost() {
    let mut theirs = spec();
    theirs["chain"][0]["priority"] = json!(30);
    let (control, user) = (control(Some(theirs)), User::new());
    let output = edit(&user, &control, "sed -i 's/: 10/: 20/' \"$1\"", &["--yes"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains("alice changed the same meanwhile"), "{output:?}");
    assert!(stderr(&output).contains("/chain"), "{output:?}");
    let written: Value = serde_json::from_slice(&fs::read(kept(&output)).unwrap()).unwrap();
    assert_eq!(written["chain"][0]["priority"], 20);
}

#[test]
fn what_cannot_be_saved_is_kept() {
    let (control, user) = (control(None), User::new());
    for (script, words, text) in [
        ("echo '{' > \"$1\"", "EOF while parsing", "{\n"),
        ("echo '{\"chain\": []}' > \"$1\"", "/interface: missing field", "{\"chain\": []}\n"),
        ("echo half > \"$1\"; exit 3", "failed (exit status: 3)", "half\n"),
    ] {
        let output = edit(&user, &control, script, &["--yes"]);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(stderr(&output).contains(words), "{output:?}");
        let file = kept(&output);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(file.file_name().unwrap(), "guard.json");
    }
    // Without a terminal and without --yes nobody can be asked.
    let output = edit(&user, &control, "sed -i 's/: 10/: 20/' \"$1\"", &[]);
    assert_eq!(code(&output), 2, "{output:?}");
    assert!(kept(&output).exists());
    // An editor that fails without having written anything leaves nothing.
    let output = edit(&user, &control, "exit 1", &["--yes"]);
    assert_eq!(code(&output), 1);
    assert!(!stderr(&output).contains("kept in"), "{output:?}");
    assert_eq!(puts(&control).len(), 1, "only the one without an interface was sent");
}

#[test]
fn a_policy_that_is_gone_at_the_end_is_said_to_be_that() {
    let mut there = true;
    let user = User::new();
    let control = FakeControl::new(move |request| {
        if request.line.starts_with("PUT") {
            return Answer::conflict();
        }
        if std::mem::take(&mut there) {
            Answer::ok(&policy(3, &spec()))
        } else {
            Answer::not_found()
        }
    });
    let output = edit(&user, &control, "sed -i 's/: 10/: 20/' \"$1\"", &["--yes"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("policy guard was removed meanwhile"), "{output:?}");
    assert!(kept(&output).exists());
}
