//! The store: chains that outlive the process that pinned them.

use pointsman_bpf::{ChainMember, Store};
use pointsman_model::chain::{ChainId, ChainRecord, ChainSpec, Form, MemberSpec};
use pointsman_model::document::MapEntry;
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{ActionSet, EntryName, HookId, InterfaceName, MapName, ProgramName, Sha256};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::rounding;
use pointsman_netns::netns::Pair;
use pointsman_netns::traffic::received;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A port filter that lets the listed ports pass.
fn filter(ports: &[u16]) -> (Vec<u8>, ResolvedProgram) {
    let object = pointsman_bpf::builtin(pointsman_model::document::Builtin::UdpPortFilter).to_vec();
    let mut program = ResolvedProgram::new(Sha256::of(&object), "builtin");
    let entry = |&port: &u16| MapEntry { key: json!(port), value: json!(1) };
    let entries = ports.iter().map(entry).collect();
    program.maps = BTreeMap::from([(MapName::new("ports").expect("a name"), entries)]);
    (object, program)
}

fn name(text: &str) -> ProgramName {
    ProgramName::new(text).expect("a name")
}

fn hook() -> HookId {
    HookId::xdp(InterfaceName::new("v1").expect("a name"))
}

fn record(program: &ResolvedProgram, priority: u32) -> ChainRecord {
    let member = MemberSpec {
        program: name("ports"),
        fingerprint: program.fingerprint(),
        object: program.object,
        source: program.source.clone(),
        entry: EntryName::new("mtl_dp_filter").expect("a name"),
        tag: "0".repeat(16),
        priority,
        chain_call_actions: ActionSet::PASS,
        enforce: true,
        form: Form::Inlined,
    };
    ChainRecord {
        generation: 1,
        spec: ChainSpec { members: vec![member], frags: true, slots: vec![] },
    }
}

fn build(store: &Store, sequence: u64, priority: u32) -> ChainId {
    let (object, program) = filter(&[5000, 5999]);
    let chain = ChainId { hook: hook(), sequence };
    let member = ChainMember { program: &program, object, known: None };
    store.build_chain(&chain, &record(&program, priority), &[member], rounding()).expect("build");
    chain
}

#[test]
fn a_chain_lives_without_us_and_is_adopted_swapped_and_removed() {
    let (pair, bpffs) = (Pair::new().expect("root"), Bpffs::mount().expect("root"));
    let root = bpffs.path().join("pointsman");
    let store = Store::open(&root).expect("an empty store");
    assert!(Store::open(&root).is_err(), "one process at a time");
    let (object, program) = filter(&[5000, 5999]);
    let ports = MapName::new("ports").expect("a name");
    store
        .prepare_program(&name("ports"), &program, &object, rounding(), None, &BTreeMap::new())
        .expect("prepare");
    store.set_map_entries(&name("ports"), &program, &ports, &object).expect("fill");
    let first = build(&store, 1, 10);
    let index = pair.right.index("v1");
    pair.right.run(|| store.attach(&first, index, AttachMode::Native)).expect("attach");
    assert_eq!(received(&pair, &[5000, 5001], 5999, 4), [4, 0]);

    // Nobody holds anything but the pins now.
    drop(store);
    assert_eq!(received(&pair, &[5000, 5001], 5999, 4), [4, 0]);
    let store = Store::open(&root).expect("the same store");
    let hooks = store.hooks().expect("hooks");
    let (sequence, live) = hooks[&hook()].live().expect("adopted");
    assert_eq!((sequence, live.record.as_ref()), (1, Some(&record(&program, 10))));
    assert_eq!(store.programs().expect("programs").len(), 1);
    let counts = |store: &Store| {
        let counts = store.counts(&hook()).expect("counts");
        let (sequence, record, exits) = counts.live.expect("live");
        let live = record.spec.counted(&exits)[0];
        let all = counts.totals.programs.get(&name("ports")).copied().unwrap_or_default() + live;
        (
            sequence,
            all.finals.drop,
            all.verdicts.total(),
            counts.totals.end + record.spec.passed_end(&exits),
        )
    };
    assert_eq!(counts(&store), (1, 8, 18, 10));

    // A swap keeps the maps; the retired chain's counts are folded once, whatever is repeated.
    let second = build(&store, 2, 20);
    assert!(store.retire_chain(&first).is_err(), "the live chain does not retire");
    store.swap(&second).expect("swap");
    assert_eq!(received(&pair, &[5000, 5001], 5999, 4), [4, 0]);
    for _ in 0..2 {
        store.retire_chain(&first).expect("retire");
    }
    assert_eq!(counts(&store), (2, 12, 27, 15));
    assert_eq!(store.fused(&hook()).expect("fused").map(|(sequence, _)| sequence), Some(2));

    // A chain that was built and never ran is garbage and counts nothing.
    let third = build(&store, 3, 30);
    store.retire_chain(&third).expect("retire");
    assert_eq!(counts(&store), (2, 12, 27, 15));

    assert!(store.release_hook(&hook()).is_err(), "not while it is attached");
    store.detach(&hook()).expect("detach");
    store.retire_chain(&second).expect("retire");
    store.release_hook(&hook()).expect("release");
    store.release_program(&name("ports"), &program.fingerprint()).expect("release");
    assert_eq!(bpffs.list().expect("a list"), [PathBuf::from("pointsman")]);
    assert_eq!(received(&pair, &[5001], 5999, 4), [4]);
}

#[test]
fn interrupted_work_is_removed_and_never_taken_for_whole() {
    let bpffs = Bpffs::mount().expect("root");
    let root = bpffs.path().join("pointsman");
    let store = Store::open(&root).expect("an empty store");
    let (object, program) = filter(&[]);
    store
        .prepare_program(&name("ports"), &program, &object, rounding(), None, &BTreeMap::new())
        .expect("prepare");
    let chain = build(&store, 1, 10);
    drop(store);
    // As a kill leaves it: the pins that come last are missing.
    let fingerprint = program.fingerprint();
    let prepared = root.join("programs/ports").join(fingerprint.as_str());
    std::fs::remove_file(prepared.join("entries")).expect("a pin");
    std::fs::remove_file(root.join("hooks/v1/xdp/chains/1/program")).expect("a pin");
    let store = Store::open(&root).expect("the same store");
    assert!(store.programs().expect("programs").is_empty());
    assert!(!prepared.exists(), "what was never whole is removed");
    let hooks = store.hooks().expect("hooks");
    assert_eq!(hooks[&hook()].chains[&1].program_id, None);
    assert!(hooks[&hook()].live().is_none());
    store.retire_chain(&chain).expect("retire");
    store.release_hook(&hook()).expect("release");
    assert_eq!(bpffs.list().expect("a list"), [PathBuf::from("pointsman")]);
}
