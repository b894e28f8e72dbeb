//! What a daemon that looks at every interface is told of a dispatcher.

use super::bad::{attach, configured, fake};
use super::clear;
use pointsman_bpf::dispatcher::{Version, hook};
use pointsman_model::observed::{AttachMode, ObservedDispatcher};
use pointsman_model::{Action, ActionSet};
use pointsman_netns::dispatcher::{Stage, on, path, program, well};
use pointsman_netns::shelf::{In, Part, Shelf};

/// What is told of the program on `v1`, from outside its namespace.
fn observe(stage: &Stage) -> Option<ObservedDispatcher> {
    let software = stage.here(|_, index| hook(index)).expect("a hook").software;
    let (id, mode) = software.expect("an attached program");
    stage.dispatcher.observe(stage.index(), id, mode)
}

/// Why it cannot be changed.
#[track_caller]
fn fixed(stage: &Stage) -> String {
    let found = observe(stage).expect("a dispatcher");
    found.fixed.expect("it cannot be changed")
}

#[test]
fn a_look_tells_what_a_dispatcher_runs_and_in_which_order() {
    let Some(stage) = Stage::set("looks::chain") else { return };
    let object = path("verdict");
    well(&stage.xdp_loader(&["load", "-P", "15", "-n", "v_opaque", "v1", &object]));
    let drop = program("verdict", "v_drop");
    stage.add(&[(&drop, 20, on(&[Action::Drop, Action::Tx]))]).expect("added");
    let found = observe(&stage).expect("a dispatcher");
    assert_eq!((found.version, &found.fixed), (2, &None));
    let chain = stage.chain();
    let told: Vec<_> = found.components.iter().map(|it| (it.id, it.name.as_str())).collect();
    let wanted: Vec<_> = chain.components.iter().map(|it| (it.id, it.name.as_str())).collect();
    assert_eq!(told, wanted);
    assert_eq!((found.components[1].priority, found.components[1].passes), (20, false));
    let actions: ActionSet = [Action::Drop, Action::Tx].into_iter().collect();
    assert_eq!(found.components[1].actions, actions);
    let pinned = |slots| stage.dispatcher.is_pinned(stage.index(), chain.program.id, slots);
    assert!(pinned(2) && !pinned(3));
    // What is no more, or no dispatcher, is none.
    assert_eq!(stage.dispatcher.observe(stage.index(), u32::MAX, AttachMode::Native), None);
    let component = chain.components[0].id;
    assert_eq!(stage.dispatcher.observe(stage.index(), component, AttachMode::Native), None);
    // Its program that keeps others company is told from those of others.
    clear(&stage);
    stage.add(&[(&drop, 20, on(&[Action::Drop]))]).expect("added");
    let passes = observe(&stage).expect("a dispatcher").components;
    assert_eq!(passes.iter().map(|it| it.passes).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_look_tells_why_a_dispatcher_cannot_be_changed() {
    let Some(stage) = Stage::set("looks::fixed") else { return };
    let off = || stage.pair.right.ip(&["link", "set", "dev", "v1", "xdpdrv", "off"]).expect("off");
    let mut newer = configured(Version::V3, 1);
    newer[1] = 4;
    let mut many = configured(Version::V2, 1);
    many[2] = 11;
    for (object, bytes, version, words) in
        [("fake_128", newer, 4, "update pointsman"), ("fake_124", many, 0, "unload it")]
    {
        let fake = fake(object, &bytes);
        let _ = attach(&stage, &fake);
        let found = observe(&stage).expect("a dispatcher");
        assert_eq!(found.version, version, "{found:?}");
        assert!(found.fixed.as_ref().is_some_and(|why| why.contains(words)), "{found:?}");
        off();
    }
    // Without pins, and no link leads into it: nothing runs in it, and nobody loses anything.
    let emptied = fake("fake_124", &configured(Version::V2, 1));
    let _ = attach(&stage, &emptied);
    let found = observe(&stage).expect("a dispatcher");
    assert_eq!((found.version, &found.fixed, found.components.len()), (2, &None, 0));
    off();
    // Neither magic nor version: a program like any other.
    let legacy = fake("fake_124", &[0; 124]);
    let _ = attach(&stage, &legacy);
    assert_eq!(observe(&stage), None);
    off();
    // Held by a link.
    let index = i32::try_from(stage.index()).expect("a small number");
    let held = stage.bpffs.path().join("held");
    stage.pair.right.run(|| {
        let linked = fake("fake_124", &configured(Version::V2, 0));
        let program = linked.progs_mut().next().expect("a program");
        program.attach_xdp(index).expect("attached").pin(&held).expect("pinned");
    });
    assert!(fixed(&stage).contains("BPF link"));
    std::fs::remove_file(&held).expect("a pin");
}

#[test]
fn a_slot_bears_the_whole_name_of_its_first_member() {
    let Some(stage) = Stage::set("looks::names") else { return };
    let shelf = Shelf::open(&stage);
    let long = Part::new("long", "stack", "stack_104_sub_256", 20);
    let short = Part::new("short", "verdict", "v_pass", 30);
    let slots = [In::Own(long), In::Shared(vec![short])];
    let chain = shelf.build(1, &slots).expect("built");
    shelf.dispatch(&chain, Some(AttachMode::Native)).expect("attached");
    let names = |rows: Vec<(u32, String, String)>| {
        rows.into_iter().map(|(_, name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(stage.ours()), ["stack_104_sub_256", "v_pass"]);
    assert_eq!(names(stage.theirs()), names(stage.ours()));
}
