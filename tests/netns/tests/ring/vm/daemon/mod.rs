//! The daemon beside the packaged libxdp, on one interface.

mod beside;
mod bounds;
mod card_kills;
mod cards;
mod glass;
mod instances;
mod interfaces;
mod kills;
mod lists;
mod policy;
mod queues;
mod repairs;
mod sockets;
mod told;

use pointsman_netns::daemon::{Daemon, Host};
use pointsman_netns::dispatcher::{Stage, path, rows, text, well};
use pointsman_netns::netns::Pair;
use pointsman_netns::object_path;
use pointsman_netns::packets::Frame;
use pointsman_netns::random::full;
use serde_json::{Value, json};
use std::sync::Arc;

/// A host whose daemon looks at it only when something tells it to, and a veth pair.
struct Scene {
    // Dropped first: it looks at the others.
    daemon: Daemon,
    host: Host,
    stage: Stage,
}

impl Scene {
    /// One; `None`, and a line in the summary, where the kernel refuses freplace.
    fn set(test: &str) -> Option<Self> {
        Self::on(test, Pair::new)
    }

    /// One on a pair of another kind.
    fn on<E: std::fmt::Debug>(test: &str, pair: impl FnOnce() -> Result<Pair, E>) -> Option<Self> {
        let host = Host::told().expect("root");
        let stage = Stage::set_on(test, || Arc::clone(&host.bpffs), pair)?;
        let daemon = host.start(&stage.pair.right).expect("a daemon");
        Some(Self { daemon, host, stage })
    }

    /// One that runs a chain.
    fn running(test: &str, document: &Value) -> Option<Self> {
        let scene = Self::set(test)?;
        scene.daemon.apply_whole(document);
        Some(scene)
    }

    /// One for a test that is left to full runs.
    fn long(test: &str) -> Option<Self> {
        if full() {
            return Self::set(test);
        }
        pointsman_netns::skip(test, "takes long in an emulated machine: cargo xtask test --full");
        None
    }

    /// Ends the daemon as `end` does, and starts it again.
    fn restarted(self, end: impl FnOnce(Daemon)) -> Self {
        let Self { daemon, host, stage } = self;
        end(daemon);
        let daemon = host.start(&stage.pair.right).expect("a daemon");
        Self { daemon, host, stage }
    }

    /// Loads a program of the test object with the packaged tool.
    #[track_caller]
    fn load(&self, priority: u32, entry: &str, actions: &str) {
        let (priority, object) = (priority.to_string(), path("verdict"));
        let load = ["load", "-P", &priority, "-A", actions, "-n", entry, "v1", &object];
        well(&self.stage.xdp_loader(&load));
    }

    /// Removes a program with the packaged tool.
    #[track_caller]
    fn unload(&self, id: u32) {
        well(&self.stage.xdp_loader(&["unload", "v1", "--id", &id.to_string()]));
    }

    #[track_caller]
    fn theirs(&self, arguments: &[&str]) {
        well(&self.stage.xdp_loader(arguments));
    }

    /// What the packaged tool prints.
    fn their_status(&self) -> String {
        text(&self.stage.xdp_loader(&["status", "v1"]).stdout)
    }

    /// Priority and name of all programs in order. Theirs and ours must say the same.
    #[track_caller]
    fn order(&self) -> Vec<(u32, String)> {
        let short = |rows: Vec<(u32, String, String)>| -> Vec<_> {
            rows.into_iter().map(|(priority, name, _)| (priority, name)).collect()
        };
        let (theirs, ours) = (short(rows(&self.their_status())), short(self.stage.ours()));
        assert_eq!(theirs, ours);
        let status = self.daemon.peek();
        let programs =
            status["hooks"][0]["dispatcher"]["programs"].as_array().expect("programs").iter();
        let told: Vec<_> = programs.map(|p| (p["priority"].clone(), p["name"].clone())).collect();
        let wanted: Vec<_> = ours.iter().map(|(at, name)| (json!(at), json!(name))).collect();
        assert_eq!(told, wanted, "the daemon's status");
        ours
    }

    /// The kernel's ids of all programs in the dispatcher of this name.
    #[track_caller]
    fn ids(&self, name: &str) -> Vec<u32> {
        let chain = self.stage.chain();
        chain.components.iter().filter(|c| c.name == name).map(|c| c.id).collect()
    }

    /// What the dispatcher answers for a datagram to this port.
    #[track_caller]
    fn verdict(&self, port: u16) -> u32 {
        self.stage.verdict(&datagram(port))
    }

    /// Waits until what somebody changed is put right, for so many times in all.
    #[track_caller]
    fn repaired(&self, kind: &str, repairs: u32) -> Value {
        let hook = self.daemon.hook_until("repair", |hook| {
            let drift = &hook["drift"];
            (&drift["repairs"], &drift["repaired"]) == (&json!(repairs), &json!(true))
        });
        assert_eq!(hook["drift"]["kind"], kind, "{hook:#}");
        assert_eq!(hook["state"], "running", "{hook:#}");
        hook
    }

    /// How many packets a program of ours saw.
    #[track_caller]
    fn runs(&self, program: &str) -> u64 {
        let counters = self.daemon.ask(&["counters"], b"").value;
        let programs = counters["hooks"][0]["programs"].as_array().expect("programs");
        let found = programs.iter().find(|p| p["program"] == program).expect("the program");
        found["runs"].as_u64().expect("a number")
    }
}

fn datagram(port: u16) -> Vec<u8> {
    let from = "192.0.2.1:1000".parse().expect("an address");
    let to = std::net::SocketAddr::from(([192, 0, 2, 2], port));
    Frame::udp(from, to).payload(&[0; 64]).build()
}

/// A document with programs, and what `v1` has under `xdp`.
fn document(generation: u64, programs: &Value, xdp: &Value) -> Value {
    json!({
        "schema": "pointsman.node/v1", "node": "test", "generation": generation,
        "programs": programs, "interfaces": {"v1": {"xdp": xdp}}
    })
}

/// A program of a test object.
fn program(entry: &str) -> Value {
    json!({"object": {"path": object_path("verdict")}, "entry": entry})
}

/// A program that drops datagrams to one port and passes the rest.
fn dropping(port: u16) -> Value {
    let mut dropping = program("v_port");
    dropping["globals"] = json!({"port": port, "port_verdict": 1});
    dropping
}

const DROP: u32 = 1;
const PASS: u32 = 2;
