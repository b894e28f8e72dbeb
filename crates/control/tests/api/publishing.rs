use crate::common::{Service, refused, run};
use pointsman_control::publish::Automatic;
use pointsman_model::NodeName;
use pointsman_model::fleet::{Cause, Page, PolicyDiff, PublishReport, Snapshot};
use pointsman_snapshot::record::Record;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

fn counter(priority: u32) -> Value {
    json!({"selector": {"all": true}, "interface": "eth0",
        "chain": [{"program": "builtin:counting-pass", "priority": priority}]})
}

async fn publish(service: &Service, request: Value) -> PublishReport {
    let response = service.post("/v1/publish", &request).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

/// What is published by itself fails where nobody looks.
#[test]
fn that_publishing_fails_is_seen() {
    run(async {
        let service = Service::start().await;
        service.invite("edge-1").await;
        let publish = async || service.post("/v1/publish", &json!({})).await.status();
        let metric = async |line: &str| {
            let text = service.get("/metrics").await.text().await.unwrap();
            assert!(text.contains(line), "{line} in {text}");
        };
        metric("pointsman_control_publish_failures 0").await;
        metric("pointsman_control_publish_success_timestamp_seconds 0").await;
        assert_eq!(publish().await, StatusCode::OK);
        let standing: Value = service.read("/v1/publishing").await;
        assert_eq!(standing, json!({"success_unix_ms": service.now()}));
        let well = service.now();
        let latest = service.blobs().join("latest");
        let text = std::fs::read_to_string(&latest).unwrap();
        std::fs::write(&latest, text.replace("\"test\"", "\"other\"")).unwrap();
        for times in 1..=2 {
            service.pass(1_000);
            assert_eq!(publish().await, StatusCode::CONFLICT);
            let standing: Value = service.read("/v1/publishing").await;
            assert_eq!(standing["success_unix_ms"], well);
            let trouble = &standing["trouble"];
            assert_eq!(trouble["since_unix_ms"], well + 1_000);
            assert_eq!(
                (&trouble["last_unix_ms"], &trouble["times"]),
                (&json!(service.now()), &json!(times))
            );
            assert!(trouble["message"].as_str().unwrap().contains("the fleet other"), "{trouble}");
        }
        metric("pointsman_control_publish_failures 2").await;
        std::fs::write(&latest, text).unwrap();
        assert_eq!(publish().await, StatusCode::OK);
        let standing: Value = service.read("/v1/publishing").await;
        assert_eq!(standing, json!({"success_unix_ms": service.now()}));
        metric("pointsman_control_publish_failures 0").await;
        let seconds = service.now() / 1000;
        metric(&format!("pointsman_control_publish_success_timestamp_seconds {seconds}")).await;
    });
}

#[test]
fn what_operators_decide_is_shown_published_and_looked_at() {
    run(async {
        let service = Service::start().await;
        service.invite("edge-1").await;
        let created = service.put("/v1/policies/count", &counter(10), None).await;
        assert_eq!(created.status(), StatusCode::CREATED);
        refused(service.get("/v1/nodes/edge-1/record").await, 404).await;
        let page: Page<Snapshot> = service.read("/v1/snapshots").await;
        assert_eq!(page.items, []);

        let wanted: Value = service.read("/v1/nodes/edge-1/document").await;
        assert_eq!(wanted["generation"], 1);
        let dry = publish(&service, json!({"dry_run": true})).await;
        assert_eq!((dry.snapshot, dry.nodes.len()), (None, 1));
        let report = publish(&service, json!({})).await;
        let snapshot = report.snapshot.unwrap();
        assert_eq!((snapshot.number, &*snapshot.by), (1, "admin"));
        assert_eq!(service.read::<Snapshot>("/v1/snapshots/1").await, snapshot);
        let page: Page<Snapshot> = service.read("/v1/snapshots?limit=1").await;
        assert_eq!(page.items, [snapshot]);
        refused(service.get("/v1/snapshots/2").await, 404).await;
        refused(service.get("/v1/snapshots/x").await, 400).await;

        let response = service.get("/v1/nodes/edge-1/record").await;
        assert_eq!(response.headers()["etag"], "\"1\"");
        let record = response.bytes().await.unwrap();
        let node = NodeName::new("edge-1").unwrap();
        let verified = Record::parse(&record).unwrap();
        let publisher = &service.app.publisher;
        let verified = verified.verify(publisher.public_key(), publisher.fleet(), &node).unwrap();
        let document: Value = serde_json::from_slice(verified.document_bytes).unwrap();
        assert_eq!(document, wanted);

        // Without a body it is a plain publish.
        let bare = service.by(&service.admin, Method::POST, "/v1/publish").send().await.unwrap();
        assert_eq!(bare.json::<PublishReport>().await.unwrap().unchanged, 1);
        for wrong in [json!({"dry": true}), json!({"dry_run": 1}), json!([])] {
            let status = service.post("/v1/publish", &wrong).await.status();
            assert!(status.is_client_error(), "{wrong}: {status}");
        }

        let path = "/v1/policies/count/diff";
        let diff: PolicyDiff = service.post(path, &counter(11)).await.json().await.unwrap();
        assert!(diff.policy.contains("+      \"priority\": 11"), "{}", diff.policy);
        assert_eq!((diff.nodes.len(), diff.nodes[0].generation), (1, Some(2)));
        let diff: PolicyDiff = service.post(path, &Value::Null).await.json().await.unwrap();
        assert_eq!(serde_json::to_value(diff.nodes[0].outcome).unwrap(), "would_empty");
        let mut missing = counter(1);
        missing["chain"][0]["program"] = json!("missing");
        let problem = refused(service.post(path, &missing).await, 422).await;
        assert_eq!(problem.errors[0].pointer, "/chain/0/program");
    });
}

#[test]
fn policies_that_do_not_go_together_are_told_where_a_document_is_asked_for() {
    run(async {
        let service = Service::start().await;
        service.invite("edge-1").await;
        service.put("/v1/policies/a", &counter(10), None).await;
        service.put("/v1/policies/b", &counter(11), None).await;
        let problem = refused(service.get("/v1/nodes/edge-1/document").await, 422).await;
        assert_eq!(problem.errors[0].pointer, "/policies/b/chain/0");
        refused(service.get("/v1/nodes/edge-2/document").await, 404).await;
        let report = publish(&service, json!({})).await;
        assert_eq!(report.nodes[0].errors, problem.errors);
    });
}

#[test]
fn who_may_look_may_not_publish() {
    run(async {
        let service = Service::start().await;
        let viewer = service.token("v", "viewer", None).await;
        let operator = service.token("o", "operator", None).await;
        let credential = service.node("edge-1").await;
        let post = |token: &str| service.by(token, Method::POST, "/v1/publish").json(&json!({}));
        refused(post(&viewer).send().await.unwrap(), 403).await;
        refused(post(&credential).send().await.unwrap(), 403).await;
        assert_eq!(post(&operator).send().await.unwrap().status(), StatusCode::OK);
        let diff = service.by(&viewer, Method::POST, "/v1/policies/p/diff").json(&counter(1));
        assert_eq!(diff.send().await.unwrap().status(), StatusCode::OK);
    });
}

/// Waits for a snapshot of this cause.
async fn published(service: &Service, number: u64) -> Snapshot {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some((newest, true)) = service.app.db.newest_snapshot().await.unwrap()
            && newest.number >= number
        {
            return newest;
        }
        assert!(tokio::time::Instant::now() < deadline, "no snapshot {number}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn changes_are_published_by_themselves_and_never_empty_a_node() {
    run(async {
        let service = Service::start().await;
        let mut told = service.app.events.listen();
        let publisher = service.app.publisher.clone();
        let automatic = Automatic { on_change: true, interval: None };
        let running = tokio::spawn(async move { publisher.run(automatic).await });
        // What there was before it started.
        assert_eq!(published(&service, 1).await.cause, Cause::Change);
        service.invite("edge-1").await;
        service.put("/v1/policies/count", &counter(10), None).await;
        let snapshot = published(&service, 2).await;
        assert_eq!((snapshot.cause, &*snapshot.by), (Cause::Change, "control"));
        let etag = service.get("/v1/policies/count").await.headers()["etag"].clone();
        let delete = service.by(&service.admin, Method::DELETE, "/v1/policies/count");
        let deleted = delete.header("if-match", etag).send().await.unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
        service.invite("edge-2").await;
        // It is looked at when edge-2 is there; edge-1 keeps what it has.
        let before = snapshot.number;
        published(&service, before + 1).await;
        let (node, report) = (NodeName::new("edge-1").unwrap(), publish(&service, json!({})).await);
        assert_eq!(service.app.db.record(&node).await.unwrap().unwrap().state.generation, 1);
        assert_eq!(serde_json::to_value(report.nodes[0].outcome).unwrap(), "would_empty");
        running.abort();
        drop(told.next().await);
    });
}

#[test]
fn from_time_to_time_what_is_wanted_is_published() {
    run(async {
        let service = Service::start().await;
        service.invite("edge-1").await;
        let publisher = service.app.publisher.clone();
        let interval = Some(Duration::from_millis(50));
        let automatic = Automatic { on_change: false, interval };
        let running = tokio::spawn(async move { publisher.run(automatic).await });
        assert_eq!(published(&service, 1).await.cause, Cause::Interval);
        service.put("/v1/policies/count", &counter(10), None).await;
        assert_eq!(published(&service, 2).await.cause, Cause::Interval);
        running.abort();
    });
}

#[test]
fn what_nobody_needs_any_more_is_removed_in_time() {
    const MINUTE: u64 = 60_000;
    run(async {
        let service = Service::start().await;
        service.invite("edge-1").await;
        // The store's clock is the real one; this one is made to run with it.
        let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        service.pass(u64::try_from(real.as_millis()).unwrap() - service.now());
        let shards = || std::fs::read_dir(service.blobs().join("shards")).unwrap().count();
        for priority in 0..20 {
            let path = format!("/v1/policies/p{priority}");
            let mut spec = counter(priority);
            spec["chain"][0]["name"] = json!(format!("c{priority}"));
            service.put(&path, &spec, None).await;
            publish(&service, json!({})).await;
        }
        assert_eq!(shards(), 20);
        service.pass(16 * MINUTE);
        publish(&service, json!({})).await;
        assert_eq!(shards(), 8, "the last snapshots stay");
    });
}
