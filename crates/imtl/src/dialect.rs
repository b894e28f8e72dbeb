//! The two dialects, and how to tell them apart.

use crate::layout::BODY_BYTES;
use std::fmt;
use std::net::Ipv4Addr;

/// What a client speaks. The records are the same; byte orders and failures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// That of libmtl (`lib/src/mt_instance.c`).
    V1_0,
    /// That of upstream's client library `libmtlm_client` (`manager/mtlm_client.c`).
    V1_1,
}

impl Dialect {
    /// What the bytes of `body_len` in a REGISTER tell; `None`: neither dialect writes that.
    ///
    /// libmtl writes this one in the host's byte order, the client library in network order. They
    /// are told apart on little-endian hosts alone; on others both write 1.1's bytes, and there
    /// both write addresses in the same order too.
    #[must_use]
    pub fn of_register(body_len: [u8; 4]) -> Option<Self> {
        const LENGTH: u32 = BODY_BYTES as u32;
        if body_len == LENGTH.to_le_bytes() {
            return Some(Self::V1_0);
        }
        (body_len == LENGTH.to_be_bytes()).then_some(Self::V1_1)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
        })
    }
}

/// An IPv4 address of a flow as it is on the wire, which means one of two addresses.
///
/// libmtl swaps the bytes of an address that is in network order already, and the server of its
/// dialect swaps them back; in dialect 1.1 nobody does. Whoever takes the one for the other steers
/// the packets of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WireAddress(pub [u8; 4]);

impl WireAddress {
    /// `address` as a client of `dialect` sends it.
    #[must_use]
    pub fn new(address: Ipv4Addr, dialect: Dialect) -> Self {
        let mut bytes = address.octets();
        if dialect == Dialect::V1_0 {
            bytes.reverse();
        }
        Self(bytes)
    }

    /// The address that is meant; `None`: that depends on the dialect, and it is not known.
    /// 0.0.0.0, which stands for any, is the same in both.
    #[must_use]
    pub fn read(self, dialect: Option<Dialect>) -> Option<Ipv4Addr> {
        let mut swapped = self.0;
        swapped.reverse();
        match dialect {
            Some(Dialect::V1_0) => Some(swapped.into()),
            Some(Dialect::V1_1) => Some(self.0.into()),
            None => (swapped == self.0).then(|| self.0.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_length_of_a_register_tells_the_dialect() {
        assert_eq!(Dialect::of_register([0x6a, 0, 0, 0]), Some(Dialect::V1_0));
        assert_eq!(Dialect::of_register([0, 0, 0, 0x6a]), Some(Dialect::V1_1));
        for other in [[0; 4], [0xff; 4], [0, 0x6a, 0, 0], [0x6a, 0, 0, 0x6a], [0, 0, 0, 0x6b]] {
            assert_eq!(Dialect::of_register(other), None);
        }
    }

    #[test]
    fn the_same_bytes_are_two_addresses() {
        let wire = WireAddress([239, 1, 2, 3]);
        assert_eq!(wire.read(Some(Dialect::V1_1)), Some([239, 1, 2, 3].into()));
        assert_eq!(wire.read(Some(Dialect::V1_0)), Some([3, 2, 1, 239].into()));
        assert_eq!(wire.read(None), None);
        assert_eq!(WireAddress([0; 4]).read(None), Some([0; 4].into()));
    }

    proptest! {
        #[test]
        fn an_address_survives_the_wire(address in any::<[u8; 4]>()) {
            let address = Ipv4Addr::from(address);
            for dialect in [Dialect::V1_0, Dialect::V1_1] {
                prop_assert_eq!(WireAddress::new(address, dialect).read(Some(dialect)), Some(address));
            }
        }
    }
}
