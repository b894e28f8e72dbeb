//! The database goes away and comes back.

use crate::common::{PROGRAM, Service, refused, run};
use pointsman_control::inspect::{Inspector, VERB};
use pointsman_model::api::ProblemKind;
use pointsman_services::{Postgres, skip};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn without_its_database_the_service_says_so_and_goes_on_with_it() {
    let server = match Postgres::start() {
        Ok(server) => server,
        Err(why) => {
            return skip("cut::without_its_database_the_service_says_so_and_goes_on_with_it", why);
        }
    };
    run(async {
        let inspector = Inspector::new(PROGRAM, [VERB], Duration::from_secs(60));
        let directory = tempfile::tempdir().unwrap();
        let service = Service::on(&server.database(), inspector, directory).await;
        let spec = json!({"selector": {"all": true}, "interface": "eth0", "chain": []});
        let made = service.put("/v1/policies/p", &spec, None).await;
        assert_eq!(made.status(), StatusCode::CREATED);

        server.cut();
        for path in ["/healthz", "/v1/policies", "/metrics"] {
            let problem = refused(service.get(path).await, 503).await;
            assert!(matches!(problem.kind, ProblemKind::Unavailable | ProblemKind::Busy));
            assert!(!problem.title.contains(".s.PGSQL"), "{problem:?}");
        }
        let response = service.put("/v1/policies/q", &spec, None).await;
        assert!(response.headers().contains_key("retry-after"));
        refused(response, 503).await;

        server.resume();
        let healthy = service.bare(Method::GET, "/healthz").send().await.unwrap();
        assert_eq!(healthy.status(), StatusCode::OK);
        let policies: Value = service.read("/v1/policies").await;
        let names: Vec<_> =
            policies["items"].as_array().unwrap().iter().map(|policy| &policy["name"]).collect();
        assert_eq!(names, ["p"]);
    });
}
