//! A daemon's socket, as far as a courier asks it.

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use pointsman_model::status::{Counters, HookCounters, Status};
use pointsman_model::{HookId, InterfaceId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub(crate) struct Daemon {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    status: Mutex<Status>,
    counters: Mutex<Counters>,
    last: watch::Sender<u64>,
}

/// A status as of a daemon that has nothing to do.
pub(crate) fn status(generation: Option<u64>) -> Status {
    serde_json::from_value(json!({"version": "0.1.0", "pid": 7, "uptime_seconds": 1,
        "node": "edge-1", "generation": generation, "drained": false, "document": "node.json",
        "refused_document": null, "hooks": [], "foreign": [], "refusals": [], "notes": []}))
    .unwrap()
}

pub(crate) fn counters(packets: u64) -> Counters {
    let hook: HookCounters = serde_json::from_value(
        json!({"hook": HookId::xdp("eth0".parse::<InterfaceId>().unwrap()), "programs": [],
        "passed_end": packets}),
    )
    .unwrap();
    Counters { at_unix_ms: 1, hooks: vec![hook] }
}

impl Daemon {
    pub(crate) fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let shared = Arc::new(Shared {
            status: Mutex::new(status(None)),
            counters: Mutex::new(counters(0)),
            last: watch::Sender::new(10),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        let app = Router::new()
            .route("/v1/status", get(get_status))
            .route("/v1/counters", get(get_counters))
            .route("/v1/events", get(get_events))
            .with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { shared, runtime: Some(runtime) }
    }

    /// A document has come into force.
    pub(crate) fn takes(&self, generation: u64) {
        self.shared.status.lock().unwrap().generation = Some(generation);
        self.shared.last.send_modify(|last| *last += 1);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

async fn get_status(State(shared): State<Arc<Shared>>) -> Json<Status> {
    let mut status = shared.status.lock().unwrap();
    status.uptime_seconds += 1;
    Json(status.clone())
}

async fn get_counters(State(shared): State<Arc<Shared>>) -> Json<Counters> {
    let mut counters = shared.counters.lock().unwrap();
    counters.at_unix_ms += 1000;
    Json(counters.clone())
}

async fn get_events(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, u64>>,
) -> Json<Value> {
    let mut last = shared.last.subscribe();
    if let (Some(&after), Some(&wait)) = (query.get("after"), query.get("wait_seconds")) {
        let changed = last.wait_for(|last| *last > after);
        let _ = tokio::time::timeout(Duration::from_secs(wait), changed).await;
    }
    let last = *last.borrow();
    // A kind that this courier has never heard of.
    let event = json!({"sequence": last, "at_unix_ms": 1, "kind": "of_a_later_version",
        "message": "x"});
    Json(json!({"events": [event], "last": last}))
}
