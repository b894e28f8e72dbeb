//! A node in its fleet, over restarts, reboots, drains, rollbacks and people.

use super::*;
use pointsman_model::status::Status;

fn noted(status: &Status, says: &str) -> bool {
    status.notes.iter().any(|note| note.message.contains(says))
}

#[test]
fn generations_come_into_force_and_the_same_again_is_no_news() {
    let (host, node) = at_5();
    assert_eq!(told(&node, EventKind::Applied), 1);
    let (events, looks) = (node.events().len(), host.inspected());
    for _ in 0..3 {
        lay_down(&host, &node, &record(5, &[("a", "cu")]));
    }
    assert_eq!((node.events().len(), host.inspected()), (events, looks));
    lay_down(&host, &node, &record(6, &[("a", "u"), ("b", "c")]));
    assert_eq!((host.running("a"), host.running("b")), (vec!["u".into()], vec!["c".to_owned()]));
    let fleet = node.status().fleet.unwrap();
    assert_eq!((fleet.generation, fleet.refused), (Some(6), None));
    let page = node.wait_for_events(0);
    assert!(page.events.iter().any(|event| event.message.contains("snapshot generation 6")));
    // The previous one is kept.
    let kept: Vec<_> = node.generations().generations.iter().map(|info| info.generation).collect();
    assert_eq!(kept, [5, 6]);
}

#[test]
fn what_lies_there_is_looked_at_by_the_next_start_and_after_a_reboot() {
    let (host, node) = at_5();
    assert!(node.stop());
    lay_down_file(&host, &snapshot(&record(6, &[("a", "b")])));
    let node = host.start_in_fleet();
    assert_eq!((host.running("a"), node.status().generation), (vec!["b".to_owned()], Some(6)));
    assert_eq!(node.status().fleet.unwrap().generation, Some(6));
    assert!(node.stop());
    host.reboot();
    fs::write(host.path("drop/snapshot.cdb"), "torn").unwrap();
    let node = host.start_in_fleet();
    assert_eq!((host.running("a"), node.status().generation), (vec!["b".to_owned()], Some(6)));
    assert_eq!(kind(&node), "unreadable");
}

#[test]
fn without_a_key_there_are_only_local_documents() {
    let host = enrolled();
    fs::remove_file(host.places().config).unwrap();
    lay_down_file(&host, &snapshot(&record(5, &[("a", "cu")])));
    let node = host.start_in_fleet();
    let status = node.status();
    assert_eq!((status.fleet.as_ref(), status.generation), (None, None));
    assert!(noted(&status, "belongs to no fleet"), "{status:?}");
    node.apply(&document(3, &[("a", "b")])).unwrap();
    node.laid_down();
    assert_eq!(host.running("a"), ["b"]);
    // Enrolled while it runs.
    enrol(&host, "lab", "edge-1", &KEY);
    node.laid_down();
    stands_at_5(&host, &node);
    assert!(!noted(&node.status(), "fleet"));
    // And it leaves again; what is in force stays.
    fs::remove_file(host.places().config).unwrap();
    lay_down(&host, &node, &record(6, &[("a", "b")]));
    assert_eq!((node.status().fleet, node.status().generation), (None, Some(5)));
    assert_eq!(host.running("a"), ["c", "u"]);
}

#[test]
fn a_node_that_is_enrolled_anew_takes_records_of_the_new_key() {
    let (host, node) = at_5();
    let next = payload(document(6, &[("a", "b")]), &[]);
    lay_down(&host, &node, &sign(&OTHER, &next).unwrap());
    assert_eq!(kind(&node), "bad_signature");
    enrol(&host, "lab", "edge-1", &OTHER);
    node.laid_down();
    assert_eq!((host.running("a"), refusal(&node)), (vec!["b".to_owned()], None));
    // The old key is good for nothing.
    lay_down(&host, &node, &record(7, &[("a", "u")]));
    assert_eq!((kind(&node), host.running("a")), ("bad_signature".into(), vec!["b".to_owned()]));
}

#[test]
fn another_name_needs_an_empty_state() {
    let (host, node) = at_5();
    enrol(&host, "lab", "edge-2", &KEY);
    let mut other = document(6, &[("a", "b")]);
    other["node"] = json!("edge-2");
    let mut writer = Writer::new();
    writer.add(b"edge-2", &sign(&KEY, &payload(other, &[])).unwrap()).unwrap();
    lay_down_file(&host, &writer.finish());
    node.laid_down();
    assert_eq!(kind(&node), "other_node");
    assert!(refusal(&node).unwrap().message.contains("drain it"), "{:?}", refusal(&node));
    assert_eq!(
        (host.running("a"), node.status().generation),
        (vec!["c".into(), "u".into()], Some(5))
    );
}

#[test]
fn what_was_drained_stays_so_until_there_is_a_new_generation() {
    let (host, node) = at_5();
    node.drain();
    lay_down(&host, &node, &record(5, &[("a", "cu")]));
    assert_eq!(host.running("a"), NONE);
    assert!(node.status().drained);
    assert!(node.stop());
    let node = host.start_in_fleet();
    assert_eq!(host.running("a"), NONE);
    lay_down(&host, &node, &record(6, &[("a", "b")]));
    assert_eq!(host.running("a"), ["b"]);
    assert!(!node.status().drained);
}

#[test]
fn what_waited_when_the_node_was_drained_does_not_end_that() {
    let (host, node) = at_5();
    node.apply_within(&document(6, &[("a", "b")]), 60).unwrap();
    lay_down(&host, &node, &record(7, &[("a", "u")]));
    let status = node.status();
    assert!(noted(&status, "is looked at when generation 6 is confirmed or gone"), "{status:?}");
    assert_eq!(host.running("a"), ["b"]);
    node.drain();
    assert_eq!(host.running("a"), NONE);
    node.laid_down();
    assert!(noted(&node.status(), "was there when the node was drained"));
    assert!(node.stop());
    let node = host.start_in_fleet();
    assert_eq!(host.running("a"), NONE);
    lay_down(&host, &node, &record(8, &[("a", "u")]));
    assert_eq!(host.running("a"), ["u"]);
}

#[test]
fn a_snapshot_waits_for_what_is_to_be_confirmed() {
    for confirmed in [false, true] {
        let (host, node) = at_5();
        node.apply_within(&document(6, &[("a", "b")]), 60).unwrap();
        lay_down(&host, &node, &record(7, &[("a", "u")]));
        assert_eq!(host.running("a"), ["b"]);
        assert_eq!(refusal(&node), None);
        if confirmed {
            node.confirm(None).unwrap();
        } else {
            host.pass(60);
        }
        assert_eq!(node.status().generation, Some(7), "{confirmed}");
        assert_eq!(host.running("a"), ["u"]);
        assert!(!noted(&node.status(), "is looked at when"));
    }
}

#[test]
fn what_somebody_returned_from_comes_back_only_as_a_new_generation() {
    let (host, node) = at_5();
    lay_down(&host, &node, &record(6, &[("a", "b")]));
    node.rollback(None).unwrap();
    assert_eq!(host.running("a"), ["c", "u"]);
    for _ in 0..2 {
        let status = node.status();
        assert!(noted(&status, "from which somebody returned to generation 5"), "{status:?}");
        node.laid_down();
        assert_eq!(host.running("a"), ["c", "u"]);
    }
    assert!(node.stop());
    let node = host.start_in_fleet();
    assert_eq!(host.running("a"), ["c", "u"]);
    // Other contents under the number that was left do not come either.
    lay_down(&host, &node, &record(6, &[("a", "u")]));
    assert_eq!(
        (kind(&node), host.running("a")),
        ("older".into(), vec!["c".into(), "u".to_owned()])
    );
    lay_down(&host, &node, &record(7, &[("a", "b")]));
    assert_eq!((host.running("a"), refusal(&node)), (vec!["b".to_owned()], None));
    assert!(!noted(&node.status(), "returned"));
}

#[test]
fn a_document_by_hand_takes_the_node_out_of_the_fleets_hands_until_it_is_older() {
    let (host, node) = at_5();
    node.apply(&document(9, &[("a", "b")])).unwrap();
    let refused = refusal(&node).unwrap();
    assert_eq!(refused.kind, "older");
    assert!(refused.message.contains("generation 9 is in force"), "{refused:?}");
    lay_down(&host, &node, &record(8, &[("a", "u")]));
    assert_eq!((kind(&node), host.running("a")), ("older".into(), vec!["b".to_owned()]));
    lay_down(&host, &node, &record(10, &[("a", "u")]));
    assert_eq!((host.running("a"), refusal(&node)), (vec!["u".to_owned()], None));
}

#[test]
fn an_allowed_emptying_empties() {
    let (host, node) = at_5();
    let mut empty = document(6, &[]);
    empty["allow_empty"] = json!(true);
    lay_down(&host, &node, &sign(&KEY, &payload(empty, &[])).unwrap());
    assert_eq!((host.running("a"), node.status().generation), (vec![], Some(6)));
}

#[test]
fn one_bad_program_keeps_its_hook_and_nobody_else() {
    let (host, node) = at_5();
    let mut next = document(6, &[("a", "x"), ("b", "c")]);
    next["programs"]["x"] = json!({ "object": common::inline("no object") });
    lay_down(&host, &node, &sign(&KEY, &payload(next, &[])).unwrap());
    assert_eq!(
        (host.running("a"), host.running("b")),
        (vec!["c".into(), "u".into()], vec!["c".to_owned()])
    );
    let status = node.status();
    assert_eq!((status.generation, status.fleet.unwrap().refused), (Some(6), None));
}
