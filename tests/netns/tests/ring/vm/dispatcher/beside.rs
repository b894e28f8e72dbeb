//! Whoever loads, both list the same.

use pointsman_bpf::dispatcher::{Options, xsk_program};
use pointsman_model::Action;
use pointsman_netns::dispatcher::{Stage, on, path, program, rows, text, well};

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
    let filter = pointsman_bpf::builtin(pointsman_model::document::Builtin::UdpPortFilter);
    let filter = pointsman_bpf::dispatcher::Program::open(filter, None, &Default::default(), None)
        .expect("the port filter");
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
