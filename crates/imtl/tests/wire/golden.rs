//! Messages as they are on the wire, written out by hand from the layout of `mtl_mproto.h`.

use crate::common::{record, wire};
use pointsman_imtl::layout::RECORD_BYTES;
use pointsman_imtl::{
    Descriptor, Dialect, Flow, Frame, Hostname, Interfaces, Registration, Reply, Request,
    WireAddress,
};

const V1_0: Dialect = Dialect::V1_0;
const V1_1: Dialect = Dialect::V1_1;

fn registration() -> Request {
    Request::Register(Registration {
        pid: 0x1234,
        uid: 1000,
        hostname: Hostname::new(b"edge-17"),
        interfaces: Interfaces::new(&[3, 7]).unwrap(),
    })
}

fn flow(dialect: Dialect) -> Request {
    Request::AddFlow(Flow {
        interface_index: 5,
        queue: 1,
        flow_type: 2,
        source: WireAddress::new([10, 0, 0, 1].into(), dialect),
        destination: WireAddress::new([239, 1, 1, 1].into(), dialect),
        source_port: 7,
        destination_port: 20000,
    })
}

/// Per message: the dialects that write it so, what it means, header and body up to the last byte
/// that is not 0, and how many bytes of the record mean something.
fn requests() -> Vec<(&'static [Dialect], Request, String, usize)> {
    let hostname = format!("656467652d3137{}", "00".repeat(57));
    let register = format!("00001234 000003e8 {hostname} 0002 00000003 00000007");
    let text = |header: &str, body: &str| format!("494d544c {header} {body}");
    let both: &[Dialect] = &[V1_0, V1_1];
    let (old, new): (&[Dialect], &[Dialect]) = (&[V1_0], &[V1_1]);
    vec![
        (old, registration(), text("00000065 6a000000", &register), 94),
        (new, registration(), text("00000065 0000006a", &register), 94),
        (
            both,
            Request::Heartbeat { sequence: 0x8000_0001 },
            text("00000066 00000004", "80000001"),
            16,
        ),
        (both, Request::GetLcore { lcore: 300 }, text("00000067 00000002", "012c"), 14),
        (old, Request::PutLcore { lcore: 300 }, text("00000068 02000000", "012c"), 14),
        (new, Request::PutLcore { lcore: 300 }, text("00000068 00000002", "012c"), 14),
        (
            both,
            Request::AddUdpPort { interface_index: 5, port: 20000 },
            text("00000069 00000006", "00000005 4e20"),
            18,
        ),
        (
            both,
            Request::DelUdpPort { interface_index: 5, port: 20000 },
            text("0000006a 00000006", "00000005 4e20"),
            18,
        ),
        (both, Request::XskMap { interface_index: 5 }, text("0000006b 0000001a", "00000005"), 16),
        (both, Request::GetQueue { interface_index: 5 }, text("0000006c 0000001a", "00000005"), 16),
        (
            both,
            Request::PutQueue { interface_index: 5, queue: 63 },
            text("0000006d 0000001a", "00000005 003f"),
            18,
        ),
        (
            old,
            flow(V1_0),
            text(
                "0000006e 0000001a",
                "00000005 0001 00000000 00000002 0100000a 010101ef 0007 4e20",
            ),
            38,
        ),
        (
            new,
            flow(V1_1),
            text(
                "0000006e 0000001a",
                "00000005 0001 00000000 00000002 0a000001 ef010101 0007 4e20",
            ),
            38,
        ),
        (
            both,
            Request::DelFlow { interface_index: 5, location: 1023 },
            text("0000006f 0000001a", "00000005 0000 000003ff"),
            22,
        ),
    ]
}

#[test]
fn requests_are_these_bytes() {
    for (dialects, request, hex, _) in requests() {
        for dialect in dialects {
            assert_eq!(request.encode(*dialect), record(wire(&hex)), "{request:?} in {dialect}");
        }
        assert_eq!(Request::decode(&record(wire(&hex))), Ok(request));
    }
}

/// libmtl fills in only what it means, and its stack shows behind it.
#[test]
fn what_lies_behind_a_request_means_nothing() {
    for (_, request, hex, meant) in requests() {
        let mut bytes = wire(&hex);
        bytes[meant..].fill(0xa5);
        assert_eq!(Request::decode(&record(bytes)), Ok(request));
    }
}

#[test]
fn replies_are_these_bytes() {
    for (reply, hex) in [
        (Reply::Response(0), "494d544c 000000c9 00000004 00000000"),
        (Reply::Response(-1), "494d544c 000000c9 00000004 ffffffff"),
        (Reply::Response(-95), "494d544c 000000c9 00000004 ffffffa1"),
        (Reply::QueueId(1), "494d544c 000000ca 00000004 00000001"),
        (Reply::QueueId(-28), "494d544c 000000ca 00000004 ffffffe4"),
        (Reply::FlowId(1023), "494d544c 000000cb 00000004 000003ff"),
        (Reply::FlowId(-1), "494d544c 000000cb 00000004 ffffffff"),
        (Reply::HeartbeatAck(0x8000_0001), "494d544c 000000cc 00000004 80000001"),
    ] {
        let frame = reply.encode();
        assert_eq!((frame.data(), frame.descriptor()), (&wire(hex)[..], None));
        assert_eq!(frame.data().len(), RECORD_BYTES);
        assert_eq!(Reply::decode(&record(wire(hex))), Ok(reply));
    }
}

/// One byte and not two: what follows would be taken for the start of the next reply.
#[test]
fn a_map_or_none_is_one_byte() {
    for (reply, byte, descriptor) in [
        (Reply::XskMap, 0x20, Some(Descriptor::XskMap)),
        (Reply::NoXskMapButDescriptor, 0x20, Some(Descriptor::Harmless)),
        (Reply::NoXskMap, b'E', None),
    ] {
        assert_eq!(reply.encode(), Frame::Byte { byte: [byte], descriptor });
        assert_eq!(reply.encode().data(), [byte]);
    }
}
