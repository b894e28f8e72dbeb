//! A daemon's engine over a simulated host.

#![allow(dead_code, reason = "each test binary uses its part")]

mod kernel;

use self::kernel::TestKernel;
use pointsman_fuse::layout::StackRounding;
use pointsman_model::api::{ApplyReport, DrainReport, Problem};
use pointsman_model::deadline::Moment;
use pointsman_model::event::EventKind;
use pointsman_model::glass::{BypassReport, ConfirmReport, EventPage, Generations, RollbackReport};
use pointsman_model::plan::Plan;
use pointsman_model::status::{Counters, Status};
use pointsman_model::{HookId, InterfaceId};
use pointsman_node::clock::Clock;
use pointsman_node::disk::CreateAside;
use pointsman_node::engine::{
    BypassRequest, Engine, EventQuery, GenerationRequest, Handle, Message, Reply, Request,
};
use pointsman_node::fleet::Places;
use pointsman_node::host::Kernel;
use pointsman_node::resolve::MAX_OBJECT;
use pointsman_node::state::StateFile;
use pointsman_node::store::Store;
use pointsman_plan::simulator::{Runs, Simulator};
use pointsman_plan::{Caps, Options};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// A host that outlives its daemons: kernel and disk.
pub(crate) struct TestHost {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) shared: Arc<Shared>,
}

/// What a test looks at and turns on while a daemon runs.
#[derive(Default)]
pub(crate) struct Shared {
    sim: Mutex<Simulator>,
    clock: Mutex<Ticks>,
    /// How many programs were loaded to look at them.
    pub(crate) inspected: AtomicUsize,
    /// How often the host was looked at.
    pub(crate) looks: AtomicUsize,
    /// Whether observing fails.
    pub(crate) blind: AtomicBool,
    /// A planted fault ends the daemon at once, as a kill would.
    pub(crate) dies: AtomicBool,
}

impl Shared {
    fn ticks(&self) -> MutexGuard<'_, Ticks> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sim(&self) -> MutexGuard<'_, Simulator> {
        self.sim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clocks of a host.
#[derive(Clone)]
struct Ticks {
    now: Moment,
    boots: u32,
}

impl Default for Ticks {
    fn default() -> Self {
        let boot = Some("boot 0".to_owned());
        Self { now: Moment { unix_ms: 1_735_689_600_000, boot_ms: 90_000, boot }, boots: 0 }
    }
}

struct TestClock(Arc<Shared>);

impl Clock for TestClock {
    fn now(&self) -> Moment {
        self.0.ticks().now.clone()
    }
}

impl TestHost {
    /// A host with interfaces `a` and `b`.
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        shared.sim().add_interface(&interface("a"), Some(true));
        shared.sim().add_interface(&interface("b"), Some(true));
        Self { directory: tempfile::tempdir().unwrap(), shared }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn document(&self) -> PathBuf {
        self.path("node.json")
    }

    pub(crate) fn kernel(&self) -> Box<dyn Kernel> {
        Box::new(TestKernel {
            shared: self.shared.clone(),
            caps: Caps {
                stack_rounding: StackRounding::To16,
                freplace: Err("the host is simulated".into()),
                page_size: 4096,
                cpus: 4,
            },
        })
    }

    /// Starts a daemon and returns when it is ready.
    pub(crate) fn start(&self) -> Node {
        let engine = Engine::open(self.kernel(), &self.path("state"), &self.document()).unwrap();
        Node::run(engine.clocked_by(self.clock()))
    }

    /// Starts a daemon that keeps this many good generations.
    pub(crate) fn start_keeping(&self, keep: usize) -> Node {
        let engine = Engine::open(self.kernel(), &self.path("state"), &self.document()).unwrap();
        Node::run(engine.clocked_by(self.clock()).keeping(keep))
    }

    fn clock(&self) -> Box<dyn Clock> {
        Box::new(TestClock(self.shared.clone()))
    }

    /// Lets time pass. A daemon notices with the next message.
    pub(crate) fn pass(&self, seconds: u64) {
        let mut ticks = self.shared.ticks();
        ticks.now.unix_ms += seconds * 1_000;
        ticks.now.boot_ms += seconds * 1_000;
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set_wall_clock(&self, unix_ms: u64) {
        self.shared.ticks().now.unix_ms = unix_ms;
    }

    /// Starts a daemon that never looks at the host by itself.
    pub(crate) fn start_still(&self) -> Node {
        let engine = Engine::open(self.kernel(), &self.path("state"), &self.document()).unwrap();
        Node::run(engine.without_looks())
    }

    /// Starts a daemon that looks at the host every `interval`.
    pub(crate) fn start_checking(&self, interval: Duration) -> Node {
        let engine = Engine::open(self.kernel(), &self.path("state"), &self.document()).unwrap();
        Node::run(engine.clocked_by(self.clock()).checking_every(interval))
    }

    /// Starts a daemon whose files are created by `create`.
    pub(crate) fn start_with(&self, create: CreateAside) -> Node {
        let state_dir = self.path("state");
        let state = StateFile::open(&state_dir).unwrap().created_by(create);
        let objects = Store::open(&state_dir.join("objects"), MAX_OBJECT).unwrap();
        let objects = objects.created_by(create);
        let engine = Engine::with(self.kernel(), state, objects, &state_dir, &self.document());
        Node::run(engine.clocked_by(self.clock()))
    }

    /// Where a daemon of a fleet looks.
    pub(crate) fn places(&self) -> Places {
        Places { config: self.path("etc/fleet.json"), drop: self.path("drop") }
    }

    /// Starts a daemon that looks for what comes from a fleet.
    pub(crate) fn start_in_fleet(&self) -> Node {
        let engine = Engine::open(self.kernel(), &self.path("state"), &self.document()).unwrap();
        Node::run(engine.clocked_by(self.clock()).in_fleet(&self.places()))
    }

    /// Starts one whose files are created by `create`; `None`: it died while it started.
    pub(crate) fn start_in_fleet_with(&self, create: CreateAside) -> Option<Node> {
        let state_dir = self.path("state");
        let state = StateFile::open(&state_dir).unwrap().created_by(create);
        let objects = Store::open(&state_dir.join("objects"), MAX_OBJECT).unwrap();
        let objects = objects.created_by(create);
        let engine = Engine::with(self.kernel(), state, objects, &state_dir, &self.document());
        Node::try_run(engine.clocked_by(self.clock()).in_fleet(&self.places()))
    }

    /// The host loses power: pins go, disks stay.
    pub(crate) fn reboot(&self) {
        let mut sim = self.shared.sim();
        assert_eq!(sim.violations(), &[] as &[String]);
        *sim = Simulator::new();
        let mut ticks = self.shared.ticks();
        ticks.boots += 1;
        ticks.now.boot = Some(format!("boot {}", ticks.boots));
        ticks.now.boot_ms = 1_000;
        sim.add_interface(&interface("a"), Some(true));
        sim.add_interface(&interface("b"), Some(true));
    }

    /// The programs that packets on an interface run through, in order.
    pub(crate) fn running(&self, name: &str) -> Vec<String> {
        match self.shared.sim().runs(&interface(name)) {
            Runs::Chain(spec, _) => spec.members.iter().map(|m| m.program.to_string()).collect(),
            Runs::Nothing => vec![],
            Runs::Foreign(id) => vec![format!("foreign {id}")],
            Runs::Others(ids) => ids.iter().map(|id| format!("other {id}")).collect(),
        }
    }

    pub(crate) fn inspected(&self) -> usize {
        self.shared.inspected.load(Ordering::SeqCst)
    }

    /// The names of the files below the state directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for directory in ["", "objects", "documents"] {
            for entry in std::fs::read_dir(self.path("state").join(directory)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    files.push(format!("{directory}/{}", entry.file_name().to_str().unwrap()));
                }
            }
        }
        files.sort();
        files
    }
}

/// A running daemon.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    thread: JoinHandle<()>,
    runtime: Runtime,
}

impl Node {
    fn run(engine: Engine) -> Self {
        Self::try_run(engine).unwrap()
    }

    fn try_run(engine: Engine) -> Option<Self> {
        let (handle, messages) = Handle::new();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || engine.run(&messages, || ready.send(()).unwrap()));
        is_ready.recv().ok()?;
        Some(Self { handle, thread, runtime: Builder::new_current_thread().build().unwrap() })
    }

    fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Problem> {
        self.runtime.block_on(self.handle.ask(message))
    }

    pub(crate) fn apply(&self, document: &Value) -> Result<ApplyReport, Problem> {
        self.apply_text(document.to_string().into_bytes())
    }

    pub(crate) fn apply_text(&self, text: Vec<u8>) -> Result<ApplyReport, Problem> {
        self.ask(|reply| Message::Apply(request(text), reply))
    }

    pub(crate) fn plan(&self, document: &Value) -> Result<Plan, Problem> {
        self.ask(|reply| Message::Plan(request(document.to_string().into_bytes()), reply))
    }

    pub(crate) fn status(&self) -> Status {
        self.ask(Message::Status).unwrap()
    }

    /// Waits until the status is as a test wants it.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no {what}: {status:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.ask(Message::Counters).unwrap()
    }

    /// Applies a document that wants to be confirmed.
    pub(crate) fn apply_within(
        &self,
        document: &Value,
        seconds: u64,
    ) -> Result<ApplyReport, Problem> {
        let confirm_within = Some(Duration::from_secs(seconds));
        let options = Options { allow_gap: true };
        let request =
            Request { confirm_within, options, ..request(document.to_string().into_bytes()) };
        self.ask(|reply| Message::Apply(request, reply))
    }

    pub(crate) fn confirm(&self, generation: Option<u64>) -> Result<ConfirmReport, Problem> {
        self.ask(|reply| Message::Confirm(generation_request(generation), reply))
    }

    pub(crate) fn rollback(&self, generation: Option<u64>) -> Result<RollbackReport, Problem> {
        self.ask(|reply| Message::Rollback(generation_request(generation), reply))
    }

    pub(crate) fn bypass(&self, name: &str, seconds: Option<u64>) -> Result<BypassReport, Problem> {
        let length = seconds.map(Duration::from_secs);
        self.ask(|reply| Message::Bypass(bypass_request(name, length, false), reply))
    }

    pub(crate) fn unbypass(&self, name: &str) -> Result<BypassReport, Problem> {
        self.ask(|reply| Message::Bypass(bypass_request(name, None, true), reply))
    }

    pub(crate) fn generations(&self) -> Generations {
        self.ask(Message::Generations).unwrap()
    }

    /// The kinds of all events, oldest first.
    pub(crate) fn events(&self) -> Vec<EventKind> {
        let query = EventQuery { after: None, limit: 1000, wait: false };
        let page = self.ask(|reply| Message::Events(query, reply)).unwrap();
        page.events.iter().map(|event| event.kind).collect()
    }

    /// Waits for an event after the one numbered `after`.
    pub(crate) fn wait_for_events(&self, after: u64) -> EventPage {
        let query = EventQuery { after: Some(after), limit: 10, wait: true };
        self.ask(|reply| Message::Events(query, reply)).unwrap()
    }

    pub(crate) fn drain(&self) -> DrainReport {
        self.ask(Message::Drain).unwrap()
    }

    /// Says that the watched document was replaced, and waits until it was looked at.
    pub(crate) fn document_changed(&self) {
        self.handle.tell(Message::DocumentChanged);
        self.status();
    }

    /// Says that something was laid down, and waits until it was looked at, or the daemon died of
    /// it.
    pub(crate) fn laid_down(&self) {
        let (done, looked) = std::sync::mpsc::channel();
        self.handle.tell(Message::LaidDown(done));
        let _ = looked.recv();
    }

    /// Says that interfaces changed, and does not wait.
    pub(crate) fn interfaces_changed(&self) {
        self.handle.tell(Message::InterfacesChanged);
    }

    /// Ends the daemon; `true`: by itself, without a crash.
    pub(crate) fn stop(self) -> bool {
        self.handle.tell(Message::Stop);
        self.thread.join().is_ok()
    }
}

fn request(text: Vec<u8>) -> Request {
    Request::new(text)
}

fn generation_request(generation: Option<u64>) -> GenerationRequest {
    GenerationRequest {
        generation,
        options: Options::default(),
        uid: Some(0),
        arrived: Instant::now(),
    }
}

fn bypass_request(name: &str, length: Option<Duration>, off: bool) -> BypassRequest {
    let (uid, arrived) = (Some(0), Instant::now());
    BypassRequest { interface: interface(name), off, length, uid, arrived }
}

pub(crate) fn interface(name: &str) -> InterfaceId {
    name.parse().unwrap()
}

pub(crate) fn hook(name: &str) -> HookId {
    HookId::xdp(interface(name))
}

/// A document whose chains name built-in programs by the letters c (counting pass), u (UDP port
/// filter), b (CIDR blocklist).
pub(crate) fn document(generation: u64, chains: &[(&str, &str)]) -> Value {
    let mut document = json!({
        "schema": "pointsman.node/v1",
        "node": "edge-1",
        "generation": generation,
        "programs": {
            "c": { "builtin": "counting-pass" },
            "u": { "builtin": "udp-port-filter" },
            "b": { "builtin": "cidr-blocklist" },
        },
        "interfaces": {},
    });
    for (interface, programs) in chains {
        document["interfaces"][interface] = json!({ "xdp": { "chain": chain(programs) } });
    }
    document
}

/// A chain of programs with one letter as name, in this order.
pub(crate) fn chain(programs: &str) -> Value {
    let entry = |(at, name): (usize, char)| json!({ "program": name, "priority": 10 + at });
    programs.chars().enumerate().map(entry).collect()
}

/// An object given inline.
pub(crate) fn inline(bytes: &str) -> Value {
    use base64::Engine as _;
    json!({ "inline": base64::engine::general_purpose::STANDARD.encode(bytes) })
}
