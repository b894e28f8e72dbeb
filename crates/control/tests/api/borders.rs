//! What comes in wrong: bodies, names, queries, paths.

use crate::common::{Service, problem, refused, run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Tricks, as they stand in a path: SQL, markup, other directories, NUL, what is no UTF-8.
const TRICKS: &[&str] = &[
    "'%3B%20drop%20table%20policies%3B%20--",
    "x'%20or%20'1'%3D'1",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "..%2F..%2Fetc%2Fpasswd",
    "..%5C..",
    ".hidden",
    "a%00b",
    "a%0Ab",
    "%FF%FE",
    "%20",
    "%F0%9F%92%A3",
    "-rf",
    "a%2Fb",
    "%22%20onload%3D%22x",
];

#[test]
fn names_that_are_tricks_go_no_further_than_the_border() {
    run(async {
        let service = Service::start().await;
        let spec = json!({"selector": {"all": true}, "interface": "eth0", "chain": []});
        for trick in TRICKS.iter().copied().chain(["a".repeat(300).as_str()]) {
            for resource in ["policies", "programs", "nodes", "tokens"] {
                let path = format!("/v1/{resource}/{trick}");
                let methods: &[Method] = match resource {
                    "tokens" => &[Method::DELETE],
                    "nodes" => &[Method::GET, Method::PATCH, Method::DELETE],
                    _ => &[Method::GET, Method::PUT, Method::DELETE],
                };
                for method in methods {
                    let request = service.by(&service.admin, method.clone(), &path);
                    let response = request.json(&spec).send().await.unwrap();
                    refused(response, 400).await;
                }
            }
        }
        // And where a name is a value.
        for trick in ["'; drop table nodes; --", "<b>", "../x", "", "a\u{0}b", " ", "é"] {
            for (path, body, place) in [
                ("/v1/enrolments", json!({"node": trick}), "/node"),
                ("/v1/enrolments", json!({"node": "a", "labels": {"site": trick}}), "/labels/site"),
                ("/v1/tokens", json!({"name": trick, "role": "viewer"}), "/name"),
                ("/v1/tokens", json!({"name": "n", "role": trick}), "/role"),
            ] {
                let problem = refused(service.post(path, &body).await, 422).await;
                assert_eq!(problem.errors[0].pointer, place, "{problem:?}");
            }
            let mut spec = spec.clone();
            spec["chain"] = json!([{"program": "builtin:counting-pass", "name": trick}]);
            let problem = refused(service.put("/v1/policies/p", &spec, None).await, 422).await;
            assert_eq!(problem.errors[0].pointer, "/chain/0/name", "{problem:?}");
        }
        let all: Value = service.read("/v1/nodes").await;
        assert_eq!(all["items"], json!([]));
    });
}

#[test]
fn tricks_in_free_text_are_kept_as_text() {
    run(async {
        let service = Service::start().await;
        let wild = "'; drop table policies; -- <script>alert(1)</script> ../../ \u{0}\u{1f4a3}";
        let spec = json!({"description": wild, "selector": {"all": true}, "interface": "eth0",
                          "chain": []});
        let response = service.put("/v1/policies/p", &spec, None).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let policy: Value = service.read("/v1/policies/p").await;
        assert_eq!(policy["spec"]["description"], wild);
    });
}

/// Where a name has no rules of ours it is text, and otherwise refused: nothing in between.
#[test]
fn tricks_in_policies_are_refused_or_kept_as_they_are() {
    run(async {
        let service = Service::start().await;
        let (mut kept, mut turned_away) = (0, 0);
        for trick in ["'; drop table policies; --", "<b>", "../x", "", "a\u{0}b", "\u{202e}", "é"]
        {
            let labels = json!({trick: "x"});
            let invitation = json!({"node": "a", "labels": labels});
            refused(service.post("/v1/enrolments", &invitation).await, 422).await;
            let pass = "builtin:counting-pass";
            for (what, place, value) in [
                ("selector", "/selector", json!({"labels": {trick: "x"}})),
                ("selector", "/selector", json!({"labels": {"site": trick}})),
                ("selector", "/selector", json!({"nodes": [trick]})),
                ("interface", "/interface", json!(trick)),
                ("chain", "/chain/0", json!([{"program": pass, "entry": trick}])),
                ("chain", "/chain/0", json!([{"program": pass, "globals": {trick: 1}}])),
                ("chain", "/chain/0", json!([{"program": pass, "maps": {trick: {}}}])),
                ("chain", "/chain/0", json!([{"program": trick}])),
                ("description", "/description", json!(trick)),
            ] {
                let mut spec = json!({"selector": {"all": true}, "interface": "e", "chain": []});
                spec[what] = value.clone();
                let request = service.by(&service.admin, Method::PUT, "/v1/policies/p");
                let request = request.header("if-none-match", "*").json(&spec);
                let response = request.send().await.unwrap();
                if response.status() == StatusCode::CREATED {
                    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
                    let policy: Value = service.read("/v1/policies/p").await;
                    let there = policy["spec"].get(what).cloned().unwrap_or_else(|| json!(""));
                    assert_eq!(there, value, "{what}");
                    let gone = service.by(&service.admin, Method::DELETE, "/v1/policies/p");
                    let gone = gone.header("if-match", tag).send().await.unwrap();
                    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
                    kept += 1;
                } else {
                    let problem = refused(response, 422).await;
                    assert!(problem.errors[0].pointer.starts_with(place), "{trick} {problem:?}");
                    turned_away += 1;
                }
            }
        }
        // Descriptions at least; selectors, programs, entries, globals and maps at least.
        assert!(kept >= 7 && turned_away >= 7 * 6, "{kept} {turned_away}");
    });
}

#[test]
fn bodies_that_do_not_fit_are_problems_that_name_the_place() {
    run(async {
        let service = Service::start().await;
        let path = "/v1/policies/p";
        let send = async |body: String| {
            let request = service.by(&service.admin, Method::PUT, path);
            let request = request.header("content-type", "application/json").body(body);
            problem(request.send().await.unwrap()).await
        };
        let unknown = json!({"selector": {"all": true}, "interface": "eth0", "chain": [], "x": 1});
        let told = send(unknown.to_string()).await;
        assert_eq!((told.status, told.errors[0].pointer.as_str()), (422, "/x"));
        assert!(told.errors[0].message.contains("unknown field `x`"), "{told:?}");
        for wrong in ["", "{", "null x", "[1,2", "\u{feff}{}"] {
            assert_eq!(send(wrong.to_owned()).await.status, 400, "{wrong}");
        }
        for wrong in ["null", "[]", "1", "\"text\"", "{}"] {
            assert_eq!(send(wrong.to_owned()).await.status, 422, "{wrong}");
        }
        let twice = r#"{"selector":{"all":true},"interface":"a","interface":"b","chain":[]}"#;
        assert!(send(twice.to_owned()).await.title.contains("interface"));
        let empty = json!({"selector": {}, "interface": "eth0", "chain": [{"program": "gone"}]});
        let told = send(empty.to_string()).await;
        let places: Vec<_> = told.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!((told.status, &places[..]), (422, &["/selector", "/chain/0/program"][..]));

        let huge = format!("{{\"description\":\"{}\"}}", "x".repeat(8 << 20));
        let told = send(huge).await;
        assert_eq!(told.status, 413);
        assert!(told.title.contains("8388608"), "{told:?}");
        let request = service.by(&service.admin, Method::PUT, path).body("a: yaml");
        let response = request.header("content-type", "application/yaml").send().await.unwrap();
        refused(response, 415).await;
        // Somebody of whom nothing is known may send little.
        let request = service.bare(Method::POST, "/v1/enrol").body("x".repeat(5000));
        refused(request.send().await.unwrap(), 413).await;
        // At the other door too, of which the fields would cost many times their bytes.
        for body in ["a&".repeat(4096), format!("token={}", "x".repeat(5000))] {
            let request = service.bare(Method::POST, "/login").body(body);
            let kind = "application/x-www-form-urlencoded";
            let response = request.header("content-type", kind).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
    });
}

#[test]
fn queries_are_understood_or_refused() {
    run(async {
        let service = Service::start().await;
        for wrong in [
            "/v1/policies?limit=0",
            "/v1/policies?limit=1001",
            "/v1/policies?limit=-1",
            "/v1/policies?limit=1&limit=2",
            "/v1/policies?Limit=1",
            "/v1/policies?after=%00",
            "/v1/nodes?label=site",
            "/v1/nodes?label=si%20te=x",
            "/v1/nodes?label=site=%3Cb%3E",
            "/v1/nodes?health=sick",
            "/v1/audit?after=x",
            "/v1/audit?who=%0A",
        ] {
            refused(service.get(wrong).await, 400).await;
        }
        let long = format!("/v1/audit?object={}", "x".repeat(600));
        refused(service.get(&long).await, 400).await;
        let tricky = "/v1/audit?object='%3B%20drop%20table%20audit%3B%20--&who=%25";
        assert_eq!(service.read::<Value>(tricky).await["items"], json!([]));
    });
}

#[test]
fn what_is_not_there_and_what_is_not_for_it_are_problems() {
    run(async {
        let service = Service::start().await;
        for path in ["/v2", "/v1", "/v1/policies/", "/v1/nodes/a/b/c", "/..%2f..%2fetc", "/x?y=z"] {
            refused(service.get(path).await, 404).await;
        }
        for path in ["/v1/policies/p", "/v1/nodes/n", "/v1/programs/p", "/v1/programs/p/object"] {
            refused(service.get(path).await, 404).await;
        }
        let problem = refused(service.post("/v1/policies", &json!({})).await, 405).await;
        assert!(problem.title.contains("POST is not for /v1/policies"), "{problem:?}");
        let odd = service.by(&service.admin, Method::from_bytes(b"BREW").unwrap(), "/v1/policies");
        refused(odd.send().await.unwrap(), 405).await;
        let response = service.get("/v1/policies").await;
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("cache-control"), "no-store");
        assert!(header("content-security-policy").starts_with("default-src 'none'"));
    });
}
