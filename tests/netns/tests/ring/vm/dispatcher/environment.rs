//! What libxdp reads from the environment, value by value: ours does as the packaged tool does.

use pointsman_bpf::dispatcher::{Attached, Dispatcher, hook};
use pointsman_netns::daemon::binary;
use pointsman_netns::dispatcher::{Stage, path, text, well};
use pointsman_netns::object_path;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A tool: its program, and the words before its arguments.
type Tool = (PathBuf, &'static [&'static str]);

/// Variables, the objects to load, and what comes of it.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], Came);

fn tools() -> [Tool; 2] {
    [(PathBuf::from("xdp-loader"), &[]), (binary("pointsman"), &["xdp-loader"])]
}

fn command(stage: &Stage, (program, words): &Tool, arguments: &[&str]) -> Command {
    stage.command(program, &[words, arguments].concat())
}

/// What came of a load.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// Nothing runs, and the tool ended with this code.
    Refused(Option<i32>),
    Alone,
    /// In a dispatcher whose pins are here.
    Chained(PathBuf, usize),
}

/// What runs on `v1`, with pins in one of these filesystems; takes it off again.
#[track_caller]
fn came(stage: &Stage, output: &Output, bpffs: &[&Path]) -> Came {
    let right = &stage.pair.right;
    let index = stage.index();
    let attached = right.run(|| hook(index)).expect("an interface").software;
    if attached.is_none() {
        return Came::Refused(output.status.code());
    }
    well(output);
    let options = pointsman_bpf::dispatcher::Options::default();
    for &root in bpffs {
        let dispatcher = Dispatcher::at(root);
        if let Attached::Chain(chain) = right.run(|| dispatcher.read(index)).expect("readable") {
            right.run(|| dispatcher.remove_all(index, &options)).expect("removed");
            return Came::Chained(root.to_owned(), chain.components.len());
        }
    }
    right.ip(&["link", "set", "dev", "v1", "xdp", "off"]).expect("ip");
    Came::Alone
}

#[test]
fn variables_mean_what_they_mean_to_the_original() {
    let Some(stage) = Stage::set("environment") else { return };
    let object = path("verdict");
    let ours = stage.bpffs.path().to_owned();
    let (one, two) = (&[object.as_str()][..], &[object.as_str(), &object][..]);
    let chained = |count| Came::Chained(ours.clone(), count);
    let nowhere = "/nonexistent";
    let cases: [Case<'_>; 14] = [
        (&[], one, chained(1)),
        (&[("LIBXDP_SKIP_DISPATCHER", "1")], one, Came::Alone),
        (&[("LIBXDP_SKIP_DISPATCHER", "1")], two, chained(2)),
        (&[("LIBXDP_SKIP_DISPATCHER", "0")], one, chained(1)),
        (&[("LIBXDP_SKIP_DISPATCHER", "11")], one, chained(1)),
        (&[("LIBXDP_SKIP_DISPATCHER", "yes")], one, chained(1)),
        (&[("LIBXDP_SKIP_DISPATCHER", "")], one, chained(1)),
        (&[("LIBXDP_BPFFS", nowhere)], one, Came::Alone),
        (&[("LIBXDP_BPFFS", nowhere)], two, Came::Refused(Some(161))),
        (&[("LIBXDP_BPFFS", "")], one, Came::Alone),
        (&[("LIBXDP_BPFFS", nowhere), ("LIBXDP_BPFFS_AUTOMOUNT", "1")], one, Came::Alone),
        (&[("LIBXDP_BPFFS_AUTOMOUNT", "1")], one, chained(1)),
        (&[("LIBXDP_OBJECT_PATH", nowhere)], one, chained(1)),
        (&[("LIBXDP_OBJECT_PATH", "")], two, chained(2)),
    ];
    for (variables, objects, expected) in cases {
        let arguments = [&["load", "v1"], objects].concat();
        let [theirs, ours] = tools().map(|tool| {
            let mut command = command(&stage, &tool, &arguments);
            command.envs(variables.iter().copied());
            let output = stage.pair.right.run(|| command.output().expect("run it"));
            let came = came(&stage, &output, &[&ours]);
            assert_eq!(came, expected, "{tool:?} with {variables:?}: {output:?}");
            output
        });
        assert_eq!(ours.stdout, theirs.stdout, "{variables:?}");
        let last = |output: &Output| text(&output.stderr).lines().last().map(str::to_owned);
        if !last(&theirs).is_some_and(|line| line.starts_with(" libxdp: ")) {
            assert_eq!(last(&ours), last(&theirs), "{variables:?}");
        }
    }
}

#[test]
fn a_filesystem_is_mounted_for_the_value_1_alone() {
    let Some(stage) = Stage::set("environment::mount") else { return };
    let object = path("verdict");
    for (value, mounts) in [("1", true), ("0", false), ("11", false), ("", false)] {
        for tool in tools() {
            let directory = tempfile::tempdir().expect("a directory");
            let mut command = command(&stage, &tool, &["load", "v1", &object]);
            command.env("LIBXDP_BPFFS", directory.path()).env("LIBXDP_BPFFS_AUTOMOUNT", value);
            let output = stage.pair.right.run(|| command.output().expect("run it"));
            let came = came(&stage, &output, &[directory.path()]);
            let expected = match mounts {
                true => Came::Chained(directory.path().to_owned(), 1),
                false => Came::Alone,
            };
            assert_eq!(came, expected, "{tool:?} with {value:?}: {output:?}");
            // The original binds the directory to itself first, to make it private.
            let mut mounted = 0;
            while rustix::mount::unmount(directory.path(), rustix::mount::UnmountFlags::empty())
                .is_ok()
            {
                mounted += 1;
            }
            assert_eq!(mounted > 0, mounts, "{tool:?} with {value:?}");
        }
    }
}

#[test]
fn an_object_named_without_a_path_is_looked_for_in_the_working_directory() {
    let Some(stage) = Stage::set("environment::objects") else { return };
    let (here, there) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    fs::copy(object_path("verdict"), there.path().join("only.o")).expect("a copy");
    let ours = stage.bpffs.path();
    for (directory, expected) in
        [(here.path(), Came::Refused(Some(254))), (there.path(), Came::Chained(ours.to_owned(), 1))]
    {
        for tool in tools() {
            let mut command = command(&stage, &tool, &["load", "v1", "only.o"]);
            command.env("LIBXDP_OBJECT_PATH", there.path()).current_dir(directory);
            let output = stage.pair.right.run(|| command.output().expect("run it"));
            assert_eq!(came(&stage, &output, &[ours]), expected, "{tool:?}: {output:?}");
        }
    }
}

/// By a setuid file the caller's variables would decide with root's rights.
#[test]
fn a_program_with_more_rights_than_its_caller_takes_nothing_from_the_environment() {
    const NOBODY: u32 = 65_534;
    let Some(stage) = Stage::set("environment::secure") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("open to all");
    let object = directory.path().join("verdict.o");
    fs::copy(object_path("verdict"), &object).expect("a copy");
    let common = Path::new("/sys/fs/bpf");
    for (at, (program, words)) in tools().into_iter().enumerate() {
        let original = match program.is_absolute() {
            true => program,
            false => Path::new("/usr/sbin").join(program),
        };
        let copy = directory.path().join(format!("tool-{at}"));
        fs::copy(original, &copy).expect("a copy");
        fs::set_permissions(&copy, Permissions::from_mode(0o4755)).expect("setuid");
        let mut command = stage.command(&copy, &[words, &["load", "v1"]].concat());
        command.arg(&object).env("LIBXDP_SKIP_DISPATCHER", "1").uid(NOBODY);
        let output = stage.pair.right.run(|| command.output().expect("run it"));
        let came = came(&stage, &output, &[stage.bpffs.path(), common]);
        assert_eq!(came, Came::Chained(common.to_owned(), 1), "{copy:?}: {output:?}");
    }
}
