pub(crate) mod afxdp;
mod applications;
mod chainless;
mod clients;
mod clock;
mod defects;
mod drift;
mod dropin;
mod glass;
mod interfaces;
mod kills;
mod leases;
mod lifecycle;
mod namespaces;
mod points;
mod preflight;
mod refusals;
mod swaps;
mod traffic;
mod unnamed;
mod upgrade;
mod xdp_defects;

use pointsman_netns::daemon::Host;
use pointsman_netns::netns::Pair;
use pointsman_netns::object_path;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A host with a veth pair: what every test here starts from.
fn scene() -> (Host, Pair) {
    (Host::new().expect("root"), Pair::new().expect("root"))
}

/// A document with programs and a chain on `v1`, both as in a document.
fn document(generation: u64, programs: &Value, chain: &Value) -> Value {
    json!({
        "schema": "pointsman.node/v1", "node": "test", "generation": generation,
        "programs": programs, "interfaces": {"v1": {"xdp": {"chain": chain}}}
    })
}

/// The hook of an interface in a status.
#[track_caller]
fn hook_of<'a>(status: &'a Value, interface: &str) -> &'a Value {
    let mut hooks = status["hooks"].as_array().into_iter().flatten();
    let found = hooks.find(|hook| hook["hook"]["interface"] == interface);
    found.unwrap_or_else(|| panic!("no hook of {interface} in {status:#}"))
}

/// Whether the hook of an interface stands so.
fn stands(interface: &str, state: &str) -> impl Fn(&Value) -> bool {
    move |status| hook_of(status, interface)["state"] == state
}

/// Whether a note of a status has these words.
fn notes(status: &Value, words: &str) -> bool {
    status["notes"].to_string().contains(words)
}

/// How long it takes from now until the link of `interface` is pinned, which is done last.
fn attached(host: &Host, interface: &str) -> Duration {
    let start = Instant::now();
    let link = host
        .bpffs
        .path()
        .join("pointsman/hooks")
        .join(interface.replace('/', "%2f"))
        .join("xdp/link");
    while !link.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "{} does not appear", link.display());
        std::thread::yield_now();
    }
    start.elapsed()
}

/// A program of a test object.
fn program(object: &str, entry: &str) -> Value {
    json!({"object": {"path": object_path(object)}, "entry": entry})
}

/// The smallest chain that passes everything.
fn passing(generation: u64) -> Value {
    let programs = json!({"pass": program("verdict", "v_pass")});
    document(generation, &programs, &json!([{"program": "pass"}]))
}
