//! `kill -9` of the daemon at any moment of a change, under traffic.

use super::{document, program, scene};
use pointsman_netns::census::{Census, Held};
use pointsman_netns::daemon::Host;
use pointsman_netns::object;
use pointsman_netns::random::{Random, full};
use pointsman_netns::traffic::Watch;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The port that every chain drops, and the one that every chain passes.
const DROPPED: u16 = 5001;
const PASSED: u16 = 5002;
/// How long the kernel may take to free what nobody holds: after a grace period, on a work queue.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the daemon is killed.
fn rounds() -> u64 {
    if full() { 200 } else { 20 }
}

/// Objects whose maps have names of this test, to count what the kernel holds of it.
struct Marked {
    census: Census,
    /// The names of the maps in all chains.
    maps: Vec<String>,
    timer: PathBuf,
    tail: PathBuf,
}

impl Marked {
    fn new(host: &Host) -> Self {
        let mut census = Census::default();
        let (mut timer, mut tail) = (object("timer"), object("tailcall"));
        let mut maps = vec![census.mark(&mut timer, "clocks")];
        maps.extend(["targets", "nothing"].map(|map| census.mark(&mut tail, map)));
        let keep = |name: &str, bytes: &[u8]| {
            std::fs::write(host.path(name), bytes).expect("an object of one's own");
            host.path(name)
        };
        Self { timer: keep("timer.o", &timer), tail: keep("tailcall.o", &tail), census, maps }
    }

    /// A chain that differs from the one before in its order, in the load of some programs, or in
    /// its length. All drop one port and pass the rest, and have a member that tail-calls and one
    /// with a timer.
    fn edition(&self, generation: u64) -> Value {
        let turn = usize::try_from(generation).expect("small");
        let (order, upgrade, length) = (turn.div_ceil(3), (turn + 1) / 3, turn / 3 % 4);
        let mut filter = program("verdict", "v_port");
        filter["globals"] = json!({"port": DROPPED, "port_verdict": 1});
        let mut upgraded = program("verdict", "v_global");
        upgraded["globals"] = json!({"verdict": 2 + 2 * (upgrade % 2)});
        // Another delay is another load, which takes over the map with its timer.
        let timer = json!({"object": {"path": self.timer}, "entry": "arm",
            "globals": {"delay_ns": 1_000_000 + upgrade}});
        let tail = json!({"object": {"path": self.tail}, "entry": "member"});
        let mut programs =
            json!({"filter": filter, "tail": tail, "timer": timer, "upgraded": upgraded});
        let mut names: Vec<_> = ["filter", "tail", "timer", "upgraded"].map(str::to_owned).into();
        for number in 0..length {
            let name = format!("pass-{number}");
            programs[&name] = program("verdict", "v_pass");
            names.push(name);
        }
        let count = names.len();
        names.rotate_left(order % count);
        let entry = |(at, name): (usize, &String)| {
            let actions = if name == "upgraded" { vec!["pass", "redirect"] } else { vec!["pass"] };
            json!({"program": name, "priority": at, "chain_call_actions": actions})
        };
        let chain: Vec<_> = names.iter().enumerate().map(entry).collect();
        document(generation, &programs, &json!(chain))
    }

    /// What the kernel holds while one chain runs and nothing is left of another.
    fn one_chain(&self) -> Held {
        Held { maps: self.maps.iter().map(|map| (map.clone(), 1)).collect(), programs: 1, links: 1 }
    }

    /// Waits until the kernel holds just this of the test. No event tells when it has freed
    /// something.
    #[track_caller]
    fn settle(&mut self, wanted: &Held, when: &str) {
        let start = Instant::now();
        loop {
            let held = self.census.take();
            if held == *wanted {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{when}: {held:?} instead of {wanted:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The pinned chains, and the pinned loads by program.
fn pinned(host: &Host) -> (usize, BTreeMap<String, usize>) {
    let (mut chains, mut programs) = (0, BTreeMap::<String, usize>::new());
    for pin in host.bpffs.list().expect("the pins can be listed") {
        let parts: Vec<_> = pin.iter().map(|part| part.to_string_lossy()).collect();
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        match parts.as_slice() {
            ["pointsman", "hooks", _, _, "chains", _] => chains += 1,
            ["pointsman", "programs", name, _] => *programs.entry((*name).into()).or_default() += 1,
            _ => {}
        }
    }
    (chains, programs)
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_chain_and_nothing_else() {
    let (host, pair) = scene();
    let mut random = Random::new("kills");
    let mut marked = Marked::new(&host);
    let mut daemon = host.start(&pair.right).unwrap();
    daemon.apply_whole(&marked.edition(1));
    let watch = Watch::start(&pair, DROPPED, PASSED);
    let start = Instant::now();
    daemon.apply_whole(&marked.edition(2));
    let mut took = start.elapsed();
    let mut cut_off = 0;
    for generation in (3..).step_by(2).take(rounds() as usize) {
        let text = marked.edition(generation).to_string();
        // Some kills come when all is done.
        let moment = took.as_micros() as u64 * 5 / 4;
        let delay = Duration::from_micros(random.next() % moment.max(1));
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(|| daemon.ask(&["apply", "-"], text.as_bytes()));
            // The moment of the kill is what is tried: any will do, and none is waited for.
            std::thread::sleep(delay);
            daemon.signal(Signal::KILL).unwrap();
            asking.join().unwrap()
        });
        drop(daemon);
        cut_off += u64::from(answer.code != 0);
        // Without a daemon, and whichever chain it is: whole.
        watch.more(10);
        let why = format!("generation {generation} killed after {delay:?}");
        assert_eq!(marked.census.take().links, 1, "{why}");
        daemon = host.start(&pair.right).unwrap();
        watch.more(10);
        // The start itself clears away what was begun and what was replaced.
        marked.settle(&marked.one_chain(), &format!("{why}, started again"));
        let (chains, programs) = pinned(&host);
        assert_eq!(chains, 1, "{why}");
        assert!(programs.values().all(|&loads| loads == 1), "{why}: {programs:?}");

        let start = Instant::now();
        let applied = daemon.apply_whole(&marked.edition(generation + 1));
        took = start.elapsed();
        assert_eq!(applied["outcome"], "applied", "{applied:#}");
        let hook = daemon.hook();
        let state = (&hook["state"], hook["generation"].as_u64());
        assert_eq!(state, (&json!("running"), Some(generation + 1)));
        marked.settle(&marked.one_chain(), &format!("{why}, applied the next"));
        let (chains, programs) = pinned(&host);
        let wanted = marked.edition(generation + 1)["programs"].clone();
        let wanted: BTreeMap<_, _> =
            wanted.as_object().unwrap().keys().map(|name| (name.clone(), 1)).collect();
        assert_eq!((chains, programs), (1, wanted), "{why}");
    }
    let pairs = watch.stop();
    println!("kills: {} in all, {cut_off} cut an apply off; {pairs} pairs of datagrams", rounds());
    // What is hardly ever cut off is not tested.
    assert!(cut_off * 4 > rounds(), "{cut_off} of {} kills cut an apply off", rounds());
    let drained = daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    drop(daemon);
    assert_eq!(host.bpffs.list().unwrap(), [PathBuf::from("pointsman")]);
    marked.settle(&Held::default(), "drained");
    let start = Instant::now();
    while marked.census.left() > 0 {
        assert!(start.elapsed() < PATIENCE, "{} maps are left", marked.census.left());
        std::thread::sleep(Duration::from_millis(1));
    }
}
