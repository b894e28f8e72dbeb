//! Another version of the daemon, with another filter for instances; and the operator's filter in
//! its place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{BATCH, Holder, LISTED, Stage, numbered};
use libbpf_rs::{MapHandle, MapInfo};
use pointsman_bpf::PORTS_OF_INSTANCES;
use pointsman_imtl_client::Dialect;
use pointsman_imtl_client::request::add_port;
use pointsman_netns::daemon::{Host, binary};
use pointsman_netns::netns::Pair;
use pointsman_netns::sockets::Source;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Numbered datagrams for a client, all of which it has to get.
struct Stream {
    source: Source,
    sent: u64,
}

impl Stream {
    fn open(stage: &Stage, holder: &Holder) -> Self {
        Self { source: Source::open(&stage.pair, holder.queue), sent: 0 }
    }

    fn goes_on(&mut self, holder: &mut Holder) {
        self.source.send(&numbered(LISTED, self.sent, BATCH));
        self.sent += BATCH;
        holder.sockets.wait_for(self.sent as usize);
    }
}

/// The program of the daemon, with another object for the filter: who compiled it reads otherwise,
/// and nothing that runs.
fn other_version(program: &[u8]) -> Vec<u8> {
    let mut other = program.to_vec();
    let is_filter = |object: &[u8]| find(object, PORTS_OF_INSTANCES.as_bytes()).is_some();
    let starts = (0..program.len()).filter(|at| program[*at..].starts_with(b"\x7fELF"));
    let objects = starts.filter_map(|at| Some((at, bpf_object(&program[at..])?)));
    let (at, object) = objects.into_iter().find(|(_, it)| is_filter(it)).expect("the filter");
    other[at + find(object, b"clang version").expect("who compiled it")] = b'C';
    other
}

/// The object that begins here: its section headers come last (ELF-64, gABI figure 4-3).
fn bpf_object(bytes: &[u8]) -> Option<&[u8]> {
    const EM_BPF: u16 = 247;
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let headers = u64::from_le_bytes(bytes.get(40..48)?.try_into().ok()?);
    let length = usize::try_from(headers).ok()? + usize::from(half(58)?) * usize::from(half(60)?);
    (half(18)? == EM_BPF).then(|| bytes.get(..length)).flatten()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The filter of the chain, as the status shows it; `None`: no daemon answers just now.
fn filter(stage: &Stage) -> Option<Value> {
    let answer = stage.daemon.ask(&["status"], b"");
    let members = answer.value["hooks"][0]["members"].as_array()?;
    members.iter().find(|member| member["entry"] == "mtl_dp_filter").cloned()
}

/// The kernel's number of its map of ports.
fn map(filter: &Value) -> u32 {
    let directory = Path::new(filter["maps"].as_str().expect("a directory"));
    let pin = directory.join(pointsman_bpf::pins::file_name(PORTS_OF_INSTANCES));
    let map = MapHandle::from_pinned_path(pin).expect("a pinned map");
    MapInfo::new(map.as_fd()).expect("a map").info.id
}

#[test]
fn an_upgrade_of_the_daemon_with_another_filter_loses_no_port_and_no_packet() {
    let host = Host::new().expect("root").with(&["--restart-delay", "0"]);
    let pair = Pair::with_queues(5).expect("root");
    let (program, next) = (host.path("pointsman-node"), host.path("next"));
    let first = fs::read(binary("pointsman-node")).unwrap();
    fs::copy(binary("pointsman-node"), &program).unwrap();
    fs::copy(binary("pointsman-node"), &next).unwrap();
    fs::write(&next, other_version(&first)).unwrap();
    let mut command = Command::new(&program);
    command.args(host.command().get_args()).env_remove("NOTIFY_SOCKET");
    let daemon = host.start_as(&pair.right, command).unwrap();
    let index = pair.right.index("v1");
    let stage = Stage { daemon, host, pair, index };
    let mut holder = Holder::new(&stage, Dialect::Libmtl, LISTED);
    let mut stream = Stream::open(&stage, &holder);
    let before = filter(&stage).expect("a filter");
    let ports = map(&before);
    stream.goes_on(&mut holder);
    fs::rename(&next, &program).unwrap();
    stage.daemon.signal(Signal::HUP).unwrap();
    // Packets come all the time: one that goes to the stack is missed here.
    let start = Instant::now();
    while filter(&stage).is_none_or(|now| now["object"] == before["object"]) {
        stream.goes_on(&mut holder);
        assert!(start.elapsed() < Duration::from_secs(60), "no upgrade");
    }
    stage.daemon.ready_again().unwrap();
    let after = filter(&stage).expect("a filter");
    assert_ne!(after["object"], before["object"]);
    assert_eq!(map(&after), ports, "the same map, so that no port is missing for a moment");
    (0..20).for_each(|_| stream.goes_on(&mut holder));
    let came = numbered(LISTED, 0, holder.sockets.came.len() as u64);
    assert!(holder.sockets.came == came, "each once, in order");
}

/// A record of the journal: its length, the beginning of its hash, and itself.
fn record(text: &str) -> Vec<u8> {
    let hash = pointsman_model::Sha256::of(text.as_bytes()).to_string();
    let byte = |at: usize| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap();
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [&length[..], &(0..8).map(byte).collect::<Vec<_>>(), text.as_bytes()].concat()
}

/// Back to an older version, which does not know how this one writes down who holds what.
#[test]
fn where_the_journal_is_of_another_version_clients_receive_on() {
    let stage = Stage::set();
    let mut holder = Holder::new(&stage, Dialect::Mtlm, LISTED);
    let mut stream = Stream::open(&stage, &holder);
    stream.goes_on(&mut holder);
    let path = stage.host.path("run/leases.journal");
    let ours = fs::read(&path).unwrap();
    let next_finds = |journal: &[u8]| {
        // Who starts the next one is held up until it is written.
        stage.daemon.signal(Signal::STOP).unwrap();
        stage.daemon.kill_engine().unwrap();
        fs::write(&path, journal).unwrap();
        stage.daemon.signal(Signal::CONT).unwrap();
        stage.daemon.ready_again().unwrap();
    };
    // Its first record says in which format the others are, and since when.
    let length = u32::from_le_bytes(ours[..4].try_into().unwrap()) as usize;
    let mut first: Value = serde_json::from_slice(&ours[12..12 + length]).unwrap();
    first["format"] = json!(9);
    next_finds(&[&record(&first.to_string()), &ours[12 + length..]].concat());
    // Who asks waits.
    holder.client.send(&add_port(stage.index, 9)).unwrap();
    stage.daemon.apply_whole(&json!({
        "schema": "pointsman.node/v1", "node": "test", "generation": 1,
        "programs": {"pass": super::program("verdict", "v_pass")},
        "interfaces": {"v1": {"xdp": {"chain": [{"program": "pass", "priority": 5}]}}}
    }));
    assert_eq!(stage.entries(), ["v_pass", "mtl_dp_filter", "xsk_def_prog"]);
    (0..20).for_each(|_| stream.goes_on(&mut holder));
    // The version that wrote it goes on where it stopped.
    next_finds(&ours);
    assert_eq!(holder.client.reply().unwrap().value, 0, "and is answered");
    stream.goes_on(&mut holder);
    drop(holder);
    stage.until_entries(&["v_pass"]);
}

/// An operator may have the built-in filter in the place of ours, whose map of ports is another.
#[test]
fn a_filter_that_the_operator_has_placed_gets_the_ports_of_clients() {
    let stage = Stage::set();
    let globals = json!({"listed": "XDP_DROP", "unlisted": "XDP_PASS"});
    stage.daemon.apply_whole(&json!({
        "schema": "pointsman.node/v1", "node": "test", "generation": 1,
        "programs": {"mtl_dp_filter": {"builtin": "udp-port-filter", "globals": globals}},
        "interfaces": {"v1": {"xdp": {"chain": [
            {"program": "mtl_dp_filter", "priority": 7, "chain_call_actions": ["drop"]}
        ]}}}
    }));
    let mut holder = Holder::new(&stage, Dialect::Mtlm, LISTED);
    assert_eq!(stage.entries(), ["mtl_dp_filter", "xsk_def_prog"]);
    assert_eq!(filter(&stage).unwrap()["priority"], 7, "the operator's");
    let mut source = Source::open(&stage.pair, holder.queue);
    source.send(&numbered(LISTED, 0, BATCH));
    holder.sockets.wait_for(BATCH as usize);
    stage.daemon.kill_engine().unwrap();
    stage.daemon.ready_again().unwrap();
    source.send(&numbered(LISTED, BATCH, BATCH));
    holder.sockets.wait_for(2 * BATCH as usize);
    drop(holder);
    stage.until_entries(&["mtl_dp_filter"]);
    // The port went with the client.
    let stack = stage.stack(LISTED);
    source.send(&[(LISTED, 3)]);
    assert_eq!(super::next(&stack), 3);
}
