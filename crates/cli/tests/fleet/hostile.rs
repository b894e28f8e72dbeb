//! Answers that nobody should give.

use crate::fake_control::{Answer, FakeControl, User, code, stderr, stdout};
use crate::samples::{node, page};
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::{NodeHealth, Page};
use serde_json::{Value, json};

#[test]
fn problems_name_their_places_for_people_and_for_programs() {
    let user = User::new();
    let control = FakeControl::new(|_| {
        let errors = [("/chain/0/priority", "expected\u{1b}[2J a number"), ("/selector", "empty")];
        Answer::problem(422, ProblemKind::InvalidDocument, &errors)
    });
    let file = user.file("policy.json", "{}");
    let output = user.run(&control, &["policy", "create", "guard", &file]);
    assert_eq!(code(&output), 1);
    assert_eq!(
        stderr(&output),
        "pointsman: the control plane says 422\n/chain/0/priority: expected?[2J a number\n\
         /selector: empty\n"
    );
    let output = user.run(&control, &["--json", "policy", "create", "guard", &file]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["kind"], &error["status"]), (&json!("invalid_document"), &json!(422)));
    assert_eq!(error["errors"][0]["message"], "expected\u{1b}[2J a number");
    assert_eq!(stdout(&output), "");
}

#[test]
fn what_is_no_answer_is_one_clear_error() {
    let user = User::new();
    let cases: [(&[u8], &str, &str); 6] = [
        (
            b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>",
            "HTTP status 502",
            "answer_not_understood",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
            "missing field `items`",
            "answer_not_understood",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[[",
            "is not understood",
            "answer_not_understood",
        ),
        (b"SSH-2.0-OpenSSH\r\n", "was cut off", "control_unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{", "was cut off", "control_unreachable"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{",
            "was cut off",
            "control_unreachable",
        ),
    ];
    for (answer, words, kind) in cases {
        let control = FakeControl::new(move |_| Answer::raw(answer));
        let output = user.run(&control, &["--json", "node", "ls"]);
        assert_eq!(code(&output), 1, "{output:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(error["title"].as_str().unwrap().contains(words), "{words}: {error}");
        assert_eq!(error["kind"], kind, "{error}");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = user.command(&["node", "ls", "--url", &format!("http://127.0.0.1:{port}")]);
    let output = command.env("POINTSMAN_TOKEN", "pmt_x").output().unwrap();
    assert_eq!(code(&output), 1);
    let text = stderr(&output);
    assert!(text.contains("cannot reach the control plane") && text.contains("refused"), "{text}");
}

#[test]
fn pages_that_do_not_end_are_noticed() {
    let user = User::new();
    let control = FakeControl::new(|_| {
        let items = vec![node("edge-1", NodeHealth::Well, 42)];
        Answer::ok(&Page { items, next: Some("again".into()) })
    });
    let output = user.run(&control, &["node", "ls"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("do not end"), "{output:?}");
    assert_eq!(control.requests().len(), 2);
}

#[test]
fn names_and_messages_cannot_write_on_the_terminal() {
    let user = User::new();
    let control = FakeControl::new(|request| {
        if request.is("GET /v1/audit") {
            return Answer::ok(&json!({"items": [{"number": 1, "at_unix_ms": 0,
                "who": "a\u{1b}]0;x\u{7}", "from": "\u{9b}2J", "verb": "\r\nforged", "object": "o\u{202e}",
                "after": {"\u{1b}[1m": "\u{1b}[2J"}}]}));
        }
        let mut evil = node("edge-1", NodeHealth::Failing, 41);
        evil.trouble = "\u{1b}[2J\u{1b}[H\nedge-1  well  42\r\u{8}\u{202e}".into();
        if request.is("GET /v1/nodes") {
            return Answer::ok(&page(vec![evil]));
        }
        if request.is("GET /v1/whoami") {
            let wild = "\u{1b}[2J\nforged \u{202e}";
            return Answer::ok(&json!({"name": wild, "role": "admin", "fleet": wild,
                "key_id": wild, "public_key": wild}));
        }
        Answer::ok(&page(Vec::<Value>::new()))
    });
    for verb in [&["audit", "--changes"][..], &["status"], &["node", "ls"]] {
        let output = user.run(&control, verb);
        assert_eq!(code(&output), 0, "{output:?}");
        let text = stdout(&output);
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(bad), "{verb:?}: {text:?}");
        let begins = |line: &str| line.starts_with("forged") || line.starts_with("edge-1  well");
        assert!(!text.lines().any(begins), "{verb:?}: {text}");
    }
    // A name that breaks its rules is no name, whoever says it.
    let control = FakeControl::new(|_| {
        let mut nodes = serde_json::to_value(page(vec![node("a", NodeHealth::Well, 1)])).unwrap();
        nodes["items"][0]["name"] = json!("../../etc");
        Answer::ok(&nodes)
    });
    let output = user.run(&control, &["node", "ls"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("is not a valid node name"), "{output:?}");
}

#[test]
fn names_are_checked_before_anything_is_sent() {
    let user = User::new();
    let control = FakeControl::new(|_| panic!("nothing is sent"));
    for arguments in [
        &["node", "show", "../x"][..],
        &["node", "label", "edge-1", "a b=c"],
        &["node", "label", "edge-1"],
        &["node", "ls", "--health", "ok"],
        &["policy", "show", "a/b"],
        &["policy", "diff", "a"],
        &["policy", "diff", "a", "file", "--rm"],
        &["program", "rm", "?x"],
        &["token", "create", "x"],
        &["token", "create", "x", "--role", "root"],
        &["enroll", "edge-1", "--ttl", "soon"],
        &["publish", "--wait", "0s"],
        &["publish", "--dry-run", "--wait"],
        &["audit", "-n", "0"],
        &["snapshots", "x"],
        &["policy", "create", "a", "/dev/null", "--if-revision", "1"],
    ] {
        let output = user.run(&control, arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
    }
    let output = user.run(&control, &["status", "--url", "ftp://x"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("is no URL of a control plane"), "{output:?}");
}
