//! Versions of the protocol beside each other.

use pointsman_bpf::dispatcher::{DispatcherError, Mode, Options, Version, Wanted, host_version};
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Stage, on, program};
use pointsman_netns::members::any_packet;
use std::path::Path;

#[test]
fn the_version_is_the_hosts_or_the_one_that_runs() {
    let Some(stage) = Stage::set("versions") else { return };
    assert_eq!(host_version(Path::new("/")), Version::V2, "the packaged libxdp's");
    let (drop, pass) = (program("verdict", "v_drop"), program("verdict", "v_pass"));
    stage.add(&[(&pass, 10, on(&[Action::Pass]))]).expect("added");
    assert_eq!(stage.chain().version, Version::V2);
    let third = stage.dispatcher.clone().with_version(Version::V3);
    let wanted = [Wanted::new(&drop, 20, on(&[Action::Pass]))];
    let options = Options::default();
    let index = stage.index();
    let right = &stage.pair.right;
    right.run(|| third.add(index, &options, &wanted)).expect("added");
    assert_eq!(stage.chain().version, Version::V2, "the one that runs is kept");
    right.run(|| third.remove_all(index, &options)).expect("removed");
    right.run(|| third.add(index, &options, &wanted)).expect("added");
    assert_eq!(stage.chain().version, Version::V3);
    assert_eq!(stage.verdict(&any_packet()), Action::Drop.code());
    // Ours without a word about versions joins it; the packaged libxdp cannot even list it.
    stage.add(&[(&pass, 5, on(&[Action::Pass]))]).expect("added");
    assert_eq!((stage.chain().version, stage.ours().len()), (Version::V3, 2));
    assert_eq!(stage.xdp_loader(&["status", "v1"]).status.code(), Some(161));
    assert_eq!(stage.our_loader(&["status", "v1"]).status.code(), Some(0));
}

#[test]
fn bound_programs_and_others_do_not_mix() {
    let Some(stage) = Stage::set("versions::bound") else { return };
    let pass = program("verdict", "v_pass");
    let wanted = [Wanted::new(&pass, 10, on(&[Action::Pass]))];
    let bound =
        Options { bound: true, mode: Mode::Exactly(AttachMode::Native), ..Options::default() };
    let add = |options: &Options| stage.here(|d, index| d.add(index, options, &wanted));
    let error = add(&bound).expect_err("version 2 has none");
    assert!(error.to_string().contains("version 2"), "{error}");
    let third = stage.dispatcher.clone().with_version(Version::V3);
    let index = stage.index();
    stage.pair.right.run(|| third.add(index, &Options::default(), &wanted)).expect("not bound");
    let error = add(&bound).expect_err("those that run are not");
    assert!(matches!(error, DispatcherError::Bound { .. }), "{error}");
    assert_eq!(stage.ours().len(), 1);
}
