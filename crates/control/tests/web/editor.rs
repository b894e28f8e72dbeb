use crate::common::{Service, run};
use crate::visitor::{Visitor, hidden, login};
use reqwest::StatusCode;
use serde_json::Value;

/// A form with two programs.
fn two<'a>(revision: &'a str, what: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("revision", revision),
        ("name", "p"),
        ("enabled", "yes"),
        ("all", "yes"),
        ("interface", "eth0"),
        ("description", "keeps <b>bots</b> out"),
        ("entry", "0"),
        ("entry.0.program", "builtin:counting-pass"),
        ("entry.0.priority", "10"),
        ("entry.0.action", "pass"),
        ("entry.0.enforce", "yes"),
        ("entry", "1"),
        ("entry.1.program", "builtin:udp-port-filter"),
        ("entry.1.priority", "20"),
        ("entry.1.action", "pass"),
        ("entry.1.action", "tx"),
        ("do", what),
    ]
}

async fn made(visitor: &Visitor<'_>) -> String {
    let response = visitor.post("/new-policy", &two("", "save")).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER, "{}", response.text().await.unwrap());
    assert_eq!(response.headers()["location"], "/policies/p?saved=yes");
    let html = visitor.page("/policies/p?saved=yes").await;
    assert!(html.contains("Saved.") && html.contains("&#60;b&#62;bots") && !html.contains("<b>"));
    hidden(&html, "revision")
}

async fn chain(service: &Service) -> Vec<(String, u64)> {
    let policy: Value = service.read("/v1/policies/p").await;
    let entries = policy["spec"]["chain"].as_array().unwrap().iter();
    let entry = |entry: &Value| {
        (entry["program"].as_str().unwrap().to_owned(), entry["priority"].as_u64().unwrap())
    };
    entries.map(entry).collect()
}

#[test]
fn a_policy_is_made_moved_shown_and_saved() {
    run(async {
        let service = Service::start().await;
        service.node("edge-1").await;
        let visitor = login(&service, &service.admin).await;
        let revision = made(&visitor).await;
        let html = visitor.post("/policies/p", &two(&revision, "up:1")).await.text().await.unwrap();
        let places = ["member-1", "member-0"].map(|id| html.find(id).unwrap());
        assert!(places[0] < places[1], "{html}");
        assert_eq!(hidden(&html, "entry.1.priority").as_str(), "10");
        assert_eq!(hidden(&html, "entry.0.priority").as_str(), "20");
        // Nothing is saved by moving.
        assert_eq!(chain(&service).await[0], ("builtin:counting-pass".to_owned(), 10));
        let mut moved = two(&revision, "diff");
        for field in &mut moved {
            match field.0 {
                "entry.0.priority" => field.1 = "20",
                "entry.1.priority" => field.1 = "10",
                _ => {}
            }
        }
        let html = visitor.post("/policies/p", &moved).await.text().await.unwrap();
        assert!(html.contains("What changes") && html.contains("class=\"added\""), "{html}");
        assert!(html.contains("edge-1"), "{html}");
        moved.pop();
        moved.push(("do", "save"));
        let response = visitor.post("/policies/p", &moved).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let mut saved = chain(&service).await;
        saved.sort_by_key(|entry| entry.1);
        assert_eq!(saved[0], ("builtin:udp-port-filter".to_owned(), 10));
    });
}

#[test]
fn a_program_is_added_and_taken_out() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let revision = made(&visitor).await;
        let mut form = two(&revision, "add");
        form.push(("program", "builtin:counting-pass"));
        let html = visitor.post("/policies/p", &form).await.text().await.unwrap();
        assert!(html.contains("member-2"), "{html}");
        let mut form = two(&revision, "add");
        form.push(("program", "gone"));
        let response = visitor.post("/policies/p", &form).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let html = response.text().await.unwrap();
        assert!(html.contains("there is no program gone"), "{html}");
        let form = two(&revision, "remove:0");
        let html = visitor.post("/policies/p", &form).await.text().await.unwrap();
        assert!(!html.contains("member-0") && html.contains("member-1"), "{html}");
    });
}

#[test]
fn what_is_wrong_is_told_at_its_field_and_nothing_is_lost() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let revision = made(&visitor).await;
        let mut form = two(&revision, "save");
        form.push(("entry.1.globals", "{\"</textarea><b>\": 1}"));
        let response = visitor.post("/policies/p", &form).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let html = response.text().await.unwrap();
        assert!(html.contains("has no global") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&#60;/textarea&#62;"), "{html}");
        form.retain(|field| field.0 != "all");
        let html = visitor.post("/policies/p", &form).await.text().await.unwrap();
        assert!(html.contains("selects nothing"), "{html}");
        let response = visitor.post("/new-policy", &two("", "save")).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(response.text().await.unwrap().contains("there is a policy p already"));
        let response = visitor.post("/policies/p", &two(&revision, "nonsense")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let response = visitor.post("/policies/p", &two("x", "save")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    });
}

#[test]
fn who_comes_second_sees_both_versions() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let revision = made(&visitor).await;
        let mut theirs = two(&revision, "save");
        theirs.retain(|field| field.0 != "interface");
        theirs.push(("interface", "theirs0"));
        let response = visitor.post("/policies/p", &theirs).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let mut mine = two(&revision, "save");
        mine.retain(|field| field.0 != "interface");
        mine.push(("interface", "mine0"));
        let response = visitor.post("/policies/p", &mine).await;
        assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED);
        let html = response.text().await.unwrap();
        assert!(html.contains("theirs0") && html.contains("mine0"), "{html}");
        let (_, rest) = html.split_once("value=\"overwrite:").unwrap();
        let overwrite = format!("overwrite:{}", rest.split_once('"').unwrap().0);
        let policy: Value = service.read("/v1/policies/p").await;
        assert_eq!(policy["spec"]["interface"], "theirs0");
        mine.retain(|field| field.0 != "do");
        mine.push(("do", &overwrite));
        let response = visitor.post("/policies/p", &mine).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let policy: Value = service.read("/v1/policies/p").await;
        assert_eq!(policy["spec"]["interface"], "mine0");
        // Gone meanwhile: nothing to overwrite.
        let revision = policy["revision"].to_string();
        visitor.post("/policies/p/delete", &[("revision", &revision)]).await;
        let response = visitor.post("/policies/p", &two(&revision, "save")).await;
        assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED);
        assert!(response.text().await.unwrap().contains("does not exist"));
    });
}
