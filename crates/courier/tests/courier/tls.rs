//! TLS with an authority of one's own, and proxies.

use crate::stage::server::{Fault, Server};
use crate::stage::{CREDENTIAL, NODE, Stage, run};
use pointsman_courier::source::{
    Blobs, Client, ClientOptions, HttpBlobs, LatestAnswer, Source as _, Sources, Traffic, Web,
};
use pointsman_courier::{Courier, Outcome, Secret};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::sync::mpsc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// A server behind TLS, and its authority in PEM.
fn tls(stage: &Stage) -> (Server, Vec<u8>) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(vec!["localhost".into(), "control.example".into()]).unwrap();
    let certificate = names.signed_by(&key, &authority).unwrap();
    let server = Server::start_tls(&stage.fleet.root, &certificate.pem(), &key.serialize_pem());
    (server, authority.pem().into_bytes())
}

fn sources(base: &Url, options: &ClientOptions) -> Sources {
    let client = Client::new(options).unwrap();
    let traffic = Traffic::default();
    let base = base.join("blobs/").unwrap();
    let credential = Some(Secret::new(CREDENTIAL));
    let blobs = HttpBlobs::new(client.clone(), base, credential, traffic.clone());
    Sources::new(Blobs::Http(blobs), Web::new(client, traffic))
}

#[test]
fn an_authority_of_ones_own_is_trusted_if_it_is_named_and_only_then() {
    let mut stage = Stage::new();
    stage.fleet.publish_one(NODE, 1, &[]);
    let (server, ca) = tls(&stage);
    let mut unknown = sources(&server.url, &ClientOptions::default());
    let error = run(unknown.latest(None)).unwrap_err();
    let text = error.to_string();
    assert!(error.kind() == "unreachable" && text.contains("--ca"), "{text}");
    let (_, other) = tls(&stage);
    let mut wrong = sources(&server.url, &ClientOptions { ca: Some(other), proxy: None });
    assert_eq!(run(wrong.latest(None)).unwrap_err().kind(), "unreachable");
    assert!(server.take().is_empty(), "nothing was sent before the certificate was checked");

    let options = ClientOptions { ca: Some(ca), proxy: None };
    let known = sources(&server.url, &options);
    let mut courier = Courier::new(stage.config(), known, stage.drop_dir());
    assert!(matches!(run(courier.poll_once()), Ok(Outcome::HandedOver { generation: 1 })));

    // What is encrypted does not become plain on the way.
    let plain = stage.server.url.join("blobs/latest").unwrap();
    server.fault_at("latest", Fault::Redirect(plain.to_string()));
    let error = run(courier.poll_once()).unwrap_err();
    assert_eq!(error.kind(), "redirect", "{error}");
    // The other way round is as good as it gets.
    let secure = server.url.join("blobs/latest").unwrap();
    server.heal();
    stage.server.fault_at("latest", Fault::Redirect(secure.to_string()));
    let mut upwards = sources(&stage.server.url, &options);
    assert!(matches!(run(upwards.latest(None)), Ok(LatestAnswer::Found { .. })));
    assert_eq!(server.take().pop().unwrap().authorization, None, "another origin");
}

#[test]
fn a_proxy_is_asked_for_everything() {
    let mut stage = Stage::new();
    stage.fleet.publish_one(NODE, 1, &[]);
    // Any server is a proxy for plain HTTP as long as it does not look at the host.
    let proxy = Some(Secret::new(stage.server.url.as_str()));
    let far = Url::parse("http://control.invalid/").unwrap();
    let mut source = sources(&far, &ClientOptions { ca: None, proxy });
    assert!(matches!(run(source.latest(None)), Ok(LatestAnswer::Found { .. })));
    assert_eq!(stage.server.take()[0].path, "/blobs/latest");
}

#[test]
fn a_proxy_sees_nothing_of_what_goes_through_it_encrypted() {
    let mut stage = Stage::new();
    stage.fleet.publish_one(NODE, 1, &[]);
    let (server, ca) = tls(&stage);
    let (asked, heads) = mpsc::channel();
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://user:pass@{}", listener.local_addr().unwrap());
        let to = server.address;
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.unwrap());
                }
                asked.send(String::from_utf8(head).unwrap()).unwrap();
                let mut far = TcpStream::connect(to).await.unwrap();
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        // A name that only the proxy can resolve.
        let far = Url::parse("https://control.example/").unwrap();
        let options = ClientOptions { ca: Some(ca), proxy: Some(Secret::new(proxy)) };
        let mut courier = Courier::new(stage.config(), sources(&far, &options), stage.drop_dir());
        let outcome = courier.poll_once().await.unwrap();
        assert!(matches!(outcome, Outcome::HandedOver { generation: 1 }), "{outcome:?}");
    });
    let head = heads.recv().unwrap();
    assert!(head.starts_with("CONNECT control.example:443 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains(CREDENTIAL), "{head}");
    assert!(heads.try_recv().is_err(), "one connection for all requests");
}
