//! Programs, filesystems and interfaces that are not what they seem, or not for long: one clear
//! error, and everything of everybody in its place.

use super::bad::{attach, configured, fake, pin};
use pointsman_bpf::dispatcher::{
    Attached, Dispatcher, DispatcherError, Options, Program, Version, Wanted, hook,
};
use pointsman_model::Action;
use pointsman_netns::dispatcher::{Stage, on, path, program, well};
use pointsman_netns::members::{any_packet, member, rounding, slot};
use rustix::mount::{MountFlags, mount_remount};

/// A chain of both sides on `v1`, and what there is.
fn both(stage: &Stage) -> Program {
    let ours = program("verdict", "v_opaque");
    stage.add(&[(&ours, 10, on(&[Action::Pass]))]).expect("added");
    well(&stage.xdp_loader(&["load", "-P", "20", "-n", "v_drop", "v1", &path("verdict")]));
    ours
}

#[test]
fn programs_that_no_slot_can_take_are_named_and_the_chain_stays() {
    let Some(stage) = Stage::set("hostile::programs") else { return };
    let _ours = both(&stage);
    let before = stage.everything();
    let refused = |program: &Program| {
        let error = stage.add(&[(program, 5, on(&[Action::Pass]))]).expect_err("refused");
        assert_eq!(stage.everything(), before, "{error}");
        assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
        assert!(matches!(error, DispatcherError::Component { .. }), "{error}");
        error.to_string()
    };
    // Its array is of XDP programs, and what is in a slot is none.
    let jumps = Program::of_member(member("tailcall", "member"));
    let error = refused(&jumps);
    assert!(error.contains("\"member\"") && error.contains("fused"), "{error}");
    let (pass, jumps) = (member("verdict", "v_pass"), member("tailcall", "member_in_sub"));
    let fused = Program::fuse(&[slot("first", &pass), slot("jumps", &jumps)], rounding(), true);
    let error = refused(&fused.expect("fused"));
    assert!(error.contains("\"jumps\"") && error.contains("fused"), "{error}");
    let error = refused(&program("nobtf", "nobtf"));
    assert!(error.contains("clang -g"), "{error}");
}

#[test]
fn a_bpf_filesystem_that_cannot_be_used_is_named_and_nothing_is_lost() {
    let Some(stage) = Stage::set("hostile::bpffs") else { return };
    let ours = both(&stage);
    let before = stage.everything();
    let pass = program("verdict", "v_pass");
    let add = || stage.add(&[(&pass, 5, on(&[Action::Pass]))]);
    let named = |error: &DispatcherError| {
        let path = stage.bpffs.path().display().to_string();
        assert!(error.to_string().contains(&path), "{error}");
    };
    // Read-only: the kernel opens no pinned program there. What runs goes on.
    let remount = |flags| mount_remount(stage.bpffs.path(), flags, "").expect("remounted");
    remount(MountFlags::RDONLY);
    let error = add().expect_err("nothing can be opened or pinned");
    named(&error);
    assert!(error.to_string().contains("Read-only"), "{error}");
    let id = ours.id().expect("loaded");
    let options = Options::default();
    let moved = stage.here(|d, index| d.reprioritise(index, &options, id, Some(30), None));
    named(&moved.expect_err("nor moved"));
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    remount(MountFlags::empty());
    assert_eq!(stage.everything(), before);
    // Where the directory of pins should be is something else.
    let (xdp, aside) = (stage.bpffs.path().join("xdp"), stage.bpffs.path().join("aside"));
    std::fs::rename(&xdp, &aside).expect("moved");
    pin(&path("verdict"), &xdp);
    let error = add().expect_err("no directory");
    named(&error);
    let Attached::Legacy { why, .. } = stage.here(Dispatcher::read).expect("readable") else {
        panic!("its pins cannot be read")
    };
    assert!(why.to_string().contains("pins"), "{why}");
    std::fs::remove_file(&xdp).expect("a pin");
    std::fs::rename(&aside, &xdp).expect("moved back");
    assert_eq!(stage.everything(), before);
    add().expect("all is well again");
    assert_eq!(stage.ours().len(), 3);
}

#[test]
fn cleaning_leaves_the_pins_of_dispatchers_that_cannot_be_read() {
    let Some(stage) = Stage::set("hostile::clean") else { return };
    let mut newer = configured(Version::V3, 1);
    newer[1] = 9;
    let mut many = configured(Version::V2, 1);
    many[2] = 200;
    let mut unmarked = configured(Version::V2, 1);
    unmarked[..2].fill(0);
    // Newer by its data or by its types, of too many programs, or of types that lie about it.
    for (object, bytes, says) in [
        ("fake_128", &newer, "version 9"),
        ("fake_newer", &unmarked, "version 7"),
        ("fake_124", &many, "200 programs"),
        ("fake_third", &unmarked, "124 bytes"),
    ] {
        let held = fake(object, bytes);
        let id = attach(&stage, &held);
        drop(held);
        let root = stage.bpffs.path().join("xdp");
        std::fs::create_dir_all(root.join(format!("dispatch-{}-{id}", stage.index())))
            .expect("a directory");
        let slot = format!("dispatch-{}-{id}/prog0-prog", stage.index());
        pin(&path("verdict"), &root.join(slot));
        let before = stage.everything();
        let pass = program("verdict", "v_pass");
        let error = stage.add(&[(&pass, 5, on(&[Action::Pass]))]).expect_err("nothing can join");
        assert!(error.to_string().contains(says), "{object}: {error}");
        for remove in [&[id][..], &[]] {
            let options = Options { end_links: true, ..Options::default() };
            let error = stage.here(|d, index| match remove {
                [] => d.remove_all(index, &options),
                ids => d.remove(index, &options, ids),
            });
            let error = error.expect_err("it is not ours to remove");
            assert!(error.to_string().contains(says), "{object}: {error}");
        }
        let cleaned = stage.here(|d, _| d.clean(None)).expect("cleaned");
        assert!(cleaned.removed.is_empty(), "{object}: {cleaned:?}");
        assert_eq!(stage.everything(), before, "{object}");
        stage.pair.right.ip(&["link", "set", "dev", "v1", "xdpdrv", "off"]).expect("off");
        let cleaned = stage.here(|d, _| d.clean(None)).expect("cleaned");
        assert_eq!(cleaned.removed.len(), 1, "{object}: now it runs nowhere");
    }
}

#[test]
fn an_interface_that_comes_back_with_its_number_is_another_one() {
    let Some(stage) = Stage::set("hostile::again") else { return };
    let _ours = both(&stage);
    let pass = program("verdict", "v_pass");
    let (right, index) = (&stage.pair.right, stage.index());
    let mut asked = Vec::new();
    let changed = stage.here(|dispatcher, index| {
        dispatcher.change(index, &Options::default(), |running| {
            if asked.is_empty() {
                let number = index.to_string();
                right.ip(&["link", "delete", "v1"]).expect("deleted");
                let add = ["link", "add", "v1", "index", &number, "type", "veth"];
                right.ip(&[&add[..], &["peer", "name", "v1p"]].concat()).expect("made");
            }
            asked.push(running.len());
            let kept = running.iter().map(Wanted::kept);
            Ok(kept.chain([Wanted::new(&pass, 1, on(&[Action::Pass]))]).collect())
        })
    });
    let changed = changed.expect("on the new one");
    assert_eq!((stage.index(), &asked[..]), (index, &[2, 0][..]), "looked at again");
    assert_eq!(stage.theirs(), [(1, "v_pass".into(), "XDP_PASS".into())]);
    assert_eq!((changed.before, changed.programs.len()), (None, 1));
    // What the first one left is garbage, and nothing else is.
    let cleaned = stage.here(|d, _| d.clean(Some(index))).expect("cleaned");
    assert_eq!(cleaned.removed.len(), 1, "{cleaned:?}");
    let attached = stage.here(|_, index| hook(index)).expect("a hook").software;
    assert_eq!(attached.map(|(id, _)| id), changed.after);
    assert_eq!(stage.theirs().len(), 1);
}
