use crate::common::{Service, refused, run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

fn spec(description: &str) -> Value {
    json!({"description": description, "selector": {"all": true}, "interface": "eth0",
           "chain": [{"program": "builtin:counting-pass", "priority": 7}]})
}

#[test]
fn a_policy_lives_by_its_entity_tag() {
    run(async {
        let service = Service::start().await;
        let path = "/v1/policies/edge";
        let delete = async |tag: Option<&str>| {
            let mut request = service.by(&service.admin, Method::DELETE, path);
            if let Some(tag) = tag {
                request = request.header("if-match", tag);
            }
            request.send().await.unwrap()
        };
        refused(service.put(path, &spec("1"), Some(("if-match", "\"1\""))).await, 412).await;
        refused(delete(Some("\"1\"")).await, 404).await;
        let made = service.put(path, &spec("1"), Some(("if-none-match", "*"))).await;
        assert_eq!(made.status(), StatusCode::CREATED);
        let tag = made.headers()["etag"].to_str().unwrap().to_owned();
        let body: Value = made.json().await.unwrap();
        assert_eq!(tag, format!("\"{}\"", body["revision"]));
        assert_eq!(body["updated_by"], "admin");
        assert_eq!(body["spec"]["chain"][0]["priority"], 7);

        let shown = service.get(path).await;
        assert_eq!(shown.headers()["etag"], tag.as_str());
        assert_eq!(shown.json::<Value>().await.unwrap(), body);
        refused(service.put(path, &spec("2"), None).await, 428).await;
        refused(service.put(path, &spec("2"), Some(("if-none-match", "*"))).await, 412).await;
        for wrong in ["7", "\"x\"", "W/\"7\"", "\"1\", \"2\"", ""] {
            refused(service.put(path, &spec("2"), Some(("if-match", wrong))).await, 400).await;
        }
        let changed = service.put(path, &spec("2"), Some(("if-match", &tag))).await;
        assert_eq!(changed.status(), StatusCode::OK);
        let newer = changed.headers()["etag"].to_str().unwrap().to_owned();
        // Who saw the one before changes nothing.
        let problem = refused(service.put(path, &spec("3"), Some(("if-match", &tag))).await, 412);
        assert!(problem.await.title.contains("was changed meanwhile"));
        refused(delete(Some(&tag)).await, 412).await;
        refused(delete(None).await, 428).await;
        assert_eq!(delete(Some(&newer)).await.status(), StatusCode::NO_CONTENT);
        refused(service.get(path).await, 404).await;

        let trail: Value = service.read("/v1/audit?object=policy%20edge").await;
        let verbs: Vec<_> =
            trail["items"].as_array().unwrap().iter().map(|entry| &entry["verb"]).collect();
        assert_eq!(verbs, ["delete", "update", "create"]);
        assert_eq!(trail["items"][1]["before"]["description"], "1");
        assert_eq!(trail["items"][1]["after"]["description"], "2");
        assert_eq!(trail["items"][1]["who"], "admin");
        assert_eq!(trail["items"][1]["from"], "127.0.0.1");
    });
}

#[test]
fn two_who_change_the_same_revision_do_not_both_win() {
    run(async {
        let service = Service::start().await;
        let made = service.put("/v1/policies/p", &spec("0"), None).await;
        let tag = made.headers()["etag"].to_str().unwrap().to_owned();
        let put = |n: u32| {
            let (service, tag) = (&service, &tag);
            async move {
                let body = spec(&n.to_string());
                service.put("/v1/policies/p", &body, Some(("if-match", tag))).await.status()
            }
        };
        let answers = futures_util::future::join_all((0..8).map(put)).await;
        let won = answers.iter().filter(|&&status| status == StatusCode::OK).count();
        let lost = answers.iter().filter(|&&status| status == StatusCode::PRECONDITION_FAILED);
        assert_eq!((won, lost.count()), (1, 7), "{answers:?}");
    });
}

#[test]
fn lists_come_in_pages() {
    run(async {
        let service = Service::start().await;
        for name in ["a", "b", "c", "d", "e"] {
            let response = service.put(&format!("/v1/policies/{name}"), &spec(""), None).await;
            assert_eq!(response.status(), StatusCode::CREATED);
        }
        let (mut names, mut path) = (Vec::new(), "/v1/policies?limit=2".to_owned());
        loop {
            let page: Value = service.read(&path).await;
            for policy in page["items"].as_array().unwrap() {
                names.push(policy["name"].as_str().unwrap().to_owned());
            }
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/policies?limit=2&after={next}"),
                None => break,
            }
        }
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
    });
}
