//! What the command line says of dispatchers: whose each program is, and how often it ran.

use super::{DROP, PASS, Scene, document, dropping, program};
use pointsman_netns::daemon::binary;
use pointsman_netns::dispatcher::text;
use pointsman_netns::traffic::received;
use serde_json::{Value, json};
use std::process::Command;

/// What `pointsman` prints for people.
fn plain(scene: &Scene, arguments: &[&str]) -> String {
    let mut command = Command::new(binary("pointsman"));
    command.arg("--node").arg(scene.host.path("run/node.sock")).args(arguments);
    let output = command.output().expect("run pointsman");
    assert!(output.stderr.is_empty(), "{output:?}");
    text(&output.stdout)
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

fn two(generation: u64) -> Value {
    let programs = json!({"filter": dropping(5001), "meter": program("v_pass")});
    let chain = json!([
        {"program": "filter", "priority": 20}, {"program": "meter", "priority": 21}
    ]);
    let others = json!([{"name": "v_opaque", "priority": 30}]);
    document(generation, &programs, &json!({"chain": chain, "others": others}))
}

/// The kernel counts runs of programs while this is there.
struct Counting;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    fn start() -> Self {
        std::fs::write(SWITCH, "1").expect("root");
        Self
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = std::fs::write(SWITCH, "0");
    }
}

#[test]
fn every_program_is_shown_with_whose_it_is_and_what_the_kernel_counted() {
    let Some(scene) = Scene::long("told::all") else { return };
    scene.load(10, "v_opaque", "XDP_PASS");
    // A chain of others alone.
    let foreign = scene.daemon.status()["foreign"][0].clone();
    assert_eq!(foreign["interface"], "v1");
    assert_eq!(foreign["dispatcher"]["programs"][0]["name"], "v_opaque", "{foreign:#}");
    says(&plain(&scene, &["status"]), &["libxdp or bpfman", "v_opaque", "unknown", "1 program\n"]);
    // The plan says what it does with them, and changes nothing.
    let file = scene.host.path("two.json");
    std::fs::write(&file, two(1).to_string()).expect("written");
    let mut planning = Command::new(binary("pointsman"));
    planning.arg("--node").arg(scene.host.path("run/node.sock")).arg("plan").arg(&file);
    let plan = planning.output().expect("run pointsman");
    assert_eq!(plan.status.code(), Some(4), "changes are pending: {plan:?}");
    let parts = ["dispatcher (auto", "[filter meter]", "v_opaque (id ", "not ours): priority 30"];
    says(&text(&plan.stdout), &parts);
    assert_eq!(scene.stage.ours()[0].0, 10);
    scene.daemon.apply_whole(&two(1));
    let status = plain(&scene, &["status"]);
    says(&status, &["ours: filter meter", "v_opaque", "unknown", "2 programs\n"]);
    let hook = scene.daemon.hook();
    let programs = &hook["dispatcher"]["programs"];
    assert_eq!(programs[0]["members"], json!(["filter", "meter"]), "{hook:#}");
    let owners = (&programs[0]["owner"], &programs[1]["owner"]);
    assert_eq!(owners, (&json!("this node"), &json!("unknown")));
    assert!(hook["dispatcher"]["runs"].is_null(), "nobody counts: {hook:#}");
    // The kernel counts the dispatcher when it is told to, and never the programs in its slots.
    let counting = Counting::start();
    let runs = || scene.daemon.hook()["dispatcher"]["runs"].as_u64().expect("a number");
    let before = runs();
    assert_eq!((scene.verdict(5001), scene.verdict(5002)), (DROP, PASS));
    assert_eq!(received(&scene.stage.pair, &[5001, 5002], 5999, 3), [0, 3]);
    assert!(runs() >= before + 9, "two test runs, six datagrams and a marker");
    assert!(scene.stage.chain().components.iter().all(|component| component.runs == 0));
    says(&plain(&scene, &["status"]), &["2 programs  ", " runs of "]);
    drop(counting);
    says(&plain(&scene, &["doctor"]), &["freplace", "libxdp", "version 2"]);
}
