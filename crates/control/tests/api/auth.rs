use crate::common::{Service, courier, refused, run, status};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[test]
fn who_shows_nothing_good_is_refused() {
    run(async {
        let service = Service::start().await;
        let response = service.bare(Method::GET, "/v1/whoami").send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        refused(response, 401).await;
        let unknown = format!("pmt_{}", "a".repeat(43));
        for wrong in ["", "x", "pmt_", &unknown, "pmc_x", "'; drop table tokens; --", "\u{1f4a3}"] {
            let response = service.by(wrong, Method::GET, "/v1/whoami").send().await.unwrap();
            refused(response, 401).await;
        }
        let basic = service.bare(Method::GET, "/v1/whoami").basic_auth("admin", Some("x"));
        refused(basic.send().await.unwrap(), 401).await;
        let who: Value = service.read("/v1/whoami").await;
        let key = service.app.publisher.public_key();
        let (id, public_key) = (key.key_id(), key.to_base64());
        let expected = json!({"name": "admin", "role": "admin", "fleet": "test", "key_id": id,
            "public_key": public_key});
        assert_eq!(who, expected);
    });
}

#[test]
fn whom_a_proxy_asks_for_is_in_the_trail_and_has_an_allowance_of_his_own() {
    run(async {
        let service = Service::start().await;
        let by = |from: &'static str, token: &str| {
            let request = service.by(token, Method::POST, "/v1/enrolments");
            request.header("x-forwarded-for", from).json(&json!({"node": "edge-1"}))
        };
        let invited = by("10.9.9.9, 203.0.113.5", &service.admin).send().await.unwrap();
        assert_eq!(invited.status(), StatusCode::CREATED);
        let trail: Value = service.read("/v1/audit?object=node%20edge-1").await;
        assert_eq!(trail["items"][0]["from"], "203.0.113.5");
        let mut answers = Vec::new();
        for number in 0..25 {
            let response = by("203.0.113.66", &format!("pmt_{number:043}")).send().await.unwrap();
            answers.push(response.status().as_u16());
        }
        assert_eq!((answers[0], answers[24]), (401, 429));
        let response = by("203.0.113.67", &format!("pmt_{:043}", 99)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn each_role_may_do_what_is_its_own_and_what_those_below_may() {
    run(async {
        let service = Service::start().await;
        let spec = json!({"selector": {"all": true}, "interface": "eth0", "chain": []});
        let viewer = service.token("v", "viewer", None).await;
        let operator = service.token("o", "operator", None).await;
        let credential = service.node("edge-1").await;
        let requests = [
            (Method::GET, "/v1/policies", None, "viewer"),
            (Method::GET, "/v1/programs", None, "viewer"),
            (Method::GET, "/v1/nodes", None, "viewer"),
            (Method::GET, "/v1/audit", None, "viewer"),
            (Method::GET, "/metrics", None, "viewer"),
            (Method::PUT, "/v1/policies/p", Some(spec), "operator"),
            (Method::PATCH, "/v1/nodes/edge-1", Some(json!({"labels": {}})), "operator"),
            (Method::PUT, "/v1/programs/p", None, "operator"),
            (Method::DELETE, "/v1/policies/p", None, "operator"),
            (Method::DELETE, "/v1/programs/p", None, "operator"),
            (Method::DELETE, "/v1/nodes/edge-1", None, "admin"),
            (Method::GET, "/v1/tokens", None, "admin"),
            (Method::POST, "/v1/tokens", Some(json!({"name": "n", "role": "admin"})), "admin"),
            (Method::DELETE, "/v1/tokens/v", None, "admin"),
            (Method::POST, "/v1/enrolments", Some(json!({"node": "n"})), "admin"),
        ];
        let rank = |role: &str| ["viewer", "operator", "admin"].iter().position(|r| *r == role);
        for (method, path, body, needed) in requests {
            for (token, role) in [(&viewer, "viewer"), (&operator, "operator")] {
                if rank(role) >= rank(needed) {
                    continue;
                }
                let mut request = service.by(token, method.clone(), path);
                if let Some(body) = &body {
                    request = request.json(body);
                }
                let problem = refused(request.send().await.unwrap(), 403).await;
                assert!(problem.title.contains(&format!("needs the role {needed}")), "{problem:?}");
            }
            // A node's credential is no API token, whatever is asked for.
            let request = service.by(&credential, method, path);
            refused(request.send().await.unwrap(), 403).await;
        }
        for token in [&viewer, &service.admin] {
            let report = json!({"courier": courier(), "status": status(1)});
            refused(service.report(token, &report).await, 403).await;
        }
        // Nothing came of any of it.
        assert_eq!(service.read::<Value>("/v1/policies").await["items"], json!([]));
    });
}

#[test]
fn tokens_end_by_time_and_by_revocation_at_once() {
    run(async {
        let service = Service::start().await;
        let short = service.token("short", "viewer", Some(60)).await;
        let whoami =
            async |token: &str| service.by(token, Method::GET, "/v1/whoami").send().await.unwrap();
        service.pass(59_999);
        assert_eq!(whoami(&short).await.status(), StatusCode::OK);
        service.pass(1);
        let problem = refused(whoami(&short).await, 401).await;
        assert!(problem.title.contains("expired"), "{problem:?}");

        let other = service.token("other", "admin", None).await;
        assert_eq!(whoami(&other).await.status(), StatusCode::OK);
        let revoke = async |name: &str| {
            let path = format!("/v1/tokens/{name}");
            service.by(&service.admin, Method::DELETE, &path).send().await.unwrap()
        };
        assert_eq!(revoke("other").await.status(), StatusCode::NO_CONTENT);
        let problem = refused(whoami(&other).await, 401).await;
        assert!(problem.title.contains("revoked"), "{problem:?}");
        // Nobody locks himself out by accident.
        refused(revoke("admin").await, 409).await;
        refused(revoke("nobody").await, 404).await;
        // A name is one holder's for ever.
        let again = service.post("/v1/tokens", &json!({"name": "other", "role": "viewer"})).await;
        refused(again, 409).await;
        let wrong = json!({"name": "x", "role": "viewer", "ttl_seconds": 0});
        let problem = refused(service.post("/v1/tokens", &wrong).await, 422).await;
        assert_eq!(problem.errors[0].pointer, "/ttl_seconds");

        let listed: Value = service.read("/v1/tokens").await;
        let text = listed.to_string();
        assert!(!text.contains("pmt_") && !text.contains("hash"), "{text}");
        let names: Vec<_> =
            listed["items"].as_array().unwrap().iter().map(|token| &token["name"]).collect();
        assert_eq!(names, ["admin", "other", "short"]);
    });
}

#[test]
fn who_guesses_is_not_listened_to_and_who_is_known_still_is() {
    run(async {
        let service = Service::start().await;
        let known = service.token("known", "viewer", None).await;
        let unused = service.token("unused", "viewer", None).await;
        let whoami =
            async |token: &str| service.by(token, Method::GET, "/v1/whoami").send().await.unwrap();
        assert_eq!(whoami(&known).await.status(), StatusCode::OK);
        let mut answers = Vec::new();
        for guess in 0..40 {
            let guess = format!("pmt_{guess:043}");
            answers.push(whoami(&guess).await.status().as_u16());
        }
        assert_eq!(answers[0], 401);
        assert_eq!(answers.last(), Some(&429));
        let response = whoami(&format!("pmt_{:043}", 41)).await;
        let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=7).contains(&wait));
        // Also the right answer is no answer now, but for who gave it before.
        refused(whoami(&unused).await, 429).await;
        assert_eq!(whoami(&known).await.status(), StatusCode::OK);
        // Nor may one-time tokens be guessed.
        refused(service.enrol(&format!("pme_{:043}", 1)).await, 429).await;
        refused(service.enrol("x").await, 429).await;
    });
}
