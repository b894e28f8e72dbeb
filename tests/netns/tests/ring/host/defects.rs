//! What is wrong with the original, by the ids of its list, tried on the daemon itself over its
//! socket, with a client that shares nothing with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::clients::{DONE, socket};
use super::scene;
use pointsman_imtl_client::request::{
    Record, add_flow, get_lcore, get_queue, heartbeat, put_lcore, raw, register, xsk_map,
};
use pointsman_imtl_client::{Client, DIALECTS, Dialect, request};
use pointsman_netns::daemon::{Daemon, Host, binary};
use pointsman_netns::netns::Pair;
use pointsman_netns::skip;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

struct Scene {
    host: Host,
    _pair: Pair,
    daemon: Daemon,
}

impl Scene {
    fn new() -> Self {
        let (host, pair) = scene();
        let daemon = host.start(&pair.right).unwrap();
        Self { host, _pair: pair, daemon }
    }

    fn connect(&self, dialect: Dialect) -> Client {
        Client::connect(&socket(&self.host), dialect).unwrap()
    }

    fn client(&self) -> Client {
        Client::register(&socket(&self.host), Dialect::Mtlm).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.host.path("log")).unwrap()
    }

    /// Waits until this is in the log, which another thread writes; gives all of it.
    fn logged(&self, text: &str) -> String {
        let start = std::time::Instant::now();
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(start.elapsed().as_secs() < 60, "{text:?} is not in {log}");
        }
    }

    /// The instances that are connected.
    fn instances(&self) -> Vec<Value> {
        let answer = self.daemon.ask(&["instances"], b"");
        assert_eq!(answer.code, 0, "{answer:#?}");
        answer.value["instances"].as_array().unwrap().clone()
    }

    /// Waits until so many are.
    fn until(&self, count: usize) {
        let start = std::time::Instant::now();
        while self.instances().len() != count {
            assert!(start.elapsed().as_secs() < 60, "{:#?}", self.instances());
        }
    }
}

fn get(client: &mut Client, lcore: u16) -> i32 {
    client.ask(&get_lcore(lcore)).unwrap().value
}

#[test]
fn b_01_clients_that_go_before_their_answer_kill_nobody() {
    let scene = Scene::new();
    let (keeper, engine) = (scene.daemon.pid(), scene.daemon.engine());
    let mut good = scene.client();
    for number in 0..300_u16 {
        let mut client = scene.connect(DIALECTS[usize::from(number % 2)]);
        // Nothing at all is how `mtl_is_manager_alive` asks.
        if number % 3 > 0 {
            let hello = register(client.dialect(), 1, "gone", &[]);
            client.send(&hello).unwrap();
            client.send(&get_lcore(number)).unwrap();
        }
        drop(client);
        assert_eq!(good.ask(&heartbeat(u32::from(number))).unwrap().value, i32::from(number));
    }
    scene.until(1);
    let held = scene.daemon.ask(&["lcores"], b"").value;
    assert_eq!(held["held"], serde_json::json!([]), "what they took has come back");
    assert_eq!((scene.daemon.pid(), scene.daemon.engine()), (keeper, engine));
}

#[test]
fn b_02_what_a_client_claims_to_be_is_shown_as_claimed() {
    let scene = Scene::new();
    let mut client = scene.connect(Dialect::Libmtl);
    // Somebody else, who is there: the keeper.
    let hello = register(Dialect::Libmtl, scene.daemon.pid(), "somebody", &[]);
    assert_eq!(client.ask(&hello).unwrap(), DONE);
    let instance = &scene.instances()[0];
    assert_eq!(instance["peer"]["pid"], std::process::id(), "{instance:#}");
    assert_eq!(instance["claimed"]["pid"], scene.daemon.pid());
    assert_eq!(instance["claimed"]["pid_differs"], true);
}

#[test]
fn b_04_only_its_owner_gives_an_lcore_back() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.client(), scene.client());
    assert_eq!(get(&mut one, 1), 0);
    assert_eq!(two.ask(&put_lcore(Dialect::Mtlm, 1)).unwrap().value, -22);
    drop(two);
    scene.until(1);
    // Whoever comes after a client that gave back what it had not.
    assert_eq!(get(&mut scene.client(), 1), -16);
    assert_eq!(one.ask(&put_lcore(Dialect::Mtlm, 1)).unwrap(), DONE);
}

#[test]
fn b_05_replies_have_no_byte_of_anybodys_memory() {
    let scene = Scene::new();
    let mut client = scene.client();
    for request in [get_lcore(1), put_lcore(Dialect::Mtlm, 9), heartbeat(1), get_queue(1)] {
        let reply = client.ask(&request).unwrap();
        assert!(reply.clean, "{reply:?}");
    }
}

#[test]
fn b_06_a_number_of_interfaces_that_is_too_large_is_refused() {
    let scene = Scene::new();
    for (dialect, refused) in [(Dialect::Libmtl, -1), (Dialect::Mtlm, -22)] {
        for count in [9_u16, 65_535] {
            let mut client = scene.connect(dialect);
            let mut hello = register(dialect, 1, "many", &[1; 8]);
            hello[84..86].copy_from_slice(&count.to_be_bytes());
            assert_eq!(client.ask(&hello).unwrap().value, refused, "{count}");
            assert!(get(&mut client, 1) < 0, "it has not registered");
            assert_eq!(client.ask(&register(dialect, 1, "few", &[])).unwrap(), DONE);
        }
    }
}

#[test]
fn b_18_records_in_pieces_and_together_are_all_answered() {
    let scene = Scene::new();
    let mut client = scene.client();
    for byte in heartbeat(1).chunks(1) {
        client.send(byte).unwrap();
    }
    assert_eq!(client.reply().unwrap().value, 1);
    let many: Vec<u8> = (2..42).flat_map(heartbeat).collect();
    client.send(&many).unwrap();
    for number in 2..42 {
        assert_eq!(client.reply().unwrap().value, number);
    }
}

#[test]
fn b_19_refusals_have_the_type_that_is_waited_for() {
    let scene = Scene::new();
    let any = Ipv4Addr::UNSPECIFIED;
    let flow = request::Flow {
        queue: 1,
        source: any,
        destination: any,
        source_port: 0,
        destination_port: 20_000,
    };
    for dialect in DIALECTS {
        // No interface has this number.
        let nowhere = 0x7fff_ffff;
        let mut client = Client::register(&socket(&scene.host), dialect).unwrap();
        for (request, kind) in [
            (get_queue(nowhere), 202),
            (add_flow(dialect, nowhere, flow), 203),
            (request::delete_flow(nowhere, 1), 201),
            (request::put_queue(nowhere, 1), 201),
        ] {
            let reply = client.ask(&request).unwrap();
            assert_eq!((reply.kind, reply.value < 0), (kind, true), "{reply:?}");
        }
        let map = client.ask_map(&xsk_map(nowhere)).unwrap();
        assert_eq!(map.descriptors.len(), usize::from(dialect == Dialect::Libmtl));
    }
}

#[test]
fn b_20_nobody_waits_for_an_answer_that_does_not_come() {
    let scene = Scene::new();
    let mut client = scene.connect(Dialect::Mtlm);
    // Before REGISTER, and of no known type.
    let unknown = [0, 100, 112, 200, 204, u32::MAX].map(|kind| raw(kind, [0; 4], &[]));
    let early: Vec<Record> = vec![get_lcore(1), put_lcore(Dialect::Mtlm, 1), get_queue(1)];
    for request in early.iter().chain(&unknown) {
        assert!(client.ask(request).unwrap().value < 0, "{:?}", &request[..8]);
    }
    // What is no record ends the connection rather than hang it.
    client.send(&[0; 118]).unwrap();
    assert!(client.ended().unwrap());
}

#[test]
fn b_21_who_does_not_read_stalls_himself() {
    let scene = Scene::new();
    let mut good = scene.client();
    let mut hog = scene.client();
    hog.stream().set_nonblocking(true).unwrap();
    let mut refused = 0;
    while refused < 50 {
        refused = if hog.send(&heartbeat(1)).is_ok() { 0 } else { refused + 1 };
        assert_eq!(good.ask(&heartbeat(2)).unwrap().value, 2);
    }
    drop(hog);
    assert_eq!(get(&mut good, 1), 0);
    scene.until(1);
}

/// The limit of open files of a running process.
fn limit_files(process: u32, current: u64) {
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

#[test]
fn b_22_without_files_nothing_spins_and_nothing_floods() {
    let scene = Scene::new();
    let mut good = scene.client();
    let keeper = scene.daemon.pid();
    // What is open is all there may be.
    limit_files(keeper, 3);
    let mut waiting: Vec<_> = (0..20).map(|_| scene.connect(Dialect::Mtlm)).collect();
    for client in &mut waiting {
        client.send(&heartbeat(7)).unwrap();
    }
    while !scene.log().contains("none can be accepted") {
        assert_eq!(good.ask(&heartbeat(2)).unwrap().value, 2);
    }
    let strace = Command::new("strace")
        .arg(format!("--attach={keeper}"))
        .args(["--output", "/dev/stdout"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    match strace {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("b_22: that nothing spins", "there is no strace");
        }
        strace => {
            let mut strace = strace.unwrap();
            let lines = BufReader::new(strace.stdout.take().unwrap()).lines().map(Result::unwrap);
            // From one attempt to the next it waits.
            let mut tries = 0;
            let calls = lines.take_while(|line| {
                tries += usize::from(line.starts_with("accept4(") && line.contains("EMFILE"));
                tries < 4
            });
            let calls: Vec<_> = calls.collect();
            assert!(calls.len() < 200, "{} calls in three rounds: {calls:#?}", calls.len());
            kill_process(Pid::from_child(&strace), Signal::TERM).unwrap();
            strace.wait().unwrap();
        }
    }
    limit_files(keeper, 1024);
    for client in &mut waiting {
        assert_eq!(client.reply().unwrap().value, 7);
    }
    assert_eq!(scene.log().matches("none can be accepted").count(), 1, "no flood");
    // The daemon gets a descriptor of each: without room for one it is started again.
    limit_files(scene.daemon.engine(), 3);
    let mut late = scene.client();
    assert_eq!((get(&mut late, 1), get(&mut good, 2)), (0, 0));
}

#[test]
fn b_23_a_second_one_takes_nothing_over() {
    let scene = Scene::new();
    let mut client = scene.client();
    assert_eq!(get(&mut client, 1), 0);
    let other = Host::new().unwrap();
    let mut second = other.command();
    second.arg("--imtl-socket").arg(socket(&scene.host));
    let output = second.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is in use: another manager answers there"), "{said}");
    assert_eq!(get(&mut scene.client(), 1), -16, "one table, as before");
}

#[test]
fn b_24_a_name_breaks_no_line_of_the_log() {
    let scene = Scene::new();
    let mut client = scene.connect(Dialect::Libmtl);
    let name = "x\n2026-01-01 ERROR forged\r\x1b[2J\u{7}";
    assert_eq!(client.ask(&register(Dialect::Libmtl, 1, name, &[])).unwrap(), DONE);
    assert_eq!(get(&mut client, 1), 0);
    let log = scene.logged(r"x\n2026-01-01 ERROR forged\r\x1b[2J\x07");
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01 ERROR")), "{log}");
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
    // Nor a line of what is shown.
    let shown = Command::new(binary("pointsman"))
        .arg("--node")
        .arg(scene.host.path("run/node.sock"))
        .arg("instances")
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
}

#[test]
fn b_25_lcores_go_on_above_127() {
    let scene = Scene::new();
    let mut client = scene.client();
    assert_eq!([127, 128, 1023, 1024].map(|lcore| get(&mut client, lcore)), [0, 0, 0, -22]);
}

#[test]
fn b_30_nothing_is_left_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let Scene { host, _pair, daemon } = Scene::new();
        assert_eq!(daemon.stop(signal).unwrap().code(), Some(0));
        let left: Vec<_> = fs::read_dir(host.path("run")).unwrap().flatten().collect();
        let names = left.iter().map(|entry| entry.file_name().into_string().unwrap());
        let sockets: Vec<_> = names.filter(|name| name.contains(".sock")).collect();
        assert!(sockets.is_empty(), "{sockets:?}");
    }
}

#[test]
fn b_31_who_holds_what_is_told_when_asked_and_as_it_happens() {
    let scene = Scene::new();
    let node = scene.host.path("run/node.sock");
    let mut follower = Command::new(binary("pointsman"))
        .arg("--node")
        .arg(&node)
        .args(["--json", "events", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let mut until = |kind: &str| {
        let found = events.find(|event| event["kind"] == kind).expect("it follows");
        found["message"].as_str().unwrap().to_owned()
    };
    let mut client = scene.client();
    assert!(until("instance_registered").contains("instance 1"));
    assert_eq!(client.ask(&heartbeat(7)).unwrap().kind, 204, "a heartbeat is answered");
    assert_eq!(get(&mut client, 3), 0);
    let instance = scene.daemon.ask(&["instance", "1"], b"").value;
    assert_eq!((&instance["lcores"][0]["id"], &instance["liveness"]), (&3.into(), &"alive".into()));
    let lcores = scene.daemon.ask(&["lcores"], b"").value;
    assert_eq!(lcores["held"][0]["lcore"]["id"], 3, "{lcores:#}");
    let pid = std::process::id();
    scene.logged(&format!("lcore 3 assigned to pid {pid}"));
    assert_eq!(scene.daemon.ask(&["clear", "1"], b"").code, 0);
    assert!(until("instance_cleared").contains("instance 1"));
    drop(client);
    assert!(until("instance_ended").contains("instance 1"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}
