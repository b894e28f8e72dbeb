//! Interfaces that are renamed, set down and taken away under their clients, and very many of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::super::clients::{DONE, socket};
use super::{BATCH, Holder, LISTED, Stage, next, numbered};
use pointsman_imtl_client::request::{add_port, get_queue, heartbeat, put_queue, register};
use pointsman_imtl_client::{Client, Dialect};
use pointsman_netns::daemon::Host;
use pointsman_netns::netns::Netns;
use pointsman_netns::sockets::Source;
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};

#[test]
fn a_client_receives_on_after_its_interface_was_renamed_and_set_down_and_up() {
    let stage = Stage::set();
    let mut holder = Holder::new(&stage, Dialect::Libmtl, LISTED);
    let mut source = Source::open(&stage.pair, holder.queue);
    let mut sent = 0;
    let mut goes_on = |holder: &mut Holder, when: &str| {
        source.send(&numbered(LISTED, sent, BATCH));
        sent += BATCH;
        holder.sockets.wait_for(sent as usize);
        assert!(holder.sockets.came == numbered(LISTED, 0, sent), "{when}: each once, in order");
        let port = LISTED + 100 + u16::try_from(sent / BATCH).unwrap();
        assert_eq!(holder.client.ask(&add_port(stage.index, port)).unwrap(), DONE, "{when}");
    };
    goes_on(&mut holder, "at first");
    let ip = |arguments: &[&str]| stage.pair.right.ip(arguments).unwrap();
    // Down, the card takes no packets, and the client keeps what it has.
    ip(&["link", "set", "v1", "down"]);
    assert_eq!(holder.client.ask(&add_port(stage.index, 7)).unwrap(), DONE, "down");
    let more = holder.client.ask(&get_queue(stage.index)).unwrap().value;
    assert!(more > 0, "down: {more}");
    assert_eq!(holder.client.ask(&put_queue(stage.index, more as u16)).unwrap(), DONE, "down");
    ip(&["link", "set", "v1", "up"]);
    goes_on(&mut holder, "up again");
    // Clients know it by its number, which stays.
    ip(&["link", "set", "v1", "down"]);
    ip(&["link", "set", "v1", "name", "renamed"]);
    ip(&["link", "set", "renamed", "up"]);
    goes_on(&mut holder, "renamed");
    let is_renamed = |hook: &Value| hook["hook"]["interface"] == "renamed";
    stage.daemon.hook_until("it is known by its new name", is_renamed);
    stage.daemon.kill_engine().unwrap();
    ip(&["link", "set", "renamed", "down"]);
    ip(&["link", "set", "renamed", "name", "v1"]);
    ip(&["link", "set", "v1", "up"]);
    stage.daemon.ready_again().unwrap();
    goes_on(&mut holder, "renamed while the daemon was dead");
    drop(holder);
    stage.until_entries(&[]);
}

#[test]
fn a_client_whose_interface_is_taken_away_lives_on_and_leaves_nothing() {
    let mut stage = Stage::set();
    for dead in [false, true] {
        let mut holder = Holder::new(&stage, Dialect::Mtlm, LISTED);
        if dead {
            stage.daemon.kill_engine().unwrap();
        }
        stage.pair.right.ip(&["link", "delete", "v1"]).unwrap();
        if dead {
            stage.daemon.ready_again().unwrap();
        }
        // What it holds of what is gone can be given back, and nothing can be had of it.
        assert_eq!(holder.client.ask(&heartbeat(3)).unwrap().value, 3);
        let queue = u16::try_from(holder.queue).unwrap();
        assert_eq!(holder.client.ask(&put_queue(stage.index, queue)).unwrap(), DONE);
        let none = holder.client.ask(&get_queue(stage.index)).unwrap();
        assert!(none.kind == 202 && none.value < 0, "{none:?}");
        stage.until_entries(&[]);
        // One that comes in its place has another number, and is for whoever registers with that.
        stage.pair.connect_queues(5).unwrap();
        let former = std::mem::replace(&mut stage.index, stage.pair.right.index("v1"));
        assert_ne!(former, stage.index);
        let mut other = Holder::new(&stage, Dialect::Libmtl, LISTED + 1);
        let stack = stage.stack(LISTED);
        let mut source = Source::open(&stage.pair, other.queue);
        source.send(&[(LISTED, 7), (LISTED + 1, 8)]);
        assert_eq!(next(&stack), 7, "the former's port is not listed");
        other.sockets.wait_for(1);
        drop(holder);
        source.send(&[(LISTED + 1, 9)]);
        other.sockets.wait_for(2);
        drop(other);
        stage.until_entries(&[]);
    }
}

/// More than any host has: the daemon comes up, serves one of them and sees it go.
#[test]
fn ten_thousand_interfaces_are_no_hindrance() {
    let netns = Netns::new().expect("root");
    let mut ip = Command::new("ip");
    ip.args(["-n", netns.name(), "-batch", "-"]).stdin(Stdio::piped());
    let mut batch = ip.spawn().unwrap();
    let mut lines = batch.stdin.take().unwrap();
    for number in 0..5_000 {
        writeln!(lines, "link add a{number} type veth peer name b{number}").unwrap();
    }
    drop(lines);
    assert!(batch.wait().unwrap().success());
    let host = Host::told().expect("root");
    let daemon = host.start(&netns).unwrap();
    let wanted = [netns.index("b0"), netns.index("b4999")];
    let path = socket(&host);
    let mut client = netns.run(move || Client::connect(&path, Dialect::Libmtl).unwrap());
    let reply = client.ask(&register(Dialect::Libmtl, 1, "tests", &wanted)).unwrap();
    assert_eq!(reply, DONE);
    let hooks = |status: &Value| status["hooks"].as_array().map_or(0, Vec::len);
    daemon.until(|status| hooks(status) == 2);
    netns.ip(&["link", "delete", "b0"]).unwrap();
    assert_eq!(client.ask(&add_port(wanted[1], LISTED)).unwrap(), DONE);
    drop(client);
    daemon.until(|status| hooks(status) == 0);
}
