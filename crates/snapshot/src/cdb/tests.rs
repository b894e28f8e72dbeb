use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn file(content: &Content) -> Vec<u8> {
    let mut writer = Writer::new();
    for (key, value) in content {
        writer.add(key, value).unwrap();
    }
    writer.finish()
}

fn content() -> impl Strategy<Value = Content> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    proptest::collection::btree_map(bytes(12), bytes(300), 0..60)
}

/// Searches as a courier does, with what a server would answer.
fn by_ranges(file: &[u8], key: &[u8], most: usize) -> Result<Option<Vec<u8>>, CdbError> {
    let mut asked = 0;
    find_with(key, most, |offset, len| {
        asked += 1;
        let slots = MAX_SLOTS as usize / 64;
        assert!(asked < 2 + 2 * slots + 2 * MAX_CANDIDATES, "comes to an end");
        let from = (offset as usize).min(file.len());
        Ok(file[from..file.len().min(from.saturating_add(len))].to_vec())
    })
}

/// Whatever the bytes are: no panic, no endless search, and the two ways agree.
fn agree(file: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, CdbError> {
    let whole = find(file, key).map(|found| found.map(<[u8]>::to_vec));
    let ranges = by_ranges(file, key, 1 << 20);
    match (&whole, &ranges) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Ok(_), Err(CdbError::TooLarge { .. })) | (Err(_), Err(_)) => {}
        _ => panic!("{whole:?} in memory, {ranges:?} by ranges"),
    }
    whole
}

/// Puts a number into a file.
fn put(file: &mut [u8], at: usize, number: u32) {
    file[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Where the header speaks of `key`'s table.
fn entry(key: &[u8]) -> usize {
    hash(key) as usize % TABLES * PAIR
}

proptest! {
    #[test]
    fn what_was_added_is_found_and_nothing_else(content in content(), other: Vec<u8>) {
        let file = file(&content);
        for (key, value) in &content {
            prop_assert_eq!(agree(&file, key), Ok(Some(value.clone())));
        }
        prop_assert_eq!(agree(&file, &other), Ok(content.get(&other).cloned()));
        let listed: Result<Vec<_>, _> = entries(&file).collect();
        let listed: Content =
            listed.unwrap().into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        prop_assert_eq!(listed, content);
    }

    #[test]
    fn a_flipped_bit_is_searched_without_harm(
        content in content(), at: proptest::sample::Index, bit in 0..8_u8,
    ) {
        let mut bytes = file(&content);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        for key in content.keys() {
            let _ = agree(&bytes, key);
        }
        let _ = entries(&bytes).count();
    }

    #[test]
    fn any_bytes_at_all_are_searched_without_harm(
        tail in proptest::collection::vec(any::<u8>(), 0..400),
        places in proptest::collection::vec((0..300_u32, 0..60_u32), TABLES), key: Vec<u8>,
    ) {
        let mut bytes: Vec<u8> = places
            .into_iter()
            .flat_map(|(position, slots)| [2048 + position, slots].map(u32::to_le_bytes))
            .flatten()
            .collect();
        bytes.extend(tail);
        let _ = agree(&bytes, &key);
        prop_assert!(entries(&bytes).count() <= bytes.len());
    }
}

#[test]
fn cut_off_at_every_byte_it_is_whole_or_an_error() {
    let content: Content = (0..20_u8).map(|n| (vec![b'k', n], vec![n; n.into()])).collect();
    let whole = file(&content);
    for len in 0..whole.len() {
        for (key, value) in &content {
            match agree(&whole[..len], key) {
                Ok(found) => assert_eq!(found.as_ref(), Some(value), "never absent at {len}"),
                Err(error) => assert!(matches!(error, CdbError::Truncated { .. }), "{error}"),
            }
        }
        assert!(entries(&whole[..len]).any(|entry| entry.is_err()) || len >= whole.len() - 20 * 16);
    }
}

#[test]
fn every_bit_of_a_small_one_flipped_harms_nobody() {
    let content: Content =
        [(b"edge-1".to_vec(), vec![7; 40]), (b"edge-2".to_vec(), vec![8; 40])].into();
    let whole = file(&content);
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        for key in content.keys() {
            let _ = agree(&bytes, key);
        }
    }
}

#[test]
fn a_full_table_is_no_endless_search() {
    let mut writer = Writer::new();
    writer.add(b"edge-1", b"one").unwrap();
    let mut file = writer.finish();
    // Both slots are of another key with another hash: there is no empty one to stop at.
    let table = file.len() - 2 * PAIR;
    for slot in 0..2 {
        put(&mut file, table + slot * PAIR, hash(b"edge-1") ^ 0x100);
        put(&mut file, table + slot * PAIR + 4, 2048);
    }
    assert_eq!(agree(&file, b"edge-1"), Ok(None));
}

#[test]
fn a_table_that_keeps_readers_busy_is_given_up() {
    let key = b"edge-1";
    let slots = 2 * MAX_SLOTS as u32;
    let mut file = vec![0; HEADER as usize];
    file.extend([[6_u8, 0, 0, 0], [1, 0, 0, 0]].concat());
    file.extend(b"edge-2x");
    let table = file.len() as u32;
    put(&mut file, entry(key), table);
    put(&mut file, entry(key) + 4, slots);
    let with = |hash: u32| {
        let mut file = file.clone();
        for _ in 0..slots {
            file.extend(hash.to_le_bytes());
            file.extend(2048_u32.to_le_bytes());
        }
        file
    };
    let busy = CdbError::TooManyProbes { slots: MAX_SLOTS, candidates: 0 };
    assert_eq!(agree(&with(hash(key) ^ 0x100), key), Err(busy));
    let error = agree(&with(hash(key)), key).unwrap_err();
    assert!(matches!(error, CdbError::TooManyProbes { candidates: MAX_CANDIDATES, .. }), "{error}");
}

#[test]
fn positions_and_lengths_that_lie_are_errors() {
    let key = b"edge-1";
    let mut writer = Writer::new();
    writer.add(key, b"one").unwrap();
    let good = writer.finish();
    let (at, slot) = (entry(key), good.len() - 2 * PAIR);
    let slot = if good[slot + 4..slot + 8] == [0; 4] { slot + PAIR } else { slot };
    let broken = |places: &[(usize, u32)]| {
        let mut file = good.clone();
        for &(at, number) in places {
            put(&mut file, at, number);
        }
        agree(&file, key)
    };
    let misplaced = |what, position| Err(CdbError::Misplaced { what, position });
    let max = u64::from(u32::MAX);

    assert_eq!(broken(&[(at, 0)]), misplaced("a table", 0));
    assert_eq!(broken(&[(at, 2047)]), misplaced("a table", 2047));
    assert_eq!(broken(&[(at, u32::MAX)]), misplaced("a table", max));
    assert_eq!(broken(&[(at + 4, u32::MAX)]), misplaced("a table", good.len() as u64 - 16));
    assert!(matches!(broken(&[(at, 1 << 30)]), Err(CdbError::Truncated { .. })));
    assert!(matches!(broken(&[(at + 4, 1 << 20)]), Err(CdbError::Truncated { .. })));
    assert_eq!(broken(&[(slot + 4, 1)]), misplaced("a record", 1));
    assert!(matches!(broken(&[(slot + 4, u32::MAX)]), Err(CdbError::Truncated { .. })));
    // A key's length that lies is that of another key.
    assert_eq!(broken(&[(2048, u32::MAX)]), Ok(None));
    // A value's that lies is refused before anything of it is fetched.
    assert!(matches!(broken(&[(2052, 1 << 19)]), Err(CdbError::Truncated { .. })));
    let mut huge = good.clone();
    put(&mut huge, 2052, u32::MAX);
    assert_eq!(by_ranges(&huge, key, 100), Err(CdbError::TooLarge { bytes: max, most: 100 }));
    assert!(find(&huge, key).is_err());
}

#[test]
fn of_a_declared_length_nothing_is_kept_before_it_came() {
    let mut lookup = Lookup::new(b"k", 1 << 30);
    lookup.feed(&[[0, 8, 0, 0], [2, 0, 0, 0]].concat()).unwrap();
    let slot = |hash: u32, at: u32| [hash.to_le_bytes(), at.to_le_bytes()].concat();
    let full = slot(hash(b"k"), 4096);
    lookup.feed(&[full.clone(), full].concat()).unwrap();
    let mut record = [1_u32.to_le_bytes(), (1_u32 << 30).to_le_bytes()].concat();
    record.push(b'k');
    record.resize(AHEAD, 0);
    lookup.feed(&record).unwrap();
    assert_eq!(
        lookup.next(),
        Next::Need { offset: 4096 + AHEAD as u64, len: (1 << 30) + 9 - AHEAD }
    );
    assert!(lookup.memory() <= 2 * AHEAD, "{}", lookup.memory());
    assert!(matches!(lookup.feed(b"all there is"), Err(CdbError::Truncated { .. })));
}

#[test]
fn three_requests_are_enough_for_a_record_of_a_shard() {
    let mut writer = Writer::new();
    for node in 0..2000 {
        writer.add(format!("edge-{node}").as_bytes(), &[b'x'; 4096]).unwrap();
    }
    let file = writer.finish();
    for node in 0..2000 {
        let (mut requests, mut bytes) = (0, 0);
        let found = find_with(format!("edge-{node}").as_bytes(), 8192, |offset, len| {
            requests += 1;
            let from = offset as usize;
            let piece = file[from..file.len().min(from + len)].to_vec();
            bytes += piece.len();
            Ok::<_, CdbError>(piece)
        });
        assert_eq!(found.unwrap().unwrap().len(), 4096);
        assert!((requests, bytes) <= (3, 9500), "{requests} requests, {bytes} bytes");
    }
}

#[test]
fn of_two_records_of_a_key_the_first_is_found() {
    let mut writer = Writer::new();
    writer.add(b"edge-1", b"one").unwrap();
    writer.add(b"edge-x", b"two").unwrap();
    let mut file = writer.finish();
    // The second record becomes one of the same key, in the slot after the first's.
    let second = 2048 + PAIR + 6 + 3;
    file[second + PAIR..second + PAIR + 6].copy_from_slice(b"edge-1");
    let table = file.len();
    put(&mut file, entry(b"edge-1"), table as u32);
    put(&mut file, entry(b"edge-1") + 4, 4);
    let mut slots = [(0_u32, 0_u32); 4];
    let first = (hash(b"edge-1") >> 8) as usize % 4;
    slots[first] = (hash(b"edge-1"), 2048);
    slots[(first + 1) % 4] = (hash(b"edge-1"), second as u32);
    file.extend(
        slots.iter().flat_map(|(hash, at)| [hash.to_le_bytes(), at.to_le_bytes()].concat()),
    );
    assert_eq!(agree(&file, b"edge-1"), Ok(Some(b"one".to_vec())));
}

#[test]
fn bytes_that_nobody_asked_for_are_an_error() {
    let mut lookup = Lookup::new(b"k", 100);
    assert_eq!(lookup.feed(&[0; 9]), Err(CdbError::NotAsked { given: 9, asked: 8 }));
    lookup.feed(&[0; 8]).unwrap();
    assert_eq!(lookup.next(), Next::Absent);
    assert_eq!(lookup.feed(b"x"), Err(CdbError::NotAsked { given: 1, asked: 0 }));
    assert_eq!(lookup.into_value(), None);
}
