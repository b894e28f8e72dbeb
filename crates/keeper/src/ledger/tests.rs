use super::*;
use proptest::prelude::*;

fn record(number: u8) -> Vec<u8> {
    vec![number; RECORD]
}

/// What happens to a ledger.
#[derive(Debug, Clone)]
enum Deed {
    /// So many bytes arrive.
    Feed(usize),
    /// The daemon is told what it does not know.
    Tell,
    /// The told request of this place, counted from the oldest, is answered.
    Answer(usize),
    /// So many bytes leave.
    Send(usize),
    /// The daemon is started again.
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (1..400_usize).prop_map(Deed::Feed),
        Just(Deed::Tell),
        (0..8_usize).prop_map(Deed::Answer),
        (1..130_usize).prop_map(Deed::Send),
        Just(Deed::Restart),
    ]
}

proptest! {
    /// However input is cut, in whatever order answers come and however often the daemon starts:
    /// each request is answered once, in order, with its own answer.
    #[test]
    fn every_request_gets_its_own_answer_once_and_in_order(
        deeds in proptest::collection::vec(deed(), 1..200)
    ) {
        let mut ledger = Ledger::<()>::default();
        let mut input = (0..=u8::MAX).cycle().flat_map(record);
        // What the daemon that runs knows and has not answered.
        let mut known: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut told_ever = 0;
        let mut output = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Feed(length) => {
                    let length = length.min(ledger.has_room(Kind::Imtl));
                    ledger.feed(&input.by_ref().take(length).collect::<Vec<_>>());
                }
                Deed::Tell => {
                    while let Some(Asked { sequence, bytes, .. }) = ledger.untold() {
                        prop_assert!(known.last().is_none_or(|(last, _)| *last < sequence));
                        known.push((sequence, bytes.to_vec()));
                        told_ever = told_ever.max(sequence);
                        ledger.told(sequence);
                    }
                }
                Deed::Answer(place) if place < known.len() => {
                    let (sequence, bytes) = known.remove(place);
                    prop_assert!(ledger.answer(sequence, bytes.clone(), Vec::new()));
                    prop_assert!(!ledger.answer(sequence, bytes, Vec::new()), "answered twice");
                }
                Deed::Answer(_) => {
                    prop_assert!(!ledger.answer(told_ever + 1, record(0), Vec::new()));
                }
                Deed::Send(length) => {
                    if let Some((bytes, _)) = ledger.due() {
                        let length = length.min(bytes.len());
                        output.extend_from_slice(&bytes[..length]);
                        ledger.sent(length);
                    }
                }
                Deed::Restart => {
                    ledger.told_nothing();
                    known.clear();
                }
            }
            prop_assert!(ledger.entries.len() <= MAX_IN_FLIGHT);
            prop_assert!(ledger.partial.len() < RECORD);
            let held: usize = ledger.entries.iter().map(|entry| entry.bytes.len()).sum();
            prop_assert_eq!(ledger.held, held);
        }
        let expected: Vec<u8> =
            (0..=u8::MAX).cycle().flat_map(record).take(output.len()).collect();
        prop_assert!(output == expected, "{} bytes left", output.len());
    }

    #[test]
    fn any_cut_of_records_is_like_none(first in 1..RECORD, second in 1..RECORD) {
        let bytes: Vec<u8> = [record(1), record(2)].concat();
        let mut ledger = Ledger::<()>::default();
        ledger.feed(&bytes[..first]);
        ledger.feed(&bytes[first..first + second]);
        ledger.feed(&bytes[first + second..]);
        for number in 1..=2 {
            let Asked { sequence, bytes, .. } = ledger.untold().unwrap();
            prop_assert_eq!((sequence, bytes), (u64::from(number), &record(number)[..]));
            ledger.told(sequence);
        }
        prop_assert!(ledger.untold().is_none());
    }
}

#[test]
fn who_holds_much_is_not_read() {
    let mut ledger = Ledger::<()>::default();
    for _ in 0..MAX_IN_FLIGHT {
        assert!(ledger.has_room(Kind::Imtl) > 0);
        ledger.feed(&record(1));
    }
    assert_eq!(ledger.has_room(Kind::Imtl), 0);

    let mut ledger = Ledger::<()>::default();
    ledger.ask(vec![0; MAX_HELD / 2], Vec::new());
    assert!(ledger.has_room(Kind::Native) > 0);
    ledger.ask(vec![0; MAX_HELD / 2], Vec::new());
    assert_eq!(ledger.has_room(Kind::Native), 0);
}

#[test]
fn who_is_given_up_still_gets_the_answers_before_the_first_open_request() {
    let mut ledger = Ledger::<()>::default();
    for number in 1..=3 {
        ledger.feed(&record(number));
    }
    ledger.told(3);
    assert!(ledger.answer(1, vec![1], Vec::new()));
    assert!(ledger.answer(3, vec![3], Vec::new()));
    ledger.give_up();
    assert_eq!(ledger.due(), Some((&[1][..], &[][..])));
    ledger.sent(1);
    assert!(ledger.is_empty());
}
