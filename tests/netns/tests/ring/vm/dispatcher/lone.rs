//! Our program that passes everything, where others change the chain as libxdp does.

use super::clear;
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Stage, on, path, program, well};
use pointsman_netns::members::any_packet;
use pointsman_netns::shelf::{In, Part, Shelf};

#[test]
fn what_keeps_a_verdict_goes_only_when_it_is_named() {
    let Some(stage) = Stage::set("lone::named") else { return };
    let names = || stage.ours().into_iter().map(|(_, name, _)| name).collect::<Vec<_>>();
    let id = |name: &str| {
        let chain = stage.chain();
        let found = chain.components.iter().find(|component| component.name == name);
        found.expect("in the chain").id.to_string()
    };
    let (pass, drop) = (Action::Pass.code(), Action::Drop.code());
    let goes_on = program("verdict", "v_drop");
    stage.add(&[(&goes_on, 20, on(&[Action::Drop]))]).expect("added");
    assert_eq!(names(), ["v_drop", "pointsman_pass"]);
    // One comes and goes by our tool: the lone one's verdict stays what it was.
    well(&stage.our_loader(&["load", "-P", "30", "-n", "v_pass", "v1", &path("verdict")]));
    assert_eq!(names(), ["v_drop", "v_pass", "pointsman_pass"]);
    well(&stage.our_loader(&["unload", "v1", "-i", &id("v_pass")]));
    assert_eq!((names().len(), stage.verdict(&any_packet())), (2, pass));
    // Moved by somebody it is still ours.
    well(&stage.xdp_loader(&["load", "-P", "5", "-n", "v_opaque", "v1", &path("verdict")]));
    assert_eq!(names(), ["v_opaque", "v_drop", "pointsman_pass"]);
    well(&stage.our_loader(&["unload", "v1", "-i", &id("v_opaque")]));
    // Who names it means it.
    well(&stage.our_loader(&["unload", "v1", "-i", &id("pointsman_pass")]));
    assert_eq!((names(), stage.verdict(&any_packet())), (vec!["v_drop".to_owned()], drop));
    // It is never added by the tool.
    well(&stage.our_loader(&["modify", "v1", "-i", &id("v_drop"), "-P", "21"]));
    assert_eq!(names(), ["v_drop"]);
    clear(&stage);
    // Where it means nothing to the others it goes with what it was there for.
    stage.add(&[(&goes_on, 20, on(&[Action::Drop]))]).expect("added");
    well(&stage.our_loader(&["load", "-P", "30", "-n", "v_pass", "v1", &path("verdict")]));
    well(&stage.our_loader(&["unload", "v1", "-i", &id("v_drop")]));
    assert_eq!(names(), ["v_pass"]);
    well(&stage.our_loader(&["unload", "v1", "-i", &id("v_pass")]));
    assert!(stage.theirs().is_empty());
}

#[test]
fn a_dispatcher_that_is_to_go_stays_with_whoever_joined_it() {
    let Some(stage) = Stage::set("lone::joined") else { return };
    let shelf = Shelf::open(&stage);
    let part = Part::new("drop", "verdict", "v_drop", 20).on(&[Action::Drop]);
    let chain = shelf.build(1, &[In::Shared(vec![part])]).expect("built");
    let native = Some(AttachMode::Native);
    shelf.dispatch(&chain, native).expect("attached");
    well(&stage.xdp_loader(&["load", "-P", "30", "-n", "v_pass", "v1", &path("verdict")]));
    let before = stage.everything();
    let refused = shelf.withdraw_alone().expect_err("somebody joined").to_string();
    assert!(refused.contains("v_pass") && refused.contains("planned again"), "{refused}");
    assert_eq!(stage.everything(), before, "nothing has changed");
    let chain = stage.chain();
    let theirs = chain.components.iter().find(|it| it.name == "v_pass").expect("theirs").id;
    well(&stage.xdp_loader(&["unload", "v1", "-i", &theirs.to_string()]));
    // What keeps ours company is nobody's.
    shelf.withdraw_alone().expect("taken off");
    assert!(stage.theirs().is_empty());
}
