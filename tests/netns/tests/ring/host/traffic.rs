//! A document's way to real packets: dropped, passed, counted, over re-orders and upgrades.

use super::{document, scene};
use pointsman_netns::traffic::received;
use serde_json::{Value, json};

fn programs() -> Value {
    json!({
        "blocked": {"builtin": "cidr-blocklist",
                    "maps": {"blocklist_v4": {"entries": [{"key": "203.0.113.0/24", "value": 1}]}}},
        "meter": {"builtin": "counting-pass"},
        "ports": {"builtin": "udp-port-filter", "maps": {"ports": {"entries": [
            {"key": 5000, "value": 1}, {"key": 5999, "value": 1}]}}}
    })
}

fn chain(order: &[(&str, u32)]) -> Value {
    order.iter().map(|(name, priority)| json!({"program": name, "priority": priority})).collect()
}

fn counters(daemon: &pointsman_netns::daemon::Daemon, program: &str) -> Value {
    let answer = daemon.ask(&["counters"], b"");
    let programs = answer.value["hooks"][0]["programs"].as_array().expect("programs").clone();
    let found = programs.into_iter().find(|p| p["program"] == program);
    found.unwrap_or_else(|| panic!("no {program} in {:#}", answer.value))
}

#[test]
fn what_is_not_listed_is_dropped_and_everything_is_accounted_for() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let order = [("blocked", 10), ("meter", 20), ("ports", 30)];
    daemon.apply_whole(&document(1, &programs(), &chain(&order)));
    assert_eq!(received(&pair, &[5000, 5001], 5999, 50), [50, 0]);
    let (ports, meter) = (counters(&daemon, "ports"), counters(&daemon, "meter"));
    assert_eq!((ports["finals"]["drop"].as_u64(), ports["runs"].as_u64()), (Some(50), Some(101)));
    assert_eq!(meter["verdicts"]["pass"], 101);
    let hook = daemon.hook();
    assert_eq!((hook["passed_end"].as_u64(), &hook["mode"]), (Some(51), &json!("native")));
    assert_eq!(hook["state"], "running");

    // Re-ordered: the counts of each program go on, and its maps stay.
    let order = [("ports", 10), ("blocked", 20), ("meter", 30)];
    daemon.apply_whole(&document(2, &programs(), &chain(&order)));
    assert_eq!(received(&pair, &[5000, 5001], 5999, 10), [10, 0]);
    assert_eq!(counters(&daemon, "ports")["runs"], 101 + 21);
    assert_eq!(counters(&daemon, "ports")["finals"]["drop"], 60);
    assert_eq!(counters(&daemon, "meter")["runs"], 101 + 11);

    // A map's contents change in place: the chain stays as it is.
    let before = daemon.hook()["fused"]["id"].clone();
    let mut changed = programs();
    changed["ports"]["maps"]["ports"]["entries"][0]["key"] = json!(5001);
    daemon.apply_whole(&document(3, &changed, &chain(&order)));
    assert_eq!(received(&pair, &[5000, 5001], 5999, 10), [0, 10]);
    assert_eq!(daemon.hook()["fused"]["id"], before);

    // Upgraded: another global makes another load of the program, with maps of its own.
    let mut upgraded = changed;
    upgraded["blocked"]["globals"] = json!({});
    upgraded["ports"]["globals"] = json!({"unlisted": "XDP_PASS", "listed": "XDP_DROP"});
    upgraded["ports"]["maps"]["ports"]["entries"].as_array_mut().unwrap().pop();
    daemon.apply_whole(&document(4, &upgraded, &chain(&order)));
    assert_eq!(received(&pair, &[5000, 5001], 5999, 10), [10, 0]);
}

#[test]
fn an_observed_program_drops_nothing_and_says_what_it_would() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let chain = json!([{"program": "ports", "enforce": false}, {"program": "meter"}]);
    daemon.apply_whole(&document(1, &programs(), &chain));
    assert_eq!(received(&pair, &[5000, 5001], 5999, 20), [20, 20]);
    let ports = counters(&daemon, "ports");
    assert_eq!((&ports["verdicts"]["drop"], &ports["finals"]["drop"]), (&json!(20), &json!(0)));
    assert_eq!(counters(&daemon, "meter")["runs"], 41);
}

#[test]
fn tens_of_thousands_of_ports_are_applied() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let mut programs = programs();
    let entries: Vec<_> = (20_000..60_000).map(|port| json!({"key": port, "value": 1})).collect();
    programs["ports"]["maps"]["ports"]["entries"] = json!(entries);
    daemon.apply_whole(&document(1, &programs, &json!([{"program": "ports"}])));
    assert_eq!(received(&pair, &[19_999, 20_000, 59_999, 60_000], 30_000, 5), [0, 5, 5, 0]);
}

#[test]
fn a_document_laid_down_beside_and_renamed_is_noticed() {
    let (host, pair) = scene();
    let daemon = host.start(&pair.right).unwrap();
    let document = document(1, &programs(), &json!([{"program": "ports"}]));
    host.drop_document(&document).unwrap();
    // The file is noticed before a later request on the socket is answered, or it is not at all:
    // the daemon's own order. Ask until it is in force.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while daemon.status()["generation"] != 1 {
        assert!(std::time::Instant::now() < deadline, "{:#}", daemon.status());
    }
    assert_eq!(received(&pair, &[5001], 5999, 10), [0]);
    // A broken one later: refused, told, and the chain stays.
    host.drop_document(&json!({"schema": "pointsman.node/v1"})).unwrap();
    while daemon.status()["refused_document"].is_null() {
        assert!(std::time::Instant::now() < deadline, "{:#}", daemon.status());
    }
    assert_eq!(received(&pair, &[5001], 5999, 10), [0]);
}
