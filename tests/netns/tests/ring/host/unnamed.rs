//! Clients whose network namespace has no name, as a container's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::afxdp::{Holder, LISTED, Native, Stage, numbered};
use super::namespaces::Process;
use pointsman_imtl_client::Dialect;
use pointsman_imtl_client::request::{add_port, get_queue};
use pointsman_netdev::Namespace;
use pointsman_netns::daemon::Host;
use pointsman_netns::netns::{Netns, Pair};
use pointsman_netns::sockets::Source;
use serde_json::{Value, json};

const BATCH: u64 = 60;

/// A daemon in a namespace of its own, and a pair whose right side has no name.
fn stage() -> (Stage, Netns, Process) {
    let host = Host::new().expect("root").with(&["--restart-delay", "0"]);
    let home = Netns::new().expect("root");
    let mut pair = Pair::with_queues(5).expect("root");
    let process = Process::start(&pair.right);
    pair.right.unname().unwrap();
    let daemon = host.start(&home).unwrap();
    let index = pair.right.index("v1");
    (Stage { daemon, host, pair, index }, home, process)
}

fn interfaces(status: &Value) -> Vec<String> {
    let hooks = status["hooks"].as_array().into_iter().flatten();
    hooks.map(|hook| hook["hook"]["interface"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn clients_of_a_namespace_without_a_name_are_served_over_kills_and_the_end_of_the_first_process() {
    let (stage, _home, process) = stage();
    let inode = stage.pair.right.run(|| Namespace::own().unwrap().id().unwrap().inode());
    let interface = format!("unnamed-{inode}/v1");
    let mut one = Holder::new(&stage, Dialect::Libmtl, LISTED);
    let mut two = Holder::new(&stage, Dialect::Mtlm, LISTED + 1);
    assert_eq!([one.queue, two.queue], [1, 2], "it is one interface to both");
    assert_eq!(interfaces(&stage.daemon.status()), [interface.as_str()]);
    let mut sources = [1, 2].map(|queue| Source::open(&stage.pair, queue));
    let mut sent = 0;
    let mut packets = |one: &mut Holder, two: &mut Holder| {
        for (source, port) in sources.iter_mut().zip([LISTED, LISTED + 1]) {
            source.send(&numbered(port, sent, BATCH));
        }
        sent += BATCH;
        for (holder, port) in [(one, LISTED), (two, LISTED + 1)] {
            holder.sockets.wait_for(sent as usize);
            assert!(holder.sockets.came == numbered(port, 0, sent), "each once, in order");
        }
    };
    packets(&mut one, &mut two);
    stage.daemon.kill_engine().unwrap();
    stage.daemon.ready_again().unwrap();
    packets(&mut one, &mut two);
    // Another process is found in it by the daemons from now on.
    let later = Process::start(&stage.pair.right);
    drop(process);
    for kill in [false, true] {
        if kill {
            stage.daemon.kill_engine().unwrap();
            stage.daemon.ready_again().unwrap();
        }
        let late = stage.client(Dialect::Libmtl);
        let native = Native::connect(&stage);
        let on = json!({"interface": "v1"});
        assert_eq!(native.ask(&json!({"claim": on})), json!({"done": true}));
        // The one before may not have been found out to be gone yet.
        let queue = native.ask(&json!({"queue": on}))["queue"].as_u64();
        assert!(queue.is_some_and(|queue| [3, 4].contains(&queue)), "{queue:?}");
        assert_eq!(interfaces(&stage.daemon.status()), [interface.as_str()]);
        drop((late, native));
        packets(&mut one, &mut two);
    }
    assert_eq!(two.client.ask(&add_port(stage.index, 7)).unwrap().value, 0);
    drop((one, two));
    stage.daemon.until(|status| interfaces(status).is_empty());
    drop(later);
}

#[test]
fn where_nobody_is_seen_in_it_the_refusal_says_how_to_name_it() {
    let (stage, _home, process) = stage();
    drop(process);
    let mut client = stage.connect(Dialect::Mtlm);
    assert_eq!(stage.ask_register(&mut client).value, -5);
    assert!(client.ask(&get_queue(stage.index)).unwrap().value < 0);
    let native = Native::connect(&stage);
    let refused = native.ask(&json!({"claim": {"interface": "v1"}}));
    let said = refused["refused"]["message"].as_str().unwrap_or_default();
    assert!(said.contains("`ip netns attach NAME PID`"), "{refused:#}");
    assert_eq!(interfaces(&stage.daemon.status()), [""; 0]);
    // Somebody is.
    let _process = Process::start(&stage.pair.right);
    assert_eq!(stage.ask_register(&mut client).value, 0);
}
