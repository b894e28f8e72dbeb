//! A real S3 server: the same store over HTTP.

use crate::lab::{Lab, PLAIN, Place, counter, node};
use pointsman_control::store::{Store, StoreArgs, Wanted};
use pointsman_services::{S3, skip};
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

fn open(endpoint: &str) -> Store {
    let args = StoreArgs {
        url: Some("s3://fleet/some/prefix".into()),
        s3_endpoint: Some(endpoint.into()),
        s3_region: Some("us-east-1".into()),
        s3_virtual_hosted: false,
    };
    args.open(Path::new("/nowhere")).unwrap()
}

#[test]
#[ignore = "it is a helper that runs in a process of its own, with credentials in its environment"]
fn publishes() {
    let root = std::env::var("POINTSMAN_TEST_DIRECTORY").unwrap();
    let endpoint = std::env::var("POINTSMAN_TEST_ENDPOINT").unwrap();
    crate::run(async {
        let store = open(&endpoint);
        let mut lab = Lab::new(Place::sqlite()).await;
        lab.enrol(1..=3, json!({})).await;
        lab.program("ddos", b"object").await;
        for priority in 1..5 {
            let mut spec = counter("eth0", priority);
            spec["chain"] = json!([
                {"program": "builtin:counting-pass", "priority": priority}, {"program": "ddos"}
            ]);
            lab.policy("count", spec).await;
            let publisher = lab.publisher_to(store.clone());
            lab.try_publish(&publisher, PLAIN).await.unwrap();
            lab.auditor.look(Path::new(&root));
            assert_eq!(lab.auditor.now[&node(1)].0, u64::from(priority));
            assert_eq!(lab.try_publish(&publisher, PLAIN).await.unwrap().snapshot, None);
        }
        assert_eq!(store.list("shards/").await.unwrap().len(), 4);
        let shard = lab.auditor.latest.as_ref().unwrap().shards[0];
        let name = format!("shards/{shard}.cdb");
        let part = store.read(&name, Wanted::Bytes(0..8)).await.unwrap().unwrap();
        assert_eq!(part.range, 0..8);
        assert!(store.read("shards/none.cdb", Wanted::Whole).await.unwrap().is_none());
        // What the bucket lost comes back.
        store.delete("latest").await.unwrap();
        store.delete(&name).await.unwrap();
        lab.try_publish(&lab.publisher_to(store.clone()), PLAIN).await.unwrap();
        lab.auditor.look(Path::new(&root));
        assert_eq!(lab.auditor.now.len(), 3);
    });
}

#[test]
fn a_bucket_is_a_store_like_another() {
    // Free a moment ago: the server cannot be told to choose one.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = match S3::start(address) {
        Ok(server) => server,
        Err(why) => return skip("a_bucket_is_a_store_like_another", why),
    };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["s3::publishes", "--exact", "--ignored", "--nocapture"])
        .env("POINTSMAN_TEST_DIRECTORY", server.files("some/prefix"))
        .env("POINTSMAN_TEST_ENDPOINT", server.endpoint())
        .envs(S3::CREDENTIALS)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}
