use crate::common::{Service, refused, run};
use pointsman_bpf::builtin;
use pointsman_model::Sha256;
use pointsman_model::document::Builtin;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

async fn upload(service: &Service, name: &str, object: &[u8], tag: Option<&str>) -> Response {
    let path = format!("/v1/programs/{name}");
    let mut request = service.by(&service.admin, Method::PUT, &path).body(object.to_vec());
    request = request.header("content-type", "application/octet-stream");
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    request.send().await.unwrap()
}

#[test]
fn a_program_is_uploaded_looked_into_and_given_back() {
    run(async {
        let service = Service::start().await;
        let object = builtin(Builtin::UdpPortFilter);
        let made = upload(&service, "ports", object, None).await;
        assert_eq!(made.status(), StatusCode::CREATED);
        let tag = made.headers()["etag"].to_str().unwrap().to_owned();
        let program: Value = made.json().await.unwrap();
        assert_eq!(program["sha256"], Sha256::of(object).to_string());
        assert_eq!(program["bytes"], object.len());
        let summary = &program["summary"];
        assert_eq!(summary["has_btf"], true);
        assert_eq!(summary["programs"][0]["kind"], "xdp");
        let maps = summary["maps"].as_array().unwrap();
        assert!(maps.iter().any(|map| map["name"] == "ports"), "{summary}");
        let bytes = service.get("/v1/programs/ports/object").await.bytes().await.unwrap();
        assert_eq!(bytes, object);

        refused(upload(&service, "ports", object, None).await, 428).await;
        let other = builtin(Builtin::CountingPass);
        let replaced = upload(&service, "ports", other, Some(&tag)).await;
        assert_eq!(replaced.status(), StatusCode::OK);
        let shown: Value = service.read("/v1/programs/ports").await;
        assert_eq!(shown["sha256"], Sha256::of(other).to_string());
        let listed: Value = service.read("/v1/programs").await;
        assert_eq!(listed["items"], json!([shown]));
    });
}

#[test]
fn an_upload_keeps_what_policies_need() {
    run(async {
        let service = Service::start().await;
        let made = upload(&service, "ports", builtin(Builtin::UdpPortFilter), None).await;
        let tag = made.headers()["etag"].to_str().unwrap().to_owned();
        let spec = json!({"selector": {"all": true}, "interface": "eth0",
            "chain": [{"program": "ports", "maps": {"ports": {"entries": []}}}]});
        let policy = service.put("/v1/policies/p", &spec, None).await;
        assert_eq!(policy.status(), StatusCode::CREATED);
        // This one has no such map.
        let other = upload(&service, "ports", builtin(Builtin::CountingPass), Some(&tag)).await;
        let problem = refused(other, 422).await;
        let told = &problem.errors[0].message;
        assert!(told.contains("policy p at /chain/0/maps/ports"), "{told}");
        let request = service.by(&service.admin, Method::DELETE, "/v1/programs/ports");
        let response = request.header("if-match", &tag).send().await.unwrap();
        let problem = refused(response, 409).await;
        assert!(problem.title.contains("used by policies: p"), "{problem:?}");
        let shown: Value = service.read("/v1/programs/ports").await;
        assert_eq!(format!("\"{}\"", shown["revision"]), tag);
    });
}

#[test]
fn what_is_too_large_is_refused_while_it_arrives() {
    run(async {
        let service = Service::start().await;
        let problem =
            refused(upload(&service, "p", &vec![0; (16 << 20) + 1], None).await, 413).await;
        assert!(problem.title.contains("16777216"), "{problem:?}");
        let request = service.by(&service.admin, Method::PUT, "/v1/programs/p").body("{}");
        let response = request.header("content-type", "application/json").send().await.unwrap();
        refused(response, 415).await;
        refused(service.get("/v1/programs/p").await, 404).await;
    });
}
