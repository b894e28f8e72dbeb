//! Cards for which the kernel has drivers: virtio's, vmxnet3 and e1000e, which QEMU emulates. What
//! they cannot do is told, beforehand and when it is asked; their interrupts go where the document
//! says; and packets go through native XDP to a socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pointsman_imtl_client::request::{Flow, add_flow, get_queue, register};
use pointsman_imtl_client::{Client as Application, DIALECTS, Dialect};
use pointsman_model::InterfaceName;
use pointsman_model::observed::AttachMode;
use pointsman_netdev::{Control, ControlError, Ethtool};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::daemon::{Daemon, Host, binary};
use pointsman_netns::members::fuse;
use pointsman_netns::netns::Netns;
use pointsman_netns::skip;
use pointsman_netns::sockets::{Client, Redirect, put, sockets};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[track_caller]
fn until<T>(what: &str, is: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = is() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

/// The drivers of the cards, as sysfs calls them.
const VIRTIO: &str = "virtio_net";
const VMXNET3: &str = "vmxnet3";
const E1000E: &str = "e1000e";

/// A card, in a namespace of the test's own. It goes back when that does.
struct Card {
    netns: Netns,
    name: String,
    index: u32,
}

impl Card {
    /// Takes one with this driver. `None`: this is no emulated machine, whose cards are nobody's.
    fn take(test: &str, driver: &str) -> Option<Self> {
        if std::env::var("POINTSMAN_RING").is_ok_and(|ring| ring == "vm") {
            return Some(Self::with(Netns::new().expect("root"), driver));
        }
        skip(test, "only the emulated machine has network cards that are the tests' own");
        None
    }

    fn with(netns: Netns, driver: &str) -> Self {
        // Of another test it comes back some time after its namespace went.
        let name = until(driver, || {
            let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
            let mut names = entries.map(|entry| entry.file_name().into_string().unwrap());
            names.find(|name| {
                let link = format!("/sys/class/net/{name}/device/driver");
                fs::read_link(link).is_ok_and(|path| path.ends_with(driver))
            })
        });
        let run = Command::new("ip").args(["link", "set", &name, "netns", netns.name()]).status();
        assert!(run.unwrap().success(), "{name}");
        netns.ip(&["link", "set", &name, "up"]).unwrap();
        let index = netns.index(&name);
        Self { netns, name, index }
    }

    fn daemon(&self) -> (Host, Daemon) {
        let host = Host::told().expect("root");
        let daemon = host.start(&self.netns).unwrap();
        (host, daemon)
    }

    fn client(&self, host: &Host, dialect: Dialect) -> Application {
        let path = host.path("run/mtl_manager.sock");
        let mut client = self.netns.run(move || Application::connect(&path, dialect).unwrap());
        let reply = client.ask(&register(dialect, 1, "tests", &[self.index])).unwrap();
        assert_eq!((reply.kind, reply.value), (201, 0), "{}", self.name);
        client
    }

    /// A document that says this of the card.
    fn document(&self, generation: u64, says: &Value) -> Value {
        json!({"schema": "pointsman.node/v1", "node": "test", "generation": generation,
               "allow_empty": true, "interfaces": {self.name.as_str(): says}})
    }
}

/// What `pointsman doctor` says of an interface: found, and what follows.
fn doctor(card: &Card) -> [String; 2] {
    let mut command = Command::new(binary("pointsman"));
    command.args(["--node", "/nonexistent/node.sock", "doctor", "--json"]);
    let output = card.netns.run(|| command.output().unwrap());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = said["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == card.name.as_str());
    let check = check.unwrap_or_else(|| panic!("nothing of {}: {said:#}", card.name));
    ["found", "consequence"].map(|field| check[field].as_str().unwrap().to_owned())
}

#[test]
fn cards_without_flow_rules_are_told_beforehand_and_answer_so() {
    for driver in [VIRTIO, VMXNET3, E1000E] {
        let Some(card) = Card::take("hardware::ntuple", driver) else { return };
        let [found, follows] = doctor(&card);
        // Some drivers have versions of their own.
        assert!(found.starts_with(driver), "{found}");
        assert!(found.ends_with("; no ntuple"), "{found}");
        assert!(follows.ends_with("no rule can send a flow to a queue"), "{follows}");
        card.netns.run(|| {
            let control = Control::open(InterfaceName::new(&card.name).unwrap()).unwrap();
            let error = control.flow_table().expect_err("no rules");
            assert!(matches!(error, ControlError::Unsupported { .. }), "{error}");
            let message = error.to_string();
            assert!(message.starts_with(&format!("{}: its driver cannot", card.name)), "{message}");
        });
    }
}

#[test]
fn a_flow_on_a_card_without_rules_is_refused_and_its_queue_stays_with_the_client() {
    let Some(card) = Card::take("hardware::flows", VMXNET3) else { return };
    let (host, daemon) = card.daemon();
    for dialect in DIALECTS {
        let mut client = card.client(&host, dialect);
        assert_eq!(client.ask(&get_queue(card.index)).unwrap().value, 1);
        let source = Ipv4Addr::UNSPECIFIED;
        let flow = Flow {
            queue: 1,
            source,
            destination: source,
            source_port: 0,
            destination_port: 20_000,
        };
        let reply = client.ask(&add_flow(dialect, card.index, flow)).unwrap();
        assert!(reply.kind == 203 && reply.value < 0, "{reply:?}");
        // Still the client's: nobody else gets it.
        let mut other = card.client(&host, dialect);
        assert!(other.ask(&get_queue(card.index)).unwrap().value < 0);
        drop((client, other));
    }
    // A document's rule is told with its place.
    let rule = json!({"type": "udp4", "dst_port": 20_000, "queue": 1});
    let says = json!({"flows": [rule]});
    daemon.apply_whole(&card.document(1, &says));
    let status = daemon.until(|status| status["cards"].as_array().is_some_and(|it| !it.is_empty()));
    let problem = &status["cards"][0];
    assert!(problem["pointer"].as_str().unwrap().contains("/flows"), "{problem}");
    assert!(problem["message"].as_str().unwrap().contains("its driver cannot"), "{problem}");
}

/// Who takes the interrupts of a card: by number, the driver's name and the CPUs.
fn interrupts(card: &Card) -> BTreeMap<u32, (String, String)> {
    let text = fs::read_to_string("/proc/interrupts").unwrap();
    let own = card.netns.run(|| {
        let sysfs = pointsman_netdev::Sysfs::here().unwrap();
        sysfs.interrupts(&card.name, card.index, Path::new("/proc")).unwrap()
    });
    let of = |number: u32| {
        let line = text.lines().find(|line| line.trim().starts_with(&format!("{number}:")));
        let name = line.and_then(|line| line.split_whitespace().last()).unwrap_or_default();
        let path = format!("/proc/irq/{number}/smp_affinity_list");
        (number, (name.to_owned(), fs::read_to_string(path).unwrap().trim().to_owned()))
    };
    own.iter().map(|interrupt| of(interrupt.number)).collect()
}

#[test]
fn interrupts_of_real_drivers_go_where_the_document_says_and_back() {
    for (driver, receives) in [(VMXNET3, "-rxtx-"), (E1000E, "-rx-"), (VIRTIO, "-input.")] {
        let Some(card) = Card::take("hardware::interrupts", driver) else { return };
        let (_host, daemon) = card.daemon();
        let before = interrupts(&card);
        let queues = card.netns.run(|| {
            let control = Control::open(InterfaceName::new(&card.name).unwrap()).unwrap();
            control.receive_queues().unwrap_or(1)
        });
        let last = queues - 1;
        let mine: Vec<_> = before
            .iter()
            .filter(|(_, (name, _))| name.contains(&format!("{receives}{last}")))
            .map(|(number, _)| *number)
            .collect();
        let &[mine] = &mine[..] else { panic!("{driver}: {before:?}") };
        for (generation, cpu) in [(1, 0), (2, 1), (3, 0)] {
            let tuning = json!([{"queues": [last], "interrupts": [cpu]}]);
            daemon.apply_whole(&card.document(generation, &json!({"queues": {"tuning": tuning}})));
            let moved = format!("{driver}: CPU {cpu} takes it");
            until(&moved, || (interrupts(&card)[&mine].1 == cpu.to_string()).then_some(()));
            for (number, (name, cpus)) in interrupts(&card) {
                assert!(number == mine || before[&number].1 == cpus, "{name} moved to {cpus}");
            }
        }
        // The next daemon knows how it was.
        daemon.kill_engine().unwrap();
        daemon.ready_again().unwrap();
        daemon.apply_whole(&card.document(4, &json!({})));
        until("as before", || (interrupts(&card) == before).then_some(()));
    }
}

#[test]
fn lcores_that_are_leased_and_interrupts_keep_apart() {
    let Some(card) = Card::take("hardware::beside", VMXNET3) else { return };
    let (host, daemon) = card.daemon();
    let before = interrupts(&card);
    let tuning = json!([{"interrupts": "beside_lcores"}]);
    daemon.apply_whole(&card.document(1, &json!({"queues": {"tuning": tuning}})));
    let mut client = card.client(&host, Dialect::Mtlm);
    assert_eq!(client.ask(&pointsman_imtl_client::request::get_lcore(1)).unwrap().value, 0);
    let queues = |interrupts: BTreeMap<u32, (String, String)>| {
        let of = |(name, cpus): (String, String)| name.contains("-rxtx-").then_some(cpus);
        interrupts.into_values().filter_map(of).collect::<Vec<_>>()
    };
    until("CPU 0 takes them all", || (queues(interrupts(&card)) == ["0", "0"]).then_some(()));
    drop(client);
    daemon.apply_whole(&card.document(2, &json!({})));
    until("as before", || (interrupts(&card) == before).then_some(()));
}

#[test]
fn channels_of_real_drivers_are_read() {
    for (driver, combined) in [(VIRTIO, 1), (VMXNET3, 2)] {
        let Some(card) = Card::take("hardware::channels", driver) else { return };
        card.netns.run(|| {
            let channels = Ethtool::open().unwrap().channels(card.index).expect("channels");
            let rx = channels.combined + channels.rx;
            assert_eq!(rx, combined, "{driver}: {channels:?}");
        });
    }
}

#[test]
fn packets_of_real_drivers_reach_a_socket_behind_the_chain_and_other_ports_the_stack() {
    const LISTED: u16 = 20_000;
    const OTHER: u16 = 30_000;
    const SENDER: &str = "10.7.0.1";
    const RECEIVER: &str = "10.7.0.2";
    // Less than a ring of any of the cards holds.
    const WINDOW: u64 = 32;
    let Some(sender) = Card::take("hardware::packets", VIRTIO) else { return };
    sender.netns.ip(&["addr", "add", &format!("{SENDER}/24"), "dev", &sender.name]).unwrap();
    let from = sender.netns.run(|| UdpSocket::bind((SENDER, 0)).unwrap());
    for (driver, mode) in [(VIRTIO, AttachMode::Native), (E1000E, AttachMode::Skb)] {
        let maps = Bpffs::mount().expect("root");
        let card = Card::with(Netns::new().expect("root"), driver);
        card.netns.ip(&["addr", "add", &format!("{RECEIVER}/24"), "dev", &card.name]).unwrap();
        // The address was another card's before.
        sender.netns.ip(&["neigh", "flush", "dev", &sender.name]).unwrap();
        let redirect = Redirect::prepare(maps.path());
        redirect.list(LISTED, true);
        let chain = fuse(&redirect.slots());
        let link = card.netns.run(|| chain.attach(card.index, mode)).expect(driver);
        let mut client = Client::on(&card.netns, &card.name, 0);
        let own = sockets();
        put(&own, 0, &client.socket);
        redirect.own(0, Some(&own));
        let other = card.netns.run(|| UdpSocket::bind((RECEIVER, OTHER)).unwrap());
        let send = |port, number: u64| {
            let mut bytes = [0; 22];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            // That nobody answers for the address is an error of a later one.
            from.send_to(&bytes, (RECEIVER, port))
        };
        // Its link takes its time, and its address is asked for through the chain.
        const FIRST: u64 = u64::MAX;
        other.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        until("the first datagram", || {
            let _ = send(OTHER, FIRST);
            other.recv(&mut [0; 64]).ok()
        });
        other.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let next = || loop {
            let mut bytes = [0; 64];
            assert_eq!(other.recv(&mut bytes).expect("a datagram"), 22, "{driver}");
            match u64::from_be_bytes(bytes[..8].try_into().unwrap()) {
                FIRST => {}
                number => break number,
            }
        };
        for round in 0..20 {
            for number in round * WINDOW..(round + 1) * WINDOW {
                send(LISTED, number).unwrap();
            }
            send(OTHER, round).unwrap();
            client.wait_for(((round + 1) * WINDOW) as usize);
            assert_eq!(next(), round, "{driver}");
        }
        let wanted: Vec<_> = (0..20 * WINDOW).map(|number| (LISTED, number)).collect();
        assert_eq!(client.came, wanted, "{driver}: each once and in order");
        drop(link);
    }
}
