use crate::common::{Service, courier, run, status};
use crate::visitor::{Visitor, hidden, login};
use pointsman_bpf::builtin;
use pointsman_model::document::Builtin;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

const MARKUP: &str = "<script>alert(1)</script>";

fn counters(at_unix_ms: u64, drop: u64) -> Value {
    json!({"at_unix_ms": at_unix_ms, "hooks": [{"hook": {"interface": "eth0", "kind": "xdp"},
        "passed_end": 0, "programs": [{"program": "ports", "running": true, "enforce": true,
            "runs": 1000 + drop, "verdicts": {"pass": 1000, "drop": drop}, "finals": {}}]}]})
}

fn running(generation: u64) -> Value {
    let mut status = status(generation);
    let member = json!({"program": "ports", "entry": "udp_port_filter", "priority": 10,
        "chain_call_actions": ["pass"], "enforce": false, "form": "inlined",
        "tag": "0123456789abcdef", "object": "0".repeat(64), "source": MARKUP,
        "fingerprint": "0".repeat(64), "maps": "/m", "runs": 1, "verdicts": {}});
    status["hooks"] = json!([{"hook": {"interface": "eth0", "kind": "xdp"},
        "interface_index": 2, "state": "running", "engine": format!("fused {MARKUP}"),
        "mode": "native", "generation": generation, "fused": null, "members": [member],
        "passed_end": 7, "refusals": []}]);
    status["notes"] = json!([{"hook": null, "program": null, "message": MARKUP}]);
    status["fleet"] = json!({"fleet": "test", "node": "edge-1", "key_id": "0", "generation": 7,
        "refused": {"at_unix_ms": 1, "kind": "bad_signature", "message": MARKUP}});
    status
}

#[test]
fn a_node_shows_its_chain_and_what_it_answers_and_no_markup_of_others() {
    run(async {
        let service = Service::start().await;
        let credential = service.node("edge-1").await;
        let visitor = login(&service, &service.admin).await;
        let mut report = json!({"courier": courier(), "status": running(7),
            "counters": counters(1_000, 0)});
        report["courier"]["version"] = json!(MARKUP);
        let sent = service.report(&credential, &report).await;
        assert_eq!(sent.status(), StatusCode::NO_CONTENT);
        let html = visitor.page("/nodes/edge-1").await;
        assert!(html.contains("Rates need two reports"), "{html}");
        report["counters"] = counters(3_000, 500);
        service.report(&credential, &report).await;
        for path in ["/nodes/edge-1", "/nodes/edge-1/live", "/nodes"] {
            let html = visitor.page(path).await;
            assert!(!html.contains(MARKUP), "{path}: {html}");
            assert!(html.contains("&#60;script&#62;"), "{path}: {html}");
        }
        let html = visitor.page("/nodes/edge-1/live").await;
        assert!(html.contains("<td class=\"number rate drop\">250</td>"), "{html}");
        assert!(html.contains("over the last 2.0 s") && html.contains("observed only"), "{html}");
        assert_eq!(visitor.get("/nodes/edge-2").await.status(), StatusCode::NOT_FOUND);
    });
}

#[test]
fn what_records_are_signed_with_can_be_read_where_nodes_are_let_in() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let key = service.app.publisher.public_key();
        let html = visitor.page("/publish").await;
        assert!(html.contains(&format!("id=\"key-id\">{}<", key.key_id())), "{html}");
        // Escaped as everything is: base64 has a + at times.
        let public = key.to_base64().replace('+', "&#43;");
        let plain = key.to_base64();
        assert!(html.contains(&format!(">{public}<")) || html.contains(plain), "{html}");
        let response = visitor.post("/nodes/enrol", &[("node", "edge-1")]).await;
        let html = response.text().await.unwrap();
        let command = format!("pointsman-courier enroll --key-id {}<", key.key_id());
        assert!(html.contains(&command), "{html}");
    });
}

#[test]
fn that_publishing_fails_is_on_its_page() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        service.post("/v1/publish", &json!({})).await;
        assert!(!visitor.page("/publish").await.contains("id=\"trouble\""));
        let latest = service.blobs().join("latest");
        let text = std::fs::read_to_string(&latest).unwrap();
        std::fs::write(&latest, text.replace("\"test\"", "\"other\"")).unwrap();
        service.post("/v1/publish", &json!({})).await;
        let html = visitor.page("/publish").await;
        assert!(html.contains("id=\"trouble\"") && html.contains("the fleet other"), "{html}");
    });
}

/// Whoever makes an object chooses all names in it.
#[test]
fn no_markup_comes_out_of_an_object() {
    use pointsman_control::db::{Actor, NewProgram, Precondition};
    run(async {
        let service = Service::start().await;
        let wild = |what: &str| format!("{what}{MARKUP}\"'&");
        let program = |name: &str| {
            json!({"name": wild(name), "section": wild("section"), "kind": "xdp",
                "suggested_priority": 7})
        };
        let summary = json!({
            "licence": wild("licence"), "has_btf": true,
            "programs": [program("one"), program("other"),
                {"name": wild("tc"), "section": wild("tc"), "kind": wild("kind")}],
            "maps": [{"name": wild("map"), "kind": wild("kind"), "max_entries": 1}],
            "globals": [{"name": wild("global"), "kind": wild("kind"), "section": wild("section"),
                "size": 4}],
        });
        let sha256 = pointsman_model::Sha256::of(b"object");
        let summary = serde_json::from_value(summary).unwrap();
        let new = NewProgram { sha256, bytes: 6, summary };
        let mut change = service.app.db.change(&Actor::control(), 1).await.unwrap();
        change.put_object(&sha256, b"object").await.unwrap();
        change.put_program(&"wild".parse().unwrap(), new, Precondition::Absent).await.unwrap();
        change.commit().await.unwrap();

        let visitor = login(&service, &service.admin).await;
        let check = |html: &str, shown: &[&str]| {
            assert!(!html.contains(MARKUP) && !html.contains("\"'&"), "{html}");
            for name in shown {
                let escaped = format!("{name}&#60;script&#62;alert(1)&#60;/script&#62;");
                assert!(html.contains(&escaped), "{name}: {html}");
            }
        };
        check(&visitor.page("/programs").await, &[]);
        let all = ["one", "other", "licence", "section", "map", "global", "kind"];
        check(&visitor.page("/programs/wild").await, &all);
        let form = [("name", "p"), ("all", "yes"), ("interface", "eth0"), ("program", "wild")];
        let add = [&form[..], &[("do", "add")]].concat();
        let html = visitor.post("/new-policy", &add).await.text().await.unwrap();
        check(&html, &["one", "other"]);
        // And where an error names what there is.
        let save = [
            &form[..],
            &[
                ("entry", "0"),
                ("entry.0.program", "wild"),
                ("entry.0.priority", "1"),
                ("do", "save"),
            ],
        ]
        .concat();
        let response = visitor.post("/new-policy", &save).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        check(&response.text().await.unwrap(), &["one", "other"]);
    });
}

#[test]
fn nodes_are_found_by_name_label_and_health() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        for (node, labels) in [("edge-1", "site=fra"), ("edge-2", "site=ams"), ("core-1", "")] {
            let form = [("node", node), ("labels", labels)];
            let response = visitor.post("/nodes/enrol", &form).await;
            let html = response.text().await.unwrap();
            assert!(html.contains("pme_"), "{html}");
        }
        let listed = |html: &str| -> Vec<&'static str> {
            let nodes = ["edge-1", "edge-2", "core-1"].into_iter();
            nodes.filter(|node| html.contains(&format!("href=\"/nodes/{node}\""))).collect()
        };
        for (query, expected) in [
            ("", &["edge-1", "edge-2", "core-1"][..]),
            ("?name=edge", &["edge-1", "edge-2"]),
            ("?label=site%3Dfra", &["edge-1"]),
            ("?health=well", &[]),
            ("?health=new&name=1&label=", &["edge-1", "core-1"]),
        ] {
            let html = visitor.page(&format!("/nodes{query}")).await;
            assert_eq!(listed(&html), expected, "{query}");
        }
        let html = visitor.page("/nodes?label=%3Cb%3E").await;
        assert!(html.contains("expected KEY=VALUE") && !html.contains("<b>"), "{html}");
        let response = visitor.post("/nodes/enrol", &[("node", "<b>")]).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let html = response.text().await.unwrap();
        assert!(html.contains("class=\"wrong\"") && !html.contains("<b>"), "{html}");
    });
}

async fn upload(visitor: &Visitor<'_>, name: &str, object: &[u8], revision: &str) -> Response {
    let fields = [("csrf", visitor.csrf.as_str()), ("name", name), ("revision", revision)];
    visitor.upload(&fields, object).await
}

#[test]
fn a_program_is_uploaded_shown_replaced_and_removed() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let object = builtin(Builtin::UdpPortFilter);
        let response = upload(&visitor, "ports", object, "").await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(response.headers()["location"], "/programs/ports");
        let html = visitor.page("/programs/ports").await;
        assert!(html.contains("<h2>Maps</h2>"), "{html}");
        // Not by accident over one that is there.
        let response = upload(&visitor, "ports", object, "").await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let revision = hidden(&html, "revision");
        let other = builtin(Builtin::CountingPass);
        let response = upload(&visitor, "ports", other, &revision).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let response = upload(&visitor, "broken", b"no object", "").await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(response.text().await.unwrap().contains("class=\"wrong\""));
        let revision = hidden(&visitor.page("/programs/ports").await, "revision");
        let form = [("revision", revision.as_str())];
        let response = visitor.post("/programs/ports/delete", &form).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert!(visitor.page("/programs").await.contains("The library is empty"));
        assert!(visitor.page("/audit?object=program%20ports").await.contains("delete"));
    });
}

#[test]
fn what_would_be_published_is_shown_and_then_published() {
    run(async {
        let service = Service::start().await;
        let credential = service.node("edge-1").await;
        let visitor = login(&service, &service.admin).await;
        let policy = [
            ("name", "p"),
            ("all", "yes"),
            ("enabled", "yes"),
            ("interface", "eth0"),
            ("entry", "1"),
            ("entry.1.program", "builtin:counting-pass"),
            ("entry.1.priority", "10"),
            ("entry.1.action", "pass"),
            ("do", "save"),
        ];
        assert_eq!(visitor.post("/new-policy", &policy).await.status(), StatusCode::SEE_OTHER);
        let dry = visitor.post("/publish", &[("do", "dry")]).await.text().await.unwrap();
        assert!(dry.contains("This would be published") && dry.contains("edge-1"), "{dry}");
        assert!(dry.contains("Nothing was published yet"), "{dry}");
        let done = visitor.post("/publish", &[("do", "publish")]).await.text().await.unwrap();
        assert!(done.contains("Snapshot 1 is published"), "{done}");
        let progress = visitor.page("/publish/progress").await;
        assert!(progress.contains("0 of 1 nodes have"), "{progress}");
        let report = json!({"courier": courier(), "status": status(1), "counters": null});
        service.report(&credential, &report).await;
        let progress = visitor.page("/publish/progress").await;
        assert!(progress.contains("1 of 1 nodes have"), "{progress}");
        // A node that loses all is held back unless that is said.
        let revision = hidden(&visitor.page("/policies/p").await, "revision");
        visitor.post("/policies/p/delete", &[("revision", &revision)]).await;
        let dry = visitor.post("/publish", &[("do", "dry")]).await.text().await.unwrap();
        assert!(dry.contains("would lose their last program"), "{dry}");
        let form = [("do", "publish"), ("allow_empty", "yes")];
        let done = visitor.post("/publish", &form).await.text().await.unwrap();
        assert!(done.contains("Snapshot 2 is published"), "{done}");
    });
}

#[test]
fn assets_are_kept_and_nothing_comes_from_elsewhere() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let response = visitor.get("/nodes").await;
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let html = response.text().await.unwrap();
        assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
        assert!(
            !html.contains("<style") && !html.contains(" style=") && !html.contains(" onclick")
        );
        let urls: Vec<_> = html.split('"').filter(|part| part.starts_with("/assets/")).collect();
        assert!(urls.len() >= 5, "{urls:?}");
        for url in urls {
            let response = service.bare(Method::GET, url).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{url}");
            let kept = response.headers()["cache-control"].to_str().unwrap();
            assert!(kept.contains("immutable"), "{url}: {kept}");
        }
        let gone = service.bare(Method::GET, "/assets/0123456789abcdef/style.css");
        assert_eq!(gone.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    });
}

#[test]
fn a_token_is_shown_once() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let form = [("name", "ann"), ("role", "operator"), ("days", "30")];
        let html = visitor.post("/tokens", &form).await.text().await.unwrap();
        assert!(html.contains("pmt_") && html.contains("expires in"), "{html}");
        assert!(!visitor.page("/tokens").await.contains("pmt_"));
        for (form, message) in [
            ([("name", "ann"), ("role", "viewer"), ("days", "")], "ann"),
            ([("name", "<b>"), ("role", "viewer"), ("days", "")], "class=\"wrong\""),
            ([("name", "bob"), ("role", "viewer"), ("days", "x")], "a number of days"),
        ] {
            let html = visitor.post("/tokens", &form).await.text().await.unwrap();
            assert!(html.contains(message) && html.contains("role=\"alert\""), "{html}");
        }
    });
}
