//! What `linux/ethtool.h` lays out for flow rules, byte by byte.
//!
//! Numbers of more than one byte that are headers of packets are in network order; the others are
//! in the host's.

/// `struct ethtool_flow_ext`: the VLAN tag, the destination MAC, and bits of the driver's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Extension {
    pub(crate) padding: [u8; 2],
    pub(crate) destination_mac: [u8; 6],
    pub(crate) vlan_ethertype: [u8; 2],
    pub(crate) vlan_tci: [u8; 2],
    pub(crate) data: [[u8; 4]; 2],
}

/// `union ethtool_flow_union`: one of the layouts below, as bytes.
pub(crate) type Fields = [u8; 52];

/// `struct ethtool_rx_flow_spec`: a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct FlowSpec {
    pub(crate) flow_type: u32,
    pub(crate) values: Fields,
    pub(crate) value_extension: Extension,
    pub(crate) masks: Fields,
    pub(crate) mask_extension: Extension,
    /// A 64-bit number here would bring the host's padding; the header's has the same place.
    pub(crate) ring_cookie: u64,
    pub(crate) location: u32,
    pub(crate) padding: u32,
}

/// `struct ethtool_rxnfc`, with what the kernel pads it with: the first element of `rule_locs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Rxnfc {
    pub(crate) command: u32,
    pub(crate) flow_type: u32,
    pub(crate) data: u64,
    pub(crate) rule: FlowSpec,
    pub(crate) rule_count: u32,
    pub(crate) first_location: u32,
}

impl Default for FlowSpec {
    fn default() -> Self {
        Self {
            flow_type: 0,
            values: [0; 52],
            value_extension: Extension::default(),
            masks: [0; 52],
            mask_extension: Extension::default(),
            ring_cookie: 0,
            location: 0,
            padding: 0,
        }
    }
}

impl Rxnfc {
    pub(crate) fn new(command: u32) -> Self {
        Self {
            command,
            flow_type: 0,
            data: 0,
            rule: FlowSpec::default(),
            rule_count: 0,
            first_location: 0,
        }
    }
}

/// Where `rule_locs` begins, in 32-bit words from the start.
pub(crate) const LOCATIONS_AT: usize = std::mem::offset_of!(Rxnfc, first_location) / 4;

/// Offsets in [`Fields`] of `struct ethtool_tcpip4_spec` and of `struct ethtool_usrip4_spec`.
pub(crate) mod ip4 {
    pub(crate) const SOURCE: usize = 0;
    pub(crate) const DESTINATION: usize = 4;
    pub(crate) const SOURCE_PORT: usize = 8;
    pub(crate) const DESTINATION_PORT: usize = 10;
    pub(crate) const TOS: usize = 12;
    /// Of `ethtool_usrip4_spec`: it has to be `ETH_RX_NFC_IP4`, with no mask.
    pub(crate) const VERSION: usize = 13;
    pub(crate) const VERSION_4: u8 = 1;
    pub(crate) const PROTOCOL: usize = 14;
}

/// Offsets in [`Fields`] of `struct ethtool_tcpip6_spec` and of `struct ethtool_usrip6_spec`.
pub(crate) mod ip6 {
    pub(crate) const SOURCE: usize = 0;
    pub(crate) const DESTINATION: usize = 16;
    pub(crate) const SOURCE_PORT: usize = 32;
    pub(crate) const DESTINATION_PORT: usize = 34;
    pub(crate) const CLASS: usize = 36;
    pub(crate) const PROTOCOL: usize = 37;
}

/// `FLOW_EXT`: the VLAN fields of the extension are looked at.
pub(crate) const FLOW_EXT: u32 = 0x8000_0000;
/// `RX_CLS_FLOW_DISC`: drop.
pub(crate) const DISCARD: u64 = u64::MAX;
/// `RX_CLS_LOC_SPECIAL`: the location is none, but says how to choose one.
pub(crate) const SPECIAL: u32 = 0x8000_0000;
/// `RX_CLS_LOC_ANY`: whichever the driver likes.
pub(crate) const ANY: u32 = 0xffff_ffff;

/// `ETHTOOL_GRXRINGS`: how many receive queues there are.
pub(crate) const GET_RINGS: u32 = 0x2d;
/// `ETHTOOL_GRXCLSRLCNT`: how many rules.
pub(crate) const COUNT_RULES: u32 = 0x2e;
/// `ETHTOOL_GRXCLSRULE`: one of them.
pub(crate) const GET_RULE: u32 = 0x2f;
/// `ETHTOOL_GRXCLSRLALL`: where they are.
pub(crate) const LIST_RULES: u32 = 0x30;
/// `ETHTOOL_SRXCLSRLDEL`
pub(crate) const DELETE_RULE: u32 = 0x31;
/// `ETHTOOL_SRXCLSRLINS`
pub(crate) const INSERT_RULE: u32 = 0x32;

const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Extension>() == 20);
    assert!(offset_of!(Extension, destination_mac) == 2);
    assert!(offset_of!(Extension, vlan_ethertype) == 8);
    assert!(offset_of!(Extension, vlan_tci) == 10);
    assert!(offset_of!(Extension, data) == 12);
    assert!(size_of::<FlowSpec>() == 168 && align_of::<FlowSpec>() == 8);
    assert!(offset_of!(FlowSpec, values) == 4);
    assert!(offset_of!(FlowSpec, value_extension) == 56);
    assert!(offset_of!(FlowSpec, masks) == 76);
    assert!(offset_of!(FlowSpec, mask_extension) == 128);
    assert!(offset_of!(FlowSpec, ring_cookie) == 152);
    assert!(offset_of!(FlowSpec, location) == 160);
    assert!(size_of::<Rxnfc>() == 192 && align_of::<Rxnfc>() == 8);
    assert!(offset_of!(Rxnfc, data) == 8);
    assert!(offset_of!(Rxnfc, rule) == 16);
    assert!(offset_of!(Rxnfc, rule_count) == 184);
    assert!(offset_of!(Rxnfc, first_location) == 188);
    assert!(LOCATIONS_AT == 47);
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What this file says against what the C compiler makes of the header itself.
    #[test]
    fn the_layout_is_the_headers() {
        let asserts = [
            ("sizeof(struct ethtool_rxnfc)", size_of::<Rxnfc>()),
            ("offsetof(struct ethtool_rxnfc, rule_locs)", LOCATIONS_AT * 4),
            ("sizeof(struct ethtool_rx_flow_spec)", size_of::<FlowSpec>()),
            ("sizeof(union ethtool_flow_union)", size_of::<Fields>()),
            ("sizeof(struct ethtool_flow_ext)", size_of::<Extension>()),
            ("offsetof(struct ethtool_tcpip4_spec, ip4dst)", ip4::DESTINATION),
            ("offsetof(struct ethtool_tcpip4_spec, psrc)", ip4::SOURCE_PORT),
            ("offsetof(struct ethtool_tcpip4_spec, pdst)", ip4::DESTINATION_PORT),
            ("offsetof(struct ethtool_tcpip4_spec, tos)", ip4::TOS),
            ("offsetof(struct ethtool_usrip4_spec, tos)", ip4::TOS),
            ("offsetof(struct ethtool_usrip4_spec, ip_ver)", ip4::VERSION),
            ("offsetof(struct ethtool_usrip4_spec, proto)", ip4::PROTOCOL),
            ("offsetof(struct ethtool_tcpip6_spec, ip6dst)", ip6::DESTINATION),
            ("offsetof(struct ethtool_tcpip6_spec, psrc)", ip6::SOURCE_PORT),
            ("offsetof(struct ethtool_tcpip6_spec, pdst)", ip6::DESTINATION_PORT),
            ("offsetof(struct ethtool_tcpip6_spec, tclass)", ip6::CLASS),
            ("offsetof(struct ethtool_usrip6_spec, tclass)", ip6::CLASS),
            ("offsetof(struct ethtool_usrip6_spec, l4_proto)", ip6::PROTOCOL),
            ("ETH_RX_NFC_IP4", usize::from(ip4::VERSION_4)),
            ("ETHTOOL_GRXRINGS", GET_RINGS as usize),
            ("ETHTOOL_GRXCLSRLCNT", COUNT_RULES as usize),
            ("ETHTOOL_GRXCLSRULE", GET_RULE as usize),
            ("ETHTOOL_GRXCLSRLALL", LIST_RULES as usize),
            ("ETHTOOL_SRXCLSRLDEL", DELETE_RULE as usize),
            ("ETHTOOL_SRXCLSRLINS", INSERT_RULE as usize),
            ("RX_CLS_LOC_SPECIAL", SPECIAL as usize),
            ("RX_CLS_LOC_ANY", ANY as usize),
            ("FLOW_EXT", FLOW_EXT as usize),
            ("RX_CLS_FLOW_DISC", DISCARD as usize),
        ];
        let mut source = String::from("#include <stddef.h>\n#include <linux/ethtool.h>\n");
        for (what, number) in asserts {
            source += &format!("_Static_assert(({what}) == {number}UL, \"{what}\");\n");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("layout.c");
        std::fs::write(&file, source).unwrap();
        let Ok(done) = Command::new("cc").arg("-fsyntax-only").arg(&file).output() else {
            println!("SKIP the_layout_is_the_headers: there is no C compiler here");
            return;
        };
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
