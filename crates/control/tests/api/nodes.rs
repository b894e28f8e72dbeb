use crate::common::{Service, courier, refused, run, status};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[test]
fn a_one_time_token_is_good_once_and_for_its_time() {
    run(async {
        let service = Service::start().await;
        let first = service.invite("edge-1").await;
        let reply: Value = service.enrol(&first).await.json().await.unwrap();
        assert_eq!((&reply["fleet"], &reply["node"]), (&json!("test"), &json!("edge-1")));
        assert_eq!(reply["source"], "https://blobs.example");
        assert!(reply["credential"].as_str().unwrap().starts_with("pmc_"));
        let problem = refused(service.enrol(&first).await, 401).await;
        assert!(problem.title.contains("used already"), "{problem:?}");

        assert_eq!(reply["public_key"], service.app.publisher.public_key().to_base64());

        let body = json!({"node": "edge-2", "ttl_seconds": 60});
        let late: Value = service.post("/v1/enrolments", &body).await.json().await.unwrap();
        assert_eq!(late["expires_unix_ms"], service.now() + 60_000);
        assert_eq!(late["key_id"], service.app.publisher.public_key().key_id());
        service.pass(60_000);
        refused(service.enrol(late["token"].as_str().unwrap()).await, 401).await;
        for ttl in [0, 31 * 86_400] {
            let body = json!({"node": "edge-2", "ttl_seconds": ttl});
            refused(service.post("/v1/enrolments", &body).await, 422).await;
        }
        // No secret is of any other use.
        for wrong in [&service.admin, reply["credential"].as_str().unwrap()] {
            refused(service.enrol(wrong).await, 401).await;
        }
    });
}

#[test]
fn two_nodes_that_claim_one_name_are_one_after_the_other() {
    run(async {
        let service = Service::start().await;
        let report = json!({"courier": courier(), "status": status(1)});
        let first = service.node("edge-1").await;
        assert_eq!(service.report(&first, &report).await.status(), StatusCode::NO_CONTENT);
        // Until another one enrols under the name, the first one is it.
        let token = service.invite("edge-1").await;
        assert_eq!(service.report(&first, &report).await.status(), StatusCode::NO_CONTENT);
        let second: Value = service.enrol(&token).await.json().await.unwrap();
        let second = second["credential"].as_str().unwrap();
        assert_eq!(service.report(second, &report).await.status(), StatusCode::NO_CONTENT);
        let problem = refused(service.report(&first, &report).await, 401).await;
        assert!(problem.title.contains("enrolled again"), "{problem:?}");
        // Whoever invites is told that the name is taken, and by whom it was heard of.
        let body = json!({"node": "edge-1"});
        let told: Value = service.post("/v1/enrolments", &body).await.json().await.unwrap();
        assert_eq!(told["seen_unix_ms"], service.now());
        assert_eq!(told["enrolled_unix_ms"], service.now());
        // Of two who have the same token, one gets in.
        let token = service.invite("edge-2").await;
        let (one, other) = tokio::join!(service.enrol(&token), service.enrol(&token));
        let mut answers = [one.status().as_u16(), other.status().as_u16()];
        answers.sort_unstable();
        assert_eq!(answers, [200, 401]);
    });
}

#[test]
fn a_status_is_of_the_node_whose_credential_it_came_with() {
    run(async {
        let service = Service::start().await;
        let (one, other) = (service.node("edge-1").await, service.node("edge-2").await);
        let report = json!({"courier": courier(), "status": status(7)});
        assert_eq!(service.report(&one, &report).await.status(), StatusCode::NO_CONTENT);
        let node = async |name: &str| {
            let node: Value = service.read(&format!("/v1/nodes/{name}")).await;
            (node["in_force"].clone(), node["health"].clone())
        };
        assert_eq!(node("edge-1").await, (json!(7), json!("well")));
        assert_eq!(node("edge-2").await, (Value::Null, json!("new")));
        refused(service.get("/v1/nodes/edge-2/status").await, 404).await;

        // Only what changed, afterwards.
        refused(service.report(&other, &json!({"courier": courier()})).await, 409).await;
        service.pass(1000);
        let more = json!({"courier": courier(), "counters": {"at_unix_ms": 5, "hooks": []}});
        assert_eq!(service.report(&one, &more).await.status(), StatusCode::NO_CONTENT);
        let told: Value = service.read("/v1/nodes/edge-1/status").await;
        assert_eq!(
            (&told["status"]["generation"], &told["counters"]["at_unix_ms"]),
            (&json!(7), &json!(5))
        );
        let mut down = courier();
        down["daemon_trouble"] = "no socket".into();
        let down = json!({"courier": down});
        assert_eq!(service.report(&one, &down).await.status(), StatusCode::NO_CONTENT);
        let node: Value = service.read("/v1/nodes/edge-1").await;
        assert_eq!(
            (&node["health"], &node["trouble"]),
            (&json!("failing"), &json!("the daemon does not answer: no socket"))
        );
        service.pass(60_000);
        let node: Value = service.read("/v1/nodes/edge-1").await;
        assert_eq!(node["health"], "silent");
        for wrong in [json!({}), json!({"courier": courier(), "status": {}}), json!([])] {
            refused(service.report(&one, &wrong).await, 422).await;
        }
    });
}

#[test]
fn nodes_are_found_by_labels_and_health_in_pages() {
    run(async {
        let service = Service::start().await;
        for (name, site) in [("a", "fra"), ("b", "ams"), ("c", "fra"), ("d", "fra")] {
            let body = json!({"node": name, "labels": {"site": site, "role": "edge"}});
            assert_eq!(service.post("/v1/enrolments", &body).await.status(), StatusCode::CREATED);
        }
        let credential = service.node("c").await;
        let report = json!({"courier": courier(), "status": status(7)});
        assert_eq!(service.report(&credential, &report).await.status(), StatusCode::NO_CONTENT);
        let names = async |query: &str| {
            let page: Value = service.read(&format!("/v1/nodes?{query}")).await;
            let items = page["items"].as_array().unwrap();
            let names: Vec<_> =
                items.iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect();
            (names.join(""), page["next"].as_str().map(str::to_owned))
        };
        assert_eq!(names("").await, ("abcd".into(), None));
        assert_eq!(names("label=site=fra").await, ("acd".into(), None));
        assert_eq!(
            names("label=site=fra&label=role=edge&limit=2").await,
            ("ac".into(), Some("c".into()))
        );
        assert_eq!(names("label=site=fra&limit=2&after=c").await, ("d".into(), None));
        assert_eq!(names("label=site=fra&label=role=core").await, (String::new(), None));
        assert_eq!(names("health=well").await, ("c".into(), None));
        assert_eq!(names("health=new&label=site=ams").await, ("b".into(), None));
    });
}

#[test]
fn labels_are_replaced_by_entity_tag_and_a_node_that_left_is_a_stranger() {
    run(async {
        let service = Service::start().await;
        let credential = service.node("edge-1").await;
        let path = "/v1/nodes/edge-1";
        let tag = async || service.get(path).await.headers()["etag"].to_str().unwrap().to_owned();
        let send = async |method: Method, tag: Option<&str>, body: Value| {
            let mut request = service.by(&service.admin, method, path).json(&body);
            if let Some(tag) = tag {
                request = request.header("if-match", tag);
            }
            request.send().await.unwrap()
        };
        let before = tag().await;
        let labels = json!({"labels": {"site": "fra"}});
        refused(send(Method::PATCH, None, labels.clone()).await, 428).await;
        let patched = send(Method::PATCH, Some(&before), labels.clone()).await;
        assert_eq!(patched.status(), StatusCode::OK);
        refused(send(Method::PATCH, Some(&before), labels.clone()).await, 412).await;
        let node: Value = service.read(path).await;
        assert_eq!(node["labels"], json!({"site": "fra"}));
        let wrong = json!({"labels": {}, "name": "edge-2"});
        let problem = refused(send(Method::PATCH, Some(&tag().await), wrong).await, 422).await;
        assert_eq!(problem.errors[0].pointer, "/name");
        let many: serde_json::Map<_, _> =
            (0..65).map(|n| (format!("k{n}"), Value::from("v"))).collect();
        refused(send(Method::PATCH, Some(&tag().await), json!({"labels": many})).await, 422).await;

        refused(send(Method::DELETE, Some(&before), Value::Null).await, 412).await;
        let gone = send(Method::DELETE, Some(&tag().await), Value::Null).await;
        assert_eq!(gone.status(), StatusCode::NO_CONTENT);
        let report = json!({"courier": courier(), "status": status(7)});
        refused(service.report(&credential, &report).await, 401).await;
        refused(service.get(path).await, 404).await;
        let trail: Value = service.read("/v1/audit?object=node%20edge-1").await;
        let verbs: Vec<_> =
            trail["items"].as_array().unwrap().iter().map(|entry| &entry["verb"]).collect();
        assert_eq!(verbs, ["delete", "update", "enrol", "invite"]);
        assert_eq!(trail["items"][2]["who"], "node edge-1");
    });
}

#[test]
fn an_invitation_changes_no_labels() {
    run(async {
        let service = Service::start().await;
        let invite = async |labels: Value| {
            let body = json!({"node": "edge-1", "labels": labels});
            service.post("/v1/enrolments", &body).await
        };
        let labels = json!({"role": "edge", "site": "fra"});
        assert_eq!(invite(labels.clone()).await.status(), StatusCode::CREATED);
        let before: Value = service.read("/v1/nodes/edge-1").await;
        for other in [json!({"role": "edge"}), json!({}), json!({"role": "edge", "site": "ams"})] {
            let problem = refused(invite(other).await, 409).await;
            assert!(problem.title.contains("the labels role=edge, site=fra"), "{problem:?}");
        }
        for same in [labels, Value::Null] {
            let response = invite(same).await;
            assert_eq!(response.status(), StatusCode::CREATED);
            let told: Value = response.json().await.unwrap();
            assert_eq!(told.get("seen_unix_ms"), None);
        }
        assert_eq!(service.read::<Value>("/v1/nodes/edge-1").await, before);
    });
}

#[test]
fn many_reports_at_a_time_are_all_kept() {
    run(async {
        let service = Service::start().await;
        let nodes: Vec<_> = (0..30).map(|number| format!("edge-{number:02}")).collect();
        let mut credentials = Vec::new();
        for name in &nodes {
            credentials.push(service.node(name).await);
        }
        let reports = credentials.iter().zip(1_u64..).map(|(credential, generation)| {
            let report = json!({"courier": courier(), "status": status(generation)});
            let service = &service;
            async move {
                let mut answers = Vec::new();
                for _ in 0..4 {
                    answers.push(service.report(credential, &report).await.status());
                }
                answers
            }
        });
        let answers = futures_util::future::join_all(reports).await.concat();
        assert!(answers.iter().all(|&answer| answer == StatusCode::NO_CONTENT), "{answers:?}");
        let page: Value = service.read("/v1/nodes").await;
        let in_force: Vec<_> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["in_force"].as_u64())
            .collect();
        assert_eq!(in_force, (1..=30).map(Some).collect::<Vec<_>>());
    });
}

#[test]
fn reports_that_are_too_large_or_too_many_are_refused_before_they_are_read() {
    run(async {
        let service = Service::start().await;
        let credential = service.node("edge-1").await;
        let send = async |body: String| {
            let request = service.by(&credential, Method::PUT, "/v1/report").body(body);
            request.header("content-type", "application/json").send().await.unwrap()
        };
        let problem = refused(send(format!("[{}]", " ".repeat(4 << 20))).await, 413).await;
        assert!(problem.title.contains("4194304"), "{problem:?}");
        // What it says is not even looked at while another one of the same node is.
        let name = "edge-1".parse().unwrap();
        let under_way = service.app.intake.admit(&name, 1).await.unwrap();
        let response = send("nonsense".into()).await;
        assert_eq!(response.headers()["retry-after"], "1");
        refused(response, 503).await;
        drop(under_way);
        refused(send("nonsense".into()).await, 400).await;
        let report = json!({"courier": courier(), "status": status(1)});
        let response = service.report(&credential, &report).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    });
}

#[test]
fn who_goes_away_in_the_middle_of_a_report_may_send_another() {
    use tokio::io::AsyncWriteExt as _;
    run(async {
        let service = Service::start().await;
        let credential = service.node("edge-1").await;
        let name = "edge-1".parse().unwrap();
        let address = service.url.strip_prefix("http://").unwrap();
        let head = format!(
            "PUT /v1/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {credential}\r\n\
             Content-Length: 100\r\n\r\n{{"
        );
        let send = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream
        };
        let mut stream = send().await;
        // Both happen sooner or later, and nothing else tells of it.
        while service.app.intake.admit(&name, 1).await.is_ok() {
            // It is refused if it came just when it was asked for here.
            if stream.try_read(&mut [0; 1]).is_ok() {
                stream = send().await;
            }
            tokio::task::yield_now().await;
        }
        drop(stream);
        while service.app.intake.admit(&name, 1).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
}
