//! `pointsman doctor` without a daemon: what it says of this kernel is so.

use pointsman_bpf::dispatcher::{freplace, host_libxdp};
use pointsman_bpf::release_at_least;
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::daemon::binary;
use pointsman_netns::netns::Pair;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The check named `name`: its health, what was found, and what follows.
#[track_caller]
fn check<'a>(doctor: &'a Value, name: &str) -> [&'a str; 3] {
    let checks = doctor["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name}: {doctor:#}"));
    ["health", "found", "consequence"].map(|field| found[field].as_str().expect("text"))
}

#[test]
fn the_doctor_is_right_about_this_kernel() {
    let (bpffs, pair) = (Bpffs::mount().expect("root"), Pair::new().expect("root"));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary("pointsman"));
        command.args(["--node", "/nonexistent/node.sock", "doctor", "--bpffs"]);
        command.arg(bpffs.path()).args(arguments);
        pair.right.run(|| command.output().expect("run it"))
    };
    let output = run(&["--json"]);
    let doctor = serde_json::from_slice(&output.stdout);
    let doctor: Value = doctor.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let health = |name| check(&doctor, name)[0];
    assert_eq!((health("load programs"), health("BPF filesystem")), ("ok", "ok"), "{doctor:#}");

    // freplace: as the kernel answers when it is asked in another way.
    let [health, found, consequence] = check(&doctor, "freplace");
    match freplace() {
        Ok(()) => {
            assert_eq!(health, "ok", "{found}");
            assert!(consequence.contains("can share an interface"), "{consequence}");
        }
        Err(_) => {
            assert_eq!(health, "limited", "{found}");
            assert!(found.contains("refuses programs of type EXT"), "{found}");
            assert!(consequence.contains("cannot join"), "{consequence}");
        }
    }

    // Nothing of what was tried is left attached, and the machine compiles what it runs.
    let programs = pair.right.ip_json(&["link", "show", "v1"]).expect("ip");
    assert!(programs[0]["xdp"].is_null(), "{programs}");
    let setting = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").expect("a setting");
    let [health, found, _] = check(&doctor, "JIT");
    assert_eq!(health == "limited", setting.trim() != "1", "{setting}: {found}");

    let [_, found, _] = check(&doctor, "TCX");
    assert_eq!(found == "TC takes links", release_at_least(6, 6), "{found}");

    // The package xdp-tools brings a libxdp.
    let libxdp = host_libxdp(Path::new("/")).expect("a libxdp");
    let [_, found, consequence] = check(&doctor, "libxdp");
    let version = libxdp.version.number();
    assert_eq!(found, format!("{} speaks version {version}", libxdp.file.display()));
    assert!(consequence.contains(&format!("are of version {version}")), "{consequence}");

    // A veth has no filter of flows, and says so by the kernel of the time.
    let [_, found, consequence] = check(&doctor, "v1");
    assert!(found.starts_with("veth; ") && found.ends_with("; no ntuple"), "{found}");
    assert!(consequence.ends_with("no rule can send a flow to a queue"), "{consequence}");
    let tells = check(&doctor, "xdp-features")[0] == "ok";
    assert_eq!(found.contains("native XDP (basic, redirect"), tells, "{found}");
    assert_eq!(consequence.contains("AF_XDP sockets get copies"), tells, "{consequence}");

    // The same for people.
    let text = String::from_utf8(run(&[]).stdout).expect("UTF-8");
    for word in ["freplace", "libxdp", "TCX", "ntuple"] {
        assert!(text.contains(word), "{text}");
    }
}
