//! What is wrong with the original, by the ids of its list, and is not here. Those that are about
//! sockets (B-01, B-18, B-21 to B-23, B-30) are the keeper's.

use super::*;

#[test]
fn b_02_who_a_client_is_the_kernel_says() {
    let (host, uid) = (Host::new(), rustix::process::geteuid().as_raw());
    let mut desk = host.open("e");
    desk.client(1);
    let instance = desk.instance(1);
    assert_eq!((instance.peer.pid, instance.peer.uid), (Some(std::process::id()), uid));
    assert_eq!(instance.peer.command.as_deref(), Some("me"));
    let claimed = instance.claimed.unwrap();
    assert_eq!((claimed.pid, claimed.uid, claimed.pid_differs), (1, 0, true));
}

#[test]
fn b_04_an_lcore_is_given_back_by_its_owner_alone() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    desk.client(2);
    assert_eq!(desk.get(1, 5), 0);
    assert_eq!((desk.put(2, 5), desk.get(2, 5)), (-22, -16));
    desk.end(2);
    desk.client(3);
    assert_eq!(desk.get(3, 5), -16);
    desk.end(1);
    assert_eq!(desk.get(3, 5), 0);
}

#[test]
fn b_05_replies_are_zero_behind_their_last_field() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    for (request, kind, code) in [(103, 201, 0), (105, 201, -1), (108, 202, -1), (110, 203, -1)] {
        assert_eq!(desk.ask(1, record(request, &[0, 1, 0, 0, 0, 0])), reply(kind, code));
    }
}

#[test]
fn b_06_more_interfaces_than_a_record_holds_are_refused() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    for count in [9, 65_535] {
        assert_eq!(desk.ask(1, register(&[0, 0, 0, 106], count, &[1; 8])), reply(201, -22));
    }
    assert_eq!(desk.get(1, 1), -1, "it has not registered");
    assert_eq!(desk.instance(1).claimed, None);
}

#[test]
fn b_08_a_map_that_is_not_there_is_refused_as_each_dialect_can_take_it() {
    let host = Host::new();
    let mut desk = host.open("e");
    let ask = || record(107, &[0, 0, 0, 1]);
    desk.connect(1, Kind::Imtl);
    assert_eq!(desk.ask(1, ask()), (vec![b' '], 1), "before REGISTER");
    assert_eq!(code(&desk.ask(1, register(&[106, 0, 0, 0], 0, &[]))), 0);
    assert_eq!(desk.ask(1, ask()), (vec![b' '], 1), "1.0");
    desk.client(2);
    assert_eq!(desk.ask(2, ask()), (vec![b'E'], 0), "1.1");
}

#[test]
fn b_19_b_20_everything_is_answered_in_its_own_type_before_register_too() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    for (request, kind) in [
        (103, 201),
        (104, 201),
        (105, 201),
        (106, 201),
        (108, 202),
        (109, 201),
        (110, 203),
        (111, 201),
        (0, 201),
        (100, 201),
        (999, 201),
    ] {
        assert_eq!(desk.ask(1, record(request, &[0; 26])), reply(kind, -1), "{request}");
    }
    // After what is no record nothing can be answered, and nobody waits.
    assert_eq!(desk.send(1, vec![b'x'; 118]), None);
    desk.connect(2, Kind::Imtl);
    assert_eq!(desk.send(2, b"IMTL".to_vec()), None);
}

#[test]
fn b_24_a_name_from_outside_is_escaped_wherever_it_is_told() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    let name = b"a\n[ERROR] b\r\x1b[2J\xff";
    assert_eq!(code(&desk.ask(1, named(&[0, 0, 0, 106], name, 0, &[]))), 0);
    let shown = r"a\n[ERROR] b\r\x1b[2J\xff";
    assert_eq!(desk.instance(1).claimed.unwrap().hostname, shown);
    let [event] = &host.events()[..] else { panic!("one event") };
    assert!(event.contains(shown) && !event.contains(char::is_control), "{event}");
    host.write(&format!("proc/{}/comm", std::process::id()), "x\x1b]0;y\x07\n");
    desk.connect(2, Kind::Imtl);
    assert_eq!(desk.instance(2).peer.command.as_deref(), Some(r"x\x1b]0;y\x07"));
}

#[test]
fn b_25_there_are_more_than_128_lcores() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.client(1);
    assert_eq!([127, 128, 1023, 1024].map(|lcore| desk.get(1, lcore)), [0, 0, 0, -22]);
    assert_eq!(desk.instance(1).lcores[1].notes, ["unmapped: no CPU has this number"]);
}

#[test]
fn b_31_heartbeats_are_answered_and_who_holds_what_can_be_asked() {
    let host = Host::new();
    let mut desk = host.open("e");
    desk.connect(1, Kind::Imtl);
    let (beat, _) = desk.ask(1, record(102, &[1, 2, 3, 4]));
    assert_eq!((&beat[4..8], &beat[12..16]), (&[0, 0, 0, 204][..], &[1, 2, 3, 4][..]));
    desk.client(2);
    assert_eq!(desk.get(2, 3), 0);
    let lcores = desk.lcores();
    let me = std::process::id();
    assert_eq!(lcores.held[0].owner, format!("me pid {me}"));
    assert_eq!(lcores.held[0].lcore.cpu, Some(3));
    let text = desk.counter.metrics.text(&desk.counter);
    for line in [
        "pointsman_instances{protocol=\"imtl\"} 2",
        "pointsman_lcores_leased 1",
        "pointsman_requests_total{request=\"GET_LCORE\"} 1",
        "pointsman_refusals_total{request=\"GET_LCORE\"} 0",
        "pointsman_requests_total{request=\"HEARTBEAT\"} 1",
        "pointsman_journal_failing 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    desk.end(2);
    let events = host.events();
    assert!(events[0].starts_with("registered: instance 2"), "{events:?}");
    assert!(events[1].contains("instance 2") && events[1].contains("1 lcore came back"));
}
