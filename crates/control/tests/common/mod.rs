//! A control plane in this process, with a clock that tests turn.

#![allow(dead_code, reason = "each test binary uses its part")]

use pointsman_control::api;
use pointsman_control::app::{App, Parts};
use pointsman_control::auth::Throttle;
use pointsman_control::blobs::Blobs;
use pointsman_control::clock::Clock;
use pointsman_control::db::Db;
use pointsman_control::events::Events;
use pointsman_control::inspect::{Inspector, VERB};
use pointsman_control::intake::Intake;
use pointsman_control::metrics::Metrics;
use pointsman_control::publish::{Publisher, Publishing, key};
use pointsman_control::service::first_token;
use pointsman_control::store::StoreArgs;
use pointsman_model::FleetName;
use pointsman_model::api::Problem;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// When tests begin.
pub(crate) const START: u64 = 1_700_000_000_000;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pointsman-control");

pub(crate) struct Service {
    pub(crate) app: App,
    pub(crate) url: String,
    /// An administrator's.
    pub(crate) admin: String,
    now: Arc<AtomicU64>,
    client: Client,
    directory: TempDir,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with(Inspector::new(PROGRAM, [VERB], Duration::from_secs(60))).await
    }

    pub(crate) async fn with(inspector: Inspector) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/control.db", directory.path().display());
        Self::on(&url, inspector, directory).await
    }

    pub(crate) async fn on(database: &str, inspector: Inspector, directory: TempDir) -> Self {
        Self::made(database, inspector, directory, false).await
    }

    /// As if it were reached by TLS.
    pub(crate) async fn secure() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/control.db", directory.path().display());
        let inspector = Inspector::new(PROGRAM, [VERB], Duration::from_secs(60));
        Self::made(&url, inspector, directory, true).await
    }

    async fn made(database: &str, inspector: Inspector, directory: TempDir, secure: bool) -> Self {
        let now = Arc::new(AtomicU64::new(START));
        let db = Db::open(database, 4).await.unwrap();
        let admin = first_token(&db, START).await.unwrap().unwrap().secret;
        let events = Events::default();
        let clock = Clock::new({
            let now = now.clone();
            move || now.load(Ordering::SeqCst)
        });
        let key_file = directory.path().join("fleet.key");
        let key = key::load(&db, &key_file, START).await.unwrap();
        let store = StoreArgs::default().open(&directory.path().join("blobs")).unwrap();
        let fleet = FleetName::new("test").unwrap();
        let publisher = Publisher::new(Publishing {
            db: db.clone(),
            store: store.clone(),
            key,
            fleet: fleet.clone(),
            clock: clock.clone(),
            events: events.clone(),
        });
        let app = App::new(Parts {
            intake: Intake::start(db.clone(), events.clone()),
            db,
            clock,
            fleet,
            publisher,
            blobs: Blobs::new(store),
            source: Some("https://blobs.example".into()),
            secure,
            proxies: vec!["127.0.0.1".parse().unwrap()],
            events,
            throttle: Throttle::default(),
            inspector,
            metrics: Metrics::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = api::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().unwrap();
        Self { app, url, admin, now, client, directory }
    }

    /// The blob store's directory.
    pub(crate) fn blobs(&self) -> std::path::PathBuf {
        self.directory.path().join("blobs")
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    /// A request of nobody.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// A request of who has the token.
    pub(crate) fn by(&self, token: &str, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(token)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.by(&self.admin, Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, path: &str) -> T {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.by(&self.admin, Method::POST, path).json(body).send().await.unwrap()
    }

    pub(crate) async fn put(
        &self,
        path: &str,
        body: &Value,
        condition: Option<(&str, &str)>,
    ) -> Response {
        let mut request = self.by(&self.admin, Method::PUT, path).json(body);
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    }

    /// A new token.
    pub(crate) async fn token(&self, name: &str, role: &str, ttl: Option<u64>) -> String {
        let body = json!({"name": name, "role": role, "ttl_seconds": ttl});
        let response = self.post("/v1/tokens", &body).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json::<Value>().await.unwrap()["secret"].as_str().unwrap().to_owned()
    }

    /// A one-time token for a node.
    pub(crate) async fn invite(&self, node: &str) -> String {
        let response = self.post("/v1/enrolments", &json!({"node": node})).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json::<Value>().await.unwrap()["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn enrol(&self, token: &str) -> Response {
        let request = self.bare(Method::POST, "/v1/enrol").json(&json!({"token": token}));
        request.send().await.unwrap()
    }

    /// A node's credential.
    pub(crate) async fn node(&self, name: &str) -> String {
        let response = self.enrol(&self.invite(name).await).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json::<Value>().await.unwrap()["credential"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn report(&self, credential: &str, report: &Value) -> Response {
        self.by(credential, Method::PUT, "/v1/report").json(report).send().await.unwrap()
    }
}

/// A problem, which says its status twice.
pub(crate) async fn problem(response: Response) -> Problem {
    let status = response.status();
    let content_type = response.headers()["content-type"].clone();
    let text = response.text().await.unwrap();
    assert_eq!(content_type, "application/problem+json", "{status} {text}");
    let problem: Problem = serde_json::from_str(&text).unwrap();
    assert_eq!(problem.status, status.as_u16());
    assert!(!problem.title.is_empty() && !problem.title.contains('\n'), "{problem:?}");
    problem
}

/// A refusal with this status.
pub(crate) async fn refused(response: Response, status: u16) -> Problem {
    let problem = problem(response).await;
    assert_eq!(problem.status, status, "{problem:?}");
    problem
}

/// A daemon's status.
pub(crate) fn status(generation: u64) -> Value {
    json!({"version": "1.2.3", "pid": 1, "uptime_seconds": 5, "node": "edge-1",
        "generation": generation, "drained": false, "document": "/d", "refused_document": null,
        "hooks": [], "foreign": [], "refusals": [], "notes": []})
}

/// A courier's part of a report.
pub(crate) fn courier() -> Value {
    json!({"version": "1.2.3", "poll_interval_ms": 10_000})
}

pub(crate) fn run(case: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(case);
}
