//! What an interface's queues and flow rules can say, and what they cannot.

use super::super::Document;
use super::*;
use serde_json::{Value, json};

fn parse(interface: &Value) -> Result<Document, Vec<String>> {
    let text = json!({"schema": "pointsman.node/v1", "node": "n", "generation": 1,
                      "interfaces": {"blue/eth0": interface}});
    Document::parse(text.to_string().as_bytes())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn refused(interface: &Value, wanted: &[&str]) {
    let errors = parse(interface).unwrap_err();
    let wanted: Vec<_> = wanted.iter().map(|it| format!("/interfaces/blue~1eth0/{it}")).collect();
    assert_eq!(errors, wanted);
}

#[test]
fn all_that_can_be_said_is_read() {
    let document = parse(&json!({
        "queues": {"combined": 4, "reserve": [2, 3], "tuning": [
            {"queues": [2, 3], "interrupts": "beside_lcores",
             "busy_poll": {"napi_defer_hard_irqs": 2, "gro_flush_timeout_ns": 200_000}},
            {"interrupts": [0, 1, 5]},
        ]},
        "flows": [
            {"type": "udp4", "dst_ip": "239.1.1.1", "dst_port": 20_000, "queue": 2},
            {"type": "tcp6", "drop": true},
        ],
    }));
    let document = document.unwrap();
    let spec = &document.interfaces[&"blue/eth0".parse().unwrap()];
    let queues = spec.queues.as_ref().unwrap();
    assert_eq!(queues.counts, CountsSpec { combined: Some(4), ..CountsSpec::default() });
    assert_eq!(queues.reserve, Some(BTreeSet::from([2, 3])));
    assert!(queues.follows_lcores());
    let [one, rest] = &queues.tuning[..] else { panic!("{queues:?}") };
    let polling = Polling { defer_hard_irqs: 2, gro_flush_timeout: 200_000 };
    assert_eq!((one.queues.clone(), one.polling), (Some([2, 3].into()), Some(polling)));
    assert_eq!((&rest.queues, rest.polling), (&None, None));
    let cpus = "0-1,5".parse().unwrap();
    assert_eq!(rest.interrupts, Some(InterruptsSpec::Cpus(cpus)));
    let rules: Vec<_> = spec.flows.iter().map(ToString::to_string).collect();
    let first = "udp4 dst-ip 239.1.1.1 dst-port 20000 -> queue 2";
    assert_eq!(rules, [first, "tcp6 -> drop"]);
    // To say nothing is not to reserve nothing.
    let none = parse(&json!({"queues": {}})).unwrap();
    let queues = none.interfaces.into_values().next().unwrap().queues;
    assert_eq!(queues, Some(QueuesSpec::default()));
    let few = parse(&json!({"queues": {"rx": 1, "reserve": []}})).unwrap();
    let queues = few.interfaces.into_values().next().unwrap().queues.unwrap();
    assert_eq!((queues.counts.rx, queues.reserve), (Some(1), Some(BTreeSet::new())));
}

#[test]
fn numbers_of_queues_that_no_card_has_are_refused() {
    refused(
        &json!({"queues": {"combined": 0}}),
        &["queues/combined: expected a number from 1 to 65535, found 0"],
    );
    refused(
        &json!({"queues": {"rx": 65_536, "tx": 0}}),
        &[
            "queues/rx: expected a number from 1 to 65535, found 65536",
            "queues/tx: expected a number from 1 to 65535, found 0",
        ],
    );
    refused(
        &json!({"queues": {"combined": 2, "tx": 1}}),
        &["queues: expected `combined`, or `rx` and `tx`: a card has the one or the others"],
    );
}

#[test]
fn the_first_queue_and_one_named_twice_cannot_be_reserved() {
    refused(
        &json!({"queues": {"reserve": [0, 3, 3, 70_000]}}),
        &[
            "queues/reserve/0: queue 0 cannot be reserved: it stays with the kernel's stack",
            "queues/reserve/2: queue 3 is reserved twice",
            "queues/reserve/3: expected the number of a queue, below 65535, found 70000",
        ],
    );
}

#[test]
fn tuning_says_something_of_queues_that_no_other_entry_has() {
    let poll = json!({"napi_defer_hard_irqs": 0, "gro_flush_timeout_ns": 2_000_000_000});
    refused(
        &json!({"queues": {"tuning": [
            {"queues": [1]},
            {"queues": [2, 1], "interrupts": [0]},
            {"queues": [], "interrupts": []},
            {"busy_poll": poll},
            {"interrupts": [8192]},
        ]}}),
        &[
            "queues/tuning/0: expected `busy_poll`, `interrupts`, or both",
            "queues/tuning/1/queues/1: queue 1 is in the entry 0 already",
            "queues/tuning/2/queues: expected queues; leave it out for all",
            "queues/tuning/2/interrupts: expected CPUs: somebody has to take the interrupts",
            "queues/tuning/3/busy_poll/napi_defer_hard_irqs: expected a number from 1 to \
             2147483647, found 0",
            "queues/tuning/3/busy_poll/gro_flush_timeout_ns: expected a number from 1 to \
             1000000000, found 2000000000",
            "queues/tuning/4: the entry 3 is about all queues already",
            "queues/tuning/4/interrupts/0: expected the number of a CPU, below 8192, found 8192",
        ],
    );
}

#[test]
fn a_flow_rule_that_makes_no_sense_is_refused_with_its_place() {
    refused(
        &json!({"flows": [
            {"type": "udp4", "dst_port": 1},
            {"type": "udp4", "dst_port": 1, "queue": 1, "drop": true},
            {"type": "udp4", "dst_ip": "2001:db8::1", "queue": 1},
            {"type": "udp4", "dst_port": 2, "queue": 1},
            {"type": "udp4", "dst_port": 2, "drop": true},
            {"type": "udp4", "queue": 65_535},
        ]}),
        &[
            "flows/0: the rule says neither `queue` nor `drop`",
            "flows/1: the rule says both `queue` and `drop`",
            "flows/2: dst_ip 2001:db8::1 does not fit a rule of type udp4",
            "flows/4: the rule 3 is about the same packets",
            "flows/5: queue 65535 does not exist: there are 65535 receive queues, from 0",
        ],
    );
    let many: Vec<_> = (0..=MAX_FLOWS)
        .map(|port| json!({"type": "udp4", "dst_port": port + 1, "queue": 1}))
        .collect();
    refused(&json!({"flows": many}), &["flows: expected at most 1024 rules, found 1025"]);
}

#[test]
fn other_types_and_names_are_refused_where_they_stand() {
    for (interface, pointer) in [
        (json!({"queues": []}), "queues"),
        (json!({"queues": {"reserve": "2-3"}}), "queues/reserve"),
        (json!({"queues": {"reserved": [2]}}), "queues"),
        (json!({"queues": {"tuning": [{"interrupts": "leased"}]}}), "queues/tuning/0/interrupts"),
        (json!({"queues": {"tuning": [[]]}}), "queues/tuning/0"),
        (json!({"flows": {}}), "flows"),
        (json!({"flows": [{"type": "udp5", "queue": 1}]}), "flows/0/type"),
        (json!({"flows": [{"type": "udp4", "quue": 1}]}), "flows/0"),
        (json!({"flows": [["udp4"]]}), "flows/0"),
    ] {
        let errors = parse(&interface).unwrap_err();
        let start = format!("/interfaces/blue~1eth0/{pointer}");
        assert!(errors.len() == 1 && errors[0].starts_with(&start), "{pointer}: {errors:?}");
    }
}
