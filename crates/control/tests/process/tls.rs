use crate::{Control, client, run};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::StatusCode;
use rustix::process::Signal;
use std::path::Path;

/// A certificate of its own authority, as files; gives the certificate.
fn certificate(directory: &Path) -> String {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    std::fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.pem()
}

#[test]
fn tls_is_served_and_a_new_certificate_is_taken_on_sighup() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let first = certificate(state.path());
        let mut command = Control::command(state.path());
        command.arg("--tls-cert").arg(state.path().join("cert.pem"));
        command.arg("--tls-key").arg(state.path().join("key.pem"));
        let mut control = Control::start(&mut command);
        control.told("admin_token");
        let url = control.told("listening");
        assert!(url.starts_with("https://"), "{url}");
        let healthy = async |trusted: &str| {
            let request = client(Some(trusted)).get(format!("{url}/healthz"));
            request.send().await.is_ok_and(|response| response.status() == StatusCode::OK)
        };
        assert!(healthy(&first).await);
        let plain = client(None).get(url.replace("https", "http")).send().await;
        assert!(plain.is_err(), "{plain:?}");

        // What cannot be used changes nothing.
        let key = state.path().join("key.pem");
        std::fs::write(&key, "no key").unwrap();
        control.signal(Signal::HUP);
        assert!(healthy(&first).await);
        let second = certificate(state.path());
        control.signal(Signal::HUP);
        while !healthy(&second).await {}
        assert!(!healthy(&first).await);
        assert!(control.end(Signal::TERM).success());
    });
}
