//! Breaking the glass under traffic: bypass, rollback, confirmation; kills, and clients that go.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use super::{document, program, scene};
use libbpf_rs::Link;
use pointsman_netns::daemon::{Daemon, Host, binary};
use pointsman_netns::netns::{LEFT, Pair, RIGHT};
use pointsman_netns::traffic::{Watch, received};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A chain that passes datagrams to 5000, 5998 and 5999, and drops those to other ports.
fn filtering(generation: u64) -> Value {
    let port = |port: u16| json!({"key": port, "value": 1});
    let programs = json!({"ports": {"builtin": "udp-port-filter",
        "maps": {"ports": {"entries": [port(5000), port(5998), port(5999)]}}}});
    document(generation, &programs, &json!([{"program": "ports"}]))
}

/// A chain that passes everything.
fn open(generation: u64) -> Value {
    document(
        generation,
        &json!({"meter": {"builtin": "counting-pass"}}),
        &json!([{"program": "meter"}]),
    )
}

/// Datagrams to one port that every chain passes, the next when the last has come through.
struct Flow {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicU64>,
    thread: JoinHandle<bool>,
}

impl Flow {
    fn start(pair: &Pair, port: u16) -> Self {
        let receiver = pair.right.run(|| UdpSocket::bind((RIGHT, port))).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = pair.left.run(|| UdpSocket::bind((LEFT, 40_002))).unwrap();
        let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ending, count) = (Arc::clone(&stop), Arc::clone(&came));
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::Acquire) {
                sender.send_to(b"flow", (RIGHT, port)).unwrap();
                if receiver.recv(&mut [0; 64]).is_err() {
                    return false;
                }
                count.fetch_add(1, Ordering::AcqRel);
                // Traffic without an end must leave the CPUs to others.
                std::thread::sleep(Duration::from_micros(100));
            }
            true
        });
        Self { stop, came, thread }
    }

    fn came(&self) -> u64 {
        self.came.load(Ordering::Acquire)
    }

    /// Ends it, and says how many datagrams there were: all of them came through.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        assert!(self.thread.join().unwrap(), "a datagram that every chain passes was lost");
        self.came.load(Ordering::Acquire)
    }
}

/// Whether datagrams that the filter drops come through.
fn is_open(pair: &Pair) -> bool {
    match received(pair, &[5001], 5999, 5).as_slice() {
        [0] => false,
        [5] => true,
        other => panic!("some of the packets: {other:?}"),
    }
}

fn runs(daemon: &Daemon) -> u64 {
    let counters = daemon.ask(&["counters"], b"").value;
    let programs = counters["hooks"][0]["programs"].as_array().expect("programs");
    programs.iter().find(|p| p["program"] == "ports").expect("ports")["runs"].as_u64().unwrap()
}

fn link_id(host: &Host) -> u32 {
    let pin = host.bpffs.path().join("pointsman/hooks/v1/xdp/link");
    Link::open(pin).unwrap().info().unwrap().id
}

#[track_caller]
fn done(daemon: &Daemon, arguments: &[&str]) -> Value {
    let answer = daemon.ask(arguments, b"");
    assert_eq!(answer.code, 0, "{answer:#?}");
    answer.value
}

fn kinds(daemon: &Daemon) -> Vec<String> {
    let page = done(daemon, &["events", "-n", "1000"]);
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

fn generation_until(daemon: &Daemon, generation: u64) {
    let start = Instant::now();
    while daemon.status()["generation"].as_u64() != Some(generation) {
        assert!(start.elapsed() < Duration::from_secs(30), "{:#}", daemon.status());
    }
}

#[test]
fn a_bypass_is_one_swap_and_ends_by_itself() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&filtering(1));
    let flow = Flow::start(&pair, 5000);
    assert!(!is_open(&pair));
    let link = link_id(&host);
    let asked = Instant::now();
    let on = done(&daemon, &["bypass", "v1", "--for", "2s"]);
    assert!(is_open(&pair));
    let hook = daemon.hook();
    assert_eq!((&hook["state"], &hook["bypass"]["uid"]), (&json!("bypassed"), &json!(0)));
    // The time without verdicts: the flow goes on and nobody counts it but the empty chain.
    let (before, came) = (runs(&daemon), flow.came());
    while flow.came() < came + 100 {}
    assert_eq!(runs(&daemon), before);
    daemon.hook_until("end of the bypass", |hook| hook["state"] == "running");
    let lasted = asked.elapsed();
    assert!(lasted >= Duration::from_secs(2), "{lasted:?}");
    assert!(!is_open(&pair));
    assert!(runs(&daemon) > before, "counted from where it was");
    assert_eq!(link_id(&host), link, "the link was never detached");
    assert_eq!(kinds(&daemon)[1..], ["applied", "bypassed", "bypass_expired"]);
    let off = (done(&daemon, &["bypass", "v1"]), done(&daemon, &["bypass", "v1", "--off"])).1;
    assert!(!is_open(&pair));
    let flowed = flow.stop();
    println!(
        "bypass visible after {} us, off after {} us, --for 2s ended after {} ms; {flowed} \
         datagrams, none lost",
        on["visible_micros"],
        off["visible_micros"],
        lasted.as_millis()
    );
}

#[test]
fn a_bypass_holds_over_a_kill_and_ends_at_its_time_without_a_daemon() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&filtering(1));
    let flow = Flow::start(&pair, 5000);
    let asked = Instant::now();
    done(&daemon, &["bypass", "v1", "--for", "3s"]);
    daemon.stop(Signal::KILL).unwrap();
    assert!(is_open(&pair), "nobody is there to end it");
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.hook()["state"], "bypassed");
    daemon.stop(Signal::KILL).unwrap();
    // Time itself is what is waited for.
    std::thread::sleep(Duration::from_millis(3_050).saturating_sub(asked.elapsed()));
    let daemon = host.start(&pair.right).unwrap();
    assert!(!is_open(&pair));
    assert_eq!(daemon.hook()["state"], "running");
    assert!(kinds(&daemon).contains(&"bypass_expired".to_owned()));
    flow.stop();
}

#[test]
fn what_nobody_confirms_is_gone_also_after_a_kill() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&filtering(41));
    let flow = Flow::start(&pair, 5000);
    let text = open(42).to_string();
    let apply = ["apply", "--confirm-within", "2s", "-"];
    // By itself, while the daemon runs.
    let asked = Instant::now();
    let report = daemon.ask(&apply, text.as_bytes());
    assert_eq!((report.code, &report.value["unconfirmed"]["back_to"]), (0, &json!(41)));
    assert!(is_open(&pair));
    generation_until(&daemon, 41);
    let lasted = asked.elapsed();
    assert!(lasted >= Duration::from_secs(2), "{lasted:?}");
    assert!(!is_open(&pair));
    println!("--confirm-within 2s returned after {} ms", lasted.as_millis());
    // With a daemon that is dead when the time is over, and a document that lies there.
    host.drop_document(&open(42)).unwrap();
    let asked = Instant::now();
    assert_eq!(daemon.ask(&apply, text.as_bytes()).code, 0);
    daemon.stop(Signal::KILL).unwrap();
    assert!(is_open(&pair));
    std::thread::sleep(Duration::from_millis(2_050).saturating_sub(asked.elapsed()));
    let daemon = host.start(&pair.right).unwrap();
    assert!(!is_open(&pair), "returned before anything else");
    assert_eq!(daemon.status()["generation"], 41);
    // With one that is back in time: the rest of it.
    assert_eq!(daemon.ask(&apply, text.as_bytes()).code, 0);
    daemon.stop(Signal::KILL).unwrap();
    let daemon = host.start(&pair.right).unwrap();
    generation_until(&daemon, 41);
    assert!(!is_open(&pair));
    // Confirmed it stays.
    assert_eq!(daemon.ask(&apply, text.as_bytes()).code, 0);
    assert_eq!(done(&daemon, &["confirm"])["generation"], 42);
    let late = daemon.ask(&["confirm", "43"], b"");
    assert_eq!(late.code, 1, "{late:#?}");
    assert!(is_open(&pair));
    flow.stop();
}

#[test]
fn a_client_that_goes_away_does_not_take_the_deadline_along() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&filtering(41));
    let watch = Watch::start(&pair, 5002, 5998);
    let text = json!(filtering(42)).to_string();
    let mut stream = UnixStream::connect(host.path("run/node.sock")).unwrap();
    let head = format!(
        "PUT /v1/document?confirm_within_seconds=2 HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all((head + &text).as_bytes()).unwrap();
    drop(stream);
    generation_until(&daemon, 42);
    let waiting = daemon.status()["unconfirmed"].clone();
    assert_eq!(waiting["back_to"], 41, "{waiting:#}");
    generation_until(&daemon, 41);
    watch.more(10);
    println!("{} pairs of datagrams, each as every chain wants it", watch.stop());
    assert!(kinds(&daemon).ends_with(&["unconfirmed".into(), "returned".into()]));
}

#[test]
fn a_rollback_needs_nothing_but_what_the_node_kept() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let path = host.path("object.o");
    std::fs::copy(pointsman_netns::object_path("verdict"), &path).unwrap();
    let edition = |generation: u64, port: u16| {
        let mut filter = program("verdict", "v_port");
        filter["object"] = json!({ "path": path });
        filter["globals"] = json!({"port": port, "port_verdict": 1});
        document(generation, &json!({ "filter": filter }), &json!([{"program": "filter"}]))
    };
    daemon.apply_whole(&edition(1, 5001));
    let flow = Flow::start(&pair, 5000);
    host.drop_document(&edition(2, 5002)).unwrap();
    generation_until(&daemon, 2);
    assert_eq!(received(&pair, &[5001, 5002], 5999, 3), [3, 0]);
    std::fs::remove_file(&path).unwrap();
    let back = done(&daemon, &["rollback"]);
    assert_eq!((&back["from"], &back["to"]), (&json!(2), &json!(1)));
    assert_eq!(received(&pair, &[5001, 5002], 5999, 3), [0, 3]);
    // The document lies there as before, and is left alone over a kill too.
    daemon.stop(Signal::KILL).unwrap();
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(daemon.status()["generation"], 1);
    assert_eq!(received(&pair, &[5001, 5002], 5999, 3), [0, 3]);
    let listed = done(&daemon, &["generations"]);
    assert_eq!(listed["generations"].as_array().unwrap().len(), 2, "{listed:#}");
    assert_eq!(daemon.ask(&["rollback"], b"").code, 1, "there is none before");
    done(&daemon, &["rollback", "--to", "2"]);
    assert_eq!(received(&pair, &[5001, 5002], 5999, 3), [3, 0]);
    println!(
        "rollback visible after {} us; {} datagrams, none lost",
        back["report"]["visible_micros"],
        flow.stop()
    );
}

#[test]
fn who_follows_hears_of_each_event_when_it_happens() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let mut follower = Command::new(binary("pointsman"))
        .args(["--json", "--node"])
        .arg(host.path("run/node.sock"))
        .args(["events", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(next(), "started");
    daemon.apply_whole(&filtering(1));
    assert_eq!(next(), "applied");
    let asked = Instant::now();
    done(&daemon, &["bypass", "v1"]);
    assert_eq!(next(), "bypassed");
    println!("a bypass was heard of {} ms after it was asked for", asked.elapsed().as_millis());
    // It waits for the daemon, and goes on where it was.
    daemon.stop(Signal::KILL).unwrap();
    let daemon = host.start(&pair.right).unwrap();
    assert_eq!(next(), "started");
    done(&daemon, &["bypass", "v1", "--off"]);
    assert_eq!(next(), "bypass_ended");
    follower.kill().unwrap();
    follower.wait().unwrap();
}
