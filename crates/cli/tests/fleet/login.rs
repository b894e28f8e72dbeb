//! Logging in, and where tokens go.

use crate::fake_control::{Answer, FakeControl, Request, TOKEN, User, code, stderr, stdout};
use pointsman_model::api::ProblemKind;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

fn whoami(request: &Request) -> Answer {
    match request.header("authorization") {
        Some("Bearer pmt_tested") if request.is("GET /v1/whoami") => {
            Answer::ok(&json!({"name": "alice", "role": "operator"}))
        }
        _ => Answer::problem(401, ProblemKind::Unauthorized, &[]),
    }
}

#[test]
fn a_token_from_standard_input_is_tried_and_kept_for_oneself() {
    let (control, user) = (FakeControl::new(whoami), User::new());
    let url = control.url();
    let output = User::tell(&mut user.command(&["login", "--url", &url]), b"pmt_tested\n");
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(stdout(&output), format!("logged in: alice (operator) at {url}\n"));
    let mode = std::fs::metadata(user.login_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let output = user.command(&["whoami", "--json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, json!({"name": "alice", "role": "operator", "url": url}));

    // What is given in the environment goes before what was kept.
    let mut command = user.command(&["whoami"]);
    let output = command.env("POINTSMAN_TOKEN", "pmt_other").output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("pointsman fleet login"), "{output:?}");
    assert_eq!(control.requests()[2].header("authorization"), Some("Bearer pmt_other"));

    let output = user.command(&["logout"]).output().unwrap();
    assert!(stdout(&output).contains("good until it is revoked"), "{output:?}");
    let output = user.command(&["whoami"]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("log in with `pointsman fleet login --url URL`"));
    assert_eq!(stdout(&user.command(&["logout"]).output().unwrap()), "there was no login\n");
}

#[test]
fn a_token_that_is_not_taken_is_not_kept() {
    let (control, user) = (FakeControl::new(whoami), User::new());
    let url = control.url();
    let file = user.file("token", "pmt_wrong");
    let login = ["login", "--url", &url, "--token-file", &file];
    let output = user.command(&login).output().unwrap();
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains("the control plane says 401"), "{output:?}");
    assert!(!user.login_file().exists());
    // And the last good one stays.
    user.file("token", TOKEN);
    assert_eq!(code(&user.command(&login).output().unwrap()), 0);
    user.file("token", "pmt_wrong");
    assert_eq!(code(&user.command(&login).output().unwrap()), 1);
    assert_eq!(code(&user.command(&["whoami"]).output().unwrap()), 0);
    for (content, words) in [("", "there is no token"), ("pme_x", "one-time token")] {
        user.file("token", content);
        let output = user.command(&login).output().unwrap();
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains(words), "{output:?}");
    }
}

#[test]
fn a_kept_token_goes_to_no_other_control_plane() {
    let (control, user) = (FakeControl::new(whoami), User::new());
    let other = FakeControl::new(|_| panic!("nothing is sent there"));
    let url = control.url();
    User::tell(&mut user.command(&["login", "--url", &url]), TOKEN.as_bytes());
    let output = user.command(&["status", "--url", &other.url()]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("its token is not sent to"), "{output:?}");

    // Nor does a redirect take it there.
    let to = other.url();
    let sly = FakeControl::new(move |_| {
        let head = format!("HTTP/1.1 307 x\r\nlocation: {to}v1/whoami\r\ncontent-length: 0");
        Answer::raw(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes())
    });
    let output = user.run(&sly, &["whoami"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("Redirects are not followed"), "{output:?}");
}

#[test]
fn a_login_that_others_can_read_is_not_used() {
    let (control, user) = (FakeControl::new(whoami), User::new());
    let url = control.url();
    User::tell(&mut user.command(&["login", "--url", &url]), TOKEN.as_bytes());
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(user.login_file(), open).unwrap();
    let output = user.command(&["whoami", "--json"]).output().unwrap();
    assert_eq!(code(&output), 1);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["kind"], "unusable_login");
    assert!(error["title"].as_str().unwrap().contains("chmod 600"), "{error}");
}

#[test]
fn tls_trusts_what_it_is_told_to() {
    let (control, user) = (FakeControl::tls(whoami), User::new());
    let output = user.run(&control, &["whoami"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("certificate"), "{output:?}");
    let ca = user.file("ca.pem", control.ca.as_ref().unwrap());
    let output = user.run(&control, &["whoami", "--ca", &ca]);
    assert_eq!(code(&output), 0, "{output:?}");

    // A login remembers it, from any directory.
    let mut command = user.command(&["login", "--url", &control.url(), "--ca", "ca.pem"]);
    let output = User::tell(command.current_dir(user.home()), TOKEN.as_bytes());
    assert_eq!(code(&output), 0, "{output:?}");
    let output = user.command(&["whoami"]).current_dir("/").output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");

    for (content, words) in [("no PEM", "holds no certificate"), ("", "holds no certificate")] {
        user.file("ca.pem", content);
        let output = user.run(&control, &["whoami", "--ca", &ca]);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains(words), "{output:?}");
    }
    let output = user.run(&control, &["whoami", "--ca", "/nonexistent"]);
    assert!(stderr(&output).contains("/nonexistent: No such file"), "{output:?}");
}

#[test]
fn a_proxy_from_the_environment_is_used() {
    let user = User::new();
    let proxy = FakeControl::new(|request| {
        assert_eq!(request.line, "GET http://control.example/v1/whoami");
        Answer::ok(&json!({"name": "alice", "role": "admin"}))
    });
    let mut command = user.command(&["whoami"]);
    command
        .env("POINTSMAN_CONTROL", "http://control.example")
        .env("POINTSMAN_TOKEN", TOKEN)
        .env("HTTP_PROXY", proxy.url());
    let output = command.output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    // What need not go through it does not.
    let control = FakeControl::new(whoami);
    let mut command = user.at(&control, &["whoami"]);
    let output = command.env("HTTP_PROXY", proxy.url()).env("NO_PROXY", "localhost").output();
    assert_eq!(code(&output.unwrap()), 0);
    assert_eq!(control.lines(), ["GET /v1/whoami"]);
}
