//! The file as daemons of this and of other versions leave it.

use super::*;
use crate::leases::tests::frame;
use pointsman_lease::Lease;

fn record(connection: u64, sequence: u64, change: Change) -> Record {
    Record { connection, sequence, change, refused: None }
}

fn grant(id: u32) -> Record {
    let leases = vec![Lease { id, cpu: Some(id), idle: false }];
    record(1, u64::from(id), Change::Leased { leases, mapping: None, moved: Vec::new() })
}

fn put(id: u32) -> Record {
    record(1, 1000 + u64::from(id), Change::Returned(vec![id]))
}

fn none() -> Vec<Record> {
    panic!("nothing has to be written anew")
}

#[test]
fn it_is_read_back_by_daemons_of_the_same_keeper_only() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, empty) = JournalFile::open(directory.path(), "one", false);
    assert!(empty.is_empty());
    let records: Vec<_> = (1..5).map(grant).chain([put(2)]).collect();
    for record in &records {
        journal.write(record, 4, none).unwrap();
    }
    // The space that was set aside is behind the last record.
    let size = fs::metadata(directory.path().join(FILE)).unwrap().len();
    assert!(size > journal.length());
    let (_, read) = JournalFile::open(directory.path(), "one", false);
    assert_eq!(read, records);
    assert_eq!(JournalFile::open(directory.path(), "two", false).1, []);
    assert_eq!(JournalFile::open(directory.path(), "one", false).1, [], "it was begun anew");
}

#[test]
fn a_torn_record_is_left_out_and_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let (mut journal, _) = JournalFile::open(directory.path(), "one", false);
    for id in [1, 2] {
        journal.write(&grant(id), 2, none).unwrap();
    }
    let length = usize::try_from(journal.length()).unwrap();
    let whole = fs::read(&path).unwrap();
    let first = length - journal::encode(&grant(2)).len();
    for cut in first..length {
        fs::write(&path, &whole[..cut]).unwrap();
        let (mut journal, read) = JournalFile::open(directory.path(), "one", false);
        assert_eq!(read, [grant(1)], "cut at {cut}");
        journal.write(&put(1), 1, none).unwrap();
        assert_eq!(JournalFile::open(directory.path(), "one", false).1, [grant(1), put(1)]);
    }
}

#[test]
fn it_does_not_grow_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = JournalFile::open(directory.path(), "one", false);
    let mut compacted = 0;
    for _ in 0..60_000 {
        let snapshot = || {
            compacted += 1;
            vec![grant(7)]
        };
        journal.write(&grant(1), 1, snapshot).unwrap();
        assert!(journal.length() <= COMPACT_ABOVE + 1024);
    }
    assert!(compacted > 0);
    let (_, read) = JournalFile::open(directory.path(), "one", false);
    assert_eq!(read[0], grant(7));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing lies beside it");
}

#[test]
fn a_journal_that_cannot_be_written_stops_grants_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let (mut journal, _) = JournalFile::open(&missing, "one", false);
    assert!(journal.failing().is_some_and(|why| why.contains("leases.journal")));
    assert!(journal.write(&grant(1), 0, Vec::new).is_err());
    journal.write(&put(1), 0, Vec::new).unwrap();
    // As soon as it can be written, all of it is written.
    fs::create_dir(&missing).unwrap();
    journal.write(&grant(2), 0, || vec![grant(9)]).unwrap();
    assert_eq!(journal.failing(), None);
    assert_eq!(JournalFile::open(&missing, "one", false).1, [grant(9), grant(2)]);
}

#[test]
fn one_that_cannot_be_read_is_neither_believed_nor_replaced() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(FILE)).unwrap();
    let (mut journal, read) = JournalFile::open(directory.path(), "one", false);
    assert_eq!(read, []);
    assert!(journal.write(&grant(1), 0, Vec::new).is_err());
    assert!(journal.failing().is_some_and(|why| why.contains("systemctl stop")));
    assert!(journal.unreadable());
    // Under a keeper that has served nobody it says nothing of anybody.
    let (mut journal, _) = JournalFile::open(directory.path(), "one", true);
    assert!(!journal.unreadable());
    assert!(journal.write(&grant(1), 0, Vec::new).is_err(), "a directory lies in the way");
    fs::remove_dir(directory.path().join(FILE)).unwrap();
    journal.write(&grant(1), 0, Vec::new).unwrap();
}

/// One that is too large is not read; whose it is, its heading says.
#[test]
fn one_that_is_too_large_is_begun_anew_by_another_keeper() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    for (epoch, unreadable) in [("one", true), ("two", false)] {
        fs::write(&path, [journal::heading("one"), journal::encode(&grant(1))].concat()).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(MAX_JOURNAL as u64 + 1).unwrap();
        let (mut journal, read) = JournalFile::open(directory.path(), epoch, false);
        assert_eq!((journal.unreadable(), read), (unreadable, vec![]), "{epoch}");
        assert_eq!(journal.write(&grant(2), 0, Vec::new).is_err(), unreadable, "{epoch}");
    }
}

/// What is written has to be read back: where there is no more room, nothing is given away.
#[test]
fn it_does_not_outgrow_what_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = JournalFile::open(directory.path(), "one", false);
    journal.length = MAX_WRITTEN - 1;
    journal.compact_at = MAX_WRITTEN;
    let refused = journal.write(&grant(1), 1, none).unwrap_err();
    assert!(refused.contains("as large as it may be"), "{refused}");
    journal.write(&put(1), 1, none).unwrap();
    assert!(journal.length > MAX_WRITTEN && journal.length < MAX_JOURNAL as u64);
    // And then it is compacted.
    journal.write(&grant(2), 1, || vec![grant(9)]).unwrap();
    assert_eq!(JournalFile::open(directory.path(), "one", false).1, [grant(9), grant(2)]);
}

/// What other versions write, of this keeper's connections, and what such a file says.
fn foreign() -> Vec<(Vec<u8>, &'static str)> {
    let known = journal::encode(&grant(1));
    let later = frame(r#"{"connection":1,"change":{"borrowed":[7]}}"#);
    vec![
        (frame(r#"{"format":2,"epoch":"one"}"#), "format 2"),
        (frame(r#"{"version":"3"}"#), "heading"),
        ([journal::heading("one"), known.clone(), later, known.clone()].concat(), "record at byte"),
        // Damaged: others follow, or it was never begun.
        ([journal::heading("one"), vec![7; 50], known.clone()].concat(), "is damaged"),
        ([journal::heading("one"), known[..30].to_vec(), known].concat(), "is damaged"),
        (b"rubbish".to_vec(), "heading"),
        (Vec::new(), "heading"),
    ]
}

#[test]
fn one_of_another_version_is_left_as_it_is_and_stops_grants() {
    for (bytes, part) in foreign() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, &bytes).unwrap();
        let (mut journal, read) = JournalFile::open(directory.path(), "one", false);
        assert_eq!(read, [], "{part}");
        assert!(journal.unreadable() && journal.failing().unwrap().contains(part), "{part}");
        journal.retry(0, none);
        assert!(journal.write(&grant(2), 0, none).unwrap_err().contains(part));
        journal.write(&put(1), 0, none).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes, "{part}");
    }
    // Of connections that are gone, it does not matter who can read it.
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE), &foreign()[0].0).unwrap();
    assert!(!JournalFile::open(directory.path(), "two", false).0.unreadable());
}

/// On a full disk there is the space that was set aside, and no more: a sealed file does not grow.
#[test]
fn on_a_full_disk_nobody_registers_and_the_space_for_releases_stays() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = JournalFile::open(directory.path(), "one", false);
    journal.write(&grant(1), 1, none).unwrap();
    let full = File::from(memfd_create("journal", MemfdFlags::ALLOW_SEALING).unwrap());
    let used = journal.length();
    let size = used + releases(2);
    full.write_all_at(&fs::read(directory.path().join(FILE)).unwrap()[..used as usize], 0).unwrap();
    full.set_len(size).unwrap();
    fcntl_add_seals(&full, SealFlags::GROW | SealFlags::SHRINK).unwrap();
    journal.file = Some(full.try_clone().unwrap());
    journal.reserved = size;
    journal.path = directory.path().join("missing").join(FILE);
    // Connections come, and none of them takes what is for releases.
    let peer = pointsman_lease::Peer::default();
    let protocol = pointsman_model::lease::Protocol::Imtl;
    for connection in 2..20 {
        let opened = Change::Opened { protocol, peer: peer.clone(), at: 7 };
        journal.write(&record(connection, 0, opened), 2, Vec::new).unwrap();
        let claim =
            pointsman_lease::Claim { hostname: "h".into(), pid: 1, uid: 0, interfaces: vec![] };
        let registered = record(connection, 1, Change::Registered(claim));
        assert!(journal.write(&registered, 2, Vec::new).is_err(), "it would not be kept");
        assert_eq!(journal.length(), used);
    }
    journal.write(&put(1), 2, Vec::new).unwrap();
    let mut bytes = vec![0; size as usize];
    full.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(journal::decode(&bytes).records, [grant(1), put(1)]);
}
