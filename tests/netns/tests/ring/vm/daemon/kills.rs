//! `kill -9` of the daemon between any two steps of a change, libxdp's own `clean`, and a restart.

use super::{DROP, PASS, Scene, datagram, document, program};
use pointsman_bpf::builtin;
use pointsman_model::document::Builtin;
use pointsman_netns::census::{Census, Held};
use pointsman_netns::daemon::Host;
use pointsman_netns::dispatcher::{Stage, well};
use pointsman_netns::random::{Random, full};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The system calls that a change is made of.
const STEPS: &str = "bpf,flock,mkdir,rmdir,rename,sendto,sendmsg,unlink";
/// How long the kernel may take to free what nobody holds.
const PATIENCE: Duration = Duration::from_secs(60);

/// `strace` on a daemon.
struct Tracer(Child);

impl Tracer {
    /// Attaches with more options, and returns when it is attached.
    fn attach(pid: u32, options: &[&str]) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string()]).args(options).stderr(Stdio::piped());
        let mut child = command.spawn().expect("apt-get install strace");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let attached = said.any(|line| line.is_ok_and(|line| line.contains("attached")));
        assert!(attached, "strace attaches");
        // Nobody reads what it says later: a full pipe must not hold it up.
        std::thread::spawn(move || said.for_each(drop));
        Self(child)
    }

    /// Ends it, with all that it has to write down; what it traces runs on.
    fn end(mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        self.0.wait().expect("an end");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // At once: to let go of a process in good order it would wait for one that may be dying.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The built-in filter, whose map has a name of this test.
struct Marked {
    census: Census,
    map: String,
    object: PathBuf,
}

impl Marked {
    fn new(host: &Host) -> Self {
        let mut census = Census::default();
        let mut object = builtin(Builtin::UdpPortFilter).to_vec();
        let map = census.mark(&mut object, "ports");
        let path = host.path("filter.o");
        std::fs::write(&path, object).expect("written");
        Self { census, map, object: path }
    }

    /// A filter before what theirs has at 30 with a program behind that, or behind it and alone. All
    /// pass port 7000 and drop port 5001.
    fn edition(&self, generation: u64) -> Value {
        let open = json!([{"key": 5999, "value": 1}, {"key": 7000, "value": 1}]);
        let mut filter = json!({"object": {"path": self.object}, "maps": {}});
        filter["maps"][&self.map] = json!({ "entries": open });
        let mut programs = json!({ "filter": filter });
        let mut chain = vec![json!({"program": "filter", "priority": 40})];
        if members(generation) == 2 {
            programs["more"] = program("v_pass");
            chain[0]["priority"] = json!(20);
            chain.push(json!({"program": "more", "priority": 50}));
        }
        document(generation, &programs, &json!({ "chain": chain }))
    }

    /// Waits until the kernel holds the filter in so many programs, and nothing else of this test. No
    /// event tells when it has freed something.
    #[track_caller]
    fn settle(&mut self, programs: usize, when: &str) {
        let maps = (programs > 0).then(|| (self.map.clone(), 1)).into_iter().collect();
        let wanted = Held { maps, programs, links: programs };
        let start = Instant::now();
        loop {
            let held = self.census.take();
            if held == wanted {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{when}: {held:?} instead of {wanted:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn members(generation: u64) -> usize {
    if generation.is_multiple_of(2) { 2 } else { 1 }
}

/// The steps that an apply is made of: the name of a system call, and how many of that name it is on
/// its thread.
fn steps(scene: &Scene, document: &Value) -> Vec<(String, usize)> {
    let log = scene.host.path("steps");
    let only = format!("trace={STEPS}");
    let options = ["-o", log.to_str().expect("UTF-8"), "-e", &only];
    let tracer = Tracer::attach(scene.daemon.engine(), &options);
    scene.daemon.apply_whole(document);
    tracer.end();
    let text = std::fs::read_to_string(log).expect("what strace wrote");
    let mut threads: BTreeMap<&str, Vec<(String, usize)>> = BTreeMap::new();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !STEPS.split(',').any(|step| step == call) {
            continue;
        }
        let count = counts.entry((thread, call)).or_default();
        *count += 1;
        // Without those that only ask: a kill there is one before the next.
        let changes = call != "bpf"
            || ["BPF_LINK_CREATE", "BPF_OBJ_PIN"].iter().any(|it| arguments.starts_with(it));
        if changes {
            threads.entry(thread).or_default().push((call.to_owned(), *count));
        }
    }
    // The thread that owns the kernel does nearly all.
    threads.into_values().max_by_key(Vec::len).expect("steps")
}

/// The pinned chains, loads of programs, and dispatchers.
fn pinned(host: &Host) -> [usize; 3] {
    let list = host.bpffs.list().expect("a list");
    let count = |start: &str, length: usize, part: &str| {
        let fits = |path: &&PathBuf| {
            let text = path.to_string_lossy();
            text.starts_with(start) && text.contains(part) && path.components().count() == length
        };
        list.iter().filter(fits).count()
    };
    let chains = count("pointsman/hooks/", 6, "/chains/");
    [chains, count("pointsman/programs/", 4, ""), count("xdp/dispatch-", 2, "")]
}

/// Without a daemon, and whichever chain it is: whole. Theirs takes what is left over, and nothing else.
#[track_caller]
fn whole(stage: &Stage, host: &Host, theirs: u32, why: &str) {
    let shown = stage.ours();
    assert_eq!(shown, stage.theirs(), "{why}");
    assert!(stage.chain().components.iter().any(|c| c.id == theirs), "{why}: {shown:?}");
    let verdicts = || [5001, 7000].map(|port| stage.verdict(&datagram(port)));
    assert_eq!(verdicts(), [DROP, PASS], "{why}");
    well(&stage.xdp_loader(&["clean", "v1"]));
    assert_eq!((stage.ours(), verdicts()), (shown, [DROP, PASS]), "{why}, cleaned");
    assert_eq!(pinned(host)[2], 1, "{why}, cleaned");
}

#[test]
fn whenever_the_daemon_is_killed_the_old_or_the_new_chain_runs_and_nothing_is_left() {
    let Some(mut scene) = Scene::set("kills::daemon") else { return };
    let mut marked = Marked::new(&scene.host);
    scene.load(30, "v_opaque", "XDP_PASS");
    let theirs = scene.ids("v_opaque")[0];
    // What is cut off is the change from an even edition to the odd one after it.
    scene.daemon.apply_whole(&marked.edition(2));
    let steps = steps(&scene, &marked.edition(3));
    scene.daemon.apply_whole(&marked.edition(4));
    let names: Vec<_> = steps.iter().map(|(call, _)| call.as_str()).collect();
    println!("{} steps: {}", steps.len(), names.join(" "));
    for wanted in ["bpf", "flock", "mkdir", "unlink", "rmdir"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
    // The swap is a message of netlink, after which two locks are asked for.
    let swap = names.windows(3).position(|calls| calls == ["sendto", "flock", "flock"]);
    let swap = swap.expect("a swap");
    let mut random = Random::new("kills::daemon");
    let some = random.below(swap + 1);
    let mut generation = 4;
    let mut kills = 0;
    for (at, (call, nth)) in steps.iter().enumerate() {
        // All of them in a long run; in a short one right after the swap, and one at random.
        if !(full() || at == swap + 1 || at == some) {
            continue;
        }
        let why = format!("killed before {call} {nth}");
        let next = marked.edition(generation + 1).to_string();
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let tracer = Tracer::attach(scene.daemon.engine(), &["-o", "/dev/null", "-e", &inject]);
        let answer = scene.daemon.ask(&["apply", "-"], next.as_bytes());
        kills += usize::from(answer.code != 0);
        drop(tracer);
        let Scene { daemon, host, stage } = scene;
        drop(daemon);
        whole(&stage, &host, theirs, &why);
        let daemon = host.start(&stage.pair.right).expect("a daemon");
        scene = Scene { daemon, host, stage };
        let in_force = scene.daemon.peek()["generation"].as_u64().expect("a generation");
        assert!([generation, generation + 1].contains(&in_force), "{why}: {in_force}");
        let as_wanted = |hook: &Value| {
            let running = hook["members"].as_array().map(Vec::len);
            hook["state"] == "running" && running == Some(members(in_force))
        };
        scene.daemon.hook_until("chain", as_wanted);
        marked.settle(1, &why);
        assert_eq!(pinned(&scene.host), [1, members(in_force), 1], "{why}");
        generation += 2;
        scene.daemon.apply_whole(&marked.edition(generation));
        assert_eq!(scene.ids("v_opaque"), [theirs], "{why}");
        marked.settle(1, &why);
        assert_eq!(pinned(&scene.host), [1, 2, 1], "{why}");
    }
    println!("{kills} kills");
    assert!(kills > 0, "nothing was killed");
    let drained = scene.daemon.ask(&["drain", "--yes"], b"");
    assert_eq!(drained.code, 0, "{drained:#?}");
    marked.settle(0, "drained");
    assert_eq!(pinned(&scene.host), [0, 0, 1]);
    assert_eq!(scene.ids("v_opaque"), [theirs]);
}
