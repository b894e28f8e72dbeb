use crate::common::{Service, courier, refused, run, status};
use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn health_and_description_are_for_everybody_and_counters_are_not() {
    run(async {
        let service = Service::start().await;
        let response = service.bare(Method::GET, "/healthz").send().await.unwrap();
        assert_eq!(
            (response.status(), response.text().await.unwrap()),
            (StatusCode::OK, "ok\n".into())
        );
        let api: Value =
            service.bare(Method::GET, "/openapi.json").send().await.unwrap().json().await.unwrap();
        assert!(api["paths"]["/v1/policies/{name}"]["put"].is_object());
        refused(service.bare(Method::GET, "/metrics").send().await.unwrap(), 401).await;

        let credential = service.node("edge-1").await;
        service.invite("edge-2").await;
        let report = json!({"courier": courier(), "status": status(7)});
        assert_eq!(service.report(&credential, &report).await.status(), StatusCode::NO_CONTENT);
        refused(service.get("/v1/nodes/x/made/up").await, 404).await;
        let text = service.get("/metrics").await.text().await.unwrap();
        for line in [
            "pointsman_control_reports_total 1",
            "pointsman_control_nodes{health=\"well\"} 1",
            "pointsman_control_nodes{health=\"new\"} 1",
            "pointsman_control_nodes{health=\"failing\"} 0",
            "pointsman_control_unauthorized_total 1",
            "pointsman_control_requests_total{method=\"PUT\",route=\"/v1/report\",status=\"204\"} 1",
            "route=\"other\",status=\"404\"",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    });
}

/// Every operation says what it answers, and problems are part of it.
#[test]
fn the_description_is_whole() {
    let api: Value = serde_json::from_str(&pointsman_control::api::openapi_json()).unwrap();
    let mut operations = 0;
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let told = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{told}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{told}");
            assert!(path == "/openapi.json" || responses.contains_key("default"), "{told}");
            for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    parameters.iter().any(|p| p["name"] == name && p["in"] == "path"),
                    "{told}"
                );
            }
        }
    }
    assert!(operations >= 20, "{operations}");
}

#[test]
fn who_listens_is_told_what_happens_until_the_service_ends() {
    run(async {
        let service = Service::start().await;
        refused(service.bare(Method::GET, "/v1/events").send().await.unwrap(), 401).await;
        let response = service.get("/v1/events").await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = response.bytes_stream();
        let mut told = String::new();
        let credential = service.node("edge-1").await;
        let report = json!({"courier": courier(), "status": status(7)});
        for _ in 0..3 {
            assert_eq!(service.report(&credential, &report).await.status(), StatusCode::NO_CONTENT);
        }
        let patience = Duration::from_secs(60);
        while !told.contains("event: node\ndata: edge-1\n") {
            let chunk = tokio::time::timeout(patience, stream.next()).await.unwrap();
            told += std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap();
        }
        assert!(told.contains("event: changed\ndata: node edge-1\n"), "{told}");
        service.app.events.end();
        let rest = tokio::time::timeout(patience, stream.collect::<Vec<_>>()).await.unwrap();
        assert!(rest.into_iter().all(|chunk| chunk.is_ok()));
    });
}

#[test]
fn who_may_not_look_any_more_is_told_nothing_more() {
    run(async {
        let service = Service::start().await;
        let viewer = service.token("eyes", "viewer", None).await;
        let request = service.by(&viewer, Method::GET, "/v1/events");
        let mut stream = request.send().await.unwrap().bytes_stream();
        let patience = Duration::from_secs(60);
        service.node("edge-1").await;
        let mut told = String::new();
        while !told.contains("data: node edge-1\n") {
            let chunk = tokio::time::timeout(patience, stream.next()).await.unwrap();
            told += std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap();
        }
        let revoke = service.by(&service.admin, Method::DELETE, "/v1/tokens/eyes");
        assert_eq!(revoke.send().await.unwrap().status(), StatusCode::NO_CONTENT);
        service.node("edge-2").await;
        let rest = tokio::time::timeout(patience, stream.collect::<Vec<_>>()).await.unwrap();
        let rest: Vec<u8> = rest.into_iter().flat_map(|chunk| chunk.unwrap()).collect();
        assert!(!String::from_utf8(rest).unwrap().contains("edge-2"));
    });
}
