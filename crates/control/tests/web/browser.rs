//! The pages in a real browser, with their scripts. `POINTSMAN_SCREENSHOTS=DIRECTORY` keeps what
//! they look like.

use crate::common::{Service, courier, run, status};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use pointsman_services::{Browser, skip};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// How long a page may take to be as expected.
const PATIENCE: Duration = Duration::from_secs(60);

struct Tab(Client);

impl Tab {
    async fn open(browser: &Browser, dark: bool) -> Self {
        let mut arguments = browser.arguments(if dark { "dark" } else { "light" });
        if dark {
            arguments.push("--force-dark-mode".into());
        }
        arguments.push("--window-size=1280,900".into());
        let options = json!({"binary": browser.program(), "args": arguments});
        let Value::Object(capabilities) = json!({"goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"}})
        else {
            unreachable!()
        };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        Self(builder.connect(&browser.url()).await.unwrap())
    }

    async fn wait(&self, css: &str) -> fantoccini::elements::Element {
        let wait = self.0.wait().at_most(PATIENCE);
        match wait.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!("{css}: {error}\n{}", self.0.source().await.unwrap()),
        }
    }

    async fn click(&self, css: &str) {
        let element = self.wait(css).await;
        // Into the middle: at the bottom the buttons that stay there are above it.
        let script = "arguments[0].scrollIntoView({block: 'center'})";
        self.0.execute(script, vec![serde_json::to_value(&element).unwrap()]).await.unwrap();
        element.click().await.unwrap();
    }

    /// Keeps what the page looks like, where that is asked for.
    async fn shot(&self, name: &str) {
        if let Some(directory) = std::env::var_os("POINTSMAN_SCREENSHOTS") {
            let png = self.0.screenshot().await.unwrap();
            std::fs::write(PathBuf::from(directory).join(format!("{name}.png")), png).unwrap();
        }
    }

    async fn programs(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('#chain .member')].map(member => \
            member.querySelector('.bar strong').textContent.trim() + ' ' + \
            member.querySelector('[name$=\".priority\"]').value)";
        let programs = self.0.execute(script, vec![]).await.unwrap();
        serde_json::from_value(programs).unwrap()
    }
}

async fn fleet(service: &Service) -> String {
    let credential = service.node("edge-1").await;
    service.node("edge-2").await;
    let entry = |program: &str, priority: u32| json!({"program": program, "priority": priority});
    let spec = json!({"description": "Counts, and keeps ports closed.", "selector": {"all": true},
        "interface": "eth0", "engine": "fused",
        "chain": [entry("builtin:counting-pass", 10), entry("builtin:udp-port-filter", 20)]});
    service.put("/v1/policies/edge", &spec, None).await;
    let upload = service.by(&service.admin, reqwest::Method::PUT, "/v1/programs/ports");
    let upload = upload.header("content-type", "application/octet-stream");
    let object = pointsman_bpf::builtin(pointsman_model::document::Builtin::UdpPortFilter);
    upload.body(object.to_vec()).send().await.unwrap();
    credential
}

#[test]
fn two_programs_change_places_and_are_published() {
    let browser = match Browser::start() {
        Ok(browser) => browser,
        Err(reason) => return skip("two_programs_change_places_and_are_published", reason),
    };
    run(async {
        let service = Service::start().await;
        let credential = fleet(&service).await;
        let tab = Tab::open(&browser, false).await;
        tab.0.goto(&format!("{}/policies/edge", service.url)).await.unwrap();
        tab.shot("login").await;
        tab.wait("#token").await.send_keys(&service.admin).await.unwrap();
        tab.click("form.stack button.main").await;
        let before = ["1. builtin:counting-pass 10", "2. builtin:udp-port-filter 20"];
        tab.wait("html.scripts #chain").await;
        assert_eq!(tab.programs().await, before);
        tab.shot("editor").await;

        // By its button: the form comes back with other priorities, and the focus stays.
        tab.click("#up-1").await;
        tab.wait("#chain .member:first-child#member-1").await;
        let after = ["1. builtin:udp-port-filter 10", "2. builtin:counting-pass 20"];
        assert_eq!(tab.programs().await, after);
        // By dragging, back and forth.
        for (expected, first) in [(before, 0), (after, 1)] {
            drag(&tab).await;
            tab.wait(&format!("#chain .member:first-child#member-{first} #up-{first}:disabled"))
                .await;
            assert_eq!(tab.programs().await, expected);
        }

        tab.click("#diff").await;
        tab.wait("#changes .diff .added").await;
        tab.shot("diff").await;
        tab.click("#save").await;
        tab.wait("#editor .box.good").await;
        assert_eq!(tab.programs().await, after);

        tab.0.goto(&format!("{}/publish", service.url)).await.unwrap();
        tab.click("#dry").await;
        tab.wait("#report .changes").await;
        tab.shot("dry-run").await;
        tab.click("#publish").await;
        tab.wait("#report.good").await;
        let policy: Value = service.read("/v1/policies/edge").await;
        let mut chain = policy["spec"]["chain"].as_array().unwrap().clone();
        chain.sort_by_key(|entry| entry["priority"].as_u64());
        assert_eq!(chain[0]["program"], "builtin:udp-port-filter");
        let snapshots: Value = service.read("/v1/snapshots").await;
        assert_eq!(snapshots["items"][0]["number"], 1);

        // The page follows the nodes by itself.
        let report = json!({"courier": courier(), "status": status(1), "counters": null});
        service.report(&credential, &report).await;
        tab.wait("#progress progress[value='1']").await;
        tab.shot("published").await;
        no_violations(&tab).await;
        conflict(&tab, &service).await;
        look(&tab, &service, &credential).await;
        let cookie = tab.0.get_named_cookie("pointsman_session").await.unwrap();
        tab.0.close().await.unwrap();
        let dark = Tab::open(&browser, true).await;
        dark.0.goto(&format!("{}/login", service.url)).await.unwrap();
        dark.0.add_cookie(cookie).await.unwrap();
        for page in ["nodes", "policies/edge", "publish"] {
            dark.0.goto(&format!("{}/{page}", service.url)).await.unwrap();
            dark.wait("html.scripts main h1").await;
            dark.shot(&format!("{}-dark", page.replace('/', "-"))).await;
        }
        dark.0.close().await.unwrap();
    });
}

/// Somebody else saves while the form is open.
async fn conflict(tab: &Tab, service: &Service) {
    tab.0.goto(&format!("{}/policies/edge", service.url)).await.unwrap();
    tab.wait("html.scripts #chain").await;
    let mut policy: Value = service.read("/v1/policies/edge").await;
    policy["spec"]["description"] = json!("Theirs.");
    let tag = format!("\"{}\"", policy["revision"]);
    service.put("/v1/policies/edge", &policy["spec"], Some(("if-match", &tag))).await;
    tab.click("#save").await;
    tab.wait("#conflict .sides").await;
    tab.shot("conflict").await;
    tab.click("#conflict button").await;
    tab.wait("#editor .box.good").await;
    let policy: Value = service.read("/v1/policies/edge").await;
    assert_ne!(policy["spec"]["description"], "Theirs.");
}

/// Drags the first program below the second, by its handle.
async fn drag(tab: &Tab) {
    use fantoccini::actions::{InputSource, MouseActions, PointerAction};
    let (first, second) = ("#chain .member:nth-child(1)", "#chain .member:nth-child(2)");
    let handle = tab.wait(&format!("{first} .handle")).await;
    let script = "arguments[0].scrollIntoView({block: 'center'}); \
        return [arguments[0], arguments[1]].map(element => { \
        const box = element.getBoundingClientRect(); \
        return [box.x + box.width / 2, box.y, box.height]; })";
    let target = tab.wait(second).await;
    let elements =
        vec![serde_json::to_value(&handle).unwrap(), serde_json::to_value(&target).unwrap()];
    let places = tab.0.execute(script, elements).await.unwrap();
    let places: Vec<[f64; 3]> = serde_json::from_value(places).unwrap();
    let [from, to] = &places[..] else { panic!("{places:?}") };
    let step =
        |x: f64, y: f64| PointerAction::MoveTo { duration: Some(Duration::from_millis(150)), x, y };
    let mouse = MouseActions::new("mouse".into())
        .then(step(from[0], from[1] + from[2] / 2.0))
        .then(PointerAction::Down { button: fantoccini::actions::MOUSE_BUTTON_LEFT })
        .then(step(from[0] + 5.0, from[1] + 20.0))
        .then(step(from[0] + 5.0, to[1] + to[2] * 0.5))
        .then(step(from[0] + 5.0, to[1] + to[2] * 0.9))
        .then(PointerAction::Up { button: fantoccini::actions::MOUSE_BUTTON_LEFT });
    tab.0.perform_actions(mouse).await.unwrap();
}

/// The browser kept to the Content-Security-Policy without having to refuse anything.
async fn no_violations(tab: &Tab) {
    let script = "return performance.getEntriesByType('resource').map(entry => entry.name)";
    let loaded = tab.0.execute(script, vec![]).await.unwrap();
    let origin = tab.0.execute("return location.origin", vec![]).await.unwrap();
    let loaded: Vec<String> = serde_json::from_value(loaded).unwrap();
    assert!(loaded.len() > 3, "{loaded:?}");
    let origin = origin.as_str().unwrap();
    assert!(loaded.iter().all(|url| url.starts_with(origin)), "{loaded:?}");
}

/// Shows every page once, wide and narrow.
async fn look(tab: &Tab, service: &Service, credential: &str) {
    let hook = json!({"hook": {"interface": "eth0", "kind": "xdp"}, "interface_index": 2,
        "state": "running", "engine": "fused: one program of all members", "mode": "native",
        "generation": 1, "fused": null, "passed_end": 123_456, "refusals": [], "members": [
            {"program": "counting-pass", "entry": "counting_pass", "priority": 10,
             "chain_call_actions": ["pass"], "enforce": true, "form": "inlined",
             "tag": "0123456789abcdef", "object": "0".repeat(64), "source": "built in",
             "fingerprint": "0".repeat(64), "maps": "/m", "runs": 1, "verdicts": {}}]});
    let mut full = status(1);
    full["hooks"] = json!([hook]);
    full["notes"] =
        json!([{"hook": null, "program": null, "message": "eth1 has a program of somebody else"}]);
    for (at, packets) in [(1_000, 1_000_u64), (3_000, 2_464_000)] {
        let counters = json!({"at_unix_ms": at, "hooks": [{"hook": {"interface": "eth0",
            "kind": "xdp"}, "passed_end": packets, "programs": [{"program": "counting-pass",
            "running": true, "enforce": true, "runs": packets, "verdicts": {"pass": packets},
            "finals": {}}]}]});
        let report = json!({"courier": courier(), "status": full, "counters": counters});
        service.report(credential, &report).await;
    }
    tab.0.goto(&format!("{}/nodes/edge-1", service.url)).await.unwrap();
    tab.wait(".rate.pass").await;
    for width in [1280, 400] {
        tab.0.set_window_size(width, 900).await.unwrap();
        for page in [
            "nodes",
            "nodes/edge-1",
            "policies",
            "policies/edge",
            "new-policy",
            "programs",
            "programs/ports",
            "publish",
            "audit",
            "tokens",
        ] {
            tab.0.goto(&format!("{}/{page}", service.url)).await.unwrap();
            tab.wait("html.scripts main h1").await;
            tab.shot(&format!("{}-{width}", page.replace('/', "-"))).await;
            let wider = "return document.documentElement.scrollWidth > window.innerWidth";
            let wider = tab.0.execute(wider, vec![]).await.unwrap();
            assert_eq!(wider, json!(false), "{page} is wider than {width}");
        }
    }
}
