//! Many at once, from both sides.

use pointsman_bpf::dispatcher::{Component, DispatcherError, Options, Source, Wanted};
use pointsman_model::Action;
use pointsman_netns::dispatcher::{Stage, on, path, program, rows, text, well};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
        println!("refused: {}", text(&output.stderr).lines().next().unwrap_or(""));
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

/// Somebody who takes the lock when it is free, and keeps it until the end.
fn greedy(directory: &Path, ready: &Barrier, done: &AtomicBool) {
    let directory = File::open(directory).expect("the directory of pins");
    ready.wait();
    while flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
        if done.load(Ordering::SeqCst) {
            return;
        }
    }
    while !done.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

#[test]
fn who_keeps_the_lock_is_told_of_and_never_undoes_what_was_done() {
    /// Who is greedy wins the lock almost each time: he does not sleep.
    const ROUNDS: usize = 100;
    let Some(stage) = Stage::set("races::lock") else { return };
    let (pass, drop) = (program("verdict", "v_pass"), program("verdict", "v_drop"));
    let hasty = stage.dispatcher.clone().with_patience(Duration::from_millis(50));
    let pass_on = on(&[Action::Pass]);
    stage.add(&[(&pass, 10, pass_on), (&drop, 20, pass_on)]).expect("added");
    let id = stage.chain().components[1].id;
    let (index, options) = (stage.index(), Options::default());
    let mut left = 0;
    for priority in (100..).take(ROUNDS) {
        let (ready, done) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let greedy = || greedy(hasty.root(), &ready, &done);
            let change = |running: &[Component]| {
                // The lock is held here; the pins of the dispatcher before go without it.
                scope.spawn(greedy);
                ready.wait();
                let mut wanted: Vec<_> = running.iter().map(Wanted::kept).collect();
                wanted
                    .iter_mut()
                    .filter(|w| matches!(w.source, Source::Kept(kept) if kept == id))
                    .for_each(|wanted| wanted.priority = priority);
                Ok(wanted)
            };
            let changed = stage.pair.right.run(|| hasty.change(index, &options, change));
            // Nor can anybody change what runs now, who does not wait.
            let other = stage.pair.right.run(|| hasty.remove(index, &options, &[]));
            done.store(true, Ordering::SeqCst);
            if let Some(why) = changed.expect("the change was made").leftover {
                assert!(why.contains("locked by another process for 0.05 s"), "{why}");
                let error = other.expect_err("locked");
                assert!(matches!(error, DispatcherError::Locked { .. }), "{error}");
                left += 1;
            }
        });
        assert_eq!(stage.chain().components[1].priority, priority);
        if left > 0 {
            break;
        }
    }
    assert!(left > 0, "nobody ever took the lock in between");
    // What was left is garbage like a crashed loader's.
    let directories = || {
        let pinned = stage.bpffs.list().expect("a list");
        pinned.iter().filter(|path| path.components().count() == 2).count()
    };
    assert_eq!(directories(), 2);
    well(&stage.our_loader(&["clean"]));
    assert_eq!((directories(), stage.theirs().len()), (1, 2));
}
