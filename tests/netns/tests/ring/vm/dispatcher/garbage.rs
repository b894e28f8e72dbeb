//! One BPF filesystem, shared by several network namespaces: only what runs nowhere is garbage.

use pointsman_bpf::dispatcher::{Cleaned, Dispatcher, Options, Wanted};
use pointsman_model::Action;
use pointsman_netns::daemon::binary;
use pointsman_netns::dispatcher::{Stage, on, path, program, text, well};
use pointsman_netns::netns::Netns;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Adds one program to an interface of this thread's namespace; the name of its pins' directory.
fn load(dispatcher: &Dispatcher, index: u32) -> String {
    let pass = program("verdict", "v_pass");
    let wanted = [Wanted::new(&pass, 10, on(&[Action::Pass]))];
    let changed = dispatcher.add(index, &Options::default(), &wanted).expect("added");
    format!("dispatch-{index}-{}", changed.after.expect("a dispatcher"))
}

/// Makes an interface of a number in a namespace, and a chain on it.
fn live(stage: &Stage, netns: &Netns, name: &str, index: u32) -> String {
    let (number, peer) = (index.to_string(), format!("{name}p"));
    let add = ["link", "add", name, "index", &number, "type", "veth", "peer", "name", &peer];
    netns.ip(&add).expect("made");
    netns.run(|| load(&stage.dispatcher, index))
}

/// The directories of dispatchers.
fn directories(stage: &Stage) -> BTreeSet<String> {
    let list = stage.bpffs.list().expect("a list").into_iter();
    let name = |path: PathBuf| Some(path.strip_prefix("xdp").ok()?.to_str()?.to_owned());
    list.filter_map(name).filter(|n| n.starts_with("dispatch-") && !n.contains('/')).collect()
}

fn set(names: &[&String]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).clone()).collect()
}

#[test]
fn only_dead_ones_go_whichever_namespace_cleans() {
    let Some(stage) = Stage::set("garbage::shared") else { return };
    const INDEX: u32 = 77;
    // The same number in all of them: names of pins do not tell them apart.
    let (named, gone) = (Netns::new().expect("root"), Netns::new().expect("root"));
    let here = live(&stage, &stage.pair.right, "g0", INDEX);
    let there = live(&stage, &named, "g0", INDEX);
    let second = stage.pair.left.run(|| load(&stage.dispatcher, stage.pair.left.index("v0")));
    // A namespace that nothing holds but an open file.
    let unnamed = Netns::new().expect("root");
    let by_file = live(&stage, &unnamed, "g0", INDEX);
    let held = File::open(format!("/run/netns/{}", unnamed.name())).expect("a file");
    drop(unnamed);
    // Dead: its interface is deleted, its namespace is gone, it never was.
    let deleted = live(&stage, &named, "d0", INDEX + 2);
    named.ip(&["link", "delete", "d0"]).expect("deleted");
    let with_namespace = live(&stage, &gone, "g0", INDEX);
    drop(gone);
    let root = stage.bpffs.path().join("xdp");
    let never = format!("dispatch-{INDEX}-4294967295");
    std::fs::create_dir(root.join(&never)).expect("made");
    // What is no directory of a dispatcher is nobody's business here.
    let strange = ["dispatch-77", "dispatch-x-1", "dispatch-77-1-1", "other"];
    strange.iter().for_each(|name| std::fs::create_dir(root.join(name)).expect("made"));
    assert!(directories(&stage).is_superset(&set(&[&here, &there, &deleted, &with_namespace])));

    let clean = |netns: &Netns, only: Option<u32>| {
        netns.run(|| stage.dispatcher.clean(only)).expect("cleaned")
    };
    let names = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    // Of one interface's number only.
    let other = clean(&named, Some(INDEX + 1));
    assert_eq!((&other.removed[..], other.unseen), (&[][..], None));
    vanished(&with_namespace, || clean(&named, Some(INDEX)), &stage);
    let cleaned = clean(&named, None);
    assert_eq!(cleaned.unseen, None);
    assert!(cleaned.removed.contains(&deleted), "{cleaned:?}");
    assert_eq!(names(&cleaned.elsewhere), set(&[&here, &second, &by_file]));
    let mut left = set(&[&here, &there, &second, &by_file]);
    left.extend(strange[..3].iter().map(|&name| name.to_owned()));
    assert_eq!(directories(&stage), left);
    // From anywhere else the same; what lives can still be changed.
    for netns in [&stage.pair.left, &stage.pair.right] {
        assert!(clean(netns, None).removed.is_empty());
    }
    assert_eq!(directories(&stage), left);
    named.run(|| stage.dispatcher.remove_all(INDEX, &Options::default())).expect("removed");
    // With the file goes the namespace.
    drop(held);
    vanished(&by_file, || clean(&named, None), &stage);
    left.retain(|name| *name != there && *name != by_file);
    assert_eq!(directories(&stage), left);
}

/// Cleans until a directory is gone: the kernel ends a namespace in its own time.
fn vanished(directory: &str, clean: impl Fn() -> Cleaned, stage: &Stage) {
    let start = std::time::Instant::now();
    while directories(stage).contains(directory) {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{directory} stays");
        let _ = clean();
    }
}

/// A process in a network namespace that nothing else holds.
struct Hidden(Child);

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_may_run_where_nobody_can_look_is_kept() {
    let Some(stage) = Stage::set("garbage::unseen") else { return };
    let (object, tool) = (path("verdict"), binary("pointsman"));
    // A chain in a namespace of a process alone.
    let script = "ip link add v1 type veth peer name v1p && \
                  \"$0\" xdp-loader load -n v_pass v1 \"$1\" && echo loaded && exec cat";
    let arguments = ["--net", "sh", "-c", script, tool.to_str().expect("UTF-8"), &object];
    let mut command = stage.command(Path::new("unshare"), &arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hidden = Hidden(command.spawn().expect("spawned"));
    let mut line = String::new();
    let output = hidden.0.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "loaded\n");
    let alive = directories(&stage);
    assert_eq!(alive.len(), 1);
    // And garbage: of a dispatcher that its pins alone hold, and of one that never was.
    let deleted = stage.here(load);
    stage.pair.right.ip(&["link", "delete", "v1"]).expect("deleted");
    let never = stage.bpffs.path().join("xdp/dispatch-9-4294967295");
    std::fs::create_dir(&never).expect("made");

    // Who may not look at other processes does not see the namespace.
    let tool = tool.to_str().expect("UTF-8");
    let blind = ["--bounding-set=-sys_ptrace", tool, "xdp-loader", "clean", "-v"];
    let cleaned = stage.run(Path::new("setpriv"), &blind);
    well(&cleaned);
    assert!(!never.exists(), "the kernel has no such dispatcher");
    let mut left = alive.clone();
    left.insert(deleted);
    assert_eq!(directories(&stage), left, "{}", text(&cleaned.stderr));
    // Nor does one who sees the processes of a container only.
    let script = "mount -t proc proc /proc && exec \"$0\" xdp-loader clean";
    let contained = ["--pid", "--fork", "--mount", "sh", "-c", script, tool];
    well(&stage.run(Path::new("unshare"), &contained));
    assert_eq!(directories(&stage), left, "in a container");
    // Who may look removes what is dead and no more.
    well(&stage.our_loader(&["clean"]));
    assert_eq!(directories(&stage), alive);
}
