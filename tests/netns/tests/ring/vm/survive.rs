//! What a killed process must leave behind: program arrays that are still filled, timers that
//! still run. The kernel empties and cancels them when no descriptor and no pin is left.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use pointsman_bpf::{ChainMember, Link, Member, Store};
use pointsman_model::chain::{ChainId, ChainRecord, ChainSpec, Form, MemberSpec};
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{ActionSet, HookId, InterfaceName, ProgramName};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{fuse, member, resolved, rounding, slot, slot_on};
use pointsman_netns::netns::Pair;
use pointsman_netns::object;
use pointsman_netns::traffic::received;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tells the child where the pins go, and that it is the child.
const CHILD: &str = "POINTSMAN_TEST_SURVIVE";
const ATTACHED: &str = "the chain is attached";

struct Wanted {
    name: &'static str,
    object: Vec<u8>,
    program: ResolvedProgram,
    form: Form,
}

/// Who tail-calls to a program that passes, and drops if that is gone; whose timer sets itself
/// again, and who aborts if it cannot; and one that drops a port.
fn wanted() -> [Wanted; 3] {
    let one = |name, source: &str, entry: &str, globals: Value, form| {
        let object = object(source);
        let program = resolved(&object, entry, globals);
        Wanted { name, object, program, form }
    };
    let port = json!({"port": 5001});
    [
        one("tail", "tailcall", "member", Value::Null, Form::Called),
        one("timer", "timer", "arm", json!({"again": 1}), Form::Inlined),
        one("port", "verdict", "v_port", port, Form::Inlined),
    ]
}

fn name(text: &str) -> ProgramName {
    ProgramName::new(text).expect("a name")
}

fn hook() -> HookId {
    HookId::xdp(InterfaceName::new("v1").expect("a name"))
}

fn build(store: &Store, sequence: u64) -> ChainId {
    let wanted = wanted();
    let spec = |(at, it): (usize, &Wanted)| MemberSpec {
        program: name(it.name),
        fingerprint: it.program.fingerprint(),
        object: it.program.object,
        source: it.program.source.clone(),
        entry: it.program.entry.clone().expect("an entry"),
        tag: "0".repeat(16),
        // Another chain each time.
        priority: sequence as u32 + at as u32,
        chain_call_actions: ActionSet::PASS,
        enforce: true,
        form: it.form,
    };
    let members = wanted.iter().enumerate().map(spec).collect();
    let record =
        ChainRecord { generation: 1, spec: ChainSpec { members, frags: false, slots: vec![] } };
    let mut members = Vec::new();
    for it in &wanted {
        let object = it.object.clone();
        members.push(ChainMember { program: &it.program, object, known: None });
    }
    let chain = ChainId { hook: hook(), sequence };
    store.build_chain(&chain, &record, &members, rounding()).expect("build");
    chain
}

/// Attaches the chain and waits to be killed.
fn child(root: &Path) {
    let store = Store::open(root).expect("an empty store");
    for it in wanted() {
        store
            .prepare_program(
                &name(it.name),
                &it.program,
                &it.object,
                rounding(),
                None,
                &BTreeMap::new(),
            )
            .expect("prepare");
    }
    let chain = build(&store, 1);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let index = rustix::net::netdevice::name_to_index(&socket, "v1").expect("an interface");
    store.attach(&chain, index, AttachMode::Native).expect("attach");
    println!("\n{ATTACHED}");
    let _ = std::io::stdin().read(&mut [0]);
}

fn pinned(store: &Store, at: usize, map: &str) -> MapHandle {
    let it = &wanted()[at];
    let directory = store.map_directory(&name(it.name), &it.program.fingerprint());
    MapHandle::from_pinned_path(directory.join(map)).expect("a pinned map")
}

fn fired(store: &Store) -> u64 {
    let clock = pinned(store, 1, "clocks").lookup(&[0; 4], MapFlags::ANY).expect("a lookup");
    u64::from_ne_bytes(clock.expect("a clock")[24..32].try_into().expect("eight bytes"))
}

fn target(store: &Store) -> Option<Vec<u8>> {
    pinned(store, 0, "targets").lookup(&[0; 4], MapFlags::ANY).expect("a lookup")
}

#[test]
fn a_killed_process_leaves_arrays_filled_and_timers_running() {
    if let Some(root) = std::env::var_os(CHILD) {
        return child(Path::new(&root));
    }
    let (pair, bpffs) = (Pair::new().expect("root"), Bpffs::mount().expect("root"));
    let root = bpffs.path().join("pointsman");
    let test = "vm::survive::a_killed_process_leaves_arrays_filled_and_timers_running";
    let mut process = pair.right.run(|| {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, &root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child")
    });
    let said = BufReader::new(process.stdout.take().expect("a pipe"));
    let attached = said.lines().map_while(Result::ok).any(|line| line == ATTACHED);
    process.kill().expect("kill it");
    process.wait().expect("it ends");
    assert!(attached, "the child failed");

    assert_eq!(received(&pair, &[5000, 5001], 5999, 4), [4, 0]);
    let store = Store::open(&root).expect("the same store");
    let (before, start) = (fired(&store), Instant::now());
    while fired(&store) == before {
        assert!(start.elapsed() < Duration::from_secs(10), "the timer was cancelled");
        std::thread::yield_now();
    }
    // The next process builds another chain of them. What runs keeps what it holds meanwhile.
    let filled = target(&store).expect("a target");
    let second = build(&store, 2);
    assert_eq!(target(&store), Some(filled));
    store.swap(&second).expect("swap");
    drop(store);
    assert_eq!(received(&pair, &[5000, 5001], 5999, 4), [4, 0]);
}

#[test]
fn what_was_put_into_a_program_array_is_kept_by_the_next_chain() {
    let bpffs = Bpffs::mount().expect("root");
    let store = Store::open(&bpffs.path().join("pointsman")).expect("an empty store");
    for it in wanted() {
        store
            .prepare_program(
                &name(it.name),
                &it.program,
                &it.object,
                rounding(),
                None,
                &BTreeMap::new(),
            )
            .expect("prepare");
    }
    let filled = target(&store).expect("the object fills it");
    // An agent puts another target there.
    let drop = member("verdict", "v_drop");
    let other = fuse(&[slot_on("drop", &drop, &[])]);
    let fd = other.program().as_raw_fd().to_ne_bytes();
    pinned(&store, 0, "targets").update(&[0; 4], &fd, MapFlags::ANY).expect("an update");
    let changed = target(&store).expect("a target");
    assert_ne!(changed, filled);
    let _ = build(&store, 1);
    assert_eq!(target(&store), Some(changed));
}

/// Nothing is pinned, and of all that was made only the link is kept.
fn only_the_link(pair: &Pair, index: u32) -> Link {
    let open = |source: &str, entry: &str| Member::open(&object(source), entry, rounding());
    let tail = open("tailcall", "member").expect("a member");
    let timer = open("timer", "arm").expect("a member");
    let chain = fuse(&[slot("tail", &tail), slot("timer", &timer)]);
    pair.right.run(|| chain.attach(index, AttachMode::Native)).expect("attach")
}

#[test]
fn a_link_alone_keeps_arrays_filled_and_timers_running() {
    let pair = Pair::new().expect("root");
    let index = pair.right.index("v1");
    let mut link = only_the_link(&pair, index);
    assert_eq!(received(&pair, &[5000], 5999, 4), [4]);
    {
        let (tail, timer) = (member("tailcall", "member"), member("timer", "arm"));
        let swapped = fuse(&[slot("timer", &timer), slot("tail", &tail)]);
        swapped.swap_into(&mut link).expect("swap");
    }
    assert_eq!(received(&pair, &[5000], 5999, 4), [4]);
}

#[test]
fn a_chain_of_which_any_pins_are_missing_retires() {
    let (pair, bpffs) = (Pair::new().expect("root"), Bpffs::mount().expect("root"));
    let root = bpffs.path().join("pointsman");
    let store = Store::open(&root).expect("an empty store");
    for it in wanted() {
        store
            .prepare_program(
                &name(it.name),
                &it.program,
                &it.object,
                rounding(),
                None,
                &BTreeMap::new(),
            )
            .expect("prepare");
    }
    let index = pair.right.index("v1");
    let first = build(&store, 1);
    pair.right.run(|| store.attach(&first, index, AttachMode::Native)).expect("attach");
    let dropped = |store: &Store| {
        let counts = store.counts(&hook()).expect("counts");
        let live =
            counts.live.map_or(0, |(_, record, exits)| record.spec.counted(&exits)[2].finals.drop);
        counts.totals.programs.get(&name("port")).map_or(0, |sum| sum.finals.drop) + live
    };
    let mut sent = 0;
    // What a kill leaves of a chain that was being pinned or removed, and never ran.
    let pins = ["counters", "program", "record"];
    for missing in 0..8 {
        let broken = build(&store, 2 + 2 * missing);
        for (at, pin) in pins.iter().enumerate() {
            if missing & (1 << at) != 0 {
                let path = root.join(format!("hooks/v1/xdp/chains/{}/{pin}", broken.sequence));
                std::fs::remove_file(path).expect("a pin");
            }
        }
        let next = build(&store, 3 + 2 * missing);
        store.swap(&next).expect("swap");
        let before = store.hooks().expect("hooks")[&hook()].chains.len();
        assert_eq!(before, 3, "the one that ran, the broken one, the one that runs");
        for sequence in [1 + 2 * missing, broken.sequence] {
            let chain = ChainId { hook: hook(), sequence };
            store.retire_chain(&chain).unwrap_or_else(|e| panic!("missing {missing:#b}: {e}"));
        }
        assert_eq!(received(&pair, &[5001], 5999, 3), [0]);
        sent += 3;
        assert_eq!(dropped(&store), sent, "missing {missing:#b}: nothing is counted twice or lost");
    }
}
