mod drift;
mod glass;
mod kills;
mod lifecycle;
mod preflight;
mod refusals;
mod traffic;
mod upgrade;

use pointsman_netns::daemon::Host;
use pointsman_netns::netns::Pair;
use pointsman_netns::object_path;
use serde_json::{Value, json};

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

/// A program of a test object.
fn program(object: &str, entry: &str) -> Value {
    json!({"object": {"path": object_path(object)}, "entry": entry})
}

/// The smallest chain that passes everything.
fn passing(generation: u64) -> Value {
    let programs = json!({"pass": program("verdict", "v_pass")});
    document(generation, &programs, &json!([{"program": "pass"}]))
}
