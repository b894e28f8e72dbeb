//! What a card can do and does: queues, offloads and XDP features, over the generic netlink
//! families `ethtool` (Linux 5.6) and `netdev` (Linux 6.3).
//!
//! A kernel or a driver that does not answer leaves a fact unknown. Numbers of messages and
//! attributes are of `linux/ethtool_netlink.h` and `linux/netdev.h`.

use crate::NetlinkError;
use crate::generic::{Generic, Refused, all, attribute, find, nest, u32_of, u64_of};
use pointsman_model::nic::{Channels, Offload, Offloads, XdpFeatures};
use std::io;

/// Asks about interfaces of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Ethtool {
    pub(crate) generic: Generic,
    ethtool: Option<u16>,
    pub(crate) netdev: Option<u16>,
    /// Which bits of a feature set mean what: the kernel numbers them as it likes.
    bits: Option<Bits>,
}

/// The number of queues could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChannelsError {
    /// The driver has a fixed number of them.
    #[error("interface number {interface_index}: its driver cannot change the number of queues")]
    Unsupported {
        /// The kernel's number for the interface.
        interface_index: u32,
    },
    /// The kernel or the driver says no.
    #[error(
        "interface number {interface_index}: cannot set {} combined, {} receive and {} transmit \
         queues: {error}{why}",
        wanted.combined, wanted.rx, wanted.tx
    )]
    Refused {
        /// The kernel's number for the interface.
        interface_index: u32,
        /// What was wanted.
        wanted: Channels,
        /// What the kernel said.
        #[source]
        error: NetlinkError,
        /// Why, in its words, after a colon; or nothing.
        why: String,
    },
}

/// `ETHTOOL_MSG_CHANNELS_SET`
const SET_CHANNELS: u8 = 18;

/// Kinds of channels that a driver has none of are left out: it would not take a number for them.
fn channels_message(interface_index: u32, now: Channels, wanted: Channels) -> Vec<u8> {
    let number = |kind, most: u32, wanted: u32| match (most, wanted) {
        (0, 0) => Vec::new(),
        (_, wanted) => attribute(kind, &wanted.to_ne_bytes()),
    };
    [
        header(interface_index, 0),
        number(6, now.max_rx, wanted.rx),
        number(7, now.max_tx, wanted.tx),
        number(9, now.max_combined, wanted.combined),
    ]
    .concat()
}

/// The places of the features that matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bits {
    lro: Option<u32>,
    gro_hw: Option<u32>,
    vlan: Option<u32>,
    service_vlan: Option<u32>,
    ntuple: Option<u32>,
}

impl Ethtool {
    /// Opens a socket and finds the families.
    ///
    /// # Errors
    /// There is no generic netlink.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut generic = Generic::open()?;
        let (ethtool, netdev) = (generic.family("ethtool")?, generic.family("netdev")?);
        let mut opened = Self { generic, ethtool, netdev, bits: None };
        opened.bits = opened.read_bits();
        Ok(opened)
    }

    /// Queues in use and the most there can be; `None`: the driver has no such notion.
    pub fn channels(&mut self, interface_index: u32) -> Option<Channels> {
        const GET: u8 = 17;
        let answer = self.ask(GET, header(interface_index, 0))?;
        Some(parse_channels(&answer))
    }

    /// Changes how many queues are in use; how many there are then. What `wanted` says of the most
    /// there can be is not looked at.
    ///
    /// Drivers stop their queues meanwhile, and packets are lost.
    ///
    /// # Errors
    /// [`ChannelsError`]: the driver has no such notion, or does not take these.
    pub fn set_channels(
        &mut self,
        interface_index: u32,
        wanted: Channels,
    ) -> Result<Channels, ChannelsError> {
        let unsupported = || ChannelsError::Unsupported { interface_index };
        let family = self.ethtool.ok_or_else(unsupported)?;
        let now = self.channels(interface_index).ok_or_else(unsupported)?;
        let attributes = channels_message(interface_index, now, wanted);
        match self.generic.order(family, SET_CHANNELS, attributes) {
            Ok(()) => Ok(self.channels(interface_index).unwrap_or(now)),
            Err(Refused { error: NetlinkError::Os(error), .. })
                if error.kind() == io::ErrorKind::Unsupported =>
            {
                Err(unsupported())
            }
            Err(Refused { error, why }) => {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                Err(ChannelsError::Refused { interface_index, wanted, error, why })
            }
        }
    }

    /// What the card does to packets on their way in; `None`: the kernel does not say.
    pub fn offloads(&mut self, interface_index: u32) -> Option<Offloads> {
        const GET: u8 = 11;
        const COMPACT_BITSETS: u32 = 1;
        let bits = self.bits?;
        let answer = self.ask(GET, header(interface_index, COMPACT_BITSETS))?;
        parse_offloads(&answer, bits)
    }

    /// What XDP can do there; `None`: the kernel does not say.
    pub fn xdp_features(&mut self, interface_index: u32) -> Option<XdpFeatures> {
        // `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX` and `NETDEV_A_DEV_XDP_FEATURES`.
        const GET: u8 = 1;
        const INDEX: u16 = 1;
        const FEATURES: u16 = 3;
        let index = attribute(INDEX, &interface_index.to_ne_bytes());
        let answer = self.generic.ask(self.netdev?, GET, index).ok()?;
        find(&answer, FEATURES).and_then(u64_of).map(XdpFeatures::from_bits)
    }

    fn read_bits(&mut self) -> Option<Bits> {
        const GET: u8 = 1;
        /// `ETH_SS_FEATURES` of `linux/ethtool.h`, the same for all interfaces.
        const FEATURES: u32 = 4;
        let set = nest(1, &attribute(1, &FEATURES.to_ne_bytes()));
        let answer = self.ask(GET, [nest(1, &[]), nest(2, &set)].concat())?;
        Some(parse_bits(&answer))
    }

    /// A driver that does not know the question says so, and that is no error.
    fn ask(&mut self, command: u8, attributes: Vec<u8>) -> Option<Vec<u8>> {
        self.generic.ask(self.ethtool?, command, attributes).ok()
    }
}

/// `ETHTOOL_A_HEADER_DEV_INDEX` and `ETHTOOL_A_HEADER_FLAGS` in the header that every question of
/// the family has first.
fn header(interface_index: u32, flags: u32) -> Vec<u8> {
    let index = attribute(1, &interface_index.to_ne_bytes());
    nest(1, &[index, attribute(3, &flags.to_ne_bytes())].concat())
}

/// `ETHTOOL_A_CHANNELS_*`. What there can be none of is left out.
fn parse_channels(answer: &[u8]) -> Channels {
    let number = |kind| find(answer, kind).and_then(u32_of).unwrap_or(0);
    Channels {
        max_rx: number(2),
        max_tx: number(3),
        max_combined: number(5),
        rx: number(6),
        tx: number(7),
        combined: number(9),
    }
}

/// `ETHTOOL_A_FEATURES_HW`, `_ACTIVE` and `_NOCHANGE` as compact bit sets.
fn parse_offloads(answer: &[u8], bits: Bits) -> Option<Offloads> {
    let changeable = find(answer, 2).and_then(parse_bitset)?;
    let active = find(answer, 4).and_then(parse_bitset)?;
    let fixed = find(answer, 5).and_then(parse_bitset).unwrap_or_default();
    let has = |set: &[u32], bit: u32| {
        set.get(bit as usize / 32).is_some_and(|word| word & (1 << (bit % 32)) != 0)
    };
    let offload = |bit: Option<u32>| match bit {
        Some(bit) => Offload {
            on: has(&active, bit),
            changeable: has(&changeable, bit) && !has(&fixed, bit),
        },
        // This kernel has no such feature, so no card has it.
        None => Offload::default(),
    };
    Some(Offloads {
        lro: offload(bits.lro),
        gro_hw: offload(bits.gro_hw),
        vlan: offload(bits.vlan),
        service_vlan: offload(bits.service_vlan),
        ntuple: offload(bits.ntuple),
    })
}

/// The value of a compact bit set (`ETHTOOL_A_BITSET_VALUE`): words in the host's byte order.
fn parse_bitset(set: &[u8]) -> Option<Vec<u32>> {
    let value = find(set, 4)?;
    Some(value.chunks_exact(4).filter_map(u32_of).collect())
}

/// The names of features with their places (`ETHTOOL_A_STRSET_*`).
fn parse_bits(answer: &[u8]) -> Bits {
    let sets = find(answer, 2).unwrap_or_default();
    let strings = all(sets).filter_map(|(_, set)| find(set, 3)).flat_map(all);
    let mut bits = Bits::default();
    for (_, string) in strings {
        let (Some(at), Some(name)) = (find(string, 1).and_then(u32_of), find(string, 2)) else {
            continue;
        };
        match name.strip_suffix(b"\0").unwrap_or(name) {
            b"rx-lro" => bits.lro = Some(at),
            b"rx-gro-hw" => bits.gro_hw = Some(at),
            b"rx-vlan-hw-parse" => bits.vlan = Some(at),
            b"rx-vlan-stag-hw-parse" => bits.service_vlan = Some(at),
            b"rx-ntuple-filter" => bits.ntuple = Some(at),
            _ => {}
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_kernel_names_its_features() {
        let opened = Ethtool::open().unwrap();
        let bits = opened.bits.expect("ethtool netlink");
        assert!(bits.lro.is_some() && bits.gro_hw.is_some(), "{bits:?}");
        assert!(bits.vlan.is_some() && bits.service_vlan.is_some(), "{bits:?}");
        assert!(bits.ntuple.is_some(), "{bits:?}");
    }

    #[test]
    fn loopback_has_offloads_but_no_channels_and_nobody_has_nothing() {
        let mut ethtool = Ethtool::open().unwrap();
        let lo = ethtool.offloads(1).expect("features of lo");
        // loopback_setup sets NETIF_F_LRO nowhere.
        assert!(!lo.lro.on && !lo.vlan.on && !lo.ntuple.on, "{lo:?}");
        assert_eq!(ethtool.channels(1), None);
        assert_eq!(ethtool.channels(u32::MAX), None);
        assert_eq!(ethtool.offloads(u32::MAX), None);
        assert_eq!(ethtool.xdp_features(u32::MAX), None);
    }

    fn bitset(bits: &[u32], words: usize) -> Vec<u8> {
        let mut set = vec![0u32; words];
        bits.iter().for_each(|bit| set[*bit as usize / 32] |= 1 << (bit % 32));
        let value: Vec<u8> = set.iter().flat_map(|word| word.to_ne_bytes()).collect();
        [attribute(2, &64u32.to_ne_bytes()), attribute(4, &value)].concat()
    }

    const BITS: Bits = Bits {
        lro: Some(15),
        gro_hw: Some(42),
        vlan: Some(8),
        service_vlan: Some(200),
        ntuple: Some(33),
    };

    #[test]
    fn what_is_on_and_what_can_be_changed_are_two_things() {
        let answer = [
            nest(2, &bitset(&[15, 42], 2)),
            nest(4, &bitset(&[15, 8], 2)),
            nest(5, &bitset(&[42], 2)),
        ]
        .concat();
        let offloads = parse_offloads(&answer, BITS).unwrap();
        assert_eq!(offloads.lro, Offload { on: true, changeable: true });
        assert_eq!(offloads.gro_hw, Offload { on: false, changeable: false });
        assert_eq!(offloads.vlan, Offload { on: true, changeable: false });
        // A bit behind the end of the set is not set.
        assert_eq!(offloads.service_vlan, Offload::default());
        assert_eq!(parse_offloads(&answer, Bits::default()), Some(Offloads::default()));
        assert_eq!(parse_offloads(&[], BITS), None);
    }

    #[test]
    fn channels_that_are_left_out_are_none() {
        let number = |kind, number: u32| attribute(kind, &number.to_ne_bytes());
        let answer = [number(5, 8), number(9, 3)].concat();
        let expected = Channels { combined: 3, max_combined: 8, ..Channels::default() };
        assert_eq!(parse_channels(&answer), expected);
    }

    #[test]
    fn channels_are_changed_only_where_there_are_some() {
        let now = Channels { max_combined: 8, combined: 8, ..Channels::default() };
        let wanted = Channels { combined: 3, ..now };
        let message = channels_message(5, now, wanted);
        assert_eq!(find(&message, 9).and_then(u32_of), Some(3));
        assert_eq!((find(&message, 6), find(&message, 7)), (None, None));
        // A number for what there is none of is the caller's mistake, and the kernel says so.
        let odd = channels_message(5, now, Channels { rx: 1, ..wanted });
        assert_eq!(find(&odd, 6).and_then(u32_of), Some(1));
        let error = Ethtool::open().unwrap().set_channels(1, wanted).unwrap_err();
        assert!(matches!(error, ChannelsError::Unsupported { interface_index: 1 }), "{error}");
    }

    proptest! {
        #[test]
        fn any_answer_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = (parse_channels(&bytes), parse_offloads(&bytes, BITS), parse_bits(&bytes));
        }

        /// An answer cut off anywhere tells less, and nothing else than the whole one.
        #[test]
        fn cut_answers_tell_less(cut in 0usize..120) {
            let answer = [
                nest(2, &bitset(&[15, 42], 2)),
                nest(4, &bitset(&[15, 8], 2)),
                nest(5, &bitset(&[], 2)),
            ]
            .concat();
            let whole = parse_offloads(&answer, BITS);
            let part = parse_offloads(&answer[..cut.min(answer.len())], BITS);
            prop_assert!(part.is_none() || part == whole);
        }
    }
}
