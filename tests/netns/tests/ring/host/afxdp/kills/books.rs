//! What the kernel has of the test, and what the daemon says of it.

use super::super::Stage;
use super::crowd::Held;
use pointsman_bpf::PORTS_OF_INSTANCES;
use pointsman_bpf::sockets::{Owners, Ports, QUEUES};
use pointsman_netns::census::{self, Census};
use pointsman_netns::object;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The operator's own member of the chain.
pub(super) const ENTRY: &str = "arm";
/// How long the kernel may take to free what nobody holds: after a grace period, on a work queue.
const PATIENCE: Duration = Duration::from_secs(20);

/// What there has to be, kill after kill.
pub(super) struct Books {
    census: Census,
    /// The program on `v1`, which nobody replaces.
    program: u32,
    maps: BTreeMap<String, u32>,
    /// What the kernel has of the test.
    held: census::Held,
    pins: Vec<PathBuf>,
    /// The number of each client's connection, which is in the name of its map.
    connections: BTreeMap<String, u64>,
    /// The kernel's number of each client's map of sockets, by that name.
    sockets: BTreeMap<String, u32>,
}

impl Books {
    /// Applies a document whose one member has a map by a name of this test.
    pub(super) fn new(stage: &Stage) -> Self {
        let mut census = Census::default();
        let mut timer = object("timer");
        census.mark(&mut timer, "clocks");
        let path = stage.host.path("timer.o");
        std::fs::write(&path, timer).unwrap();
        let timer = json!({"object": {"path": path}, "entry": ENTRY});
        stage.daemon.apply_whole(&json!({
            "schema": "pointsman.node/v1", "node": "test", "generation": 1,
            "programs": {"timer": timer},
            "interfaces": {"v1": {"xdp": {"chain": [{"program": "timer", "priority": 5}]}}}
        }));
        let (program, maps, held) = Default::default();
        let (pins, connections, sockets) = Default::default();
        Self { census, program, maps, held, pins, connections, sockets }
    }

    /// Notes what there is while all clients are there.
    pub(super) fn open(&mut self, stage: &Stage) {
        assert_eq!(stage.entries(), [ENTRY, "mtl_dp_filter", "xsk_def_prog"]);
        self.program = attached(stage);
        self.census.adopt(self.program);
        self.held = self.census.take();
        assert_eq!((self.held.programs, self.held.links), (1, 1), "{:?}", self.held);
        let used: BTreeSet<_> = census::maps_of(self.program).unwrap().into_iter().collect();
        let named = self.census.maps().into_iter().filter(|(id, _)| used.contains(id));
        self.maps = named.map(|(id, name)| (name, id)).collect();
        self.pins = stage.host.bpffs.list().unwrap();
        for instance in &instances(stage) {
            let id = instance["id"].as_u64().unwrap();
            self.connections.insert(name_of(instance), id);
        }
        let owners = self.owners();
        self.sockets = self.named(&owners.values().copied().collect());
    }

    /// Compares what clients hold with the kernel, and with what the daemon says.
    #[track_caller]
    pub(super) fn check(&mut self, stage: &Stage, clients: &[Held], when: &str) {
        // At once: all of it was answered.
        let ports: BTreeSet<u16> = clients.iter().flat_map(|held| &held.ports).copied().collect();
        let listed = Ports::open(self.maps[PORTS_OF_INSTANCES]).unwrap().listed().unwrap();
        assert_eq!(listed, ports, "{when}: the kernel's ports");
        let mut owners = BTreeMap::new();
        for held in clients {
            let map = format!("x{:014x}", self.connections[&held.name]);
            let map = *self.sockets.get(&map).unwrap_or_else(|| panic!("{when}: no map {map}"));
            owners.extend(held.queues.iter().map(|queue| (*queue, map)));
        }
        assert_eq!(self.owners(), owners, "{when}: the kernel's owners of queues");
        assert_eq!(attached(stage), self.program, "{when}: the program that runs is the same");
        let instances = instances(stage);
        let connections = instances.iter().map(|it| (name_of(it), it["id"].as_u64().unwrap()));
        assert_eq!(connections.collect::<BTreeMap<_, _>>(), self.connections, "{when}");
        for held in clients {
            let found = instances.iter().find(|it| name_of(it) == held.name).unwrap();
            let of = &found["interfaces"];
            let wanted =
                json!([{"index": stage.index, "queues": held.queues, "ports": held.ports}]);
            assert_eq!(*of, wanted, "{when}: {}", held.name);
            assert_eq!(found["liveness"], "alive", "{when}: {}", held.name);
        }
        assert_eq!(stage.host.bpffs.list().unwrap(), self.pins, "{when}");
        // What a daemon had beside that goes with it, a moment later.
        let known: BTreeSet<u32> =
            self.maps.values().chain(self.sockets.values()).copied().collect();
        self.settle(when, |books| {
            let held = books.census.take();
            let more: Vec<_> =
                open_maps(stage.daemon.engine()).difference(&known).copied().collect();
            let wrong = held != books.held || !more.is_empty();
            wrong.then(|| format!("{held:?}, and the daemon has maps {more:?} open"))
        });
    }

    /// Nothing is left in the kernel when chain and daemon are gone.
    #[track_caller]
    pub(super) fn close(mut self, stage: Stage) {
        let Stage { daemon, host, .. } = stage;
        drop(daemon);
        assert_eq!(host.bpffs.list().unwrap(), [PathBuf::from("pointsman")]);
        self.settle("at the end", |books| {
            let (held, left) = (books.census.take(), books.census.left());
            let maps = books.census.maps();
            let sockets = maps.iter().filter(|it| books.sockets.values().any(|id| *id == it.0));
            let sockets = sockets.count();
            let wrong = held != census::Held::default() || left + sockets > 0;
            wrong.then(|| format!("{held:?}, {left} maps of chains and {sockets} of sockets"))
        });
    }

    /// Waits until nothing is wrong. No event tells when the kernel has freed something.
    #[track_caller]
    fn settle(&mut self, when: &str, mut wrong: impl FnMut(&mut Self) -> Option<String>) {
        let start = Instant::now();
        while let Some(wrong) = wrong(self) {
            assert!(start.elapsed() < PATIENCE, "{when}: {wrong}; expected {:?}", self.held);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Which map of sockets feeds a queue, where one does that is not everybody's.
    fn owners(&self) -> BTreeMap<u32, u32> {
        let owners = Owners::open(self.maps["owners"]).unwrap();
        let owner = |queue| Some((queue, owners.number(queue).unwrap()?));
        (0..QUEUES).filter_map(owner).collect()
    }

    fn named(&self, maps: &BTreeSet<u32>) -> BTreeMap<String, u32> {
        let all = self.census.maps().into_iter().filter(|(id, _)| maps.contains(id));
        all.map(|(id, name)| (name, id)).collect()
    }
}

/// The kernel's number of the program on `v1`.
fn attached(stage: &Stage) -> u32 {
    let link = stage.pair.right.ip_json(&["-details", "link", "show", "v1"]).unwrap();
    let id = link[0]["xdp"]["prog"]["id"].as_u64();
    id.and_then(|id| u32::try_from(id).ok()).unwrap_or_else(|| panic!("{link:#}"))
}

/// What `pointsman instances --json` says, once somebody is there to say it.
#[track_caller]
fn instances(stage: &Stage) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let answer = stage.daemon.ask(&["instances"], b"");
        if answer.code == 0 {
            return answer.value["instances"].as_array().unwrap().clone();
        }
        assert!(start.elapsed() < PATIENCE, "{answer:#?}");
    }
}

fn name_of(instance: &Value) -> String {
    instance["claimed"]["hostname"].as_str().unwrap_or_default().to_owned()
}

/// The maps that a process has open, by the kernel's numbers.
fn open_maps(process: u32) -> BTreeSet<u32> {
    let files = std::fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten();
    // One that was closed meanwhile is none.
    let texts = files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let id = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok())
    };
    texts.filter_map(id).collect()
}
