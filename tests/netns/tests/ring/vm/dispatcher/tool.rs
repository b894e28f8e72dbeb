//! `xdp-loader`, theirs and ours: the same command lines, output and codes.

use pointsman_netns::daemon::binary;
use pointsman_netns::dispatcher::{Stage, path, text, well};
use serde_json::{Value, json};
use std::process::Output;

/// What both say for the same arguments. Lines in which libxdp explains itself are its own.
fn said(output: &Output) -> (String, Vec<String>, Option<i32>) {
    let own = |line: &&str| !line.starts_with(" libxdp:") && !line.starts_with("libbpf:");
    let errors = text(&output.stderr).lines().filter(own).map(str::to_owned).collect();
    (text(&output.stdout), errors, output.status.code())
}

#[track_caller]
fn alike(stage: &Stage, arguments: &[&str]) {
    let (theirs, ours) = (stage.xdp_loader(arguments), stage.our_loader(arguments));
    assert_eq!(said(&ours), said(&theirs), "{arguments:?}");
}

#[test]
fn command_lines_output_and_codes_are_theirs() {
    let Some(stage) = Stage::set("tool::alike") else { return };
    let object = path("verdict");
    for arguments in [
        &["status", "v1"][..],
        &["s"],
        &["bogus"],
        &["load"],
        &["load", "v1"],
        &["load", "-m", "bad", "v1", "x"],
        &["load", "v1", "--bogus", "x"],
        &["load", "-A", "XDP_FOO", "v1", "x"],
        &["load", "-P"],
        &["l", "v1", "/nosuch.o"],
        &["load", "nosuch", "x"],
        &["load", "v1", "/etc/passwd"],
        &["load", "v1", "-n", "nosuch", &object],
        &["load", "v1", "-s", "nosuch", &object],
        &["unload", "v1"],
        &["u", "v1", "-a"],
        &["unload", "v1", "-i", "5"],
        &["unload", "-h"],
        &["clean", "-h"],
        &["clean", "v1"],
        &["c", "nosuch"],
        &["status", "nosuch"],
    ] {
        if arguments.contains(&"-h") {
            // Ours has more options; the code and the first lines are the same.
            let (theirs, ours) = (stage.xdp_loader(arguments), stage.our_loader(arguments));
            assert_eq!(ours.status.code(), theirs.status.code());
            let first = |o: &Output| text(&o.stdout).lines().take(4).collect::<String>();
            assert_eq!(first(&ours), first(&theirs), "{arguments:?}");
        } else {
            alike(&stage, arguments);
        }
    }
    // The same chain, listed by both; a link of the name is the same tool.
    let load = ["load", "v1", "-P", "7", "-A", "XDP_DROP,XDP_TX", "-n", "v_tx", object.as_str()];
    well(&stage.our_loader(&load));
    let config = path("runconfig");
    well(&stage.our_loader(&["load", "v1", &config]));
    alike(&stage, &["status", "v1"]);
    alike(&stage, &["status"]);
    alike(&stage, &["unload", "v1", "-i", "99999"]);
    assert_eq!(stage.ours()[1], (10, "suggests".into(), "XDP_DROP".into()), "the author's word");
    let directory = tempfile::tempdir().expect("a directory");
    let link = directory.path().join("xdp-loader");
    std::os::unix::fs::symlink(binary("pointsman"), &link).expect("a link");
    let linked = stage.run(&link, &["status", "v1"]);
    assert_eq!(said(&linked), said(&stage.xdp_loader(&["status", "v1"])));
    // Without type information a program runs alone or not at all.
    alike(&stage, &["load", "v1", &path("nobtf")]);
    // Our unload of all, then a program that none of both made.
    well(&stage.our_loader(&["unload", "v1", "--all"]));
    alike(&stage, &["status", "v1"]);
    let set = ["link", "set", "dev", "v1", "xdpgeneric", "object", &object, "section", "xdp"];
    stage.pair.right.ip(&set).expect("ip");
    alike(&stage, &["status", "v1"]);
    alike(&stage, &["load", "v1", &object]);
    well(&stage.our_loader(&["unload", "v1", "--all"]));
    alike(&stage, &["unload", "v1", "--all"]);
    well(&stage.our_loader(&["load", "v1", &path("nobtf")]));
    alike(&stage, &["status", "v1"]);
}

#[test]
fn what_the_original_cannot_do() {
    let Some(stage) = Stage::set("tool::more") else { return };
    let object = path("verdict");
    stage.pair.right.ip(&["link", "add", "w1", "type", "veth", "peer", "name", "w1p"]).expect("ip");
    let load = ["load", "v1", "--also", "w1", "-P", "0", "-A", "", "-n", "v_pass", "--json"];
    let loaded = stage.our_loader(&[&load[..], &[&object]].concat());
    well(&loaded);
    let loaded: Value = serde_json::from_slice(&loaded.stdout).expect("JSON");
    assert_eq!(loaded[0]["programs"], loaded[1]["programs"], "one program on both: {loaded}");
    let id = loaded[0]["programs"][0].to_string();
    assert_eq!(stage.theirs(), [(0, "v_pass".into(), String::new())]);
    well(&stage.our_loader(&["modify", "v1", "-i", &id, "-P", "33", "-A", "XDP_PASS"]));
    assert_eq!(stage.theirs(), [(33, "v_pass".into(), "XDP_PASS".into())]);
    well(&stage.our_loader(&["load", "v1", "--replace", &id, "-n", "v_drop", &object]));
    assert_eq!(stage.theirs(), [(33, "v_drop".into(), "XDP_PASS".into())]);
    let status = stage.our_loader(&["status", "v1", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let (program, only) = (&status[0]["programs"][0], &status[0]);
    assert_eq!((&only["version"], &only["attached_by"]), (&json!(2), &json!("netlink")));
    assert_eq!((&program["priority"], &program["name"]), (&json!(33), &json!("v_drop")));
    well(&stage.our_loader(&["unload", "v1", "--also", "w1", "--all"]));
    assert!(stage.theirs().is_empty());
}
