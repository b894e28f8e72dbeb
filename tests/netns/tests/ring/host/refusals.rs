//! Bad input: each time one clear error, the running chain stays, the next request is answered.

use super::{document, passing, program, scene};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::netns::Pair;
use pointsman_netns::{foreign, object_path};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

/// A daemon with a running chain, and proof afterwards that nothing happened to it.
struct Steady {
    host: Host,
    pair: Pair,
    daemon: Daemon,
    before: Value,
}

impl Steady {
    fn new() -> Self {
        let (host, pair) = scene();
        let daemon = host.start(&pair.right).expect("the daemon starts");
        daemon.apply_whole(&passing(1));
        let before = daemon.hook()["fused"].clone();
        Self { host, pair, daemon, before }
    }

    /// Applies `document`, of which something must be refused for `reason`, and returns why.
    #[track_caller]
    fn refuses(&self, document: &Value, reason: &str) -> Value {
        let answer = self.daemon.apply(document);
        assert_eq!(answer.code, 3, "{answer:#?}");
        let refusal = answer.value["refusals"][0].clone();
        assert_eq!(refusal["reason"], reason, "{refusal:#}");
        self.check();
        refusal
    }

    #[track_caller]
    fn check(&self) {
        let status = self.daemon.status();
        let mut hooks = status["hooks"].as_array().into_iter().flatten();
        let hook = hooks.find(|hook| hook["hook"]["interface"] == "v1").expect("a hook of v1");
        assert_eq!(hook["fused"], self.before, "the running chain stays");
        assert_eq!(pointsman_netns::traffic::received(&self.pair, &[5001], 5999, 2), [2]);
    }
}

#[track_caller]
fn says(refusal: &Value, parts: &[&str]) {
    let message = refusal["message"].as_str().expect("a message");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn documents_that_are_none() {
    let steady = Steady::new();
    let huge = vec![b' '; 10 << 20];
    let good = passing(2).to_string();
    let texts: [(&[u8], &str); 6] = [
        (b"not json", "expected"),
        (&huge, "limit"),
        (&good.as_bytes()[..40], "EOF"),
        (b"{\"schema\":\"pointsman.node/v1\",\"colour\":1}", "unknown field `colour`"),
        (b"[]", "expected an object"),
        (b"", "EOF"),
    ];
    for (text, part) in texts {
        let answer = steady.daemon.ask(&["apply", "-"], text);
        assert_eq!(answer.code, 1, "{answer:#?}");
        assert!(answer.stderr.contains(part), "{part:?} is not in {}", answer.stderr);
        steady.check();
    }
    let twice = good.replacen("\"generation\":2", "\"generation\":2,\"generation\":3", 1);
    let answer = steady.daemon.ask(&["apply", "-"], twice.as_bytes());
    assert!(answer.code == 1 && answer.stderr.contains("duplicate"), "{answer:#?}");
    let unknown = document(2, &json!({}), &json!([{"program": "nowhere"}]));
    let answer = steady.daemon.apply(&unknown);
    assert!(answer.code == 1 && answer.stderr.contains("/chain/0/program"), "{answer:#?}");
    steady.check();
}

#[test]
fn guards_of_generation_and_emptiness() {
    let steady = Steady::new();
    steady.daemon.apply_whole(&passing(5));
    for document in [passing(4), document(6, &json!({}), &json!([]))] {
        let answer = steady.daemon.apply(&document);
        assert_eq!(answer.code, 1, "{answer:#?}");
        steady.check();
    }
    assert_eq!(steady.daemon.status()["generation"], 5);
}

#[test]
fn objects_that_are_none() {
    let steady = Steady::new();
    let bytes = std::fs::read(object_path("verdict")).unwrap();
    let truncated = steady.host.path("truncated.o");
    std::fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();
    let mut generation = 1;
    let mut try_path = |path: Value, parts: &[&str]| {
        generation += 1;
        let programs = json!({"bad": {"object": {"path": path}, "entry": "v_pass"}});
        let document = document(generation, &programs, &json!([{"program": "bad"}]));
        let refusal = steady.refuses(&document, "program_unusable");
        assert_eq!(refusal["program"], "bad");
        says(&refusal, parts);
    };
    try_path(json!("/nowhere/x.o"), &["/nowhere/x.o"]);
    try_path(json!("/etc/hostname"), &["not an ELF"]);
    try_path(json!("/bin/true"), &["expected BPF"]);
    try_path(json!(truncated), &["libbpf cannot open"]);
    try_path(json!("/dev/zero"), &["/dev/zero"]);
    try_path(json!("/etc"), &["/etc"]);
}

#[test]
fn entries_globals_and_maps_that_do_not_fit() {
    let steady = Steady::new();
    let mut generation = 1;
    let mut try_program = |program: Value, parts: &[&str]| {
        generation += 1;
        let document = document(generation, &json!({"bad": program}), &json!([{"program": "bad"}]));
        says(&steady.refuses(&document, "program_unusable"), parts);
    };
    try_program(program("verdict", "nowhere"), &["nowhere", "v_pass"]);
    try_program(program("notxdp", "for_tc"), &["for_tc", "not an XDP program"]);
    let with = |key: &str, value: Value| {
        let mut it = program("verdict", "v_global");
        it[key] = value;
        it
    };
    try_program(with("globals", json!({"speed": 1})), &["speed", "verdict"]);
    try_program(with("globals", json!({"verdict": 1u64 << 40})), &["verdict", "i32"]);
    let ports = |entry: Value| json!({"builtin": "udp-port-filter", "maps": {"ports": {"entries": [entry]}}});
    try_program(ports(json!({"key": 65536, "value": 1})), &["ports", "65535"]);
    try_program(ports(json!({"key": 1, "value": 256})), &["ports", "value"]);
    let nets = |key: &str| {
        json!({"builtin": "cidr-blocklist",
        "maps": {"blocklist_v4": {"entries": [{"key": key, "value": 1}]}}})
    };
    try_program(nets("192.0.2.1/24"), &["192.0.2.1/24", "behind its prefix"]);
    try_program(nets("2001:db8::/32"), &["IPv6"]);
    let mut other = nets("192.0.2.0/24");
    other["maps"] = json!({"blocklist": {"entries": []}});
    try_program(other, &["blocklist", "blocklist_v4"]);
}

#[test]
fn a_verifier_refusal_names_the_guilty_with_its_source() {
    let steady = Steady::new();
    let programs = json!({
        "fine": program("verdict", "v_pass"), "guilty": program("verifier", "unchecked")});
    let chain = json!([{"program": "fine"}, {"program": "guilty"}]);
    let refusal = steady.refuses(&document(2, &programs, &chain), "program_unusable");
    assert_eq!(refusal["program"], "guilty");
    let log = refusal["log"].as_str().expect("a log");
    assert!(log.lines().any(|line| line.starts_with("; ")), "no source line in:\n{log}");
}

#[test]
fn members_that_do_not_go_together() {
    let steady = Steady::new();
    // Deeper than any kernel's arithmetic allows beside a chain's frame that must be kept.
    let programs = json!({
        "deep": program("stack", "stack_104_sub_256"), "tail": program("tailcall", "member"),
        "free": program("proprietary", "proprietary"), "gpl": program("gpl", "gpl")});
    let chain = json!([{"program": "free"}, {"program": "gpl"}]);
    let refusal = steady.refuses(&document(2, &programs, &chain), "does_not_fit");
    says(&refusal, &["gpl", "free", "licence"]);
    // Mixed frags go together without: the plan says who decides.
    let programs = json!({"many": program("frags", "f_frags"), "one": program("frags", "f_plain")});
    let chain = json!([{"program": "many"}, {"program": "one"}]);
    let applied = steady.daemon.apply_whole(&document(3, &programs, &chain));
    let notes = applied["plan"]["notes"].to_string();
    assert!(notes.contains("frags") && notes.contains("one"), "{notes}");
    assert_eq!(steady.daemon.hook()["fused"]["frags"], false);
}

#[test]
fn a_stack_that_does_not_fit_comes_with_the_figures() {
    let steady = Steady::new();
    let programs = json!({"full": program("stack", "stack_512"), "tail": program("tailcall", "member"),
        "deep": program("stack", "stack_480"), "pass": program("verdict", "v_pass")});
    let chain = json!([{"program": "full", "priority": 1}, {"program": "pass"}]);
    let answer = steady.daemon.apply(&document(2, &programs, &chain));
    if pointsman_netns::members::rounding() == pointsman_fuse::layout::StackRounding::To16 {
        // This kernel does not count an empty frame: called, it fits. What never fits is tried
        // with 512 bytes below a member that cannot be called any further down.
        assert_eq!(answer.code, 0, "{answer:#?}");
        assert!(answer.value["plan"]["notes"].to_string().contains("call"), "{answer:#?}");
    } else {
        assert_eq!(answer.code, 3);
        says(&answer.value["refusals"][0], &["full", "512", "480"]);
        steady.check();
    }
}

#[test]
fn interfaces_that_cannot() {
    let steady = Steady::new();
    let on = |generation: u64, interface: &str, mode: &str| {
        let mut document = passing(generation);
        document["interfaces"][interface] =
            json!({"xdp": {"mode": mode, "chain": [{"program": "pass"}]}});
        document
    };
    let refusal = steady.refuses(&on(2, "lo", "native"), "mode_unsupported");
    says(&refusal, &["lo", "skb"]);
    let applied = steady.daemon.apply_whole(&on(3, "lo", "skb"));
    assert_eq!(applied["outcome"], "applied");
    steady.check();
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let steady = Steady::new();
    let ip = |arguments: &[&str]| steady.pair.right.ip(arguments).unwrap();
    ip(&["link", "add", "w0", "type", "veth", "peer", "name", "w1"]);
    ip(&["link", "set", "w0", "up"]);
    foreign::attach(&steady.pair.right, "w0", "verdict", "v_drop").unwrap();
    let foreign = |status: &Value| status["foreign"][0]["attachment"].clone();
    let before = foreign(&steady.daemon.status());
    assert_eq!(before["name"], "v_drop", "{before:#}");
    let mut document = passing(2);
    document["interfaces"]["w0"] = json!({"xdp": {"chain": [{"program": "pass"}]}});
    let refusal = steady.refuses(&document, "foreign_program");
    says(&refusal, &["v_drop", "w0"]);
    assert_eq!(foreign(&steady.daemon.status()), before);
    let drained = steady.daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    assert_eq!(foreign(&steady.daemon.status()), before, "a drain takes ours only");
}

#[test]
fn hosts_that_cannot() {
    let (host, pair) = scene();
    let failing = |mut command: std::process::Command| {
        let output = pair.right.run(|| command.output().unwrap());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // Without privileges: as nobody, from a place that nobody can reach.
    let copy = host.path("pointsman-node");
    std::fs::copy(host.command().get_program(), &copy).unwrap();
    for path in [copy.parent().unwrap(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut nobody = std::process::Command::new(&copy);
    nobody.args(host.command().get_args()).env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    std::os::unix::process::CommandExt::uid(&mut nobody, 65534);
    std::os::unix::process::CommandExt::gid(&mut nobody, 65534);
    let said = failing(nobody);
    assert!(!said.trim().is_empty() && said.lines().count() <= 2, "{said}");
    // Two on one run directory, and two on one directory of pins.
    let daemon = host.start(&pair.right).unwrap();
    let said = failing(host.command());
    assert!(said.contains(&daemon.pid().to_string()), "{said}");
    let other = Host::new().unwrap();
    let pins = host.bpffs.path().join("pointsman");
    let said = failing(other.command_with(&pins));
    assert!(said.contains("in use"), "{said}");
    daemon.apply_whole(&passing(1));
}

#[test]
fn a_full_disk_changes_nothing() {
    let (host, pair) = scene();
    // The state directory on a filesystem too small for the next object.
    std::fs::create_dir(host.path("state")).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", host.path("state"), "tmpfs", flags, Some(c"size=256k")).unwrap();
    let unmount = scopeguard(|| {
        let lazily = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(host.path("state"), lazily);
    });
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&passing(1));
    let before = daemon.hook()["fused"].clone();
    let big = host.path("big.o");
    let mut bytes = std::fs::read(object_path("verdict")).unwrap();
    bytes.resize(1 << 20, 0);
    std::fs::write(&big, bytes).unwrap();
    let programs = json!({"big": {"object": {"path": big}, "entry": "v_drop"}});
    let answer = daemon.apply(&document(2, &programs, &json!([{"program": "big"}])));
    assert_eq!(answer.code, 1, "{answer:#?}");
    assert!(answer.stderr.contains("storage"), "{}", answer.stderr);
    let status = daemon.status();
    assert_eq!((&status["generation"], &daemon.hook()["fused"]), (&json!(1), &before));
    daemon.apply_whole(&passing(2));
    drop(unmount);
}

/// Runs `work` when dropped.
fn scopeguard(work: impl FnMut()) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(work)
}
