//! Whoever loads, both list the same.

use pointsman_bpf::dispatcher::{
    Chain, DispatcherError, Mode, Options, Pick, Program, Wanted, xsk_program,
};
use pointsman_model::Action;
use pointsman_model::document::Builtin;
use pointsman_model::observed::AttachMode;
use pointsman_netns::dispatcher::{Stage, on, path, program, rows, text, well};
use pointsman_netns::members::any_packet;
use pointsman_netns::traffic::received;

#[test]
fn what_ours_loads_theirs_lists_and_the_other_way_round() {
    let Some(stage) = Stage::set("beside::lists") else { return };
    let (drop, pass) = (program("verdict", "v_drop"), program("verdict", "v_pass"));
    stage.add(&[(&pass, 30, on(&[Action::Pass]))]).expect("the first");
    stage.add(&[(&drop, 20, on(&[Action::Drop, Action::Pass]))]).expect("the second");
    assert_eq!(stage.theirs(), stage.ours());
    let first = stage.chain();
    // Theirs before, between and after ours.
    for priority in ["10", "25", "99"] {
        let load = ["load", "-P", priority, "-n", "v_opaque", "-A", "XDP_TX", "v1"];
        well(&stage.xdp_loader(&[&load[..], &[&path("verdict")]].concat()));
    }
    assert_eq!(stage.theirs(), stage.ours());
    let priorities: Vec<_> = stage.ours().iter().map(|row| row.0).collect();
    assert_eq!(priorities, [10, 20, 25, 30, 99]);
    let chain = stage.chain();
    assert_eq!(
        (chain.components[1].id, chain.components[3].id),
        (first.components[0].id, first.components[1].id)
    );
    // One of theirs, one of ours.
    for at in [2, 1] {
        let id = stage.chain().components[at].id;
        stage.here(|d, index| d.remove(index, &Options::default(), &[id])).expect("removed");
        assert_eq!(stage.theirs(), stage.ours());
    }
    well(&stage.xdp_loader(&["unload", "v1", "--all"]));
    assert!(stage.bpffs.list().expect("a list").len() <= 1);
}

#[test]
fn mtls_chain_shows_as_libxdp_users_know_it() {
    let Some(stage) = Stage::set("beside::mtl") else { return };
    let filter = pointsman_bpf::builtin(Builtin::UdpPortFilter);
    let filter = Program::open(filter, Pick::Only, &Default::default(), None).expect("the filter");
    let xsk = xsk_program().expect("the redirect");
    let both = [(&filter, 19, on(&[Action::Drop])), (&xsk, 20, on(&[Action::Pass]))];
    stage.add(&both).expect("loaded");
    let status = text(&stage.xdp_loader(&["status", "v1"]).stdout);
    let wanted = [
        (19, "mtl_dp_filter".into(), "XDP_DROP".into()),
        (20, "xsk_def_prog".into(), "XDP_PASS".into()),
    ];
    assert_eq!(rows(&status), wanted);
}

#[test]
fn ours_moves_and_upgrades_beside_theirs_in_one_swap() {
    let Some(stage) = Stage::set("beside::moves") else { return };
    for priority in ["10", "30"] {
        let load = ["load", "-P", priority, "-n", "v_pass", "v1", &path("verdict")];
        well(&stage.xdp_loader(&load));
    }
    let drop = program("verdict", "v_drop");
    stage.add(&[(&drop, 20, on(&[Action::Drop]))]).expect("added");
    let before = stage.chain();
    let ids = |chain: &Chain| chain.components.iter().map(|c| c.id).collect::<Vec<_>>();
    let options = Options::default();
    let [first, ours, last] = ids(&before)[..] else { panic!("{before:?}") };

    let moved = stage.here(|d, index| d.reprioritise(index, &options, ours, Some(0), None));
    assert_eq!(moved.expect("moved").programs, [ours, first, last]);
    assert_eq!(stage.theirs()[0], (0, "v_drop".into(), "XDP_DROP".into()));
    // Of theirs, too: what the dispatcher is told wins over what the author says.
    let actions = Some(on(&[]));
    let changed = stage.here(|d, index| d.reprioritise(index, &options, last, None, actions));
    changed.expect("changed");
    // The packaged xdp-loader shows an empty set as the row before: it does not clear its buffer.
    assert_eq!(stage.ours()[2], (30, "v_pass".into(), String::new()));

    let upgrade = program("verdict", "v_opaque");
    let replaced = stage.here(|d, index| d.replace(index, &options, ours, &upgrade));
    let replaced = replaced.expect("replaced");
    assert_eq!((replaced.programs[1], replaced.programs[2]), (first, last));
    assert_eq!(stage.theirs()[0], (0, "v_opaque".into(), "XDP_DROP".into()));
    // Theirs rebuilds with what it finds, and removes one of ours.
    let ours = replaced.programs[0].to_string();
    well(&stage.xdp_loader(&["unload", "v1", "--id", &ours]));
    assert_eq!(ids(&stage.chain()), [first, last]);
    assert_eq!(stage.ours()[1], (30, "v_pass".into(), String::new()));
    let gone = stage.here(|d, index| d.remove(index, &options, &[replaced.programs[0]]));
    assert!(matches!(gone, Err(DispatcherError::NotThere { .. })), "{gone:?}");
}

#[test]
fn a_lone_programs_verdict_stays_the_same_whoever_comes_and_goes() {
    let Some(stage) = Stage::set("beside::lone") else { return };
    let packet = any_packet();
    let (drop, pass) = (Action::Drop.code(), Action::Pass.code());
    let options = Options::default();
    // Goes on after DROP: at the end of the chain stands PASS, whatever the length.
    let goes_on = program("verdict", "v_drop");
    stage.add(&[(&goes_on, 20, on(&[Action::Drop]))]).expect("added");
    assert_eq!(stage.theirs().len(), 2, "a program that passes everything keeps it a chain");
    assert_eq!(stage.verdict(&packet), pass);
    assert_eq!(received(&stage.pair, &[5000], 5999, 4), [4], "packets, not a listing");
    // Theirs stands behind it and drops; then goes again.
    let load = ["load", "-P", "30", "-n", "v_drop", "v1", &path("verdict")];
    well(&stage.xdp_loader(&load));
    assert_eq!(stage.verdict(&packet), drop);
    let theirs = stage.chain().components.iter().find(|c| c.priority == 30).map(|c| c.id);
    let theirs = theirs.expect("theirs").to_string();
    well(&stage.xdp_loader(&["unload", "v1", "--id", &theirs]));
    assert_eq!(stage.verdict(&packet), pass);
    // Beside another program of ours the filler goes.
    let second = program("verdict", "v_pass");
    stage.add(&[(&second, 40, on(&[Action::Pass]))]).expect("added");
    assert_eq!(stage.theirs().len(), 2);
    let id = goes_on.id().expect("loaded");
    stage.here(|d, index| d.remove(index, &options, &[id])).expect("removed");
    assert_eq!(stage.theirs(), [(40, "v_pass".into(), "XDP_PASS".into())]);
    assert_eq!(stage.verdict(&packet), pass);
    // A lone filter that goes on after PASS alone means the same in the dispatcher's place.
    let final_drop = program("verdict", "v_drop");
    let alone = [Wanted::new(&final_drop, 5, on(&[Action::Pass]))];
    stage.here(|d, index| d.change(index, &options, |_| Ok(alone.to_vec()))).expect("changed");
    assert_eq!((stage.theirs().len(), stage.verdict(&packet)), (1, drop));
    well(&stage.xdp_loader(&["load", "-P", "30", "-n", "v_pass", "v1", &path("verdict")]));
    assert_eq!((stage.theirs().len(), stage.verdict(&packet)), (2, drop));
}

#[test]
fn ten_fit_and_the_eleventh_is_refused_with_advice() {
    let Some(stage) = Stage::set("beside::ten") else { return };
    let load = ["load", "-n", "v_opaque", "v1"];
    let five = vec![path("verdict"); 5];
    let five: Vec<_> = five.iter().map(String::as_str).collect();
    well(&stage.xdp_loader(&[&load[..], &five].concat()));
    let ours: Vec<_> = (0..5).map(|_| program("verdict", "v_opaque")).collect();
    let new: Vec<_> = ours.iter().map(|p| (p, 50, on(&[Action::Pass]))).collect();
    stage.add(&new).expect("ten");
    assert_eq!(stage.theirs(), stage.ours());
    assert_eq!(stage.ours().len(), 10);
    let before = stage.everything();
    let more = program("verdict", "v_drop");
    let refused = stage.add(&[(&more, 1, on(&[Action::Pass]))]).expect_err("no room");
    assert!(refused.to_string().contains("share a slot"), "{refused}");
    let refused = stage.our_loader(&["load", "v1", &path("verdict")]);
    assert_eq!(refused.status.code(), Some(249), "{refused:?}");
    let theirs = stage.xdp_loader(&["load", "v1", &path("verdict")]);
    assert_eq!(theirs.status.code(), refused.status.code());
    assert_eq!(stage.everything(), before, "all stay");
}

#[test]
fn a_chain_is_joined_in_its_mode_or_not_at_all() {
    let Some(stage) = Stage::set("beside::mode") else { return };
    well(&stage.xdp_loader(&["load", "-m", "skb", "-n", "v_pass", "v1", &path("verdict")]));
    let native = Options { mode: Mode::Exactly(AttachMode::Native), ..Options::default() };
    let pass = program("verdict", "v_pass");
    let add = |options: Options| {
        let wanted = [Wanted::new(&pass, 60, on(&[Action::Pass]))];
        stage.here(|d, index| d.add(index, &options, &wanted))
    };
    let refused = add(native).expect_err("another mode");
    assert!(matches!(refused, DispatcherError::Mode { found: AttachMode::Skb, .. }), "{refused}");
    add(Options::default()).expect("in the mode that runs");
    let chain = stage.chain();
    assert_eq!((chain.program.mode, chain.components.len()), (AttachMode::Skb, 2));
    // Ours says so as theirs does, and at once.
    let ours = stage.our_loader(&["load", "-m", "native", "v1", &path("verdict")]);
    assert_eq!(ours.status.code(), Some(240), "{ours:?}");
}
