use crate::{Control, client, ended, error_of, run};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;

#[test]
fn the_first_start_prints_a_token_once_and_later_ones_none() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let directory = state.path().join("deep/er");
        let mut control = Control::start(&mut Control::command(&directory));
        let token = control.told("admin_token");
        let url = control.told("listening");
        let whoami = async |url: &str| {
            let request = client(None).get(format!("{url}/v1/whoami")).bearer_auth(&token);
            request.send().await.unwrap()
        };
        assert_eq!(whoami(&url).await.status(), StatusCode::OK);
        let mode = |file: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(directory.join(file)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode(""), mode("control.db")), (0o700, 0o600));
        assert!(control.end(Signal::TERM).success());
        let mut control = Control::start(&mut Control::command(&directory));
        let url = control.told("listening");
        assert_eq!(whoami(&url).await.status(), StatusCode::OK);
    });
}

#[test]
fn a_service_manager_is_told_and_who_listens_keeps_nothing_from_ending() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("notify");
        let notify = UnixDatagram::bind(&path).unwrap();
        let mut command = Control::command(state.path());
        let mut control = Control::start(command.env("NOTIFY_SOCKET", &path));
        let token = control.told("admin_token");
        let url = control.told("listening");
        let told = || {
            let mut told = [0; 256];
            let length = notify.recv(&mut told).unwrap();
            String::from_utf8_lossy(&told[..length]).into_owned()
        };
        assert!(told().contains("READY=1"));
        let request = client(None).get(format!("{url}/v1/events")).bearer_auth(&token);
        let mut listening = request.send().await.unwrap();
        control.signal(Signal::TERM);
        assert!(told().contains("STOPPING=1"));
        while listening.chunk().await.unwrap().is_some() {}
        assert!(control.child.wait().unwrap().success());
    });
}

#[test]
fn what_keeps_it_from_starting_is_told_in_one_line_with_what_to_do() {
    let state = tempfile::tempdir().unwrap();
    let mut control = Control::start(Control::command(state.path()).args(["--fleet", "prod"]));
    control.told("admin_token");
    let url = control.told("listening");
    let address = url.trim_start_matches("http://");
    let fails = |arguments: &[&str]| {
        let mut command = Control::command(state.path());
        error_of(&ended(command.args(arguments)))
    };
    let taken = fails(&["--listen", address]);
    assert!(taken.contains(&format!("cannot listen on {address}")), "{taken}");
    assert!(taken.contains("--listen"), "{taken}");
    let other = fails(&["--fleet", "test"]);
    assert!(other.contains("of the fleet prod, not test"), "{other}");
    let none = fails(&["--database", "mysql://ann:secret@db/x"]);
    assert!(none.contains("sqlite:///") && !none.contains("secret"), "{none}");
    let nowhere = fails(&["--state-dir", "/dev/null/x"]);
    assert!(nowhere.contains("--state-dir"), "{nowhere}");
    let cert = fails(&["--tls-cert", "/no/cert", "--tls-key", "/no/key"]);
    assert!(cert.contains("cannot use /no/cert with /no/key"), "{cert}");
}

#[test]
fn a_token_can_be_made_on_the_host_while_the_service_runs() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let mut control = Control::start(&mut Control::command(state.path()));
        control.told("admin_token");
        let url = control.told("listening");
        let output = ended(Control::command(state.path()).args(["token", "rescue"]));
        assert!(output.status.success());
        let token = String::from_utf8(output.stdout).unwrap();
        let request = client(None).get(format!("{url}/v1/whoami")).bearer_auth(token.trim());
        let who: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!((&who["name"], &who["role"]), (&json!("rescue"), &json!("admin")));
        let again = ended(Control::command(state.path()).args(["token", "rescue"]));
        assert!(error_of(&again).contains("choose another name"));
        let elsewhere = tempfile::tempdir().unwrap();
        let none = ended(Control::command(elsewhere.path()).arg("token"));
        assert!(error_of(&none).contains("start the service first"));
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        let export = ended(Control::command(state.path()).args(["export-record", "edge-1"]));
        assert!(error_of(&export).contains("nothing is published for node edge-1"));
    });
}

#[test]
fn what_was_answered_is_there_after_a_kill_at_any_moment() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let spec = json!({"selector": {"all": true}, "interface": "eth0", "chain": []});
        let mut token = String::new();
        let mut answered = Vec::new();
        for round in 0..10_u32 {
            let mut control = Control::start(&mut Control::command(state.path()));
            if round == 0 {
                token = control.told("admin_token");
            }
            let url = control.told("listening");
            let client = client(None);
            let kill = {
                let pid = rustix::process::Pid::from_child(&control.child);
                let after = std::time::Duration::from_millis(u64::from(round * 17 % 90));
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    rustix::process::kill_process(pid, Signal::KILL).unwrap();
                })
            };
            for number in 0.. {
                let name = format!("p{round}-{number}");
                let request = client.put(format!("{url}/v1/policies/{name}")).json(&spec);
                match request.bearer_auth(&token).send().await {
                    Ok(response) if response.status() == StatusCode::CREATED => answered.push(name),
                    Ok(response) => panic!("{response:?}"),
                    Err(_) => break,
                }
            }
            kill.await.unwrap();
        }
        let mut control = Control::start(&mut Control::command(state.path()));
        let url = control.told("listening");
        let get =
            |path: String| client(None).get(format!("{url}{path}")).bearer_auth(&token).send();
        for name in &answered {
            let response = get(format!("/v1/policies/{name}")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{name}");
        }
        // One entry for each policy, whether or not its answer arrived.
        let trail: Value = get("/v1/audit?limit=1000".into()).await.unwrap().json().await.unwrap();
        let noted = trail["items"].as_array().unwrap().iter();
        let noted = noted.filter(|entry| entry["object"].as_str().unwrap().starts_with("policy"));
        let kept: Value =
            get("/v1/policies?limit=1000".into()).await.unwrap().json().await.unwrap();
        assert_eq!(noted.count(), kept["items"].as_array().unwrap().len());
    });
}
