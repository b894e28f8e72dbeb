//! Versions of the protocol beside each other.

use pointsman_bpf::dispatcher::{
    DispatcherError, Mode, Options, Pick, Program, Version, Wanted, hook, host_version,
};
use pointsman_bpf::release_at_least;
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Stage, on, program};
use pointsman_netns::members::any_packet;
use pointsman_netns::traffic::received;
use serde_json::json;
use std::collections::BTreeMap;
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

/// A chain whose programs are bound to their device: the kernel lets them call the driver, and does
/// not let others join.
#[test]
fn who_adds_to_bound_programs_must_mean_it() {
    let Some(stage) = Stage::set("versions::device") else { return };
    let third = stage.dispatcher.clone().with_version(Version::V3);
    let globals = BTreeMap::from([("port".into(), json!(5001)), ("port_verdict".into(), json!(1))]);
    let object = pointsman_netns::object("verdict");
    let drop = Program::open(&object, Pick::Named("v_port"), &globals, None).expect("a program");
    let pass = program("verdict", "v_pass");
    // Such programs have no test runs.
    let arrive = || received(&stage.pair, &[5000, 5001], 5999, 4);
    let wanted = |program, at| [Wanted::new(program, at, on(&[Action::Pass]))];
    let plain = Options::default();
    let bound = Options { bound: true, mode: Mode::Exactly(AttachMode::Native), ..plain };
    let index = stage.index();
    let right = &stage.pair.right;
    let add = |options, program, at| right.run(|| third.add(index, options, &wanted(program, at)));
    if let Err(error) = add(&bound, &pass, 10) {
        // Before 6.3 ("bpf: Introduce device-bound XDP programs") no program can be bound: that
        // is said, and nothing done.
        assert!(!release_at_least(6, 3), "{error}");
        assert!(matches!(error, DispatcherError::Bound { .. }), "{error}");
        assert!(error.to_string().contains("6.3"), "{error}");
        let attached = right.run(|| hook(index)).expect("an interface").software;
        assert!(attached.is_none() && stage.bpffs.list().expect("pins").len() <= 1);
        return;
    }
    assert!(release_at_least(6, 3), "this kernel knows bound programs");
    add(&bound, &drop, 20).expect("one more that is bound");
    let chain = stage.chain();
    assert!(chain.bound && chain.version == Version::V3, "{chain:?}");
    assert_eq!(arrive(), [4, 0]);
    let tx = program("verdict", "v_tx");
    let error = add(&plain, &tx, 5).expect_err("not bound");
    assert!(matches!(error, DispatcherError::Bound { .. }), "{error}");
    assert_eq!(stage.ours().len(), 2, "nothing was lost");
    // What runs is moved and removed without a word about it, and stays bound.
    let [first, second] = [0, 1].map(|at| chain.components[at].id);
    right.run(|| third.reprioritise(index, &plain, second, Some(1), None)).expect("moved");
    right.run(|| third.remove(index, &plain, &[first])).expect("removed");
    assert!(stage.chain().bound);
    assert_eq!(arrive(), [4, 0]);
    right.run(|| third.remove_all(index, &plain)).expect("removed");
    assert_eq!(arrive(), [4, 4]);
    // A program that was loaded without a device cannot come to one later.
    add(&plain, &tx, 10).expect("not bound");
    let error = add(&bound, &pass, 20).expect_err("those that run are not");
    assert!(matches!(error, DispatcherError::Bound { .. }), "{error}");
}
