//! Chains in slots of a dispatcher, beside programs of others.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, hook, host, interface, show};
use insta::assert_snapshot;
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::{HookChange, Plan};
use pointsman_model::{Action, ActionSet};
use pointsman_plan::drain;
use pointsman_plan::simulator::{Runs, Simulator};
use serde_json::{Value, json};

/// Programs at hand on a kernel with freplace.
fn bench(names: &[&str]) -> Bench {
    let mut bench = Bench::with(names);
    bench.caps.freplace = Ok(());
    bench
}

/// A chain on eth0: `10 ddos`, or `10 ddos own`; and whatever else of the section.
fn chain(members: &[&str], rest: Value) -> Value {
    let entry = |member: &&str| {
        let mut words = member.split(' ');
        let (priority, program) = (words.next().unwrap(), words.next().unwrap());
        let mut entry = json!({"priority": priority.parse::<u32>().unwrap(), "program": program});
        if words.next() == Some("own") {
            entry["slot"] = json!("own");
        }
        entry
    };
    let mut xdp = rest;
    xdp["chain"] = members.iter().map(entry).collect();
    json!({"eth0": {"xdp": xdp}})
}

/// What the dispatcher on eth0 runs, a line each.
fn runs(host: &Simulator) -> String {
    let lines = host.components(&interface("eth0")).into_iter().map(|component| {
        format!("{} {} {}\n", component.priority, component.name, component.actions)
    });
    lines.collect()
}

fn theirs(host: &mut Simulator, program: &str, priority: u32) -> u32 {
    let eth0 = interface("eth0");
    host.add_other(&eth0, program, priority, ActionSet::PASS, AttachMode::Native).unwrap()
}

fn steps(plan: &Plan) -> String {
    plan.steps.iter().map(|step| format!("{step}\n")).collect()
}

fn refusal(plan: &Plan) -> String {
    let [refusal] = &plan.refusals[..] else { panic!("{:?}", plan.refusals) };
    assert_eq!(plan.hooks[0].change, HookChange::Refused);
    format!("{} {}: {}", refusal.reason, refusal.pointer, refusal.message)
}

#[test]
fn neighbours_share_a_slot_and_others_come_between() {
    let (bench, mut host) = (bench(&["a", "b", "m", "z"]), host());
    let wanted = chain(&["10 a", "10 b", "10 z", "20 m own"], json!({}));
    let plan = bench.apply(1, &wanted, &mut host);
    assert_snapshot!(steps(&plan), @"
    prepare program a (04713560aa5b80df)
    prepare program b (de783e01aac90e9b)
    prepare program m (0cc32e61d72ea0d5)
    prepare program z (3f5fffaeaece1268)
    build chain eth0/xdp#1 of 4 programs in 2 slots
    put chain eth0/xdp#1 into the dispatcher (native)
    ");
    assert_snapshot!(runs(&host), @"
    10 a_main pass
    20 m_main pass
    ");
    // Whoever comes stands where its priority and name put it, and nothing is built for that.
    theirs(&mut host, "y", 5);
    assert!(bench.plan(&bench.document(2, &wanted), &host).is_converged());
    theirs(&mut host, "c", 10);
    assert_snapshot!(runs(&host), @"
    5 y pass
    10 a_main pass
    10 c pass
    20 m_main pass
    ");
    let plan = bench.apply(2, &wanted, &mut host);
    assert_eq!(plan.hooks[0].change, HookChange::Swap);
    assert_snapshot!(runs(&host), @"
    5 y pass
    10 a_main pass
    10 c pass
    10 z_main pass
    20 m_main pass
    ");
}

#[test]
fn what_is_decided_about_others_holds_whatever_they_say() {
    let (bench, mut host) = (bench(&["a"]), host());
    let others = json!([{"name": "y", "priority": 7, "chain_call_actions": ["drop"]}]);
    let wanted = chain(&["10 a"], json!({ "others": others }));
    let id = theirs(&mut host, "y", 50);
    theirs(&mut host, "x", 60);
    let plan = bench.apply(1, &wanted, &mut host);
    let [moved] = &plan.hooks[0].others[..] else { panic!("{:?}", plan.hooks[0].others) };
    assert_eq!((moved.id, moved.name.as_str(), moved.priority), (id, "y", 7));
    assert_snapshot!(runs(&host), @"
    7 y drop
    10 a_main pass
    60 x pass
    ");
    assert!(bench.plan(&bench.document(2, &wanted), &host).is_converged());
    // The closer word counts: a tag is one build of a program.
    let tag = format!("{id:016x}");
    let others = json!([{"tag": tag, "priority": 99}, {"name": "y", "priority": 7}]);
    bench.apply(3, &chain(&["10 a"], json!({ "others": others })), &mut host);
    assert_snapshot!(runs(&host), @"
    10 a_main pass
    60 x pass
    99 y drop
    ");
}

#[test]
fn a_lone_slot_keeps_company_that_makes_its_actions_mean_something() {
    let (bench, mut host) = (bench(&["a"]), host());
    let mut wanted = chain(&["10 a own"], json!({}));
    wanted["eth0"]["xdp"]["chain"][0]["chain_call_actions"] = json!(["drop"]);
    bench.apply(1, &wanted, &mut host);
    assert_snapshot!(runs(&host), @"
    10 a_main drop
    2147483647 pointsman_pass pass
    ");
    // Beside somebody else's it needs none, and alone again it does.
    theirs(&mut host, "y", 50);
    bench.apply(2, &chain(&["10 a own"], json!({})), &mut host);
    assert_snapshot!(runs(&host), @"
    10 a_main pass
    50 y pass
    ");
    bench.apply(3, &wanted, &mut host);
    assert!(host.remove_component(&interface("eth0"), 1));
    assert_snapshot!(runs(&host), @"
    10 a_main drop
    2147483647 pointsman_pass pass
    ");
    bench.apply(4, &wanted, &mut host);
    assert_snapshot!(runs(&host), @"
    10 a_main drop
    2147483647 pointsman_pass pass
    ");
}

#[test]
fn slots_that_somebody_took_out_come_back_and_others_stay() {
    let (bench, mut host) = (bench(&["a", "b"]), host());
    let wanted = chain(&["10 a own", "20 b own"], json!({}));
    bench.apply(1, &wanted, &mut host);
    theirs(&mut host, "y", 15);
    assert!(host.remove_component(&interface("eth0"), 2));
    assert_eq!(bench.apply(1, &wanted, &mut host).hooks[0].change, HookChange::Swap);
    assert_snapshot!(runs(&host), @"
    10 a_main pass
    15 y pass
    20 b_main pass
    ");
    host.remove_dispatcher(&interface("eth0"));
    assert_eq!(bench.apply(1, &wanted, &mut host).hooks[0].change, HookChange::Attach);
    theirs(&mut host, "y", 15);
    // What is not ours stays when all that is ours goes.
    common::run(&drain(&host.observe()), &mut host);
    assert_snapshot!(runs(&host), @"15 y pass");
    assert_eq!(host.observe().hooks.len(), 0);
}

#[test]
fn an_emptied_chain_keeps_an_empty_program() {
    let (bench, mut host) = (bench(&["a"]), host());
    bench.apply(1, &chain(&["10 a"], json!({})), &mut host);
    bench.apply(2, &chain(&[], json!({})), &mut host);
    assert_snapshot!(runs(&host), @"2147483647 pointsman_empty pass");
    assert!(
        matches!(host.runs(&interface("eth0")), Runs::Chain(spec, _) if spec.members.is_empty())
    );
}

#[test]
fn a_link_gives_way_to_a_dispatcher_only_where_a_gap_is_allowed() {
    let (mut bench, mut host) = (bench(&["a"]), host());
    let wanted = chain(&["10 a"], json!({}));
    bench.caps.freplace = Err("not yet".into());
    bench.apply(1, &wanted, &mut host);
    let decided = chain(&["10 a"], json!({"others": [{"name": "y", "priority": 1}]}));
    let plan = bench.plan(&bench.document(1, &decided), &host);
    assert!(plan.notes[0].message.starts_with("what the document decides"), "{:?}", plan.notes);
    bench.caps.freplace = Ok(());
    let plan = bench.plan(&bench.document(1, &wanted), &host);
    assert!(plan.is_converged());
    assert_snapshot!(plan.notes[0].message, @r#"
    engine auto keeps the BPF link that the chain is attached by, which programs of libxdp cannot join; a change opens a gap: write `"engine": "dispatcher"`, use `apply --allow-gap`, and then `auto` again
    "#);
    let asked = chain(&["10 a"], json!({"engine": "dispatcher"}));
    let plan = bench.plan(&bench.document(2, &asked), &host);
    assert_snapshot!(refusal(&plan), @"
    needs a gap /interfaces/eth0/xdp/engine: the chain on eth0 is attached by a BPF link, and a dispatcher needs it detached first (engine dispatcher (as the document says)): packets would pass without a chain for a moment; allow that with `apply --allow-gap`
    ");
    bench.options.allow_gap = true;
    assert_snapshot!(steps(&bench.apply(2, &asked, &mut host)), @"
    build chain eth0/xdp#2 of 1 programs in one slot
    detach eth0/xdp (opens a gap)
    put chain eth0/xdp#2 into the dispatcher (native)
    retire chain eth0/xdp#1
    ");
    assert_snapshot!(runs(&host), @"10 a_main pass");
    let back = chain(&["10 a"], json!({"engine": "fused"}));
    theirs(&mut host, "y", 15);
    assert_snapshot!(refusal(&bench.plan(&bench.document(3, &back), &host)), @"
    foreign program /interfaces/eth0/xdp/engine: eth0 runs a program of others beside the chain, in a dispatcher, and a fused program would need them gone (engine fused (as the document says)): `xdp-loader status eth0` lists them
    ");
    assert!(host.remove_component(&interface("eth0"), 1));
    assert_snapshot!(steps(&bench.apply(3, &back, &mut host)), @"
    build chain eth0/xdp#3 of 1 programs
    detach eth0/xdp (opens a gap)
    attach chain eth0/xdp#3 (native)
    retire chain eth0/xdp#2
    ");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (mut bench, mut host) = (bench(&["a", "b"]), host());
    let eth0 = interface("eth0");
    let plan = |bench: &Bench, host: &Simulator, rest: Value| {
        refusal(&bench.plan(&bench.document(1, &chain(&["10 a", "10 b"], rest)), host))
    };
    bench.caps.freplace = Err("the kernel is locked down".into());
    assert_snapshot!(plan(&bench, &host, json!({"engine": "dispatcher"})), @r#"
    engine unsupported /interfaces/eth0/xdp/engine: engine dispatcher needs programs that replace functions of others (freplace), and this kernel refuses them: the kernel is locked down; `"engine": "auto"` makes one program of the chain here
    "#);
    bench.caps.freplace = Ok(());
    theirs(&mut host, "y", 15);
    assert_snapshot!(plan(&bench, &host, json!({"engine": "fused"})), @"
    foreign program /interfaces/eth0/xdp: eth0 carries XDP program xdp_dispatcher (id 2, native), which is not ours and stays untouched (one fused program, attached by a BPF link, cannot join a dispatcher); to make room, stop what attached it, or remove it with `xdp-loader unload eth0 --all` or `ip link set dev eth0 xdpdrv off`, and apply again
    ");
    assert_snapshot!(plan(&bench, &host, json!({"mode": "skb"})), @r#"
    mode unsupported /interfaces/eth0/xdp/mode: eth0 runs a dispatcher of others in native mode, and the chain is wanted in skb mode; `"mode": "auto"` joins it as it is
    "#);
    host.fix_dispatcher(&eth0, Some("it is of version 9, which is not known here"));
    assert_snapshot!(plan(&bench, &host, json!({})), @"
    foreign program /interfaces/eth0/xdp: eth0 carries XDP program xdp_dispatcher (id 2, native), which is not ours and stays untouched (it is of version 9, which is not known here); to make room, stop what attached it, or remove it with `xdp-loader unload eth0 --all` or `ip link set dev eth0 xdpdrv off`, and apply again
    ");
    host.fix_dispatcher(&eth0, None);
    for number in 0..8 {
        theirs(&mut host, &format!("y{number}"), 15);
    }
    assert_snapshot!(plan(&bench, &host, json!({"engine": "dispatcher"})), @r#"
    does not fit /interfaces/eth0/xdp/chain: the dispatcher would have 11 programs, 9 of them of others, and it has room for 10: let neighbours share a slot (`"engine": "auto"`, no `"slot": "own"`), or remove some
    "#);
    // In one slot they fit.
    let wanted = chain(&["10 a", "10 b"], json!({}));
    assert_eq!(bench.plan(&bench.document(1, &wanted), &host).refusals, []);
    for name in ["a", "b"] {
        bench.program(name, 1).entry = "same".parse().unwrap();
    }
    host.remove_dispatcher(&eth0);
    assert_snapshot!(plan(&bench, &host, json!({"engine": "dispatcher"})), @"
    does not fit /interfaces/eth0/xdp/chain: two slots would have the priority 10 and the name same, and which of them comes first would be chance: give the programs different priorities
    ");
}

#[test]
fn slots_follow_a_renamed_interface_and_leave_one_that_is_not_theirs() {
    let (bench, mut host) = (bench(&["a"]), host());
    bench.apply(1, &chain(&["10 a"], json!({})), &mut host);
    host.rename_interface(&interface("eth0"), &interface("wan"));
    let mut moved = chain(&["10 a"], json!({}));
    moved["wan"] = moved["eth0"].take();
    moved.as_object_mut().unwrap().remove("eth0");
    assert_snapshot!(show(&bench.apply(2, &moved, &mut host)), @"
    wan/xdp: Unchanged [a] -> [a] native
    step: rename hook eth0/xdp to wan/xdp
    ");
    // A new interface has the old name, and the document speaks of that.
    host.add_interface(&interface("eth0"), Some(true));
    host.rename_interface(&interface("wan"), &interface("lan"));
    let wanted = chain(&["10 a"], json!({}));
    assert_eq!(host.observe().hooks.keys().collect::<Vec<_>>(), [&hook("wan")]);
    assert_snapshot!(steps(&bench.apply(3, &wanted, &mut host)), @"
    build chain eth0/xdp#1 of 1 programs in one slot
    put chain eth0/xdp#1 into the dispatcher (native)
    detach wan/xdp
    retire chain wan/xdp#1
    release hook wan/xdp
    ");
    assert!(host.components(&interface("lan")).is_empty());
    let drops: ActionSet = [Action::Drop].into_iter().collect();
    assert!(host.add_other(&interface("lan"), "y", 1, drops, AttachMode::Skb).is_some());
}

#[test]
fn what_stays_out_of_reach_is_planned_around_with_its_earlier_programs() {
    let (bench, mut host) = (bench(&["a", "b"]), host());
    bench.apply(1, &chain(&["10 a"], json!({})), &mut host);
    // In a namespace that nobody names, so that nothing can be done about it.
    host.rename_interface(&interface("eth0"), &interface("blue/eth0"));
    host.hide(&"blue".parse().unwrap(), true);
    let other = json!({"eth1": {"xdp": {"chain": [{"program": "b"}]}}});
    let plan = bench.plan(&bench.document(2, &other), &host);
    assert!(plan.notes.iter().any(|note| note.message.contains("its slots run on")), "{plan:?}");
    assert_eq!(plan.hooks[0].change, HookChange::Unchanged);
    // Wanted otherwise, and not there: what runs was of an earlier document.
    let fused = chain(&["10 b"], json!({"engine": "fused"}));
    host.hide(&"blue".parse().unwrap(), false);
    let plan = bench.plan(&bench.document(3, &fused), &host);
    assert_eq!(plan.hooks[0].change, HookChange::Pending);
}
