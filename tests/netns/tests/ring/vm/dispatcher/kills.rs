//! `kill -9` between every two steps: `strace` delivers the signal when our process is about to
//! make a given system call, so the program under test is the one that is shipped.

use pointsman_netns::daemon::binary;
use pointsman_netns::dispatcher::{Stage, path, text, well};
use pointsman_netns::members::any_packet;
use pointsman_netns::random::{Random, full};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Output;

/// The system calls that a change is made of.
const STEPS: &str = "bpf,flock,mkdir,rename,rmdir,sendto,sendmsg,unlink";

/// Runs something under `strace`, with more options for it.
pub(super) type Run<'a> = &'a dyn Fn(&[&str]) -> Output;

/// Runs `command` under `strace` on a stage.
pub(super) fn traced(stage: &Stage, options: &[&str], command: &[&str]) -> Output {
    stage.run(Path::new("strace"), &[&["-f", "-qq"], options, command].concat())
}

/// Our tool, on a stage.
fn tool<'a>(stage: &'a Stage, command: &'a [&str]) -> impl Fn(&[&str]) -> Output + 'a {
    move |options| {
        let ours = binary("pointsman");
        let program = [ours.to_str().expect("UTF-8"), "xdp-loader"];
        traced(stage, options, &[&program, command].concat())
    }
}

/// The steps of what is run, as the name of a system call and how many of that name it is.
/// Without those that only ask or try: a kill there is one before the next.
pub(super) fn steps(run: Run<'_>) -> Vec<(String, usize)> {
    let output = run(&["-e", &format!("trace={STEPS}")]);
    well(&output);
    let mut counts = BTreeMap::new();
    let mut found = Vec::new();
    for line in text(&output.stderr).lines() {
        // One of several threads.
        let line = line
            .strip_prefix("[pid")
            .and_then(|rest| rest.split_once("] "))
            .map_or(line, |(_, it)| it);
        let line = line.trim_start_matches(|c: char| c != 'b' && !c.is_ascii_lowercase());
        let Some((call, arguments)) = line.split_once('(') else { continue };
        if !STEPS.split(',').any(|step| step == call) {
            continue;
        }
        let count: &mut usize = counts.entry(call.to_owned()).or_default();
        *count += 1;
        let changes = match call {
            "bpf" => ["BPF_LINK_CREATE", "BPF_OBJ_PIN"].iter().any(|c| arguments.starts_with(c)),
            _ => true,
        };
        if changes {
            found.push((call.to_owned(), *count));
        }
    }
    found
}

/// Runs it again and kills it before a step, if it comes so far; whether it did.
pub(super) fn killed_before(run: Run<'_>, step: &(String, usize)) -> bool {
    let (call, nth) = step;
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let output = run(&["-o", "/dev/null", "-e", &inject]);
    // strace ends as its child did.
    output.status.signal() == Some(9) || output.status.code() == Some(137)
}

#[test]
fn whenever_a_loader_is_killed_the_chain_is_the_old_or_the_new_one() {
    let Some(stage) = Stage::set("kills::load") else { return };
    let object = path("verdict");
    well(&stage.xdp_loader(&["load", "-P", "10", "-n", "v_pass", "v1", &object]));
    let load = ["load", "-P", "20", "-n", "v_drop", "v1", object.as_str()];
    let steps = steps(&tool(&stage, &load));
    let names: Vec<_> = steps.iter().map(|(call, _)| call.as_str()).collect();
    println!("{} steps: {}", steps.len(), names.join(" "));
    for wanted in ["bpf", "flock", "mkdir", "unlink", "rmdir"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
    let unload = |stage: &Stage| {
        let chain = stage.chain();
        for component in chain.components.iter().filter(|c| c.name == "v_drop") {
            let id = component.id.to_string();
            well(&stage.xdp_loader(&["unload", "v1", "--id", &id]));
        }
        stage.ours()
    };
    let old = unload(&stage);
    let mut random = Random::new("kills::load");
    let mut kills = 0;
    for step in &steps {
        // All of them in a long run, a third of them in a short one.
        if !full() && !random.one_in(3) {
            continue;
        }
        kills += usize::from(killed_before(&tool(&stage, &load), step));
        let after = stage.ours();
        assert_eq!(after, stage.theirs(), "killed before {step:?}");
        assert!(after == old || after.len() == 2, "killed before {step:?}: {after:?}");
        let wanted = if after == old { 2 } else { 1 };
        assert_eq!(stage.verdict(&any_packet()), wanted, "killed before {step:?}");
        // libxdp's clean takes what is left over and nothing else; then ours starts again.
        well(&stage.xdp_loader(&["clean", "v1"]));
        assert_eq!(stage.ours(), after, "cleaned after {step:?}");
        assert_eq!(directories(&stage), 1, "cleaned after {step:?}");
        assert_eq!(unload(&stage), old);
        well(&stage.our_loader(&load));
        assert_eq!(stage.theirs().len(), 2);
        assert_eq!(unload(&stage), old);
    }
    assert!(kills > 0, "nothing was killed");
    println!("{kills} kills");
}

/// How many dispatchers are pinned.
fn directories(stage: &Stage) -> usize {
    let list = stage.bpffs.list().expect("a list");
    list.iter().filter(|path| path.components().count() == 2).count()
}

#[test]
fn whenever_a_move_or_a_removal_is_killed_the_chain_is_the_old_or_the_new_one() {
    let Some(stage) = Stage::set("kills::others") else { return };
    let object = path("verdict");
    let mut random = Random::new("kills::others");
    let mut kills = 0;
    // A program of theirs and one of ours, anew before each kill.
    let set = || {
        well(&stage.our_loader(&["unload", "v1", "--all"]));
        well(&stage.xdp_loader(&["load", "-P", "10", "-n", "v_pass", "v1", &object]));
        well(&stage.our_loader(&["load", "-P", "20", "-n", "v_drop", "v1", &object]));
        let last = stage.chain().components.pop().expect("two");
        (last.id.to_string(), stage.ours())
    };
    well(&stage.xdp_loader(&["load", "-n", "v_pass", "v1", &object]));
    for command in [&["modify", "-P", "5", "v1", "-i"][..], &["unload", "v1", "-i"]] {
        let (id, _) = set();
        let steps = steps(&tool(&stage, &[command, &[&id]].concat()));
        let new = stage.ours();
        assert!(steps.len() > 10, "{steps:?}");
        for step in &steps {
            if !full() && !random.one_in(10) {
                continue;
            }
            let (id, old) = set();
            let command = [command, &[&id]].concat();
            kills += usize::from(killed_before(&tool(&stage, &command), step));
            let after = stage.ours();
            assert_eq!(after, stage.theirs(), "{command:?} killed before {step:?}");
            assert!(after == old || after == new, "{command:?} before {step:?}: {after:?}");
            let drops = after.iter().any(|row| row.1 == "v_drop");
            let wanted = if drops { 1 } else { 2 };
            assert_eq!(stage.verdict(&any_packet()), wanted, "{command:?} before {step:?}");
            well(&stage.xdp_loader(&["clean", "v1"]));
            assert_eq!((directories(&stage), stage.theirs()), (1, after.clone()), "{step:?}");
            // Ours starts again.
            if after == old {
                well(&stage.our_loader(&command));
            }
            assert_eq!(stage.theirs(), new, "{command:?} after {step:?}");
        }
    }
    println!("{kills} kills");
}

#[test]
fn a_first_load_that_is_killed_leaves_nothing_or_all_of_it() {
    let Some(stage) = Stage::set("kills::first") else { return };
    let object = path("verdict");
    let load = ["load", "-n", "v_drop", "v1", object.as_str()];
    let steps = steps(&tool(&stage, &load));
    let mut random = Random::new("kills::first");
    for step in steps.iter().filter(|_| full() || random.one_in(3)) {
        well(&stage.our_loader(&["unload", "v1", "--all"]));
        let _ = killed_before(&tool(&stage, &load), step);
        well(&stage.xdp_loader(&["clean"]));
        let shown = stage.theirs().len();
        let directories = directories(&stage);
        assert!(shown <= 1 && directories == shown, "{shown} and {directories}: {step:?}");
        well(&stage.our_loader(&load));
        assert_eq!(stage.theirs().len(), shown + 1, "{step:?}");
    }
}

#[test]
fn garbage_is_removed_and_what_runs_elsewhere_is_not() {
    let Some(stage) = Stage::set("kills::garbage") else { return };
    let object = path("verdict");
    // The same number of an interface, in two namespaces that share one BPF filesystem.
    let load = ["load", "-n", "v_pass", "v1", object.as_str()];
    well(&stage.our_loader(&load));
    let other = pointsman_netns::netns::Pair::new().expect("root");
    let elsewhere = |arguments: &[&str]| {
        let command = || {
            let all = [&["xdp-loader"], arguments].concat();
            stage.command(&binary("pointsman"), &all).output().expect("run it")
        };
        other.right.run(command)
    };
    well(&elsewhere(&load));
    assert_eq!(other.right.index("v1"), stage.index(), "the same number");
    well(&elsewhere(&["clean"]));
    well(&stage.our_loader(&["clean"]));
    assert_eq!(stage.ours().len(), 1);
    let pinned = |stage: &Stage| {
        let list = stage.bpffs.list().expect("a list");
        list.into_iter().filter(|path| path.components().count() == 2).collect::<Vec<_>>()
    };
    assert_eq!(pinned(&stage).len(), 2, "both run");
    // One interface goes; its pins are garbage, the other's are not.
    other.right.ip(&["link", "delete", "v1"]).expect("deleted");
    assert_eq!(pinned(&stage).len(), 2, "nobody has cleaned yet");
    well(&stage.our_loader(&["clean"]));
    let index = stage.index();
    let id = stage.chain().program.id;
    assert_eq!(pinned(&stage), [Path::new("xdp").join(format!("dispatch-{index}-{id}"))]);
    assert_eq!(stage.theirs().len(), 1);
}
