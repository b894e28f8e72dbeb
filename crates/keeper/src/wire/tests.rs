use super::*;
use proptest::prelude::*;

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

proptest! {
    #[test]
    fn what_is_put_in_comes_out(
        given in proptest::collection::vec(
            (any::<u64>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..200), 0..3_usize),
            1..40,
        )
    ) {
        let mut batch = Batch::default();
        for (connection, sequence, bytes, descriptors) in &given {
            let beside = (0..*descriptors).map(|_| null());
            batch.push(Tag::Request, *connection, *sequence, bytes, beside);
        }
        let found: Vec<_> = messages(&batch.bytes, batch.descriptors.into())
            .map(|message| {
                let message = message.unwrap();
                assert_eq!(message.tag, Tag::Request);
                let Message { connection, sequence, bytes, descriptors, .. } = message;
                (connection, sequence, bytes.to_vec(), descriptors.len())
            })
            .collect();
        prop_assert_eq!(found, given);
    }

    #[test]
    fn garbage_is_told_and_ends_the_datagram(
        bytes in proptest::collection::vec(any::<u8>(), 1..200)
    ) {
        let found: Vec<_> = messages(&bytes, VecDeque::new()).collect();
        prop_assert!(!found.is_empty());
        prop_assert!(found.iter().rev().skip(1).all(Option::is_some));
    }
}

#[test]
fn the_largest_message_has_room_in_an_empty_batch_only() {
    let mut batch = Batch::<OwnedFd>::default();
    assert!(batch.has_room(MAX_MESSAGE, MAX_DESCRIPTORS));
    batch.push(Tag::Reply, 1, 1, &vec![0; MAX_MESSAGE], []);
    assert!(!batch.has_room(MAX_MESSAGE, 0));
}
