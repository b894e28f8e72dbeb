//! What clients get while all is well.

use crate::scene::{Keeper, RECORD, record};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;

#[test]
fn records_cut_anywhere_and_pipelined_are_answered_one_by_one_and_in_order() {
    let keeper = Keeper::start();
    let mut client = keeper.client();
    let records: Vec<_> = (0..3).map(|number| record(b"echo", number)).collect();
    let bytes = records.concat();
    for cut in 1..bytes.len() {
        client.send(&bytes[..cut]);
        client.send(&bytes[cut..]);
        for record in &records {
            assert!(client.reply() == *record, "cut at {cut}");
        }
    }
    for byte in bytes.chunks(1) {
        client.send(byte);
    }
    let mut replies = vec![0; bytes.len()];
    client.0.read_exact(&mut replies).unwrap();
    assert!(replies == bytes);
}

#[test]
fn datagrams_keep_their_borders_and_their_descriptors() {
    let keeper = Keeper::start();
    let client = keeper.native();
    for length in [1, 118, 4096, 65_536] {
        let request = vec![length as u8 | 1; length];
        client.send(&request, &[]);
        let (reply, descriptors) = client.reply();
        assert!(reply == request && descriptors.is_empty(), "{length} bytes");
    }
    let file = File::open("/proc/self/status").unwrap();
    let descriptors = [file.as_fd(); 8];
    client.send(b"BACK", &descriptors);
    let (_, back) = client.reply();
    assert_eq!(back.len(), descriptors.len());
    let mut text = String::new();
    File::from(back.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("Name:"), "{text}");
}

#[test]
fn who_says_no_more_still_gets_all_answers_and_then_the_end() {
    let keeper = Keeper::start();
    let mut client = keeper.client();
    for number in 0..50 {
        client.send(&record(b"echo", number));
    }
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = Vec::new();
    client.0.read_to_end(&mut answers).unwrap();
    assert_eq!(answers.len(), 50 * RECORD);
}

#[test]
fn a_closed_connection_gets_the_answers_before() {
    let keeper = Keeper::start();
    let mut client = keeper.client();
    let echo = record(b"echo", 1);
    client.send(&[echo, record(b"CLOS", 2), echo].concat());
    let mut answers = Vec::new();
    // The end may come as a reset: what was sent behind is not read any more.
    let _ = client.0.read_to_end(&mut answers);
    assert!(answers == echo, "{} bytes", answers.len());
}

#[test]
fn b_01_who_sends_and_goes_away_harms_nobody_and_is_forgotten() {
    let keeper = Keeper::start();
    let mut other = keeper.client();
    for number in 0..500 {
        let mut client = keeper.client();
        client.send(&record(b"echo", number));
        drop(client);
        other.echo(&record(b"echo", number));
    }
    // Each end was told before this request was.
    let mut known = keeper.count(&mut other);
    while known > 1 {
        known = keeper.count(&mut other);
    }
    assert_eq!(known, 1);
}

#[test]
fn a_thousand_connections_are_served() {
    crate::limits::raise_open_files();
    let keeper = Keeper::start();
    let mut clients: Vec<_> = (0..1000).map(|_| keeper.client()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&record(b"echo", 1000 * round + number as u64));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert!(client.reply() == record(b"echo", 1000 * round + number as u64));
        }
    }
    assert_eq!(keeper.count(&mut clients[0]), 1000);
}
