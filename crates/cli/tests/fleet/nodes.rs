//! Nodes, enrolments, tokens, lists.

use crate::fake_control::{Answer, FakeControl, User, code, stderr, stdout};
use crate::samples::{node, page};
use pointsman_model::fleet::{NodeHealth, Page};
use pointsman_snapshot::keys::SigningKey;
use serde_json::{Value, json};

#[test]
fn lists_are_read_to_their_end() {
    let user = User::new();
    let control = FakeControl::new(|request| {
        let page = |name: &str, next: Option<&str>| {
            let items = vec![node(name, NodeHealth::Well, 42)];
            Answer::ok(&Page { items, next: next.map(str::to_owned) })
        };
        match request.line.split_once("after=") {
            None => page("edge-1", Some("a b&c")),
            Some((_, "a+b%26c")) => page("edge-2", Some("3")),
            Some((_, "3")) => page("edge-3", None),
            Some((_, other)) => panic!("{other}"),
        }
    });
    let arguments =
        ["--json", "node", "ls", "--label", "site=fra", "-l", "a/b=c", "--health", "well"];
    let output = user.run(&control, &arguments);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = told["items"].as_array().unwrap().iter().map(|n| &n["name"]).collect();
    assert_eq!(names, ["edge-1", "edge-2", "edge-3"]);
    assert_eq!(told.get("next"), None);
    let first = "GET /v1/nodes?label=site%3Dfra&label=a%2Fb%3Dc&health=well&limit=1000";
    assert_eq!(control.lines()[0], first);
}

#[test]
fn labels_are_changed_over_what_was_read_alone() {
    let user = User::new();
    let mut others = 2;
    let control = FakeControl::new(move |request| {
        let mut it = node("edge-1", NodeHealth::Well, 42);
        it.revision += others;
        if request.is("GET /v1/nodes/edge-1") {
            return Answer::ok(&it);
        }
        if others > 0 {
            others -= 1;
            return Answer::conflict();
        }
        it.labels = serde_json::from_value(request.json()["labels"].clone()).unwrap();
        Answer::ok(&it)
    });
    let output = user.run(&control, &["node", "label", "edge-1", "site=ams", "role-", "x=1"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let expected = "edge-1:\n  site: fra -> ams\n  x: 1\n  role: edge -> removed\n\
                    publish to make it count: pointsman fleet publish\n";
    assert_eq!(stdout(&output), expected);
    let patches: Vec<_> = control
        .requests()
        .into_iter()
        .filter(|request| request.line.starts_with("PATCH"))
        .collect();
    let revisions: Vec<_> = patches.iter().map(|patch| patch.header("if-match").unwrap()).collect();
    assert_eq!(revisions, ["\"5\"", "\"4\"", "\"3\""]);
    assert_eq!(patches[2].json(), json!({"labels": {"site": "ams", "x": "1"}}));

    // What is so already is not sent.
    let output = user.run(&control, &["node", "label", "edge-1", "site=fra", "none-"]);
    assert_eq!(stdout(&output), "edge-1: labels are as they were\n");
    assert_eq!(control.lines().last().unwrap(), "GET /v1/nodes/edge-1");
}

#[test]
fn what_is_taken_away_is_asked_about() {
    let user = User::new();
    let control = FakeControl::new(|request| match request.line.split(' ').next().unwrap() {
        "DELETE" => Answer::done(),
        _ if request.line.contains("nodes") => Answer::ok(&node("edge-1", NodeHealth::Well, 42)),
        _ => panic!("{request:?}"),
    });
    for arguments in [&["node", "rm", "edge-1"][..], &["token", "revoke", "deploy"]] {
        let output = user.run(&control, arguments);
        assert_eq!(code(&output), 2, "{output:?}");
        assert!(stderr(&output).contains("give --yes"), "{output:?}");
        assert!(control.lines().iter().all(|line| line.starts_with("GET")));
    }
    let output = user.run(&control, &["node", "rm", "edge-1", "--yes"]);
    assert_eq!((code(&output), stdout(&output)), (0, "node edge-1 removed\n"));
    assert_eq!(control.requests().last().unwrap().header("if-match"), Some("\"3\""));
    let output = user.run(&control, &["--json", "token", "revoke", "deploy", "-y"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, json!({"removed": "deploy"}));
    assert_eq!(control.lines().last().unwrap(), "DELETE /v1/tokens/deploy");
}

#[test]
fn a_node_is_shown_with_and_without_its_report() {
    let user = User::new();
    let mut report = None;
    let control = FakeControl::new(move |request| {
        if request.is("GET /v1/nodes/edge-1") {
            return Answer::ok(&node("edge-1", NodeHealth::Failing, 41));
        }
        assert!(request.is("GET /v1/nodes/edge-1/status"), "{request:?}");
        let answer =
            report.take().map_or_else(Answer::not_found, |report: Value| Answer::ok(&report));
        report = Some(json!({"courier": {"version": "0.1.0", "poll_interval_ms": 1000,
            "snapshot": 7, "handed_over": 42, "daemon_trouble": "no socket"}}));
        answer
    });
    let output = user.run(&control, &["node", "show", "edge-1"]);
    assert!(stdout(&output).contains("report      none yet"), "{output:?}");
    let output = user.run(&control, &["node", "show", "edge-1"]);
    assert!(stdout(&output).contains("generation 42 handed over"), "{output:?}");
    let output = user.run(&control, &["--json", "node", "show", "edge-1"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["name"], &told["report"]["courier"]["handed_over"]),
        (&json!("edge-1"), &json!(42))
    );
}

#[test]
fn an_enrolment_says_what_to_type_on_the_node() {
    let user = User::new();
    let control = FakeControl::new(|request| {
        assert!(request.is("POST /v1/enrolments"), "{request:?}");
        Answer::ok(&json!({"node": "edge-1", "token": "pme_abc", "expires_unix_ms": 0,
            "key_id": "6728EC63EE35463"}))
    });
    let output = user.run(&control, &["enroll", "edge-1", "--label", "site=fra", "--ttl", "2h"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("pme_abc"), "{output:?}");
    assert!(stdout(&output).contains(&control.url()), "{output:?}");
    assert!(stdout(&output).contains(" --key-id 6728EC63EE35463\n"), "{output:?}");
    let wanted = json!({"node": "edge-1", "labels": {"site": "fra"}, "ttl_seconds": 7200});
    assert_eq!(control.requests()[0].json(), wanted);
    assert!(!stdout(&output).contains("note:"), "{output:?}");
    // Without labels a node keeps those that it has.
    let output = user.run(&control, &["--json", "enroll", "edge-1"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["token"], "pme_abc");
    let wanted = json!({"node": "edge-1", "ttl_seconds": 3600});
    assert_eq!(control.requests()[1].json(), wanted);
}

#[test]
fn an_enrolment_says_that_the_name_is_taken() {
    let user = User::new();
    for (more, noted) in [
        (json!({"enrolled_unix_ms": 1}), true),
        (json!({"enrolled_unix_ms": 1, "seen_unix_ms": 2}), true),
        (json!({}), false),
    ] {
        let mut answer = json!({"node": "edge-1", "token": "pme_abc", "expires_unix_ms": 0,
            "key_id": "7"});
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let control = FakeControl::new(move |_| Answer::ok(&answer));
        let output = user.run(&control, &["enroll", "edge-1"]);
        let note = "note: edge-1 is enrolled already";
        assert_eq!(stdout(&output).contains(note), noted, "{output:?}");
    }
}

#[test]
fn tokens_audit_and_snapshots_ask_for_what_they_show() {
    let user = User::new();
    let token = json!({"name": "deploy", "role": "operator", "created_unix_ms": 0});
    let control = FakeControl::new(move |request| {
        if request.is("POST /v1/tokens") {
            return Answer::ok(&json!({"token": token, "secret": "pmt_new"}));
        }
        Answer::ok(&page(Vec::<Value>::new()))
    });
    let create = ["token", "create", "deploy", "--role", "operator", "--ttl", "30d"];
    let output = user.run(&control, &create);
    assert!(stdout(&output).contains("pmt_new"), "{output:?}");
    let wanted = json!({"name": "deploy", "role": "operator", "ttl_seconds": 2_592_000});
    assert_eq!(control.requests()[0].json(), wanted);
    for (arguments, line) in [
        (&["token", "ls"][..], "GET /v1/tokens?limit=1000"),
        (&["snapshots", "-n", "5"], "GET /v1/snapshots?limit=5"),
        (
            &["audit", "--object", "policy edge&guard", "--who", "al=ice", "-n", "1000"],
            "GET /v1/audit?object=policy+edge%26guard&who=al%3Dice&limit=1000",
        ),
    ] {
        let output = user.run(&control, arguments);
        assert_eq!(code(&output), 0, "{output:?}");
        assert_eq!(control.lines().last().unwrap(), line);
    }
}

#[test]
fn a_record_is_exported_and_checked() {
    let user = User::new();
    let key = SigningKey::generate().unwrap();
    let payload = serde_json::from_value(json!({"schema": "pointsman.record/v1", "fleet": "lab",
        "node": "edge-1", "generation": 7, "issued_unix_ms": 1, "objects": [],
        "document": {"schema": "pointsman.node/v1", "node": "edge-1", "generation": 7}}));
    let record = pointsman_snapshot::sign(&key, &payload.unwrap()).unwrap();
    let served = record.clone();
    let control = FakeControl::new(move |_| Answer::octets(&served));
    let output = user.run(&control, &["node", "record", "edge-1"]);
    assert_eq!(output.stdout, record);

    let public = user.file("fleet.pub", key.public_key().to_file_text());
    let output = user.run(&control, &["node", "record", "edge-1", "--verify", &public]);
    assert_eq!(code(&output), 0, "{output:?}");
    let expected = "Signature and comment signature verified\n\
                    Trusted comment: pointsman fleet=lab node=edge-1 generation=7\n";
    assert_eq!(stdout(&output), expected);
    let other = SigningKey::generate().unwrap().public_key().to_base64().to_owned();
    let output = user.run(&control, &["node", "record", "edge-1", "--verify", &other]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert_eq!(stdout(&output), "");

    let file = user.home().join("edge-1.json");
    let path = file.to_str().unwrap();
    let arguments = ["node", "record", "edge-1", "--verify", &public, "-o", path];
    assert_eq!(code(&user.run(&control, &arguments)), 0);
    let signature = std::fs::read(format!("{path}.minisig")).unwrap();
    assert_eq!([signature, std::fs::read(path).unwrap()].concat(), record);
}
