//! A fleet for one case: a database, a blob store in a directory, a key, and somebody who looks
//! at all that ever becomes visible.

use crate::auditor::Auditor;
use pointsman_control::clock::Clock;
use pointsman_control::db::{Actor, Db, NewProgram, Precondition};
use pointsman_control::events::Events;
use pointsman_control::publish::{PublishError, Publisher, Publishing};
use pointsman_control::store::{Store, StoreArgs};
use pointsman_model::fleet::{Cause, ObjectSummary, PublishReport, PublishRequest};
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_services::{Postgres, skip};
use pointsman_snapshot::keys::SigningKey;
use serde_json::{Value, json};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A database that a case has for itself.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    _file: Option<Arc<TempDir>>,
    _server: Option<Arc<Postgres>>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/control.db", directory.path().display());
        Self { url, _file: Some(Arc::new(directory)), _server: None }
    }

    pub(crate) fn postgres(test: &str) -> Option<Self> {
        match Postgres::shared() {
            Ok(server) => Some(Self::on(server)),
            Err(why) => {
                skip(test, why);
                None
            }
        }
    }

    pub(crate) fn on(server: Arc<Postgres>) -> Self {
        Self { url: server.database(), _file: None, _server: Some(server) }
    }
}

pub(crate) fn run(case: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(case);
}

pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) db: Db,
    pub(crate) key: SigningKey,
    pub(crate) auditor: Auditor,
    directory: TempDir,
}

pub(crate) fn ann() -> Actor {
    Actor { name: "ann".into(), from: Some("192.0.2.1".into()) }
}

pub(crate) fn fleet() -> FleetName {
    FleetName::new("lab").unwrap()
}

pub(crate) fn node(number: usize) -> NodeName {
    NodeName::new(format!("edge-{number}")).unwrap()
}

/// What a case publishes with, unless it says otherwise.
pub(crate) const PLAIN: PublishRequest = PublishRequest { dry_run: false, allow_empty: false };
pub(crate) const ALLOW_EMPTY: PublishRequest = PublishRequest { dry_run: false, allow_empty: true };
pub(crate) const DRY_RUN: PublishRequest = PublishRequest { dry_run: true, allow_empty: false };

impl Lab {
    pub(crate) async fn new(place: Place) -> Self {
        let db = Db::open(&place.url, 4).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        key.save(&directory.path().join("fleet.key")).unwrap();
        let auditor = Auditor::new(key.public_key().clone(), fleet());
        Self { place, db, key, auditor, directory }
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.directory.path().join("blobs")
    }

    /// Where the key file and the blobs are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What of the document of a node is published that [`counter`] says.
    pub(crate) fn priority_of(&self, number: usize) -> u64 {
        let (_, document) = &self.auditor.now[&node(number)];
        document["interfaces"]["eth0"]["xdp"]["chain"][0]["priority"].as_u64().unwrap()
    }

    pub(crate) fn store(&self) -> Store {
        store_in(&self.blobs())
    }

    pub(crate) fn publisher(&self) -> Publisher {
        self.publisher_to(self.store())
    }

    pub(crate) fn publisher_to(&self, store: Store) -> Publisher {
        publisher(self.db.clone(), store, self.key.clone())
    }

    /// Publishes as a process that has just started, and looks at what is visible then.
    pub(crate) async fn publish(&mut self, request: PublishRequest) -> PublishReport {
        let report = self.try_publish(&self.publisher(), request).await.unwrap();
        self.audit();
        report
    }

    pub(crate) async fn try_publish(
        &self,
        publisher: &Publisher,
        request: PublishRequest,
    ) -> Result<PublishReport, PublishError> {
        publisher.publish(request, ann(), Cause::Request).await
    }

    /// Looks at all that is visible.
    pub(crate) fn audit(&mut self) {
        let blobs = self.blobs();
        self.auditor.look(&blobs);
    }

    pub(crate) async fn enrol(&self, numbers: impl IntoIterator<Item = usize>, labels: Value) {
        let mut change = self.db.change(&ann(), 1).await.unwrap();
        for number in numbers {
            let labels = serde_json::from_value(labels.clone()).unwrap();
            let token = format!("token {number}");
            change.invite_node(&node(number), Some(labels), &token, 2).await.unwrap();
        }
        change.commit().await.unwrap();
    }

    pub(crate) async fn expel(&self, number: usize) {
        let mut change = self.db.change(&ann(), 1).await.unwrap();
        change.delete_node(&node(number), Precondition::Present).await.unwrap();
        change.commit().await.unwrap();
    }

    pub(crate) async fn policy(&self, name: &str, spec: Value) {
        set_policy(&self.db, name, spec).await;
    }

    pub(crate) async fn drop_policy(&self, name: &str) {
        let name = name.parse().unwrap();
        let mut change = self.db.change(&ann(), 1).await.unwrap();
        change.delete_policy(&name, Precondition::Present).await.unwrap();
        change.commit().await.unwrap();
    }

    pub(crate) async fn program(&self, name: &str, bytes: &[u8]) {
        let sha256 = Sha256::of(bytes);
        let summary = ObjectSummary {
            licence: "GPL".into(),
            has_btf: true,
            programs: Vec::new(),
            maps: Vec::new(),
            globals: Vec::new(),
        };
        let new = NewProgram { sha256, bytes: bytes.len() as u64, summary };
        let name = name.parse().unwrap();
        let there = self.db.program(&name).await.is_ok();
        let precondition = if there { Precondition::Present } else { Precondition::Absent };
        let mut change = self.db.change(&ann(), 1).await.unwrap();
        change.put_object(&sha256, bytes).await.unwrap();
        change.put_program(&name, new, precondition).await.unwrap();
        change.commit().await.unwrap();
    }
}

pub(crate) fn publisher(db: Db, store: Store, key: SigningKey) -> Publisher {
    let (clock, events) = (Clock::system(), Events::default());
    Publisher::new(Publishing { db, store, key, fleet: fleet(), clock, events })
}

pub(crate) async fn set_policy(db: &Db, name: &str, spec: Value) {
    let name = name.parse().unwrap();
    let there = db.policy(&name).await.is_ok();
    let precondition = if there { Precondition::Present } else { Precondition::Absent };
    let mut change = db.change(&ann(), 1).await.unwrap();
    let spec = serde_json::from_value(spec).unwrap();
    change.put_policy(&name, spec, precondition).await.unwrap();
    change.commit().await.unwrap();
}

pub(crate) fn store_in(directory: &Path) -> Store {
    StoreArgs::default().open(directory).unwrap()
}

/// A policy for all nodes: a counter on `interface` with this priority.
pub(crate) fn counter(interface: &str, priority: u32) -> Value {
    json!({
        "selector": {"all": true}, "interface": interface,
        "chain": [{"program": "builtin:counting-pass", "priority": priority}],
    })
}

/// The nodes of a report with what becomes of them.
pub(crate) fn outcomes(report: &PublishReport) -> Vec<String> {
    let told = |change: &pointsman_model::fleet::NodeChange| {
        let outcome = serde_json::to_value(change.outcome).unwrap();
        let generation = change.generation.unwrap_or(0);
        format!("{} {} {generation}", change.node, outcome.as_str().unwrap())
    };
    report.nodes.iter().map(told).collect()
}
