//! The command as an operator and a script see it: output, errors, exit codes, signals.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod fake_node;

use fake_node::{FakeNode, Served};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_pointsman");

fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("POINTSMAN_NODE", socket).stdin(Stdio::null());
    command
}

fn run(node: &FakeNode, arguments: &[&str]) -> Output {
    command(node.socket(), arguments).output().unwrap()
}

fn with_stdin(node: &FakeNode, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = command(node.socket(), arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The command may end before it has read all: that is what some tests are about.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

const REFUSAL: &str = r#"{"reason":"foreign_program","pointer":"/interfaces/eth9/xdp",
    "hook":{"interface":"eth9","kind":"xdp"},"program":null,
    "message":"interface eth9 does not exist","log":null}"#;
const STEP: &str = r#"{"step":"release_hook","hook":{"interface":"eth0","kind":"xdp"}}"#;

fn plan(steps: &str, refusals: &str) -> String {
    format!(
        r#"{{"generation":3,"steps":[{steps}],"refusals":[{refusals}],"notes":[],"warnings":[],
            "budgets":[],"hooks":[]}}"#
    )
}

fn report(outcome: &str, refusals: &str) -> String {
    let plan = plan("", refusals);
    format!(
        r#"{{"outcome":"{outcome}","plan":{plan},"results":[],"refusals":[{refusals}],
            "visible_micros":0,"total_micros":800}}"#
    )
}

#[test]
fn plan_ends_with_a_code_for_nothing_pending_and_refused() {
    for (answer, code) in
        [(plan("", ""), 0), (plan(STEP, ""), 4), (plan("", REFUSAL), 3), (plan(STEP, REFUSAL), 3)]
    {
        let node = FakeNode::new(move |_| Served::ok(&answer));
        let output = with_stdin(&node, &["plan", "-"], b"the document");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stdout(&output).starts_with("plan for generation 3: "), "{output:?}");
        let [request] = &node.requests()[..] else { panic!("one request") };
        assert!(request.starts_with("POST /v1/plan HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\nthe document"), "{request}");
    }
}

#[test]
fn apply_ends_with_a_code_for_done_and_refused() {
    for (answer, code) in [
        (report("unchanged", ""), 0),
        (report("applied", ""), 0),
        (report("partly", REFUSAL), 3),
        (report("refused", REFUSAL), 3),
    ] {
        let node = FakeNode::new(move |_| Served::ok(&answer));
        let output = with_stdin(&node, &["apply", "--allow-gap", "-"], b"{}");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(stderr(&output), "");
        let [request] = &node.requests()[..] else { panic!("one request") };
        assert!(request.starts_with("PUT /v1/document?allow_gap=true HTTP/1.1\r\n"), "{request}");
    }
}

#[test]
fn an_apply_that_wants_to_be_confirmed_says_how() {
    let waiting = r#"{"generation":3,"until_unix_ms":60000,"remaining_ms":59999,"back_to":2}"#;
    let answer = report("applied", "").replace(
        r#""total_micros":800"#,
        &format!(r#""total_micros":800,"unconfirmed":{waiting}"#),
    );
    let node = FakeNode::new(move |_| Served::ok(&answer));
    let output = with_stdin(&node, &["apply", "--confirm-within", "1h30m", "-"], b"{}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("  pointsman confirm 3\n"), "{output:?}");
    let path = "PUT /v1/document?allow_gap=false&confirm_within_seconds=5400 HTTP/1.1\r\n";
    assert!(node.requests()[0].starts_with(path), "{:?}", node.requests());
    for bad in ["0", "25h", "soon"] {
        let output = with_stdin(&node, &["apply", "--confirm-within", bad, "-"], b"{}");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn breaking_the_glass_ends_with_a_code_for_done_refused_and_impossible() {
    let bypass = |refusals: &str| {
        format!(
            r#"{{"hook":{{"interface":"eth0","kind":"xdp"}},"was_bypassed":false,"results":[],
                "refusals":[{refusals}],"notes":[],"visible_micros":1,"total_micros":2}}"#
        )
    };
    let rollback = |refusals: &str| {
        let report = report("partly", refusals);
        format!(r#"{{"from":3,"to":2,"report":{report}}}"#)
    };
    let confirm = r#"{"generation":3,"remaining_ms":1}"#.to_owned();
    for (arguments, request, answer, code) in [
        (
            &["bypass", "eth0", "--for", "10m"][..],
            "POST /v1/bypass?interface=eth0&for_seconds=600 ",
            bypass(""),
            0,
        ),
        (
            &["bypass", "b/e&0", "--off"],
            "POST /v1/bypass?interface=b%2Fe%260&off=true ",
            bypass(REFUSAL),
            3,
        ),
        (&["rollback"], "POST /v1/rollback?allow_gap=false ", rollback(""), 0),
        (
            &["rollback", "--to", "2", "--allow-gap"],
            "POST /v1/rollback?allow_gap=true&generation=2 ",
            rollback(REFUSAL),
            3,
        ),
        (&["confirm", "3"], "POST /v1/confirm?generation=3 ", confirm, 0),
    ] {
        let node = FakeNode::new(move |_| Served::ok(&answer));
        let output = run(&node, arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(node.requests()[0].starts_with(request), "{:?}", node.requests());
    }
    let problem = r#"{"kind":"conflict","status":409,"title":"nothing waits; kept are: 1, 2"}"#;
    let node = FakeNode::new(move |_| Served::problem("409 Conflict", problem));
    for arguments in [&["bypass", "eth0"][..], &["rollback"], &["confirm"]] {
        let output = run(&node, arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(stderr(&output), "pointsman: nothing waits; kept are: 1, 2\n");
    }
    for arguments in [
        &["bypass"][..],
        &["bypass", "a b"],
        &["bypass", "a", "--for", "0s"],
        &["bypass", "a", "--for", "1m", "--off"],
        &["rollback", "--to", "-1"],
        &["events", "-n", "0"],
    ] {
        assert_eq!(run(&node, arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn who_follows_asks_for_what_comes_after_and_needs_no_polling() {
    let event = |sequence: u32| {
        format!(
            r#"{{"events":[{{"sequence":{sequence},"at_unix_ms":1,"kind":"applied","message":"m"}}],
                "last":{sequence}}}"#
        )
    };
    // After the second one the log is gone and has begun anew.
    let node = FakeNode::new(move |request| match request {
        _ if request.contains("after=7 ") => Served::ok(&event(9)),
        _ if request.contains("after=9 ") => Served::ok(r#"{"events":[],"last":2}"#),
        _ if request.contains("after=0 ") => Served::ok(&event(2)),
        _ => Served::ok(&event(7)),
    });
    let mut command = command(node.socket(), &["--json", "events", "--follow", "-n", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for sequence in [7, 9, 2] {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["sequence"], sequence);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let requests = node.requests();
    assert!(requests[0].starts_with("GET /v1/events?limit=1&wait_seconds=0 "), "{requests:?}");
    let waits = "GET /v1/events?limit=1000&wait_seconds=25&after=7 ";
    assert!(requests[1].starts_with(waits), "{requests:?}");
}

#[test]
fn json_output_is_the_answer() {
    let node = FakeNode::new(|_| Served::ok(&report("partly", REFUSAL)));
    let output = with_stdin(&node, &["--json", "apply", "-"], b"{}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answered: Value = serde_json::from_str(&report("partly", REFUSAL)).unwrap();
    assert_eq!(printed, answered);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn an_invalid_document_has_a_line_for_every_error() {
    let problem = r#"{"kind":"invalid_document","status":422,"title":"the document is not valid",
        "errors":[{"pointer":"/node","message":"expected a name"},
                  {"pointer":"/interfaces/eth0/xdp/chain/0/program","message":"expected another"}]}"#;
    let node = FakeNode::new(move |_| Served::problem("422 Unprocessable Content", problem));
    let output = with_stdin(&node, &["apply", "-"], b"{}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        "pointsman: the document is not valid\n/node: expected a name\n\
         /interfaces/eth0/xdp/chain/0/program: expected another\n"
    );
    let output = with_stdin(&node, &["apply", "-", "--json"], b"{}");
    let printed: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(printed, serde_json::from_str::<Value>(problem).unwrap());
}

#[test]
fn a_document_that_cannot_be_read_or_is_too_large_never_reaches_the_node() {
    let node = FakeNode::new(|_| Served::ok(&plan("", "")));
    let output = run(&node, &["plan", "/nonexistent/node.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot read /nonexistent/node.json: No such"), "{output:?}");
    let output = with_stdin(&node, &["apply", "-"], &vec![b' '; 10 << 20]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("larger than the limit of 8388608 bytes"), "{output:?}");
    assert_eq!(node.requests(), Vec::<String>::new());
}

#[test]
fn a_missing_socket_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("absent.sock");
    let output = command(&socket, &["status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "pointsman: there is no socket {}: start pointsman-node, or name its socket with --node \
         or POINTSMAN_NODE\n",
        socket.display()
    );
    assert_eq!(stderr(&output), expected);
    let output = command(&socket, &["status", "--json"]).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(printed["kind"], "node_unreachable");
}

#[test]
fn a_socket_of_others_says_permission_denied() {
    let node = FakeNode::new(|_| Served::ok("{}"));
    fs::set_permissions(node.socket(), fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = command(node.socket(), &["status"]);
    if rustix::process::geteuid().is_root() {
        // Root may open every socket: run as nobody, from a place that nobody can reach.
        let directory = node.socket().parent().unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = directory.join("pointsman");
        fs::copy(BINARY, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        command = Command::new(copy);
        command.args(["status", "--node"]).arg(node.socket()).uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("permission denied on"), "{output:?}");
    assert!(stderr(&output).contains("use sudo"), "{output:?}");
}

const DRAINED: &str = r#"{"results":[],"failures":[]}"#;

#[test]
fn drain_needs_yes_where_nobody_can_be_asked() {
    let node = FakeNode::new(|_| Served::ok(DRAINED));
    let output = run(&node, &["drain"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("give --yes"), "{output:?}");
    assert_eq!(node.requests(), Vec::<String>::new());
    let output = run(&node, &["drain", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(node.requests()[0].starts_with("POST /v1/drain "));
}

#[test]
fn drain_says_what_is_left() {
    let node = FakeNode::new(|_| Served::ok(r#"{"results":[],"failures":["a pin: busy"]}"#));
    let output = run(&node, &["drain", "--yes"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stdout(&output).contains("a pin: busy"), "{output:?}");
}

#[test]
fn drain_asks_on_a_terminal_and_takes_only_yes() {
    let status = r#"{"version":"0.1.0","pid":1,"uptime_seconds":1,"node":"edge-17","generation":1,
        "drained":false,"checks":1,"document":"/d","refused_document":null,"hooks":[],"foreign":[],
        "refusals":[],"notes":[]}"#;
    let node = FakeNode::new(move |request| match request.starts_with("POST") {
        true => Served::ok(DRAINED),
        false => Served::ok(status),
    });
    for (answer, code, requests) in [("\n", 1, 1), ("no\n", 1, 2), ("y\n", 0, 4)] {
        let (terminal, other_end) = fake_node::terminal();
        let mut command = command(node.socket(), &["drain"]);
        command.stdin(other_end).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        fs::File::from(terminal.try_clone().unwrap()).write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stderr(&output).contains("drain edge-17: no chain runs"), "{output:?}");
        assert_eq!(node.requests().len(), requests);
    }
}

const COUNTERS: &str = r#"{"at_unix_ms":1000,"hooks":[{"hook":{"interface":"eth0","kind":"xdp"},
    "programs":[],"passed_end":7}]}"#;

#[test]
fn a_watch_ends_with_ctrl_c() {
    let node = FakeNode::new(|_| Served::ok(COUNTERS));
    let mut command = command(node.socket(), &["counters", "--watch", "--interval", "100ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Two looks, each with this line.
    for _ in 0..2 {
        assert!(lines.any(|line| line.unwrap() == "  passed at the end: 7"));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_closed_output_ends_a_watch_and_is_no_error() {
    let node = FakeNode::new(|_| Served::ok(COUNTERS));
    let arguments = ["--json", "counters", "--watch", "--interval", "100ms"];
    let mut command = command(node.socket(), &arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let counters: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(counters["hooks"][0]["passed_end"], 7);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_watch_outlives_the_node() {
    let node = FakeNode::new(|_| Served::ok(COUNTERS));
    let arguments = ["--json", "counters", "--watch", "--interval", "100ms"];
    let mut command = command(node.socket(), &arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut looks = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(looks.next().unwrap().is_ok());
    let directory = node.stop();
    let error = errors.next().unwrap().unwrap();
    assert!(error.ends_with("the watch waits for it"), "{error}");
    let _node = FakeNode::within(directory, |_| Served::ok(&COUNTERS.replace("1000", "2000")));
    // Looks from before may still be on their way.
    assert!(looks.any(|look| look.unwrap().contains("2000")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_terminal_is_redrawn_and_coloured_unless_no_color_is_set() {
    let node = FakeNode::new(|_| Served::ok(COUNTERS));
    for (no_color, coloured) in [("", true), ("1", false)] {
        let (terminal, other_end) = fake_node::terminal();
        let arguments = ["counters", "--watch", "--interval", "100ms"];
        let mut command = command(node.socket(), &arguments);
        command.env("NO_COLOR", no_color).env("TERM", "xterm").stdout(other_end);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let mut shown = String::new();
        let mut lines = BufReader::new(fs::File::from(terminal)).lines();
        while shown.matches("passed at the end").count() < 2 {
            shown += &(lines.next().unwrap().unwrap() + "\n");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Time, empty line, hook, sum.
        assert!(shown.contains("\u{1b}[4A\u{1b}[J"), "{shown:?}");
        assert_eq!(shown.contains("\u{1b}[1meth0/xdp"), coloured, "{shown:?}");
    }
}

#[test]
fn schema_and_completions_need_no_node() {
    let absent = Path::new("/nonexistent/node.sock");
    let output = command(absent, &["schema"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema, pointsman_model::document::json_schema());
    for shell in ["bash", "zsh", "fish"] {
        let output = command(absent, &["completions", shell]).output().unwrap();
        assert!(output.status.success() && stdout(&output).contains("allow-gap"), "{shell}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let absent = Path::new("/nonexistent/node.sock");
    for arguments in [&["fly"][..], &["apply"], &["counters", "--interval", "1s"]] {
        let output = command(absent, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn inspect_shows_an_object_without_a_node() {
    let absent = Path::new("/nonexistent/node.sock");
    let output =
        command(absent, &["inspect", "builtin:udp-port-filter", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["programs"][0]["name"], "mtl_dp_filter");
    assert_eq!(report["maps"][0]["name"], "ports");
    // The same bytes as a file, by the hash that the report gives.
    let object = pointsman_bpf::builtin(pointsman_model::document::Builtin::UdpPortFilter);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(object).unwrap();
    let path = file.path().to_str().unwrap();
    let again = command(absent, &["--json", "inspect", path]).output().unwrap();
    assert_eq!(again.stdout, output.stdout);
    assert_eq!(report["sha256"], pointsman_model::Sha256::of(object).to_string());

    let output = command(absent, &["inspect", path, "--entry", "other"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no program \"other\" in the object; it has mtl_dp_filter"));
}

#[test]
fn inspect_names_what_is_no_object() {
    let absent = Path::new("/nonexistent/node.sock");
    for (object, message) in [
        ("/proc/self/status", "/proc/self/status: not a BPF object"),
        ("/bin/true", "/bin/true: not a BPF object"),
        ("/nonexistent.o", "cannot read /nonexistent.o: No such file"),
        ("/dev/zero", "/dev/zero is larger than the limit of 16777216 bytes for an object"),
        ("builtin:fly", "there is no built-in program \"fly\"; there are udp-port-filter"),
    ] {
        let output = command(absent, &["inspect", object]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(message), "{output:?}");
    }
}

#[test]
fn doctor_asks_the_node_and_checks_itself_where_there_is_none() {
    let healthy = r#"{"kernel":"6.18","checks":[{"name":"JIT","health":"ok","found":"on",
        "consequence":""}]}"#;
    let node = FakeNode::new(move |_| Served::ok(healthy));
    let output = run(&node, &["doctor"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("1 check: all is well"), "{output:?}");

    let absent = Path::new("/nonexistent/node.sock");
    let output = command(absent, &["doctor", "--json", "--bpffs", "/tmp"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let doctor: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(doctor["checks"][0]["name"], "node");
    let found = doctor["checks"][0]["found"].as_str().unwrap();
    assert!(found.contains("there is no socket /nonexistent/node.sock"), "{found}");
    // And what this host is really like: /tmp is no BPF file system.
    let checks = doctor["checks"].as_array().unwrap();
    assert!(
        checks.iter().any(|check| check["health"] == "broken"
            && check["found"].as_str().unwrap().contains("/tmp")),
        "{checks:?}"
    );
}
