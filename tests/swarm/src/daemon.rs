//! A daemon that only says how it stands.

use pointsman_courier::{Look, Node, NodeError};
use pointsman_model::status::{Counters, Status};
use serde_json::json;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Daemon(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    look: Look,
    /// Whether packets flow: then counters differ each time.
    busy: bool,
}

impl Daemon {
    pub(crate) fn new(node: &str) -> Self {
        let look = Look { status: status(node), counters: counters() };
        Self(Arc::new(Mutex::new(State { look, busy: true })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A generation is in force from now on.
    pub(crate) fn takes(&self, generation: Option<u64>) {
        let status = &mut self.state().look.status;
        status.generation = generation;
        for hook in &mut status.hooks {
            hook.generation = generation;
        }
    }

    /// No packet comes any more.
    pub(crate) fn rests(&self) {
        self.state().busy = false;
    }
}

impl Node for Daemon {
    async fn look(&mut self) -> Result<Look, NodeError> {
        let mut state = self.state();
        if state.busy {
            let hooks = &mut state.look.counters.hooks;
            for program in hooks.iter_mut().flat_map(|hook| &mut hook.programs) {
                program.runs += 1_000;
                program.verdicts.pass += 1_000;
            }
        }
        Ok(state.look.clone())
    }

    async fn event(&mut self, after: Option<u64>) -> Result<u64, NodeError> {
        match after {
            None => Ok(0),
            // Nothing ever happens here but what the simulation does.
            Some(_) => pending().await,
        }
    }
}

/// What a daemon with a chain of four says, as `GET /v1/status` gives it.
fn status(node: &str) -> Status {
    let member = |name: &str, priority: u32| {
        json!({"program": name, "fingerprint": "0".repeat(64), "object": "1".repeat(64),
            "source": "builtin:counting-pass", "entry": "counting_pass",
            "tag": "369377d2f1440000", "priority": priority, "chain_call_actions": ["pass"],
            "enforce": true, "form": "inlined", "runs": 0,
            "maps": "/sys/fs/bpf/pointsman/maps/0000000000000000",
            "verdicts": {"aborted": 0, "drop": 0, "pass": 0, "tx": 0, "redirect": 0, "invalid": 0}})
    };
    let members: Vec<_> = (0..4).map(|at| member(&format!("program-{at}"), at * 10)).collect();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"), "pid": 1, "uptime_seconds": 1, "node": node,
        "generation": null, "drained": false, "document": "/var/lib/pointsman/node.json",
        "refused_document": null, "foreign": [], "refusals": [], "notes": [],
        "hooks": [{"hook": {"interface": "eth0", "kind": "xdp"}, "interface_index": 2, "up": true,
            "state": "running", "engine": "fused (auto: no freplace)", "mode": "native",
            "generation": null, "fused": null, "members": members, "passed_end": 0,
            "refusals": []}],
    });
    serde_json::from_value(status).expect("invariant: a status as the daemon gives it")
}

fn counters() -> Counters {
    let program = |name: &str| {
        let verdicts =
            json!({"aborted": 0, "drop": 0, "pass": 0, "tx": 0, "redirect": 0, "invalid": 0});
        json!({"program": name, "running": true, "enforce": true, "runs": 0,
            "verdicts": verdicts, "finals": verdicts})
    };
    let programs: Vec<_> = (0..4).map(|at| program(&format!("program-{at}"))).collect();
    let counters = json!({"at_unix_ms": 1, "hooks": [
        {"hook": {"interface": "eth0", "kind": "xdp"}, "programs": programs, "passed_end": 0}]});
    serde_json::from_value(counters).expect("invariant: counters as the daemon gives them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_daemon_speaks_the_daemons_language() {
        let daemon = Daemon::new("node-1");
        daemon.takes(Some(7));
        let look = daemon.state().look.clone();
        assert_eq!(look.status.hooks[0].generation, Some(7));
        assert_eq!(look.counters.hooks[0].programs.len(), 4);
    }
}
