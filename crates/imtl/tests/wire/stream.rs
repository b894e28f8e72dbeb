//! However a stream is cut, the same comes out of it; whatever is in it, nothing breaks.

use crate::common::{
    DIALECTS, cases, dialect, fragments, raw, record, register, request, stream, wire,
};
use pointsman_imtl::layout::RECORD_BYTES;
use pointsman_imtl::{Dialect, Reader, Record, Reply, Request, StreamError};
use proptest::prelude::*;

/// All that comes out of a stream, and whether it ended well.
type Read = (Vec<Result<Record, StreamError>>, Result<(), StreamError>);

fn read<'a>(fragments: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut reader = Reader::new();
    let mut records = Vec::new();
    for mut input in fragments {
        while let Some(record) = reader.read(&mut input) {
            records.push(record);
        }
        assert!(input.is_empty(), "{} bytes are left", input.len());
    }
    (records, reader.end())
}

/// What is in a stream, said without a reader.
fn expected(stream: &[u8]) -> Read {
    let mut records = Vec::new();
    for chunk in stream.chunks(RECORD_BYTES) {
        match chunk.first_chunk::<4>() {
            Some(magic) if magic != b"IMTL" => {
                records.push(Err(StreamError::Magic { found: *magic }));
                return (records, Ok(()));
            }
            _ => {}
        }
        match chunk.try_into() {
            Ok(bytes) => records.push(Ok(record(bytes))),
            Err(_) => return (records, Err(StreamError::Truncated { have: chunk.len() })),
        }
    }
    (records, Ok(()))
}

proptest! {
    #![proptest_config(cases(512, 50_000))]

    #[test]
    fn requests_survive_the_wire(request in request(), dialect in dialect()) {
        prop_assert_eq!(Request::decode(&request.encode(dialect)), Ok(request));
    }

    /// Whatever a record says, if it means something, that is what is written again.
    #[test]
    fn what_is_read_is_all_that_is_meant(body in any::<[u8; 32]>(), number in 101u32..112) {
        let bytes = raw(number, [0; 4], &body);
        if let Ok(request) = Request::decode(&record(bytes)) {
            for dialect in DIALECTS {
                prop_assert_eq!(Request::decode(&request.encode(dialect)), Ok(request));
            }
        }
    }

    #[test]
    fn replies_survive_the_wire_and_are_zero_behind_their_number(code in any::<i32>()) {
        for reply in [
            Reply::Response(code),
            Reply::QueueId(code),
            Reply::FlowId(code),
            Reply::HeartbeatAck(code.cast_unsigned()),
        ] {
            let frame = reply.encode();
            prop_assert!(frame.data()[16..].iter().all(|byte| *byte == 0));
            let bytes = frame.data().try_into().unwrap();
            prop_assert_eq!(Reply::decode(&record(bytes)), Ok(reply));
        }
    }

    #[test]
    fn any_cuts_are_like_none((stream, cuts) in stream()) {
        let whole = read(std::iter::once(&stream[..]));
        prop_assert_eq!(&whole, &expected(&stream));
        prop_assert_eq!(&read(fragments(&stream, &cuts)), &whole);
        prop_assert_eq!(&read(stream.chunks(1)), &whole);
    }

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert_eq!(read(std::iter::once(&bytes[..])), expected(&bytes));
    }

    #[test]
    fn any_record_is_a_request_or_an_error(number in any::<u32>(), low in 0u32..256, body in
        proptest::collection::vec(any::<u8>(), 106), length in any::<[u8; 4]>())
    {
        for number in [number, low] {
            let record = record(raw(number, length, &body));
            let known = (101..=111).contains(&number);
            let fits = number != 101 || u16::from_be_bytes([body[72], body[73]]) <= 8;
            prop_assert_eq!(Request::decode(&record).is_ok(), known && fits);
            prop_assert_eq!(Reply::decode(&record).is_ok(), (201..=204).contains(&number));
        }
    }
}

#[test]
fn two_records_cut_at_every_byte_are_two_records() {
    let two = [register(Dialect::V1_0), wire("494d544c 00000067 00000002 0001")];
    let stream = two.concat();
    let records = two.map(|bytes| Ok(record(bytes))).to_vec();
    for cut in 0..=stream.len() {
        let (front, back) = stream.split_at(cut);
        assert_eq!(read([front, back].into_iter()), (records.clone(), Ok(())), "cut at {cut}");
    }
}

#[test]
fn a_wrong_magic_is_found_at_its_fourth_byte_and_said_once() {
    let mut reader = Reader::new();
    assert_eq!(reader.read(&mut &b"GET"[..]), None);
    let mut rest: &[u8] = b" / HTTP/1.1\r\n\r\n";
    let found = *b"GET ";
    assert_eq!(reader.read(&mut rest), Some(Err(StreamError::Magic { found })));
    for mut behind in [rest, b"", &register(Dialect::V1_1)] {
        assert_eq!((reader.read(&mut behind), behind), (None, &b""[..]));
    }
    assert_eq!(reader.end(), Ok(()), "it was said why already");
}

/// Lengths in messages decide nothing: no byte is kept because of what another one says.
#[test]
fn a_reader_is_as_large_as_a_record() {
    assert!(size_of::<Reader>() <= RECORD_BYTES + 2 * size_of::<usize>());
}
