//! Instances and lcores, as applications and operators meet them.

use pointsman_imtl_client::request::{get_lcore, get_queue, put_lcore, register};
use pointsman_imtl_client::{Client, Dialect};
use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::netns::{Netns, Pair};
use pointsman_netns::random::{Random, full};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Gid, Pid, Signal, Uid, kill_process};
use rustix::thread::{set_thread_groups, set_thread_res_uid};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

fn socket(host: &Host) -> PathBuf {
    host.path("run/mtl_manager.sock")
}

fn client(host: &Host) -> Client {
    Client::register(&socket(host), Dialect::Mtlm).expect("a client registers")
}

fn get(client: &mut Client, lcore: u16) -> i32 {
    client.ask(&get_lcore(lcore)).expect("an answer").value
}

fn put(client: &mut Client, lcore: u16) -> i32 {
    client.ask(&put_lcore(client.dialect(), lcore)).expect("an answer").value
}

fn asked(daemon: &Daemon, verb: &[&str]) -> Value {
    let answer = daemon.ask(verb, b"");
    assert_eq!(answer.code, 0, "{answer:#?}");
    answer.value
}

fn held(daemon: &Daemon) -> Vec<u64> {
    let lcores = asked(daemon, &["lcores"]);
    let held = lcores["held"].as_array().expect("a list").iter();
    held.filter_map(|held| held["lcore"]["id"].as_u64()).collect()
}

/// Waits until so many lcores are held.
fn until_held(daemon: &Daemon, ids: &[u64]) {
    let start = Instant::now();
    while held(daemon) != ids {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?} are held", held(daemon));
    }
}

/// The daemon that runs now, which is not its keeper.
fn engine(host: &Host) -> Option<Pid> {
    let text = fs::read_to_string(host.path("run/engine.pid")).ok()?;
    text.trim().parse().ok().and_then(Pid::from_raw)
}

#[test]
fn an_operator_sees_instances_and_takes_back_what_they_hold() {
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let daemon = host.start(&netns).expect("it starts");
    let mut one = client(&host);
    assert_eq!((get(&mut one, 1), get(&mut one, 900)), (0, 0));
    let instances = asked(&daemon, &["instances"]);
    let [instance] = &instances["instances"].as_array().expect("a list")[..] else {
        panic!("one instance: {instances:#}")
    };
    assert_eq!(instance["peer"]["pid"], std::process::id());
    assert_eq!((&instance["liveness"], &instance["dialect"]), (&json!("alive"), &json!("1.1")));
    let id = instance["id"].to_string();
    assert_eq!(asked(&daemon, &["instance", &id])["lcores"].as_array().map(Vec::len), Some(2));
    let cleared = asked(&daemon, &["clear", &id]);
    assert_eq!(cleared["lcores"].as_array().map(Vec::len), Some(2));
    assert_eq!(held(&daemon), [0; 0]);
    assert_eq!((put(&mut one, 1), get(&mut one, 1)), (-22, 0), "it stays connected");
    drop(one);
    until_held(&daemon, &[]);
    let answer = daemon.ask(&["instance", "99"], b"");
    assert!(answer.code == 1 && answer.stderr.contains("no instance 99"), "{answer:?}");
    let events = asked(&daemon, &["events"]).to_string();
    for kind in ["instance_registered", "instance_cleared", "instance_ended"] {
        assert!(events.contains(kind), "{kind}: {events}");
    }
    let log = fs::read_to_string(host.path("log")).expect("a log");
    let line = format!("lcore 1 assigned to pid {}", std::process::id());
    assert!(log.contains(&line), "what scripts look for is not in\n{log}");
}

#[test]
fn interfaces_are_those_of_the_clients_namespace() {
    let (host, pair) = (Host::new().expect("root"), Pair::new().expect("root"));
    let elsewhere = Netns::new().expect("root");
    elsewhere
        .ip(&["link", "add", "d0", "index", "77", "type", "veth", "peer", "name", "d1"])
        .expect("a pair");
    let _daemon = host.start(&pair.right).expect("it starts");
    let path = socket(&host);
    let ask = |netns: &Netns| {
        let path = path.clone();
        netns.run(move || {
            let mut client = Client::connect(&path, Dialect::Mtlm).expect("connect");
            let asked = register(Dialect::Mtlm, 1, "x", &[77]);
            let registered = client.ask(&asked).expect("an answer").value;
            (registered, client.ask(&get_queue(77)).expect("an answer"))
        })
    };
    let (here, queue) = ask(&pair.right);
    assert_eq!((here, queue.kind, queue.value), (-19, 202, -1));
    let (there, queue) = ask(&elsewhere);
    assert_eq!((there, queue.kind, queue.value), (0, 202, -28), "one queue, which is the stack's");
}

#[test]
fn a_connection_lives_as_long_as_anybody_has_it() {
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let daemon = host.start(&netns).expect("it starts");
    let mut one = client(&host);
    assert_eq!(get(&mut one, 1), 0);
    // As in a program that becomes a daemon: another process has the connection.
    let stream: OwnedFd = one.stream().try_clone().expect("a copy").into();
    let mut child = Command::new("sleep").arg("1000").stdin(stream).spawn().expect("sleep");
    drop(one);
    let mut two = client(&host);
    assert_eq!(get(&mut two, 1), -16, "its owner is there");
    child.kill().expect("kill");
    child.wait().expect("its end");
    until_held(&daemon, &[]);
    assert_eq!(get(&mut two, 1), 0);
}

/// Any user with a range of subordinate ids can have 65,536 groups. They are told by the kernel, and
/// written nowhere.
#[test]
fn group_lists_do_not_fill_the_journal_and_still_give_rights() {
    const CLIENTS: usize = 40;
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let daemon = host.start(&netns).expect("it starts");
    let mut document = super::document(1, &json!({}), &json!([]));
    document["interfaces"] = json!({});
    document["allow_empty"] = json!(true);
    document["access"] = json!({"clients": {"groups": [69_999]}});
    let connect = |groups: std::ops::Range<u32>| {
        let path = socket(&host);
        // Of this thread alone, and seen at the other end of what it connects.
        let connected = std::thread::spawn(move || {
            let groups: Vec<_> = groups.map(Gid::from_raw).collect();
            set_thread_groups(&groups).expect("root");
            set_thread_res_uid(Uid::ROOT, Uid::from_raw(7), Uid::ROOT).expect("root");
            let connect = || Client::connect(&path, Dialect::Mtlm).expect("connect");
            (0..CLIENTS).map(|_| connect()).collect::<Vec<_>>()
        });
        connected.join().expect("clients")
    };
    fs::set_permissions(host.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let hello = register(Dialect::Mtlm, 1, "x", &[]);
    let registered = |clients: &mut [Client]| -> Vec<i32> {
        let ask = |client: &mut Client| client.ask(&hello).expect("an answer").value;
        clients.iter_mut().map(ask).collect()
    };
    // Before anybody has a right by a group, and after.
    let (mut members, mut others) = (connect(4464..70_000), connect(4463..69_999));
    assert_eq!(registered(&mut others), [0; CLIENTS], "all may");
    daemon.apply_whole(&document);
    let start = Instant::now();
    while registered(&mut others) != [-1; CLIENTS] {
        assert!(start.elapsed() < Duration::from_secs(20), "the document is not in force");
    }
    assert_eq!(registered(&mut members), [0; CLIENTS]);
    assert_eq!(get(&mut members[0], 3), 0);
    let journal = fs::metadata(host.path("run/leases.journal")).expect("a journal").len();
    assert!(journal < 1 << 20, "{journal} bytes for {CLIENTS} clients");
    // The next daemon reads it, and knows the groups.
    daemon.kill_engine().expect("a kill");
    assert_eq!(registered(&mut others), [-1; CLIENTS]);
    assert_eq!(registered(&mut members), [0; CLIENTS]);
    assert_eq!((get(&mut members[1], 3), put(&mut members[0], 3)), (-16, 0));
}

/// A small file system, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).expect("a directory");
        let size = std::ffi::CString::new(format!("size={size}")).expect("text");
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), &*size).expect("root");
        Self(path.to_owned())
    }

    /// Takes all the space there is; gives the file that has it.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = fs::File::create(&filler).expect("a file");
        let full = io::copy(&mut io::repeat(0), &mut file).expect_err("it is full at some point");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        filler
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = unmount(&*self.0, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

#[test]
fn a_full_disk_refuses_grants_and_lets_everything_be_given_back() {
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let run = Tmpfs::mount(&host.path("run"), "256k");
    let daemon = host.start(&netns).expect("it starts");
    let mut one = client(&host);
    let mut two = Client::register(&socket(&host), Dialect::Libmtl).expect("register");
    assert_eq!((get(&mut one, 0), get(&mut two, 1023)), (0, 0));
    let filler = run.fill();
    // What was set aside is for giving back: grants end while there still is some of it.
    let given: Vec<u16> = (1..1023).take_while(|lcore| get(&mut one, *lcore) == 0).collect();
    assert!(given.len() < 1000, "{} were given away on a full disk", given.len());
    assert_eq!(get(&mut one, 1022), -5, "EIO in 1.1");
    assert_eq!(get(&mut two, 1022), -1, "and -1 in 1.0");
    let status = daemon.status();
    assert!(super::notes(&status, "no lcore is given away"), "{status:#}");
    let lcores = asked(&daemon, &["lcores"]);
    assert!(lcores["refusing"].to_string().contains("free space"), "{lcores:#}");
    for lcore in given.iter().chain(&[0]) {
        assert_eq!(put(&mut one, *lcore), 0, "{lcore} is given back");
    }
    // All of that was written down: it is so for the next daemon too.
    kill_process(engine(&host).expect("a daemon"), Signal::KILL).expect("kill");
    assert_eq!(put(&mut one, 0), -22);
    until_held(&daemon, &[1023]);
    fs::remove_file(filler).expect("remove");
    assert_eq!((get(&mut one, 0), put(&mut two, 1023)), (0, 0));
    until_held(&daemon, &[0]);
    assert_eq!(asked(&daemon, &["lcores"])["refusing"], Value::Null);
    daemon.stop(Signal::TERM).expect("it ends");
}

/// What may never happen while daemons are killed: two clients that hold one lcore.
#[test]
fn daemons_that_are_killed_grant_nothing_twice_and_lose_nothing() {
    const CLIENTS: u64 = 20;
    const LCORES: u16 = 40;
    let kills = if full() { 200 } else { 15 };
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let host = host.with(&["--restart-delay", "0"]);
    let daemon = host.start(&netns).expect("it starts");
    let owners: Vec<AtomicU64> = (0..LCORES).map(|_| AtomicU64::new(0)).collect();
    let (done, path) = (AtomicBool::new(false), socket(&host));
    let work = |me: u64| {
        let mut random = Random::new(&format!("client {me}"));
        let mut client = Client::register(&path, Dialect::Mtlm).expect("register");
        let (mut mine, mut answered) = (Vec::new(), 0_u64);
        while !done.load(Ordering::Relaxed) {
            answered += 1;
            let at = u16::try_from(random.below(owners.len())).expect("few");
            let owner = &owners[usize::from(at)];
            if mine.contains(&at) {
                assert_eq!(owner.swap(0, Ordering::SeqCst), me);
                assert_eq!(put(&mut client, at), 0, "lcore {at} of {me} was lost");
                mine.retain(|lcore| *lcore != at);
            } else if mine.len() < 4 {
                match get(&mut client, at) {
                    0 => {
                        let before = owner.swap(me, Ordering::SeqCst);
                        assert_eq!(before, 0, "lcore {at} of {before} was given to {me}");
                        mine.push(at);
                    }
                    refused => assert_eq!(refused, -16),
                }
            }
        }
        for lcore in mine {
            owners[usize::from(lcore)].store(0, Ordering::SeqCst);
            assert_eq!(put(&mut client, lcore), 0);
        }
        answered
    };
    let answered: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS).map(|me| scope.spawn(move || work(me))).collect();
        let mut before = None;
        for _ in 0..kills {
            // A moment that nothing decides but how fast clients are.
            let next = loop {
                match engine(&host) {
                    Some(next) if Some(next) != before => break next,
                    _ => std::thread::yield_now(),
                }
                if clients.iter().any(ScopedJoinHandle::is_finished) {
                    break before.expect("a client failed before the first kill");
                }
            };
            let mut probe = Client::register(&path, Dialect::Libmtl).expect("register");
            assert_eq!(put(&mut probe, 1), -1, "the daemon serves");
            let _ = kill_process(next, Signal::KILL);
            before = Some(next);
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    assert!(answered > CLIENTS, "{answered} requests were answered");
    until_held(&daemon, &[]);
    daemon.stop(Signal::TERM).expect("it ends");
}

#[test]
fn strangers_get_an_error_and_no_resource() {
    let (host, netns) = (Host::new().expect("root"), Netns::new().expect("root"));
    let daemon = host.start(&netns).expect("it starts");
    let mut document = super::document(1, &json!({}), &json!([]));
    document["interfaces"] = json!({});
    document["allow_empty"] = json!(true);
    document["access"] = json!({"clients": {"users": [1]}});
    document["lcores"] = json!({"reserve": [0]});
    daemon.apply_whole(&document);
    let start = Instant::now();
    while asked(&daemon, &["lcores"])["reserved"] != "0" {
        assert!(start.elapsed() < Duration::from_secs(20), "the document is not in force");
    }
    // Root is no stranger; a user that is not listed is one. A script, because a thread that gives
    // up its rights would take those of the test with it.
    let mut one = client(&host);
    assert_eq!((get(&mut one, 0), get(&mut one, 1)), (-16, 0));
    let answers = |uid: u32| {
        let setpriv =
            ["--reuid", &uid.to_string(), "--clear-groups", "--regid", "5"].map(str::to_owned);
        let output = Command::new("setpriv")
            .args(setpriv)
            .arg(std::env::current_exe().expect("this test"))
            .args(["--exact", "host::leases::as_somebody_else", "--ignored", "--nocapture"])
            .env("POINTSMAN_TEST_SOCKET", socket(&host))
            .stdin(Stdio::null())
            .output()
            .expect("setpriv");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    fs::set_permissions(host.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let (stranger, friend) = (answers(2), answers(1));
    assert!(stranger.contains("answers: -1 -1"), "{stranger}");
    assert!(friend.contains("answers: 0 0"), "{friend}");
}

/// What the user that runs this gets; started by the test before.
#[test]
#[ignore = "it is a helper that runs as somebody else"]
fn as_somebody_else() {
    let Some(socket) = std::env::var_os("POINTSMAN_TEST_SOCKET") else { return };
    let mut client = Client::connect(Path::new(&socket), Dialect::Libmtl).expect("connect");
    let asked = register(Dialect::Libmtl, 1, "root", &[]);
    let registered = client.ask(&asked).expect("an answer").value;
    println!("answers: {registered} {}", get(&mut client, 7));
}
