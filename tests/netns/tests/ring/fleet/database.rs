//! A database that is cut off.

use super::{assert_edition, first_port, lets, settle};
use pointsman_netns::fleet::{Api, Fleet};
use pointsman_netns::random::{Random, full};
use pointsman_netns::skip;
use pointsman_services::Postgres;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is cut off in the middle of something.
fn rounds() -> u16 {
    if full() { 20 } else { 4 }
}

fn change(api: &Api, nodes: &[String], edition: u16) {
    for (at, node) in nodes.iter().enumerate() {
        api.put_policy(&format!("of-{node}"), &lets(node, first_port(at) + edition));
    }
    api.publish();
}

#[test]
fn a_database_that_is_away_changes_no_host_and_when_it_is_back_all_goes_on() {
    let server = match Postgres::start() {
        Ok(server) => Arc::new(server),
        Err(why) => return skip("fleet::database", &why.to_string()),
    };
    let fleet = Fleet::with(2, Some(server.clone()), &[]).unwrap();
    let mut random = Random::new("fleet_database");
    settle(&fleet, 1);
    server.cut();
    for request in ["GET /v1/policies", "POST /v1/publish"] {
        let response = fleet.ask(request, None, b"{}").unwrap();
        assert_eq!(response.status, 503, "{request}: {}", response.json());
        assert_eq!(response.json()["kind"], "unavailable");
    }
    assert_edition(&fleet, 1);
    server.resume();
    let names: Vec<_> = fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let start = Instant::now();
    change(&fleet, &names, 2);
    let took = start.elapsed();
    fleet.converge();
    for edition in 3..3 + rounds() {
        let moment = u64::try_from(took.as_micros()).unwrap().max(1);
        let delay = Duration::from_micros(random.next() % moment);
        let api = fleet.api.clone();
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| change(&api, &names, edition));
            // The moment of the cut is what is tried: any will do, and none is waited for.
            std::thread::sleep(delay);
            server.cut();
            server.resume();
            changing.join().unwrap();
        });
        fleet.converge();
        assert_edition(&fleet, edition);
    }
}
