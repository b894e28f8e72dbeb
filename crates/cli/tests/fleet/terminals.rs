//! What only people at a terminal see.

use crate::fake_control::{Answer, FakeControl, User, code, stdout};
use crate::fake_node::terminal;
use crate::samples::{change, diff, node, policy, published, spec};
use pointsman_model::fleet::{NodeHealth, NodeOutcome};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// The person's side of a terminal.
struct Person {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Person {
    fn at(emulator: OwnedFd) -> Self {
        let keyboard = File::from(emulator);
        let mut reader = keyboard.try_clone().unwrap();
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends when the last program has closed the terminal.
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                let _ = send.send(bytes[..read].to_vec());
            }
        });
        Self { keyboard, screen, seen: String::new() }
    }

    /// Waits until what is typed is not shown any more. Nothing tells when that happens.
    fn is_hidden(&self) {
        let shown = || tcgetattr(&self.keyboard).unwrap().local_modes.contains(LocalModes::ECHO);
        while shown() {
            std::thread::yield_now();
        }
    }

    /// Waits until the screen shows something, and then types.
    fn answer(&mut self, words: &str, typed: &str) {
        self.wait_for(words);
        self.keyboard.write_all(typed.as_bytes()).unwrap();
    }

    fn wait_for(&mut self, words: &str) {
        while !self.seen.contains(words) {
            let more = self.screen.recv().unwrap_or_else(|_| panic!("{:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&more);
        }
    }

    /// All that was on the screen.
    fn read(mut self) -> String {
        while let Ok(more) = self.screen.recv() {
            self.seen += &String::from_utf8_lossy(&more);
        }
        self.seen
    }
}

/// Runs a command with its input and errors on a terminal; `act` is what the person does.
fn with_person(mut command: Command, act: impl FnOnce(&mut Person)) -> (Output, String) {
    let (emulator, program) = terminal();
    command.stdin(program.try_clone().unwrap()).stderr(program).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    // Its copies of the terminal's side.
    drop(command);
    let mut person = Person::at(emulator);
    act(&mut person);
    let output = child.wait_with_output().unwrap();
    (output, person.read())
}

/// A command whose controlling terminal is the one on its standard input.
fn in_session(command: &Command) -> Command {
    let mut session = Command::new("setsid");
    session.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
    session.env_clear();
    session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    session
}

#[test]
fn a_token_is_asked_for_and_not_shown() {
    let user = User::new();
    let control = FakeControl::new(|request| {
        assert_eq!(request.header("authorization"), Some("Bearer pmt_secret"));
        Answer::ok(&json!({"name": "alice", "role": "admin"}))
    });
    let command = user.command(&["login", "--url", &control.url()]);
    let (output, screen) = with_person(in_session(&command), |person| {
        person.wait_for(": ");
        person.is_hidden();
        person.answer("", "pmt_secret\n");
    });
    assert_eq!(code(&output), 0, "{output:?} {screen:?}");
    assert!(screen.contains("token for http://localhost"), "{screen:?}");
    assert!(!screen.contains("secret"), "{screen:?}");
    assert!(user.login_file().exists());
}

#[test]
fn progress_is_for_those_who_watch() {
    let user = User::new();
    let object = vec![7; 200_000];
    let file = user.file("a.o", &object);
    let control = FakeControl::new(move |request| {
        if request.line.starts_with("GET") {
            return Answer::not_found();
        }
        let hash = pointsman_model::Sha256::of(&request.body).to_string();
        Answer::ok(&json!({"name": "a", "revision": 1, "sha256": hash, "bytes": 200_000,
            "uploaded_unix_ms": 0, "uploaded_by": "x", "summary": {"licence": "GPL",
            "has_btf": true, "programs": [], "maps": [], "globals": []}}))
    });
    let upload = ["program", "upload", "a", &file];
    let (output, screen) = with_person(user.at(&control, &upload), |_| {});
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(screen.contains("a [") && screen.contains("195.31 KiB"), "{screen:?}");
    // The answer itself is in a pipe, and has nothing of it.
    assert!(!stdout(&output).contains('\u{1b}') && !stdout(&output).contains('\r'), "{output:?}");
    let for_programs = user.at(&control, &["--json", "program", "upload", "a", &file]);
    let mut dumb = user.at(&control, &upload);
    dumb.env("TERM", "dumb");
    for silent in [for_programs, dumb] {
        assert_eq!(with_person(silent, |_| {}).1, "");
    }
}

#[test]
fn a_wait_shows_how_far_it_is() {
    let user = User::new();
    let mut looks = 0;
    let control = FakeControl::new(move |request| {
        if request.is("POST /v1/publish") {
            return Answer::ok(&published(vec![change("edge-1", NodeOutcome::Changed)]));
        }
        looks += 1;
        Answer::ok(&node("edge-1", NodeHealth::Behind, if looks > 2 { 42 } else { 41 }))
    });
    let (output, screen) = with_person(user.at(&control, &["publish", "--wait"]), |_| {});
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(screen.contains("in force [") && screen.contains("0/1"), "{screen:?}");
}

#[test]
fn an_edit_shows_what_it_changes_and_asks() {
    let user = User::new();
    let editor = user.file("editor.sh", "sed -i 's/\"priority\": [0-9]*/\"priority\": 20/' \"$1\"");
    let control = || {
        FakeControl::new(|request| {
            if request.line.ends_with("/diff") {
                return Answer::ok(&diff(vec![change("edge-1", NodeOutcome::Changed)]));
            }
            if request.line.starts_with("PUT") {
                return Answer::ok(&policy(4, &request.json()));
            }
            Answer::ok(&policy(3, &spec()))
        })
    };
    let run = |control: &FakeControl, typed: &str| {
        let mut command = user.at(control, &["policy", "edit", "guard"]);
        command.env("VISUAL", format!("sh {editor}")).env("EDITOR", "false");
        with_person(command, |person| person.answer("[e]dit again ", typed))
    };
    let yes = control();
    let (output, screen) = run(&yes, "y\n");
    assert_eq!(code(&output), 0, "{output:?} {screen}");
    assert!(screen.contains("+new") && screen.contains("would change: edge-1"), "{screen:?}");
    assert!(stdout(&output).contains("revision 3 -> 4"), "{output:?}");
    assert_eq!(yes.requests().last().unwrap().json()["chain"][0]["priority"], 20);
    let no = control();
    let (output, screen) = run(&no, "\n");
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(screen.contains("not confirmed, nothing was changed"), "{screen:?}");
    assert!(screen.contains("what was written is kept in"), "{screen:?}");
    assert!(no.lines().iter().all(|line| !line.starts_with("PUT")));
}

#[test]
fn what_is_refused_brings_the_editor_back() {
    let user = User::new();
    // The first edit breaks it, the second mends it.
    let editor = user.file(
        "editor.sh",
        "if [ -e \"$HOME/again\" ]; then printf '%s' \"$GOOD\" > \"$1\"; \
         else touch \"$HOME/again\"; echo '{' > \"$1\"; fi",
    );
    let mut good: Value = spec();
    good["description"] = json!("mended");
    let control = FakeControl::new(|request| {
        if request.line.ends_with("/diff") {
            return Answer::ok(&diff(vec![]));
        }
        match request.line.starts_with("PUT") {
            true => Answer::ok(&policy(4, &request.json())),
            false => Answer::ok(&policy(3, &spec())),
        }
    });
    let mut command = user.at(&control, &["policy", "edit", "guard"]);
    command.env("EDITOR", format!("sh {editor}")).env("GOOD", good.to_string());
    let (output, screen) = with_person(command, |person| {
        person.answer("edit again? [Y/n] ", "\n");
        person.answer("[e]dit again ", "yes\n");
    });
    assert_eq!(code(&output), 0, "{output:?} {screen}");
    assert!(screen.contains("EOF while parsing"), "{screen:?}");
    assert_eq!(control.requests().last().unwrap().json()["description"], "mended");
}

#[test]
fn binary_does_not_go_to_a_terminal() {
    let user = User::new();
    let control = FakeControl::new(|_| panic!("nothing is asked"));
    let (emulator, program) = terminal();
    let mut command = user.at(&control, &["program", "get", "ddos"]);
    let output = command.stdout(program).output().unwrap();
    drop(emulator);
    assert_eq!(code(&output), 1);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("is binary, and standard output is a terminal"), "{text}");
}
