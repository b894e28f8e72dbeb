//! Enrolment, against a control plane that says what it is told.

use crate::stage::process::{BINARY, output};
use crate::stage::server::Fault;
use crate::stage::{Stage, run};
use pointsman_courier::enrol::{EnrolError, Enrolling, EnrolmentReport, enrol};
use pointsman_courier::source::{Client, ClientOptions};
use pointsman_courier::{Enrolled, Membership, Secret};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

const TOKEN: &str = "pme_one-time";
const GIVEN: &str = "pmc_given";

fn reply(stage: &Stage) -> Value {
    json!({"fleet": "lab", "node": "edge-1", "credential": GIVEN,
        "public_key": stage.fleet.key.public_key().to_base64()})
}

fn answers(stage: &Stage, reply: &Value) {
    stage.server.reply("/v1/enrol", 200, &reply.to_string());
}

fn wanted(stage: &Stage) -> Enrolling {
    Enrolling {
        control: stage.server.url.clone(),
        token: Secret::new(TOKEN),
        config: stage.path("var/courier.json"),
        node_config: stage.path("etc/fleet.json"),
        owner: None,
        force: false,
        key_id: None,
        ca: None,
        proxy: None,
    }
}

fn try_it(wanted: &Enrolling) -> Result<EnrolmentReport, EnrolError> {
    run(enrol(wanted, &Client::new(&ClientOptions::default()).unwrap()))
}

/// What lies in the two directories.
fn files(stage: &Stage) -> Vec<String> {
    let names = |name| {
        let entries = fs::read_dir(stage.path(name)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    [names("etc"), names("var")].concat()
}

#[test]
fn a_token_becomes_a_credential_and_a_key() {
    let stage = Stage::new();
    let mut full = reply(&stage);
    full["source"] = json!("s3://bucket/prefix");
    answers(&stage, &full);
    let report = try_it(&wanted(&stage)).unwrap();
    assert_eq!(report.key_id, stage.fleet.key.public_key().key_id());
    let mode = |name: &str| fs::metadata(stage.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("var/courier.json"), 0o600);
    assert_eq!(mode("etc/fleet.json"), 0o644);
    let enrolled = Enrolled::read(&stage.path("var/courier.json")).unwrap();
    assert_eq!(enrolled.credential.expose(), GIVEN);
    assert_eq!(enrolled.source.unwrap().as_str(), "s3://bucket/prefix");
    let membership = Membership::read(&stage.path("etc/fleet.json")).unwrap().unwrap();
    assert_eq!(membership.public_key, stage.fleet.key.public_key().to_base64());
    assert_eq!(files(&stage), ["fleet.json", "courier.json"], "nothing is left beside them");
    let seen = stage.server.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, json!({"token": TOKEN}).to_string().as_bytes());
    // Again, as the same node of the same fleet: a new credential.
    let mut again = reply(&stage);
    again["credential"] = json!("pmc_another");
    answers(&stage, &again);
    try_it(&wanted(&stage)).unwrap();
    let enrolled = Enrolled::read(&stage.path("var/courier.json")).unwrap();
    assert_eq!(enrolled.credential.expose(), "pmc_another");
}

#[test]
fn a_node_changes_hands_only_by_force() {
    let stage = Stage::new();
    answers(&stage, &reply(&stage));
    try_it(&wanted(&stage)).unwrap();
    let before = fs::read(stage.path("etc/fleet.json")).unwrap();
    for (key, value) in [("fleet", "other"), ("node", "edge-2")] {
        let mut other = reply(&stage);
        other[key] = json!(value);
        answers(&stage, &other);
        let error = try_it(&wanted(&stage)).unwrap_err().to_string();
        assert!(error.contains("edge-1 of fleet lab") && error.contains("--force"), "{error}");
        assert!(error.contains("token is spent"), "{error}");
        assert_eq!(fs::read(stage.path("etc/fleet.json")).unwrap(), before);
        let kept = Enrolled::read(&stage.path("var/courier.json")).unwrap();
        assert_eq!((kept.fleet.as_str(), kept.node.as_str()), ("lab", "edge-1"));
    }
    // Another control plane is known as such before the token is spent.
    stage.server.take();
    let elsewhere = Stage::new();
    answers(&elsewhere, &reply(&elsewhere));
    let other = Enrolling { control: elsewhere.server.url.clone(), ..wanted(&stage) };
    let error = try_it(&other).unwrap_err().to_string();
    assert!(error.contains("--force") && !error.contains("spent"), "{error}");
    assert!(elsewhere.server.take().is_empty());
    try_it(&Enrolling { force: true, ..other }).unwrap();
    assert_eq!(elsewhere.server.take().len(), 1);
    // What is there and makes no sense is not overwritten either.
    fs::write(stage.path("etc/fleet.json"), "{").unwrap();
    let error = try_it(&wanted(&stage)).unwrap_err().to_string();
    assert!(error.contains("fleet.json") && error.contains("--force"), "{error}");
    assert!(stage.server.take().is_empty());
}

#[test]
fn nothing_is_written_unless_all_is_well_and_no_secret_is_shown() {
    let stage = Stage::new();
    let with = |key: &str, value: Value| {
        let mut reply = reply(&stage);
        reply[key] = value;
        (200, reply.to_string())
    };
    for ((status, text), expected) in [
        ((401, "{}".into()), "does not take the token"),
        ((404, String::new()), "does not take the token"),
        ((410, String::new()), "does not take the token"),
        ((500, String::new()), "500"),
        ((200, "{".into()), "not understood"),
        ((200, "x".repeat(70_000)), "more than"),
        (with("fleet", json!("../x")), "not understood"),
        (with("public_key", json!("RW")), "public key"),
        (with("credential", json!("")), "credential"),
        (with("credential", json!("a b\r\nx: y")), "credential"),
        (with("source", json!("blobs")), "source"),
    ] {
        stage.server.reply("/v1/enrol", status, &text);
        let error = try_it(&wanted(&stage)).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(expected), "{shown}");
        assert!(!shown.contains(TOKEN) && !shown.contains(GIVEN), "{shown}");
        assert!(files(&stage).is_empty(), "{:?}", files(&stage));
    }
    // A redirect would take the token elsewhere.
    let to = Stage::new();
    let url = to.server.url.join("v1/enrol").unwrap().to_string();
    stage.server.fault_at("enrol", Fault::Redirect(url));
    let error = try_it(&wanted(&stage)).unwrap_err().to_string();
    assert!(error.contains("redirects"), "{error}");
    assert!(to.server.take().is_empty());
    stage.server.heal();
    stage.server.take();
    for token in ["", "pmc_credential", "pme_a b", "pme_\u{e9}"] {
        let wrong = Enrolling { token: Secret::new(token), ..wanted(&stage) };
        let error = try_it(&wrong).unwrap_err().to_string();
        assert!(error.contains("token"), "{error}");
    }
    assert!(stage.server.take().is_empty(), "what is no token is not sent");
    assert!(files(&stage).is_empty());
}

#[test]
fn what_cannot_be_written_is_found_out_before_the_token_is_spent() {
    let stage = Stage::new();
    answers(&stage, &reply(&stage));
    let elsewhere = stage.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, stage.path("link")).unwrap();
    fs::write(stage.path("file"), "").unwrap();
    for path in ["link/fleet.json", "file/fleet.json"] {
        let wrong = Enrolling { node_config: stage.path(path), ..wanted(&stage) };
        let error = try_it(&wrong).unwrap_err();
        assert!(matches!(error, EnrolError::Storage(_) | EnrolError::Present(_)), "{error}");
    }
    assert!(stage.server.take().is_empty());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    // A link in a file's place is replaced, not written through.
    let victim = stage.path("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir_all(stage.path("var")).unwrap();
    symlink(&victim, stage.path("var/courier.json.part")).unwrap();
    try_it(&wanted(&stage)).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(stage.path("var/courier.json").symlink_metadata().unwrap().is_file());
}

#[test]
fn who_has_another_key_than_was_said_is_not_believed() {
    // An id of 15 digits, as minisign and the control plane show it, or filled up to 16.
    const KEY: &str = "RWRjVOM+xo5yBotH96Ug5lMzNpz8mWXJbwnTzSw1827Aw+kslgh6/pNc";
    let stage = Stage::new();
    let mut short = reply(&stage);
    short["public_key"] = json!(KEY);
    answers(&stage, &short);
    let with = |id: &str| Enrolling { key_id: Some(id.parse().unwrap()), ..wanted(&stage) };
    for other in ["6728EC63EE35462", "6728EC63EE354630", "7"] {
        let error = try_it(&with(other)).unwrap_err().to_string();
        assert!(error.contains("somebody else answers") && error.contains(other), "{error}");
        assert!(files(&stage).is_empty(), "{:?}", files(&stage));
    }
    for same in ["6728EC63EE35463", "06728EC63EE35463", "06728ec63ee35463"] {
        let report = try_it(&with(same)).unwrap();
        assert_eq!(report.key_id, "6728EC63EE35463");
    }
}

/// `pointsman-courier enroll` with a token on standard input, by way of a shell's here-document.
fn enroll(stage: &Stage, more: &[&str]) -> (bool, String, String) {
    let token = stage.path("token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["enroll", "--log-level", "trace", "--control", stage.server.url.as_str()])
        .arg("--config")
        .arg(stage.path("var/courier.json"))
        .arg("--node-config")
        .arg(stage.path("etc/fleet.json"))
        .args(more)
        .stdin(fs::File::open(token).unwrap());
    output(command)
}

#[test]
fn the_command_gives_each_file_to_its_user_and_keeps_secrets() {
    let stage = Stage::new();
    answers(&stage, &reply(&stage));
    if !rustix::process::geteuid().is_root() {
        let (ok, out, log) = enroll(&stage, &[]);
        assert!(!ok && log.contains("run it as root"), "{out}{log}");
        println!("SKIP the_command_gives_each_file_to_its_user_and_keeps_secrets: needs root");
        return;
    }
    let (ok, out, log) = enroll(&stage, &["--user", "nobody"]);
    assert!(ok, "{out}{log}");
    assert!(out.contains(&stage.fleet.key.public_key().key_id()), "{out}");
    let owner = |name: &str| fs::metadata(stage.path(name)).unwrap().uid();
    let nobody = owner("var/courier.json");
    assert_ne!(nobody, 0);
    // It is made for the courier, who keeps its own things there.
    assert_eq!((owner("var"), owner("etc"), owner("etc/fleet.json")), (nobody, 0, 0));
    let (ok, out, log) = enroll(&stage, &["--json", "--user", "65534"]);
    assert!(ok, "{out}{log}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["node"], "edge-1");
    for text in [&out, &log] {
        assert!(!text.contains(TOKEN) && !text.contains(GIVEN), "{text}");
    }
    let (ok, _, log) = enroll(&stage, &["--user", "no-such-user"]);
    assert!(!ok && log.contains("no-such-user"), "{log}");
}
