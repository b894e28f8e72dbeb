//! Many at once, from both sides.

use pointsman_netns::dispatcher::{Stage, path, rows, text, well};
use std::path::Path;
use std::process::{Output, Stdio};

/// Runs all of these at once in the namespace of `v1`, every second one ours; whether each was
/// ours, and its end.
fn at_once(stage: &Stage, commands: &[Vec<&str>]) -> Vec<(bool, Output)> {
    let ours = pointsman_netns::daemon::binary("pointsman");
    let children: Vec<_> = stage.pair.right.run(|| {
        let spawn = |(at, arguments): (usize, &Vec<&str>)| {
            let mut command = match at % 2 == 0 {
                true => stage.command(&ours, &[&["xdp-loader"], &arguments[..]].concat()),
                // Without the lock file in /run that lets one xdp-loader run at a time: other
                // users of libxdp have none.
                false => {
                    let alone = "mount -t tmpfs tmpfs /run && exec xdp-loader \"$@\"";
                    let shell = ["--mount", "sh", "-c", alone, "xdp-loader"];
                    stage.command(Path::new("unshare"), &[&shell, &arguments[..]].concat())
                }
            };
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            (at % 2 == 0, child.expect("spawn"))
        };
        commands.iter().enumerate().map(spawn).collect()
    });
    let end = |(ours, child): (bool, std::process::Child)| {
        (ours, child.wait_with_output().expect("wait"))
    };
    children.into_iter().map(end).collect()
}

/// How often libxdp refused. It does where it should look again: when it lost a first attach, and
/// when the pins that it looked for went with the dispatcher before. Ours never refuses.
#[track_caller]
fn refusals(ended: &[(bool, Output)]) -> usize {
    let failed: Vec<_> = ended.iter().filter(|(_, output)| !output.status.success()).collect();
    for (ours, output) in &failed {
        assert!(!ours && output.status.code() == Some(240), "{output:?}");
    }
    failed.len()
}

fn shown(stage: &Stage, interface: &str) -> usize {
    rows(&text(&stage.xdp_loader(&["status", interface]).stdout)).len()
}

#[test]
fn of_24_adds_at_once_from_both_sides_none_is_lost() {
    let Some(stage) = Stage::set("races::adds") else { return };
    let interfaces = ["v1", "w1", "w2"];
    let object = path("verdict");
    for interface in &interfaces[1..] {
        let peer = format!("{interface}p");
        let add = ["link", "add", interface, "type", "veth", "peer", "name", &peer];
        stage.pair.right.ip(&add).expect("root");
    }
    for interface in interfaces {
        well(&stage.xdp_loader(&["load", "-n", "v_pass", interface, &object]));
    }
    let add = |at: usize| vec!["load", "-n", "v_pass", interfaces[at / 2 % 3], &object];
    let commands: Vec<_> = (0..24).map(add).collect();
    let ended = at_once(&stage, &commands);
    let refused = refusals(&ended);
    println!("libxdp refused {refused} of its 12 adds");
    let shown: usize = interfaces.iter().map(|interface| shown(&stage, interface)).sum();
    assert_eq!(shown, 3 + 24 - refused, "what was reported as loaded is there");
    // Nothing but the three chains is pinned.
    let pinned = stage.bpffs.list().expect("a list");
    let directories = pinned.iter().filter(|path| path.components().count() == 2).count();
    assert_eq!(directories, 3, "{pinned:?}");
}

#[test]
fn in_a_storm_on_an_empty_interface_all_of_ours_end_attached() {
    let Some(stage) = Stage::set("races::first") else { return };
    let object = path("verdict");
    let commands = vec![vec!["load", "-n", "v_pass", "v1", &object]; 8];
    let ended = at_once(&stage, &commands);
    let refused = refusals(&ended);
    println!("libxdp refused {refused} of its 4 first attaches");
    // What was reported as loaded is there, whoever loaded it.
    assert_eq!(shown(&stage, "v1"), 8 - refused);
    assert_eq!(stage.theirs(), stage.ours());
}
