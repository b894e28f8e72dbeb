//! Records laid out by hand, and anything that a client might send.

use pointsman_imtl::layout::{HOSTNAME_BYTES, RECORD_BYTES};
use pointsman_imtl::{
    Answer, DEFAULT_IN_FLIGHT, Dialect, Flow, Hostname, Interfaces, Location, Record, Registration,
    Request, Session, WireAddress,
};
use proptest::prelude::*;
use std::num::NonZeroU8;

pub(crate) type Bytes = [u8; RECORD_BYTES];

pub(crate) const DIALECTS: [Dialect; 2] = [Dialect::V1_0, Dialect::V1_1];

/// The bytes that `hex` writes out, and zeros to the end of the record.
pub(crate) fn wire(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let mut bytes = [0; RECORD_BYTES];
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    bytes
}

/// A record of type `number` with `body`, laid out without the codec.
pub(crate) fn raw(number: u32, body_len: [u8; 4], body: &[u8]) -> Bytes {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..4].copy_from_slice(b"IMTL");
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..12].copy_from_slice(&body_len);
    bytes[12..12 + body.len()].copy_from_slice(body);
    bytes
}

/// What answers with a number: type and `response`.
pub(crate) fn answer(number: u32, response: i32) -> Bytes {
    raw(number, [0, 0, 0, 4], &response.to_be_bytes())
}

pub(crate) fn record(bytes: Bytes) -> Record {
    Record::from_bytes(bytes).expect("starts with the magic")
}

pub(crate) fn limit(requests: u8) -> NonZeroU8 {
    NonZeroU8::new(requests).unwrap()
}

/// A session of a peer of which nothing is known.
pub(crate) fn session() -> Session<()> {
    Session::new((), DEFAULT_IN_FLIGHT)
}

pub(crate) fn location(location: u32) -> Answer {
    Answer::Flow(Location::try_from(location).unwrap())
}

/// A REGISTER without interfaces.
pub(crate) fn register(dialect: Dialect) -> Bytes {
    let registration = Registration {
        pid: 4711,
        uid: 1000,
        hostname: Hostname::new(b"edge-17"),
        interfaces: Interfaces::default(),
    };
    *Request::Register(registration).encode(dialect).as_bytes()
}

pub(crate) fn dialect() -> impl Strategy<Value = Dialect> {
    proptest::sample::select(DIALECTS.to_vec())
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let interface = any::<u32>();
    let interface_port = (interface, any::<u16>());
    prop_oneof![
        registration().prop_map(Request::Register),
        any::<u32>().prop_map(|sequence| Request::Heartbeat { sequence }),
        any::<u16>().prop_map(|lcore| Request::GetLcore { lcore }),
        any::<u16>().prop_map(|lcore| Request::PutLcore { lcore }),
        interface_port
            .prop_map(|(interface_index, port)| Request::AddUdpPort { interface_index, port }),
        interface_port
            .prop_map(|(interface_index, port)| Request::DelUdpPort { interface_index, port }),
        any::<u32>().prop_map(|interface_index| Request::XskMap { interface_index }),
        any::<u32>().prop_map(|interface_index| Request::GetQueue { interface_index }),
        interface_port
            .prop_map(|(interface_index, queue)| Request::PutQueue { interface_index, queue }),
        flow().prop_map(Request::AddFlow),
        any::<(u32, u32)>()
            .prop_map(|(interface_index, location)| Request::DelFlow { interface_index, location }),
    ]
}

fn registration() -> impl Strategy<Value = Registration> {
    let hostname = proptest::collection::vec(any::<u8>(), HOSTNAME_BYTES)
        .prop_map(|field| Hostname::from_field(field.try_into().unwrap()));
    let interfaces = proptest::collection::vec(any::<u32>(), 0..=8)
        .prop_map(|indexes| Interfaces::new(&indexes).unwrap());
    (any::<i32>(), any::<u32>(), hostname, interfaces).prop_map(
        |(pid, uid, hostname, interfaces)| Registration { pid, uid, hostname, interfaces },
    )
}

fn flow() -> impl Strategy<Value = Flow> {
    any::<(u32, u16, u32, [u8; 4], [u8; 4], u16, u16)>().prop_map(
        |(interface_index, queue, flow_type, source, destination, source_port, port)| Flow {
            interface_index,
            queue,
            flow_type,
            source: WireAddress(source),
            destination: WireAddress(destination),
            source_port,
            destination_port: port,
        },
    )
}

fn sent() -> impl Strategy<Value = Vec<u8>> {
    (request(), dialect())
        .prop_map(|(request, dialect)| request.encode(dialect).as_bytes().to_vec())
}

/// One record's worth of what may come: mostly requests, some of them damaged, and now and then
/// something else altogether.
pub(crate) fn piece() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (sent(), 0..RECORD_BYTES, any::<u8>()).prop_map(|(mut bytes, at, byte)| {
        bytes[at] = byte;
        bytes
    });
    let odd = (0u32..256, any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 106))
        .prop_map(|(number, body_len, body)| raw(number, body_len, &body).to_vec());
    let cut = (sent(), 0..RECORD_BYTES).prop_map(|(bytes, end)| bytes[..end].to_vec());
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    prop_oneof![12 => sent(), 6 => damaged, 6 => odd, 1 => cut, 1 => noise]
}

/// A stream of such pieces, and where it is cut.
pub(crate) fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let pieces = proptest::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat());
    (pieces, proptest::collection::vec(1usize..260, 1..20))
}

/// `stream` in pieces of the lengths in `cuts`, over and over.
pub(crate) fn fragments<'a>(stream: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    cuts.iter().cycle().map_while(move |length| {
        let (piece, behind) = rest.split_at(rest.len().min(*length));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// As many cases as are run often, or as many as are run rarely (`POINTSMAN_FULL=1`).
pub(crate) fn cases(often: u32, rarely: u32) -> ProptestConfig {
    let full = std::env::var("POINTSMAN_FULL").is_ok_and(|full| full == "1");
    let cases = if full { rarely } else { often };
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}
