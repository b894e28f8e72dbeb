//! Where the fields of a record lie.
//!
//! A record is upstream's `mtl_message_t` (`manager/mtl_mproto.h`): a header and a union of bodies,
//! all packed to one byte. Every message is a whole record, however little its body says. Integers
//! are big endian but two: `body_len` of some requests and the addresses of a flow, which depend on
//! the dialect.
//!
//! Offsets and sizes are parameters of a field's type, so a field that does not lie within the
//! record does not compile, and reading one can go nowhere else.

use std::fmt;

/// Bytes of a record: `sizeof(mtl_message_t)`, in both dialects and both directions.
pub const RECORD_BYTES: usize = 118;

/// Bytes of `mtl_message_header_t`.
pub const HEADER_BYTES: usize = 12;

/// Bytes of the longest body, `mtl_register_message_t`.
pub const BODY_BYTES: usize = RECORD_BYTES - HEADER_BYTES;

/// `MTL_MANAGER_MAGIC`, 0x494D544C, as it is on the wire.
pub const MAGIC: [u8; 4] = *b"IMTL";

/// How many interfaces `mtl_register_message_t` has room for.
pub const MAX_INTERFACES: usize = 8;

/// Bytes of its hostname.
pub const HOSTNAME_BYTES: usize = 64;

pub(crate) type Bytes = [u8; RECORD_BYTES];

/// A field: `SIZE` bytes at `OFFSET` from the start of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<const OFFSET: usize, const SIZE: usize> {
    /// Its name in `mtl_mproto.h`.
    pub name: &'static str,
}

impl<const OFFSET: usize, const SIZE: usize> Field<OFFSET, SIZE> {
    /// Bytes from the start of the record.
    pub const OFFSET: usize = OFFSET;
    /// Bytes of the field.
    pub const SIZE: usize = SIZE;
    const WITHIN: () = assert!(OFFSET + SIZE <= RECORD_BYTES, "the field leaves the record");

    /// Where it lies, as a value.
    #[must_use]
    pub const fn place(self) -> Place {
        Place { name: self.name, offset: OFFSET, size: SIZE }
    }

    pub(crate) fn read(self, record: &Bytes) -> [u8; SIZE] {
        let () = Self::WITHIN;
        std::array::from_fn(|at| record[OFFSET + at])
    }

    pub(crate) fn write(self, record: &mut Bytes, value: [u8; SIZE]) {
        let () = Self::WITHIN;
        record[OFFSET..OFFSET + SIZE].copy_from_slice(&value);
    }
}

impl<const OFFSET: usize, const SIZE: usize> fmt::Display for Field<OFFSET, SIZE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place().fmt(f)
    }
}

/// Where a field lies, for messages and tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its name in `mtl_mproto.h`.
    pub name: &'static str,
    /// Bytes from the start of the record.
    pub offset: usize,
    /// Bytes of the field.
    pub size: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.name, self.offset)
    }
}

/// `mtl_message_header_t`.
pub mod header {
    use super::Field;

    /// [`MAGIC`](super::MAGIC).
    pub const MAGIC: Field<0, 4> = Field { name: "magic" };
    /// `mtl_message_type_t`, an enumeration of four bytes.
    pub const TYPE: Field<4, 4> = Field { name: "type" };
    /// Bytes of the body that mean something. No server reads it to frame the stream.
    pub const BODY_LEN: Field<8, 4> = Field { name: "body_len" };
}

/// `mtl_register_message_t`.
pub mod register {
    use super::{Field, HOSTNAME_BYTES, MAX_INTERFACES};

    /// The client's process, as its own pid namespace numbers it.
    pub const PID: Field<12, 4> = Field { name: "pid" };
    /// The client's user, as it says itself.
    pub const UID: Field<16, 4> = Field { name: "uid" };
    /// A name that zero bytes fill up.
    pub const HOSTNAME: Field<20, HOSTNAME_BYTES> = Field { name: "hostname" };
    /// How many entries of [`IFINDEX`] mean something.
    pub const NUM_IF: Field<84, 2> = Field { name: "num_if" };
    /// Interface indexes of four bytes each. What lies behind the last that counts is whatever the
    /// client's stack held.
    pub const IFINDEX: Field<86, { 4 * MAX_INTERFACES }> = Field { name: "ifindex" };
}

/// `mtl_heartbeat_message_t`.
pub mod heartbeat {
    use super::Field;

    /// Chosen by the client, echoed by the server.
    pub const SEQ: Field<12, 4> = Field { name: "seq" };
}

/// `mtl_lcore_message_t`.
pub mod lcore {
    use super::Field;

    /// A DPDK lcore id.
    pub const LCORE: Field<12, 2> = Field { name: "lcore" };
}

/// `mtl_udp_dp_filter_message_t`.
pub mod udp_dp_filter {
    use super::Field;

    /// The interface.
    pub const IFINDEX: Field<12, 4> = Field { name: "ifindex" };
    /// The UDP destination port.
    pub const PORT: Field<16, 2> = Field { name: "port" };
}

/// `mtl_if_message_t`.
pub mod interface {
    use super::Field;

    /// The interface.
    pub const IFINDEX: Field<12, 4> = Field { name: "ifindex" };
    /// The queue.
    pub const QUEUE_ID: Field<16, 2> = Field { name: "queue_id" };
    /// The location of a rule in the card's table, as ethtool numbers it.
    pub const FLOW_ID: Field<18, 4> = Field { name: "flow_id" };
    /// What ethtool calls the flow's type; libmtl says `UDP_V4_FLOW` (2).
    pub const FLOW_TYPE: Field<22, 4> = Field { name: "flow_type" };
    /// Byte order by dialect: [`WireAddress`](crate::WireAddress).
    pub const SRC_IP: Field<26, 4> = Field { name: "src_ip" };
    /// Byte order by dialect: [`WireAddress`](crate::WireAddress).
    pub const DST_IP: Field<30, 4> = Field { name: "dst_ip" };
    /// 0: any.
    pub const SRC_PORT: Field<34, 2> = Field { name: "src_port" };
    /// 0: any.
    pub const DST_PORT: Field<36, 2> = Field { name: "dst_port" };
}

/// `mtl_response_message_t`.
pub mod response {
    use super::Field;

    /// 0: done; below 0: not done; above 0: the number of what was given.
    pub const RESPONSE: Field<12, 4> = Field { name: "response" };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets, sizes and body lengths as measured with gcc, g++ and clang on upstream's header.
    #[test]
    fn fields_lie_where_upstream_has_them() {
        let table: [(Place, &str, usize, usize); 23] = [
            (header::MAGIC.place(), "magic", 0, 4),
            (header::TYPE.place(), "type", 4, 4),
            (header::BODY_LEN.place(), "body_len", 8, 4),
            (register::PID.place(), "pid", 12, 4),
            (register::UID.place(), "uid", 16, 4),
            (register::HOSTNAME.place(), "hostname", 20, 64),
            (register::NUM_IF.place(), "num_if", 84, 2),
            (register::IFINDEX.place(), "ifindex", 86, 32),
            (heartbeat::SEQ.place(), "seq", 12, 4),
            (interface::IFINDEX.place(), "ifindex", 12, 4),
            (interface::QUEUE_ID.place(), "queue_id", 16, 2),
            (interface::FLOW_ID.place(), "flow_id", 18, 4),
            (interface::FLOW_TYPE.place(), "flow_type", 22, 4),
            (interface::SRC_IP.place(), "src_ip", 26, 4),
            (interface::DST_IP.place(), "dst_ip", 30, 4),
            (interface::SRC_PORT.place(), "src_port", 34, 2),
            (interface::DST_PORT.place(), "dst_port", 36, 2),
            (lcore::LCORE.place(), "lcore", 12, 2),
            (udp_dp_filter::IFINDEX.place(), "ifindex", 12, 4),
            (udp_dp_filter::PORT.place(), "port", 16, 2),
            (response::RESPONSE.place(), "response", 12, 4),
            (Place { name: "header", offset: 0, size: HEADER_BYTES }, "header", 0, 12),
            (Place { name: "body", offset: HEADER_BYTES, size: BODY_BYTES }, "body", 12, 106),
        ];
        for (place, name, offset, size) in table {
            assert_eq!(place, Place { name, offset, size });
        }
        assert_eq!(u32::from_be_bytes(MAGIC), 0x494D_544C);
    }

    /// Packed bodies end with their last fields.
    #[test]
    fn lengths_of_bodies_are_those_of_upstreams_structures() {
        use crate::{ReplyKind, RequestKind};
        let end = |last: Place| (last.offset + last.size - HEADER_BYTES) as u32;
        for (kind, last, bytes) in [
            (RequestKind::Register, register::IFINDEX.place(), 106),
            (RequestKind::Heartbeat, heartbeat::SEQ.place(), 4),
            (RequestKind::PutLcore, lcore::LCORE.place(), 2),
            (RequestKind::AddUdpPort, udp_dp_filter::PORT.place(), 6),
            (RequestKind::AddFlow, interface::DST_PORT.place(), 26),
        ] {
            assert_eq!((kind.body_bytes(), end(last)), (bytes, bytes), "{kind}");
        }
        assert_eq!(ReplyKind::BODY_BYTES, end(response::RESPONSE.place()));
    }

    #[test]
    fn what_is_written_to_a_field_is_read_from_it_and_nothing_else_changes() {
        let mut record = [0xaa; RECORD_BYTES];
        interface::DST_PORT.write(&mut record, [1, 2]);
        assert_eq!(interface::DST_PORT.read(&record), [1, 2]);
        record[36..38].fill(0xaa);
        assert_eq!(record, [0xaa; RECORD_BYTES]);
    }
}
