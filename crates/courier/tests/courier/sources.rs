//! Sources that are no web server.

use crate::stage::process::output;
use crate::stage::{CREDENTIAL, NODE, Stage, run};
use pointsman_courier::source::{Client, ClientOptions, Opening, Sources, Traffic};
use pointsman_courier::{Courier, Outcome, Secret};
use serde_json::json;
use std::fs;
use url::Url;

fn open(source: &str) -> Result<Sources, String> {
    let options = ClientOptions::default();
    let client = Client::new(&options).unwrap();
    let opening = Opening {
        control: &Url::parse("https://control.example/").unwrap(),
        credential: &Secret::new(CREDENTIAL),
        source: Some(&Url::parse(source).unwrap()),
        options: &options,
    };
    Sources::open(&opening, &client, &Traffic::default())
}

#[test]
fn a_directory_is_a_source_also_one_that_is_not_plugged_in_yet() {
    let mut stage = Stage::new();
    let stick = stage.path("a stick");
    let url = Url::from_directory_path(&stick).unwrap();
    let source = open(url.as_str()).unwrap();
    let mut courier = Courier::new(stage.config(), source, stage.drop_dir());
    run(async {
        let error = courier.poll_once().await.unwrap_err();
        assert_eq!(error.kind(), "missing");
        assert!(error.to_string().contains("a stick/latest"), "{error}");

        let object = stage.fleet.object(&vec![3; 300_000]);
        let more = json!({"padding": "x".repeat(50_000)});
        stage.fleet.put_with(NODE, 1, &[object], more);
        stage.fleet.publish(1);
        fs::rename(&stage.fleet.root, &stick).unwrap();
        let outcome = courier.poll_once().await.unwrap();
        assert!(matches!(outcome, Outcome::HandedOver { generation: 1 }), "{outcome:?}");
        assert!(matches!(courier.poll_once().await, Ok(Outcome::Unchanged)));

        // A copy that is not complete: the shard and then the object are torn.
        stage.fleet.root = stick.clone();
        let torn = stage.fleet.object(&vec![4; 300_000]);
        stage.fleet.put_with(
            NODE,
            2,
            std::slice::from_ref(&torn),
            json!({"padding": "y".repeat(50_000)}),
        );
        let latest = stage.fleet.publish(1);
        let name = pointsman_snapshot::latest::object_name(&torn.sha256);
        let shard = stick.join(pointsman_snapshot::latest::shard_name(&latest.shards[0]));
        let whole = fs::read(&shard).unwrap();
        for length in [0, 1000, 20_000, whole.len() - 1] {
            fs::write(&shard, &whole[..length]).unwrap();
            let error = courier.poll_once().await.unwrap_err();
            assert!(["shard", "missing"].contains(&error.kind()), "{length}: {error}");
        }
        fs::write(&shard, &whole).unwrap();
        fs::write(stick.join(&name), vec![4; 200_000]).unwrap();
        let Ok(Outcome::Incomplete { error, .. }) = courier.poll_once().await else { panic!() };
        assert_eq!(error.kind(), "interrupted", "{error}");
        assert_eq!(stage.in_place(), Some(1));
        fs::write(stick.join(&name), vec![4; 300_000]).unwrap();
    });
    drop(courier);
    let mut courier = Courier::new(stage.config(), open(url.as_str()).unwrap(), stage.drop_dir());
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 2 })));
}

#[test]
fn a_bucket_is_a_source() {
    let mut stage = Stage::new();
    stage.enrolled();
    let object = stage.fleet.object(&vec![3; 300_000]);
    stage.fleet.put_with(NODE, 1, &[object], json!({"padding": "x".repeat(50_000)}));
    stage.fleet.publish(1);
    let poll = |bucket: &str| {
        let mut command = stage.command(&["--once", "--source", bucket]);
        command
            .env("AWS_ENDPOINT_URL", stage.server.url.as_str().trim_end_matches('/'))
            .env("AWS_REGION", "nowhere-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret-of-the-bucket");
        output(command)
    };
    let (_, out, log) = poll("s3://bucket/prefix");
    assert!(out.contains("generation 1 handed over"), "{out}{log}");
    assert_eq!(stage.in_place(), Some(1));
    let blobs: Vec<_> =
        stage.server.take().into_iter().filter(|seen| seen.path.contains("bucket")).collect();
    // As long as the object is on its way, what is published next is asked for.
    let once = blobs.iter().filter(|seen| seen.status != 304);
    assert_eq!(once.count(), 6, "{blobs:?}");
    for seen in &blobs {
        // The credential of the node is not for S3, nor is anything secret of S3 sent there.
        let signed = seen.authorization.as_ref().unwrap();
        assert!(signed.contains("AKIAEXAMPLE") && !signed.contains("pmc_"), "{signed}");
    }
    let (ok, out, log) = poll("s3://nothing-there/prefix");
    assert!(!ok && log.contains("is not there") && !log.contains("secret"), "{out}{log}");
}

#[test]
fn what_is_no_source_is_named() {
    for (url, expected) in [
        ("ftp://host/x", "scheme ftp"),
        ("s3:///x", "s3://BUCKET"),
        ("file://host/x", "file:///DIRECTORY"),
    ] {
        let error = open(url).unwrap_err();
        assert!(error.contains(expected) && error.contains("the source"), "{url}: {error}");
    }
}
