//! Whatever is wrong with a record: it is shown, and what is in force stays.

use super::*;

#[test]
fn a_record_cut_off_at_any_byte_changes_nothing() {
    let (host, node) = at_5();
    let next = record(6, &[("a", "b")]);
    for len in 0..next.len() {
        lay_down(&host, &node, &next[..len]);
        let kind = kind(&node);
        assert!(matches!(&*kind, "unsigned" | "bad_signature"), "{len}: {kind}");
    }
    stands_at_5(&host, &node);
    lay_down(&host, &node, &next);
    assert_eq!((host.running("a"), refusal(&node)), (vec!["b".to_owned()], None));
    assert!(told(&node, EventKind::DocumentRefused) <= 9, "a flood is not written down");
}

#[test]
fn a_record_with_a_bit_flipped_changes_nothing() {
    let (host, node) = at_5();
    let next = record(6, &[("a", "b")]);
    for at in 0..next.len() {
        let mut altered = next.clone();
        altered[at] ^= 1 << (at % 8);
        lay_down(&host, &node, &altered);
        let kind = kind(&node);
        assert!(matches!(&*kind, "unsigned" | "bad_signature"), "{at}: {kind}");
    }
    stands_at_5(&host, &node);
}

#[test]
fn a_snapshot_cut_off_or_flipped_here_and_there_changes_nothing() {
    let (host, node) = at_5();
    let alone = |record: &[u8]| {
        let mut writer = Writer::new();
        writer.add(b"edge-1", record).unwrap();
        writer.finish()
    };
    let good = alone(&record(6, &[("a", "b")]));
    for len in (0..good.len()).step_by(7) {
        lay_down_file(&host, &good[..len]);
        node.laid_down();
        assert_eq!(kind(&node), "unreadable", "{len}");
    }
    stands_at_5(&host, &node);
    // A whole one is too old: whatever a flipped bit makes of it, it is refused.
    let old = alone(&record(4, &[("a", "b")]));
    let mut kinds = std::collections::BTreeSet::new();
    for at in (0..old.len()).step_by(7) {
        let mut altered = old.clone();
        altered[at] ^= 1 << (at % 8);
        lay_down_file(&host, &altered);
        node.laid_down();
        kinds.insert(kind(&node));
    }
    stands_at_5(&host, &node);
    let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
    let expected = ["bad_signature", "no_record", "older", "too_large", "unreadable", "unsigned"];
    assert!(kinds.iter().all(|kind| expected.contains(kind)), "{kinds:?}");
    assert!(kinds.contains(&"no_record") && kinds.contains(&"older"), "{kinds:?}");
}

/// What is shown when this record is laid down over generation 5.
fn refused(record: &[u8]) -> (String, String) {
    let (host, node) = at_5();
    lay_down(&host, &node, record);
    stands_at_5(&host, &node);
    let RefusedSnapshot { kind, message, at_unix_ms } = refusal(&node).unwrap();
    assert_eq!(at_unix_ms, 1_735_689_600_000, "by the host's clock");
    assert_eq!(told(&node, EventKind::DocumentRefused), 1);
    // The same again is no news.
    host.pass(60);
    lay_down(&host, &node, record);
    assert_eq!(refusal(&node).unwrap().at_unix_ms, at_unix_ms);
    assert_eq!(told(&node, EventKind::DocumentRefused), 1);
    // After a restart it is looked at again, and still refused.
    assert!(node.stop());
    let node = host.start_in_fleet();
    assert_eq!((kind.clone(), message.clone()), {
        let again = refusal(&node).unwrap();
        (again.kind, again.message)
    });
    assert_eq!(host.running("a"), ["c", "u"]);
    assert_eq!(node.status().generation, Some(5));
    // What is good is taken as ever, and the refusal is forgotten.
    lay_down(&host, &node, &super::record(7, &[("a", "u")]));
    assert_eq!((host.running("a"), refusal(&node)), (vec!["u".to_owned()], None));
    assert!(node.stop());
    (kind, message)
}

fn refused_as(expected: &str, record: &[u8], says: &[&str]) {
    let (kind, message) = refused(record);
    assert_eq!(kind, expected, "{message}");
    for part in says {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn unsigned_records_and_those_of_other_keys_fleets_and_nodes_are_refused() {
    let next = || payload(document(6, &[("a", "b")]), &[]);
    let bare = serde_json::to_vec(&next()).unwrap();
    refused_as("unsigned", &bare, &["four lines"]);
    let (ours, theirs) = (KEY.public_key().key_id(), OTHER.public_key().key_id());
    refused_as("bad_signature", &sign(&OTHER, &next()).unwrap(), &[&ours, &theirs]);
    let mut other = next();
    other.fleet = FleetName::new("prod").unwrap();
    refused_as("other_fleet", &sign(&KEY, &other).unwrap(), &["fleet prod, not of lab"]);
    let mut other = document(6, &[("a", "b")]);
    other["node"] = json!("edge-2");
    let other = sign(&KEY, &payload(other, &[])).unwrap();
    refused_as("other_node", &other, &["node edge-2, not for edge-1"]);
}

#[test]
fn older_changed_emptied_and_invalid_documents_are_refused() {
    refused_as("older", &record(4, &[("a", "b")]), &["generation 4", "generation 5 is in force"]);
    refused_as("older", &record(5, &[("a", "b")]), &["generation 5", "other contents"]);
    refused_as("invalid", &record(6, &[]), &["suddenly empty"]);
    let mut unknown = document(6, &[("a", "cx")]);
    unknown["surprise"] = json!(1);
    let unknown = sign(&KEY, &payload(unknown, &[])).unwrap();
    refused_as("invalid", &unknown, &["/surprise", "unknown field"]);
    let twice = sign(&KEY, &payload(document(6, &[("a", "cxyz")]), &[])).unwrap();
    refused_as("invalid", &twice, &["/interfaces/a/xdp/chain/1/program", "(and 2 more errors)"]);
}

#[test]
fn a_snapshot_without_a_record_of_the_node_is_refused() {
    let (host, node) = at_5();
    let mut writer = Writer::new();
    writer.add(b"edge-10", &record(6, &[("a", "b")])).unwrap();
    lay_down_file(&host, &writer.finish());
    node.laid_down();
    assert_eq!(kind(&node), "no_record");
    assert!(refusal(&node).unwrap().message.contains("no record of the node edge-1"));
    stands_at_5(&host, &node);
}

#[test]
fn loops_and_lying_offsets_in_a_snapshot_are_refused() {
    let (host, node) = at_5();
    let good = snapshot(&record(6, &[("a", "b")]));
    // Tables that are all full, of a hash that is not sought, and of the one that is.
    let mut full = good.clone();
    let table = full.len();
    for entry in full[..2048].chunks_exact_mut(8) {
        entry[..4].copy_from_slice(&u32::try_from(table).unwrap().to_le_bytes());
        entry[4..].copy_from_slice(&(1_u32 << 17).to_le_bytes());
    }
    let hash = b"edge-1".iter().fold(5381_u32, |h, &b| h.wrapping_mul(33) ^ u32::from(b));
    for hash in [hash, hash ^ 0x100] {
        let mut busy = full.clone();
        let slot = [hash.to_le_bytes(), 2048_u32.to_le_bytes()].concat();
        busy.extend(slot.repeat(1 << 17));
        lay_down_file(&host, &busy);
        node.laid_down();
        assert_eq!(kind(&node), "unreadable");
        let message = refusal(&node).unwrap().message;
        assert!(message.contains("keep readers busy"), "{message}");
    }
    // Everything that is a position points to where nothing is.
    for place in [0, 1, 2047, table as u32 - 1, table as u32, u32::MAX] {
        let mut lying = good.clone();
        for entry in lying[..2048].chunks_exact_mut(8) {
            entry[..4].copy_from_slice(&place.to_le_bytes());
        }
        lay_down_file(&host, &lying);
        node.laid_down();
        assert_eq!(kind(&node), "unreadable", "{place}");
    }
    // A length that the file does not have, and one that no record has.
    let at = 2048 + 8 + b"edge-0another's".len() + 4;
    for (length, expected) in [(1 << 20, "unreadable"), (u32::MAX, "too_large")] {
        let mut lying = good.clone();
        lying[at..at + 4].copy_from_slice(&u32::to_le_bytes(length));
        lay_down_file(&host, &lying);
        node.laid_down();
        assert_eq!(kind(&node), expected);
    }
    stands_at_5(&host, &node);
}
