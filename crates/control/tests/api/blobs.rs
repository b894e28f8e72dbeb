use crate::common::{Service, refused, run};
use pointsman_model::Sha256;
use pointsman_model::fleet::Latest;
use reqwest::{Method, Response, StatusCode};
use serde_json::json;

async fn fetch(service: &Service, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = service.by(&service.admin, Method::GET, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn published() -> (Service, Latest) {
    let service = Service::start().await;
    service.invite("edge-1").await;
    let response = service.post("/v1/publish", &json!({})).await;
    assert_eq!(response.status(), StatusCode::OK);
    let latest = service.read("/blobs/latest").await;
    (service, latest)
}

#[test]
fn latest_is_fetched_once_and_then_only_asked_about() {
    run(async {
        let service = Service::start().await;
        refused(fetch(&service, "/blobs/latest", &[]).await, 404).await;
        let (service, latest) = published().await;
        assert_eq!(latest.snapshot, 1);
        let response = fetch(&service, "/blobs/latest", &[]).await;
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(response.headers()["cache-control"], "private, no-cache");
        for same in [tag.clone(), format!("\"x\", W/{tag}"), "*".into()] {
            let response = fetch(&service, "/blobs/latest", &[("if-none-match", &same)]).await;
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(response.headers()["etag"], tag);
            assert_eq!(response.bytes().await.unwrap().len(), 0);
        }
        let other = fetch(&service, "/blobs/latest", &[("if-none-match", "\"x\"")]).await;
        assert_eq!(other.status(), StatusCode::OK);
    });
}

#[test]
fn a_shard_is_read_whole_and_in_parts() {
    run(async {
        let (service, latest) = published().await;
        let path = format!("/blobs/shards/{}.cdb", latest.shards[0]);
        let response = fetch(&service, &path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["accept-ranges"], "bytes");
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let whole = response.bytes().await.unwrap();
        assert_eq!(Sha256::of(&whole), latest.shards[0]);
        let size = whole.len();

        for (range, from, to) in [
            ("bytes=0-7".to_owned(), 0, 8),
            ("bytes=2048-2111".to_owned(), 2048, 2112),
            (format!("bytes={}-", size - 3), size - 3, size),
            ("bytes=-5".to_owned(), size - 5, size),
            (format!("bytes=-{}", 10 * size), 0, size),
            (format!("bytes=10-{}", 10 * size), 10, size),
        ] {
            let response = fetch(&service, &path, &[("range", &range)]).await;
            assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
            let told = format!("bytes {from}-{}/{size}", to - 1);
            assert_eq!(response.headers()["content-range"], told, "{range}");
            assert_eq!(response.bytes().await.unwrap(), whole[from..to], "{range}");
        }
        for beyond in [format!("bytes={size}-"), format!("bytes={}-{}", size, size + 5)] {
            let response = fetch(&service, &path, &[("range", &beyond)]).await;
            let problem = refused(response, 416).await;
            assert!(problem.title.contains(&format!("{size} bytes")), "{}", problem.title);
        }
        for ignored in ["bytes=0-1,5-6", "lines=1-2", "bytes=9-3"] {
            let response = fetch(&service, &path, &[("range", ignored)]).await;
            assert_eq!(response.status(), StatusCode::OK, "{ignored}");
        }
        let part = [("range", "bytes=0-7"), ("if-range", &*tag)];
        let response = fetch(&service, &path, &part).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        let response =
            fetch(&service, &path, &[("range", "bytes=0-7"), ("if-range", "\"x\"")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let response = fetch(&service, &path, &[("if-none-match", &tag)]).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    });
}

#[test]
fn names_that_are_none_lead_nowhere() {
    run(async {
        let (service, latest) = published().await;
        std::fs::write(service.blobs().join("secret"), "x").unwrap();
        let hash = latest.shards[0];
        for path in [
            "/blobs/secret".to_owned(),
            "/blobs/shards/..%2Fsecret".to_owned(),
            "/blobs/objects/..%2F..%2Ffleet.key".to_owned(),
            format!("/blobs/shards/{hash}"),
            format!("/blobs/objects/{hash}"),
            format!("/blobs/shards/{}.cdb", Sha256::of(b"other")),
        ] {
            refused(fetch(&service, &path, &[]).await, 404).await;
        }
    });
}

#[test]
fn who_is_not_known_gets_nothing_and_couriers_get_what_is_published() {
    run(async {
        let (service, latest) = published().await;
        let credential = service.node("edge-1").await;
        let viewer = service.token("v", "viewer", None).await;
        let shard = format!("/blobs/shards/{}.cdb", latest.shards[0]);
        for path in ["/blobs/latest", &shard] {
            refused(service.bare(Method::GET, path).send().await.unwrap(), 401).await;
            for token in [&credential, &viewer] {
                let response = service.by(token, Method::GET, path).send().await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
            }
        }
    });
}

#[test]
fn a_store_that_is_away_is_told_and_breaks_nothing() {
    run(async {
        let (service, latest) = published().await;
        let shard = format!("/blobs/shards/{}.cdb", latest.shards[0]);
        // A file where a directory should be: every access fails, also for root.
        let aside = service.blobs().with_extension("aside");
        std::fs::rename(service.blobs(), &aside).unwrap();
        std::fs::write(service.blobs(), "no directory").unwrap();
        service.invite("edge-2").await;
        let response = service.post("/v1/publish", &json!({})).await;
        assert_eq!(response.headers()["retry-after"], "5");
        refused(response, 503).await;
        let response = fetch(&service, &shard, &[("range", "bytes=0-7")]).await;
        assert!(response.headers().contains_key("retry-after"));
        refused(response, 503).await;
        std::fs::remove_file(service.blobs()).unwrap();
        std::fs::rename(aside, service.blobs()).unwrap();
        let response = service.post("/v1/publish", &json!({})).await;
        assert_eq!(response.status(), StatusCode::OK);
        let response = fetch(&service, &shard, &[("range", "bytes=0-7")]).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    });
}
