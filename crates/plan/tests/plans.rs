//! Plans as an operator reads them: what each situation leads to.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, chain, host, interface, run, show, steps};
use insta::assert_snapshot;
use pointsman_model::chain::Form;
use pointsman_model::facts::{ProgramProblem, SideEffect};
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::{Plan, Step};
use pointsman_plan::drain;
use pointsman_plan::simulator::{Runs, Simulator};
use serde_json::json;

#[test]
fn a_first_chain_is_prepared_filled_built_and_attached() {
    let mut bench = Bench::with(&["ddos", "ports"]);
    bench.entries("ports", "ports", &[20000, 20001]);
    let plan = bench.plan(&bench.document(1, &chain("eth0", &["19 ports", "10 ddos"])), &host());
    assert_snapshot!(show(&plan), @"
    eth0/xdp: Attach none -> [ddos ports] native
    step: prepare program ddos (81eef4bb6e891206)
    step: prepare program ports (6b3ba43917e7be3c)
    step: set map ports of program ports to 2 entries
    step: build chain eth0/xdp#1 of 2 programs
    step: attach chain eth0/xdp#1 (native)
    ");
    assert_eq!(plan.hooks[0].engine, "fused (auto: no freplace: the kernel refuses EXT)");
}

#[test]
fn ties_go_by_entry_and_then_by_name() {
    let mut bench = Bench::with(&["b", "a", "z"]);
    bench.program("z", 1).entry = "aa".parse().unwrap();
    for name in ["a", "b"] {
        bench.program(name, 1).entry = "same".parse().unwrap();
    }
    let plan = bench.plan(&bench.document(1, &chain("eth0", &["5 b", "5 a", "5 z"])), &host());
    let order = plan.hooks[0].after.as_ref().unwrap().members.iter();
    assert_eq!(order.map(|m| m.program.as_str()).collect::<Vec<_>>(), ["z", "a", "b"]);
}

#[test]
fn nothing_to_do_is_no_step_whatever_the_generation() {
    let (bench, mut host) = (Bench::with(&["ddos"]), host());
    bench.apply(1, &chain("eth0", &["10 ddos"]), &mut host);
    let plan = bench.plan(&bench.document(2, &chain("eth0", &["10 ddos"])), &host);
    assert_snapshot!(show(&plan), @"eth0/xdp: Unchanged [ddos] -> [ddos] native");
    assert!(plan.is_converged());
}

#[test]
fn an_upgrade_swaps_once_and_says_which_state_is_lost() {
    let (mut bench, mut host) = (Bench::with(&["ddos", "ports"]), host());
    let wanted = chain("eth0", &["10 ddos", "19 ports"]);
    let maps = ["blocklist", "seen", "slow", ".bss", ".rodata"].map(common::map);
    bench.program("ddos", 1).maps = maps.clone().into();
    bench.apply(1, &wanted, &mut host);
    let facts = bench.program("ddos", 2);
    facts.maps = maps.into();
    facts.maps[0].definition.max_entries = 2048;
    facts.maps[2].definition.value = Some("s64".into());
    bench.entries("ddos", "blocklist", &[1]);
    let plan = bench.apply(2, &wanted, &mut host);
    let (old, new) = (Bench::with(&["ddos"]).load("ddos").1, bench.load("ddos").1);
    let text = show(&plan).replace(old.as_str(), "OLD").replace(new.as_str(), "NEW");
    assert_snapshot!(text, @"
    eth0/xdp: Swap [ddos ports] -> [ddos ports] native
    step: prepare program ddos (NEW), keeping seen
    step: set map blocklist of program ddos to 1 entries
    step: build chain eth0/xdp#2 of 2 programs
    step: swap to chain eth0/xdp#2
    step: retire chain eth0/xdp#1
    step: release program ddos (OLD)
    note - ddos: state lost: map slow of program ddos does not keep its contents: its value had `u64`, has `s64` now
    note - ddos: state lost: map .bss of program ddos does not keep its contents: its variables may lie elsewhere in another object
    ");
    assert_eq!(bench.apply(2, &wanted, &mut host).steps, []);
}

#[test]
fn new_entries_go_into_the_running_map_without_a_new_chain() {
    let (mut bench, mut host) = (Bench::with(&["ports"]), host());
    bench.entries("ports", "ports", &[20000]);
    bench.apply(1, &chain("eth0", &["10 ports"]), &mut host);
    bench.entries("ports", "ports", &[20000, 20001, 20002]);
    let plan = bench.apply(2, &chain("eth0", &["10 ports"]), &mut host);
    assert_snapshot!(show(&plan), @"
    eth0/xdp: Unchanged [ports] -> [ports] native
    step: set map ports of program ports to 3 entries
    ");
}

#[test]
fn an_emptied_chain_stays_attached_and_a_missing_section_releases() {
    let (bench, mut host) = (Bench::with(&["ddos"]), host());
    bench.apply(1, &chain("eth0", &["10 ddos"]), &mut host);
    let emptied = bench.apply(2, &chain("eth0", &[]), &mut host);
    assert_snapshot!(steps(&emptied, &bench), @"
    eth0/xdp: Swap [ddos] -> [] native
    step: build chain eth0/xdp#2 of 0 programs
    step: swap to chain eth0/xdp#2
    step: retire chain eth0/xdp#1
    step: release program ddos
    note - ddos: program ddos is in no chain of this document
    ");
    assert!(
        matches!(host.runs(&interface("eth0")), Runs::Chain(spec, _) if spec.members.is_empty())
    );
    let released = bench.apply(3, &json!({"eth0": {}}), &mut host);
    assert_snapshot!(show(&released), @"
    eth0/xdp: Detach [] -> none -
    step: detach eth0/xdp
    step: retire chain eth0/xdp#2
    step: release hook eth0/xdp
    note - ddos: program ddos is in no chain of this document
    ");
    assert_eq!(host.observe().hooks.len(), 0);
}

#[test]
fn an_empty_chain_is_attached_where_nothing_was() {
    let (bench, mut host) = (Bench::with(&[]), host());
    assert_snapshot!(show(&bench.apply(1, &chain("eth0", &[]), &mut host)), @"
    eth0/xdp: Attach none -> [] native
    step: build chain eth0/xdp#1 of 0 programs
    step: attach chain eth0/xdp#1 (native)
    ");
}

#[test]
fn what_cannot_be_done_is_refused_and_the_rest_goes_on() {
    let mut bench = Bench::with(&["good", "bad", "deep", "gone"]);
    let problem = |message: &str, log: Option<&str>| ProgramProblem {
        message: message.into(),
        log: log.map(Into::into),
    };
    bench.program("deep", 1).main_stack = 600;
    let fingerprint = bench.load("bad").1;
    let refused = problem("bad: the verifier refuses it", Some("R1 invalid"));
    bench.facts.insert(fingerprint, Err(refused));
    bench
        .programs
        .insert(common::program("gone"), Err(problem("/objects/gone.o: no such file", None)));
    let mut host = host();
    for name in ["eth1", "eth2", "eth3~x"] {
        host.add_interface(&interface(name), None);
    }
    let chain = |names: &[&str]| {
        let chain: Vec<_> = names.iter().map(|name| json!({"program": name})).collect();
        json!({"xdp": {"engine": "fused", "chain": chain}})
    };
    let interfaces = json!({
        "eth0": chain(&["good"]),
        "eth1": chain(&["good", "bad", "gone"]),
        "eth3~x": chain(&["good", "deep"]),
        "eth9": chain(&["good", "bad"]),
    });
    let plan = bench.apply(1, &interfaces, &mut host);
    assert_snapshot!(steps(&plan, &bench), @"
    eth0/xdp: Attach none -> [good] native
    eth1/xdp: Refused none -> none -
    eth3~x/xdp: Refused none -> none -
    eth9/xdp: Refused none -> none -
    step: prepare program good
    step: build chain eth0/xdp#1 of 1 programs
    step: attach chain eth0/xdp#1 (native)
    refused eth1/xdp bad: program unusable at /programs/bad: bad: the verifier refuses it
    log: R1 invalid
    refused eth1/xdp gone: program unusable at /programs/gone: /objects/gone.o: no such file
    refused eth3~x/xdp deep: does not fit at /interfaces/eth3~0x/xdp/chain: the stack does not fit: deep needs 608 bytes below the chain's frame, and 480 of the kernel's 512 are left; use less stack there, or put it into a chain of its own
    refused eth9/xdp bad: program unusable at /programs/bad: bad: the verifier refuses it
    log: R1 invalid
    ");
    assert_eq!(plan.hooks[0].engine, "fused (as the document says)");
}

#[test]
fn licences_that_do_not_go_together_blame_no_single_program() {
    let mut bench = Bench::with(&["free", "gpl"]);
    bench.program("free", 1).gpl_compatible = false;
    bench.program("gpl", 1).needs_gpl = true;
    let plan = bench.plan(&bench.document(1, &chain("eth0", &["1 free", "2 gpl"])), &host());
    assert_snapshot!(show(&plan), @"
    eth0/xdp: Refused none -> none -
    refused eth0/xdp -: does not fit at /interfaces/eth0/xdp/chain: the licences do not go together: gpl calls helpers reserved for GPL-compatible programs, and free does not declare a GPL-compatible licence
    ");
}

#[test]
fn a_refused_hook_keeps_its_chain_and_its_programs() {
    let (mut bench, mut host) = (Bench::with(&["old", "bad"]), host());
    bench.apply(1, &chain("eth0", &["10 old"]), &mut host);
    bench.programs.insert(
        common::program("bad"),
        Err(ProgramProblem { message: "not an ELF".into(), log: None }),
    );
    let plan = bench.plan(&bench.document(2, &chain("eth0", &["10 bad"])), &host);
    assert_snapshot!(show(&plan), @"
    eth0/xdp: Refused [old] -> [old] native
    refused eth0/xdp bad: program unusable at /programs/bad: not an ELF
    note - old: program old is in no chain of this document
    ");
}

#[test]
fn loopback_has_no_native_xdp_and_auto_says_so() {
    let (bench, mut host) = (Bench::with(&["p"]), Simulator::new());
    host.add_loopback(&interface("lo"));
    host.add_interface(&interface("nat0"), Some(false));
    let with = |mode: &str| {
        let xdp = json!({"xdp": {"mode": mode, "chain": [{"program": "p"}]}});
        json!({"lo": xdp, "nat0": xdp})
    };
    let native = bench.plan(&bench.document(1, &with("native")), &host);
    assert_snapshot!(show(&native), @r#"
    lo/xdp: Refused none -> none -
    nat0/xdp: Refused none -> none -
    refused lo/xdp -: mode unsupported at /interfaces/lo/xdp/mode: lo is the loopback interface and has no native XDP; `"mode": "skb"` works there
    refused nat0/xdp -: mode unsupported at /interfaces/nat0/xdp/mode: nat0 has no native XDP: its driver does not support it; `"mode": "skb"` works there
    "#);
    let auto = bench.apply(2, &with("auto"), &mut host);
    assert_snapshot!(steps(&auto, &bench), @"
    lo/xdp: Attach none -> [p] skb
    nat0/xdp: Attach none -> [p] skb
    step: prepare program p
    step: build chain lo/xdp#1 of 1 programs
    step: build chain nat0/xdp#1 of 1 programs
    step: attach chain lo/xdp#1 (skb)
    step: attach chain nat0/xdp#1 (skb)
    note lo/xdp -: mode auto takes skb, because lo is the loopback interface and has no native XDP
    note nat0/xdp -: mode auto takes skb, because nat0 has no native XDP: its driver does not support it
    ");
    // The explicit form of what runs is no change.
    assert!(bench.plan(&bench.document(3, &with("skb")), &host).is_converged());
}

#[test]
fn a_change_of_mode_needs_leave_for_the_gap() {
    let (mut bench, mut host) = (Bench::with(&["p"]), host());
    let with = |mode: &str| json!({"eth0": {"xdp": {"mode": mode, "chain": [{"program": "p"}]}}});
    bench.apply(1, &with("skb"), &mut host);
    let refused = bench.plan(&bench.document(2, &with("native")), &host);
    assert_snapshot!(show(&refused), @"
    eth0/xdp: Refused [p] -> [p] skb
    refused eth0/xdp -: needs a gap at /interfaces/eth0/xdp/mode: the chain on eth0 is attached in skb mode, and native mode needs it detached first: packets would pass without a chain for a moment; allow that with `apply --allow-gap`
    ");
    // `auto` keeps what runs, and says so.
    let auto = bench.plan(&bench.document(2, &with("auto")), &host);
    assert_snapshot!(show(&auto), @r#"
    eth0/xdp: Unchanged [p] -> [p] skb
    note eth0/xdp -: mode auto keeps skb, in which the chain is attached, though eth0 may run native; a change opens a gap: write `"mode": "native"` and use `apply --allow-gap`
    "#);
    bench.options.allow_gap = true;
    let allowed = bench.apply(2, &with("native"), &mut host);
    assert_snapshot!(show(&allowed), @"
    eth0/xdp: Reattach [p] -> [p] native
    step: build chain eth0/xdp#2 of 1 programs
    step: detach eth0/xdp (opens a gap)
    step: attach chain eth0/xdp#2 (native)
    step: retire chain eth0/xdp#1
    ");
    assert!(matches!(host.runs(&interface("eth0")), Runs::Chain(_, AttachMode::Native)));
}

#[test]
fn a_foreign_program_is_named_and_stays() {
    let (bench, mut host) = (Bench::with(&["p"]), host());
    let id = host.attach_foreign(&interface("eth0"), "xdp_dispatcher", AttachMode::Native).unwrap();
    let plan = bench.apply(1, &chain("eth0", &["10 p"]), &mut host);
    assert_snapshot!(show(&plan), @"
    eth0/xdp: Refused none -> none -
    refused eth0/xdp -: foreign program at /interfaces/eth0/xdp: eth0 carries XDP program xdp_dispatcher (id 1, native), which is not ours and stays untouched; to make room, stop what attached it, or remove it with `xdp-loader unload eth0 --all` or `ip link set dev eth0 xdpdrv off`, and apply again
    ");
    assert_eq!(host.runs(&interface("eth0")), Runs::Foreign(id));
}

#[test]
fn what_is_worth_knowing_is_noted() {
    let mut bench = Bench::with(&["big", "end", "late", "later", "spare"]);
    bench.caps.freplace = Err("kernel lockdown".into());
    bench.program("big", 1).main_stack = 300;
    bench.program("late", 1).called_stack = 256;
    bench.program("later", 1).frags = false;
    bench.program("end", 1).side_effects = vec![SideEffect::WritesPacket, SideEffect::WritesMaps];
    let interfaces = json!({"eth0": {"xdp": {"chain": [
        {"program": "end", "priority": 1, "enforce": false},
        {"program": "big", "priority": 2, "chain_call_actions": []},
        {"program": "late", "priority": 3},
        {"program": "later", "priority": 4},
    ]}}});
    let plan = bench.plan(&bench.document(1, &interfaces), &host());
    let notes = Plan { notes: plan.notes.clone(), ..Plan::default() };
    let effects = format!("{} and {}", SideEffect::WritesPacket, SideEffect::WritesMaps);
    assert_snapshot!(show(&notes).replace(&effects, "EFFECTS"), @"
    note - spare: program spare is in no chain of this document
    note eth0/xdp big: every verdict of big is final, because it has no chain_call_actions; never reached: late and later
    note eth0/xdp end: end is observed only, but it EFFECTS, which observing cannot undo
    note eth0/xdp big: big is called, not inlined, so that the stack fits; the call costs several nanoseconds a packet
    note eth0/xdp later: the chain takes no packets of several buffers: later is not built as xdp.frags
    ");
    assert_eq!(plan.hooks[0].engine, "fused (auto: no freplace: kernel lockdown)");
    let spec = plan.hooks[0].after.as_ref().unwrap();
    assert_eq!((spec.members[1].form, spec.frags), (Form::Called, false));
}

#[test]
fn drain_removes_all_that_is_ours_and_nothing_else() {
    let (bench, mut host) = (Bench::with(&["p", "q"]), host());
    host.add_interface(&interface("eth1"), None);
    host.add_interface(&interface("eth2"), None);
    let id = host.attach_foreign(&interface("eth2"), "theirs", AttachMode::Skb).unwrap();
    let both = json!({"eth0": {"xdp": {"chain": [{"program": "p"}]}},
        "eth1": {"xdp": {"chain": [{"program": "q"}]}}});
    bench.apply(1, &both, &mut host);
    let plan = drain(&host.observe());
    assert_snapshot!(steps(&plan, &bench), @"
    eth0/xdp: Detach [p] -> none -
    eth1/xdp: Detach [q] -> none -
    step: detach eth0/xdp
    step: detach eth1/xdp
    step: retire chain eth0/xdp#1
    step: release hook eth0/xdp
    step: retire chain eth1/xdp#1
    step: release hook eth1/xdp
    step: release program p
    step: release program q
    ");
    run(&plan, &mut host);
    assert_eq!(drain(&host.observe()).steps, []);
    assert_eq!(host.runs(&interface("eth0")), Runs::Nothing);
    assert_eq!(host.runs(&interface("eth2")), Runs::Foreign(id));
    assert_eq!((host.observe().hooks.len(), host.observe().programs.len()), (0, 0));
}

#[test]
fn preparing_comes_before_anything_packets_notice() {
    let (bench, mut host) = (Bench::with(&["p", "q"]), host());
    host.add_interface(&interface("eth1"), None);
    bench.apply(1, &chain("eth0", &["10 p"]), &mut host);
    let both = json!({"eth0": {"xdp": {"chain": [{"program": "q"}]}},
        "eth1": {"xdp": {"chain": [{"program": "q"}]}}});
    let steps = bench.plan(&bench.document(2, &both), &host).steps;
    let rank = |step: &Step| match step {
        Step::RenameHook(_) | Step::PinLink(_) | Step::PrepareProgram(_) | Step::PinMaps(_) => 0,
        Step::SetMapEntries(_) => 1,
        Step::BuildChain(_) => 2,
        Step::Attach(_) | Step::Swap(_) | Step::Detach(_) => 3,
        Step::RetireChain(_) | Step::ReleaseHook(_) => 4,
        Step::ReleaseProgram(_) => 5,
    };
    assert!(steps.iter().map(rank).is_sorted(), "{steps:?}");
    assert_eq!(steps.iter().map(rank).collect::<Vec<_>>(), [0, 2, 2, 3, 3, 4, 5]);
}
