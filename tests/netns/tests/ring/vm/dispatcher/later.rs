//! xdp-tools 1.6 of a later Debian: what speaks version 3, beside ours.

use pointsman_bpf::dispatcher::{DispatcherError, Mode, Options, Program, Version, Wanted};
use pointsman_bpf::release_at_least;
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Row, Stage, on, path, program, rows, text, well};
use pointsman_netns::members::any_packet;
use std::path::PathBuf;
use std::process::Output;

/// The later tool on a stage.
struct Later {
    stage: Stage,
    directory: PathBuf,
}

impl Later {
    /// The stage, if the tool is there: `cargo xtask test --full` fetches it.
    fn set(test: &str) -> Option<Self> {
        let Some(directory) = std::env::var_os("POINTSMAN_LATER_XDP_TOOLS") else {
            let why = "no xdp-tools of a later Debian: cargo xtask test --full fetches them";
            pointsman_netns::skip(test, why);
            return None;
        };
        Some(Self { stage: Stage::set(test)?, directory: directory.into() })
    }

    /// Runs it, by the dynamic loader and with the libraries that came with it.
    fn run(&self, arguments: &[&str]) -> Output {
        let root = self.directory.join("root");
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let mut command = self.stage.command(&libraries.join("ld-linux-x86-64.so.2"), &[]);
        command.arg("--library-path").arg(&libraries).arg(root.join("usr/sbin/xdp-loader"));
        command.args(arguments);
        self.stage.pair.right.run(|| command.output().expect("run it"))
    }

    /// What it lists.
    #[track_caller]
    fn rows(&self) -> Vec<Row> {
        let output = self.run(&["status", "v1"]);
        well(&output);
        rows(&text(&output.stdout))
    }

    /// Both list the same programs, of this version.
    #[track_caller]
    fn both_list(&self, version: Version, expected: &[(u32, &str, &str)]) {
        let expected: Vec<Row> =
            expected.iter().map(|&(at, name, on)| (at, name.into(), on.into())).collect();
        assert_eq!(self.stage.ours(), expected, "ours");
        assert_eq!(self.rows(), expected, "theirs");
        assert_eq!(self.stage.chain().version, version);
    }

    /// The kernel's id of a program in the chain.
    #[track_caller]
    fn id(&self, name: &str) -> String {
        let chain = self.stage.chain();
        let found = chain.components.iter().find(|component| component.name == name);
        found.expect("in the chain").id.to_string()
    }

    fn add(&self, new: &[(&Program, u32)], options: &Options) -> Result<(), DispatcherError> {
        let pass = on(&[Action::Pass]);
        let wanted: Vec<_> =
            new.iter().map(|&(program, at)| Wanted::new(program, at, pass)).collect();
        self.stage.here(|_, index| {
            let third = self.stage.dispatcher.clone().with_version(Version::V3);
            third.add(index, options, &wanted).map(drop)
        })
    }
}

#[test]
fn its_chains_are_read_changed_and_handed_back() {
    let Some(later) = Later::set("later::theirs") else { return };
    let (stage, object) = (&later.stage, path("verdict"));
    well(&later.run(&["load", "-P", "10", "-n", "v_pass", "v1", &object]));
    well(&later.run(&["load", "-P", "30", "-A", "XDP_DROP,XDP_PASS", "-n", "v_tx", "v1", &object]));
    later.both_list(Version::V3, &[(10, "v_pass", "XDP_PASS"), (30, "v_tx", "XDP_DROP,XDP_PASS")]);
    assert_eq!(stage.verdict(&any_packet()), Action::Tx.code());
    // Between, without a word about versions: the chain keeps its own.
    let (drop, opaque) = (program("verdict", "v_drop"), program("verdict", "v_opaque"));
    stage.add(&[(&drop, 20, on(&[Action::Drop]))]).expect("added");
    let three =
        [(10, "v_pass", "XDP_PASS"), (20, "v_drop", "XDP_DROP"), (30, "v_tx", "XDP_DROP,XDP_PASS")];
    later.both_list(Version::V3, &three);
    assert_eq!(stage.verdict(&any_packet()), Action::Tx.code(), "DROP goes on");
    // They remove ours, we remove theirs; what stays keeps its id.
    let stays = later.id("v_tx");
    well(&later.run(&["unload", "v1", "--id", &later.id("v_drop")]));
    later.both_list(Version::V3, &[three[0], three[2]]);
    let load = ["load", "v1", "--replace", &later.id("v_pass"), "-n", "v_opaque", &object];
    well(&stage.our_loader(&load));
    well(&stage.our_loader(&["modify", "v1", "-i", &stays, "-P", "5"]));
    later.both_list(Version::V3, &[(5, "v_tx", "XDP_DROP,XDP_PASS"), (10, "v_opaque", "XDP_PASS")]);
    assert_eq!(later.id("v_tx"), stays);
    stage.add(&[(&opaque, 7, on(&[Action::Pass]))]).expect("added");
    well(&later.run(&["unload", "v1", "--all"]));
    assert!(later.rows().is_empty());
}

#[test]
fn our_chains_of_version_3_are_read_and_changed_by_it() {
    let Some(later) = Later::set("later::ours") else { return };
    let (stage, object) = (&later.stage, path("verdict"));
    let (pass, drop) = (program("verdict", "v_pass"), program("verdict", "v_drop"));
    later.add(&[(&pass, 10), (&drop, 40)], &Options::default()).expect("added");
    later.both_list(Version::V3, &[(10, "v_pass", "XDP_PASS"), (40, "v_drop", "XDP_PASS")]);
    well(&later.run(&["load", "-P", "20", "-n", "v_tx", "v1", &object]));
    let three = [(10, "v_pass", "XDP_PASS"), (20, "v_tx", "XDP_PASS"), (40, "v_drop", "XDP_PASS")];
    later.both_list(Version::V3, &three);
    assert_eq!(stage.verdict(&any_packet()), Action::Tx.code());
    well(&later.run(&["unload", "v1", "--id", &later.id("v_tx")]));
    later.both_list(Version::V3, &[three[0], three[2]]);
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    well(&later.run(&["clean"]));
    later.both_list(Version::V3, &[three[0], three[2]]);
}

#[test]
fn a_chain_of_version_2_is_listed_by_it_and_changed_by_ours_alone() {
    let Some(later) = Later::set("later::older") else { return };
    let (stage, object) = (&later.stage, path("verdict"));
    well(&stage.xdp_loader(&["load", "-P", "10", "-n", "v_pass", "v1", &object]));
    let one = [(10, "v_pass", "XDP_PASS")];
    later.both_list(Version::V2, &one);
    let load = ["load", "-P", "20", "-n", "v_drop", "v1", object.as_str()];
    assert_eq!(later.run(&load).status.code(), Some(240), "it does not upgrade");
    later.both_list(Version::V2, &one);
    well(&stage.our_loader(&load));
    later.both_list(Version::V2, &[one[0], (20, "v_drop", "XDP_PASS")]);
}

/// Theirs has no option for it: it must leave such a chain alone, and can list and end it.
#[test]
fn a_chain_that_is_bound_to_its_device_is_not_joined_by_it() {
    let Some(later) = Later::set("later::bound") else { return };
    let (stage, object) = (&later.stage, path("verdict"));
    let bound =
        Options { bound: true, mode: Mode::Exactly(AttachMode::Native), ..Options::default() };
    let (pass, drop) = (program("verdict", "v_pass"), program("verdict", "v_drop"));
    if let Err(error) = later.add(&[(&pass, 10), (&drop, 20)], &bound) {
        // What becomes of it there is tried beside the versions.
        assert!(!release_at_least(6, 3), "{error}");
        return;
    }
    let two = [(10, "v_pass", "XDP_PASS"), (20, "v_drop", "XDP_PASS")];
    later.both_list(Version::V3, &two);
    let output = later.run(&["load", "-P", "15", "-n", "v_tx", "v1", &object]);
    assert_eq!(output.status.code(), Some(234), "{output:?}");
    later.both_list(Version::V3, &two);
    // Ours answers the same.
    let output = stage.our_loader(&["load", "-P", "15", "-n", "v_tx", "v1", &object]);
    assert_eq!(output.status.code(), Some(234), "{output:?}");
    assert!(text(&output.stderr).contains("those that run are bound"), "{output:?}");
    assert!(stage.chain().bound);
    well(&later.run(&["unload", "v1", "--id", &later.id("v_pass")]));
    assert!(stage.chain().bound, "it stays bound when they take one off");
    well(&later.run(&["unload", "v1", "--all"]));
}
