//! Starts, ends and changes of hands, as an operator asks for them and as they happen.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Service, UNIT, assert_filtered, assert_held, client, get, holder, run, systemctl};
use pointsman_imtl_client::Client;
use pointsman_netns::netns::Pair;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

const BINARY: &str = "/usr/bin/pointsman-node";

/// The unit with chains on two interfaces, and a client that has lcore 3.
struct Scene {
    service: Service,
    pair: Pair,
    chains: Vec<Value>,
    client: Client,
}

fn scene(test: &str) -> Option<Scene> {
    let service = Service::start(test)?;
    let pair = Pair::new().unwrap();
    service.apply(&pair.right);
    let chains = service.assert_chains();
    Some(Scene { service, pair, chains, client: holder(3) })
}

#[test]
fn it_is_ready_when_its_start_is_done() {
    let Some(service) = Service::start("systemd::life::it_is_ready_when_its_start_is_done") else {
        return;
    };
    service.assert_active(0);
    let status = service.property("StatusText");
    assert!(status.contains("no document yet"), "STATUS= of the daemon: {status:?}");
    // The machine has no manual.
    let verify = ["verify", "--man=no", super::UNIT_FILE];
    let said = run(Command::new("systemd-analyze").args(verify));
    assert_eq!(said, "");
    // Whoever starts it again changes nothing.
    let before = service.keeper().number;
    systemctl(&["start", UNIT]);
    assert_eq!(service.keeper().number, before);
}

#[test]
fn clients_and_chains_live_on_when_the_daemon_is_killed() {
    let Some(Scene { service, pair, chains, mut client }) = scene("systemd::life::killed_daemon")
    else {
        return;
    };
    let keeper = service.keeper().number;
    service.engine().kill();
    assert_filtered(&pair);
    assert_held(&mut client, 3);
    assert_eq!((service.assert_chains(), service.keeper().number), (chains, keeper));
    service.assert_active(0);
}

#[test]
fn a_restart_keeps_connections_leases_and_chains() {
    let Some(Scene { service, pair, chains, mut client }) = scene("systemd::life::restart") else {
        return;
    };
    for _ in 0..2 {
        let (keeper, engine) = (service.keeper(), service.engine());
        systemctl(&["restart", UNIT]);
        keeper.wait();
        engine.wait();
        assert_ne!(service.keeper().number, keeper.number);
        assert_held(&mut client, 3);
        assert_filtered(&pair);
        assert_eq!(service.assert_chains(), chains);
    }
    service.assert_active(0);
    assert_eq!(service.property("NFileDescriptorStore"), "3", "two listeners and a client");
}

#[test]
fn a_reload_swaps_the_binary_of_the_daemon() {
    let Some(Scene { service, pair, chains, mut client }) = scene("systemd::life::reload") else {
        return;
    };
    let (keeper, engine) = (service.keeper(), service.engine());
    // As a package manager does: beside it, and renamed over it.
    let aside = Path::new(BINARY).with_extension("new");
    fs::copy(BINARY, &aside).unwrap();
    fs::rename(&aside, BINARY).unwrap();
    let installed = fs::metadata(BINARY).unwrap().ino();
    systemctl(&["reload", UNIT]);
    engine.wait();
    assert_held(&mut client, 3);
    assert_eq!(service.keeper().number, keeper.number);
    let runs = fs::metadata(service.engine().file("exe")).unwrap().ino();
    assert_eq!(runs, installed, "what is installed now");
    assert_ne!(fs::metadata(keeper.file("exe")).unwrap().ino(), installed);
    assert_eq!(service.assert_chains(), chains);
    assert_filtered(&pair);
    service.assert_active(0);
}

#[test]
fn a_stop_ends_clients_and_leaves_chains() {
    let Some(Scene { service, pair, chains, mut client }) = scene("systemd::life::stop") else {
        return;
    };
    let (keeper, engine) = (service.keeper(), service.engine());
    assert_eq!(service.stop(), "success exited 0");
    keeper.wait();
    engine.wait();
    assert_eq!(service.property("ActiveState"), "inactive");
    assert_eq!(service.property("NFileDescriptorStore"), "0");
    assert!(client.ended().unwrap(), "its connection is not kept for nobody");
    assert_filtered(&pair);
    systemctl(&["start", UNIT]);
    assert_eq!(service.assert_chains(), chains, "adopted");
    assert_eq!(get(&mut self::client(), 3), 0, "the lease ended");
}

#[test]
fn a_killed_keeper_is_started_again_and_clients_see_the_end() {
    let Some(Scene { service, pair, chains, mut client }) = scene("systemd::life::killed_keeper")
    else {
        return;
    };
    let (keeper, engine) = (service.keeper(), service.engine());
    keeper.kill();
    engine.wait();
    assert_filtered(&pair);
    assert!(client.ended().unwrap());
    // The socket is listened on all the time: this waits until somebody serves it.
    assert_eq!(get(&mut self::client(), 3), 0, "the lease ended");
    assert_eq!(service.assert_chains(), chains);
    assert_filtered(&pair);
    service.assert_active(1);
    assert_ne!(service.keeper().number, keeper.number);
}

#[test]
fn all_of_it_killed_at_once_is_started_again() {
    let Some(Scene { service, pair, chains, mut client }) = scene("systemd::life::killed_all")
    else {
        return;
    };
    let (keeper, engine) = (service.keeper(), service.engine());
    systemctl(&["kill", "--signal", "KILL", UNIT]);
    keeper.wait();
    engine.wait();
    assert!(client.ended().unwrap());
    assert_filtered(&pair);
    assert_eq!(get(&mut self::client(), 3), 0, "the lease ended");
    assert_eq!(service.assert_chains(), chains);
    service.assert_active(1);
}
