//! What is known of drivers: what attaching costs there and what keeps XDP away.
//!
//! All of it is read in Linux 6.1, in the function named beside each driver, and named where later
//! kernels differ. A driver that is not here is not guessed at: it may do anything.

use Buffer::{Bytes, Page, PageOfPeer, Unbounded};
use Effect::{Link, Nothing, Pause, Rings};
use Merging::{Refuses, TurnsOff, Unknown};

/// What packets notice when a driver is given a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Nothing: a pointer is exchanged.
    Nothing,
    /// Queues stop for a moment; packets wait in them.
    Pause,
    /// Rings are made anew: packets in them are lost.
    Rings,
    /// The interface goes down and up: the link may be gone for seconds.
    Link,
}

/// What a driver does about receive merging (LRO, GRO-HW).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merging {
    /// Refuses a program while it is on.
    Refuses,
    /// Turns it off by itself where `ethtool -K` could, and refuses where not.
    TurnsOff,
    /// Not known.
    Unknown,
}

/// The largest MTU with which packets fit into one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffer {
    /// A page without headroom, tail and Ethernet header.
    Page,
    /// The same, of the other end's MTU: packets have been sent there already.
    PageOfPeer,
    /// This many bytes.
    Bytes(u32),
    /// Larger packets are seen all the same.
    Unbounded,
}

impl Buffer {
    /// The largest MTU in bytes; `None`: there is none.
    pub(super) fn limit(self, page_size: u32) -> Option<u32> {
        match self {
            Self::Page | Self::PageOfPeer => Some(one_buffer(page_size)),
            Self::Bytes(bytes) => Some(bytes),
            Self::Unbounded => None,
        }
    }
}

/// The largest MTU with which packets fit into one page as drivers divide it: veth_xdp_set
/// (drivers/net/veth.c), and much the same in all that give each packet a page.
pub(super) fn one_buffer(page_size: u32) -> u32 {
    /// Room before a packet (`XDP_PACKET_HEADROOM`, include/uapi/linux/bpf.h).
    const HEADROOM: u32 = 256;
    /// Room behind it: `struct skb_shared_info` with 17 fragments, in whole cache lines.
    const TAIL: u32 = 320;
    /// `ETH_HLEN`.
    const ETHERNET: u32 = 14;
    page_size.saturating_sub(HEADROOM + TAIL + ETHERNET)
}

/// The buffers of Intel's drivers where pages have 4096 bytes. Each takes off what headers it
/// counts.
const BUFFER_3K: u32 = 3072;

/// What is known of one driver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Driver {
    pub(super) name: &'static str,
    /// When a chain comes where none was, and when the last one goes.
    pub(super) switch: Effect,
    /// When one chain replaces another.
    pub(super) swap: Effect,
    pub(super) merging: Merging,
    pub(super) buffer: Buffer,
}

/// The driver of a name in sysfs, or of a kind of virtual interface.
pub(super) fn driver(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

/// Whether a driver gave packets of several buffers to programs already in Linux 6.1, which does
/// not say so: those that look at `xdp_has_frags`.
pub(super) fn had_frags_early(name: &str) -> bool {
    ["atlantic", "bnxt_en", "mlx5_core", "mvneta", "veth"].contains(&name)
}

const fn known(
    name: &'static str,
    switch: Effect,
    swap: Effect,
    merging: Merging,
    buffer: Buffer,
) -> Driver {
    Driver { name, switch, swap, merging, buffer }
}

const DRIVERS: [Driver; 29] = [
    // aq_xdp_setup (it turns LRO off for programs of one buffer)
    known("atlantic", Link, Nothing, TurnsOff, Bytes(2048)),
    // bnxt_xdp_set, which closes and opens for every program; bnxt_fix_features
    known("bnxt_en", Rings, Rings, TurnsOff, Page),
    // ena_xdp_set
    known("ena", Link, Nothing, Unknown, Page),
    // enetc_setup_xdp_prog; from 6.3 on enetc_reconfigure, for every program as well
    known("fsl_enetc", Link, Link, Unknown, Page),
    // dpaa2_eth_setup_xdp
    known("fsl_dpaa2_eth", Link, Link, Unknown, Page),
    // fun_xdp_setup
    known("funeth", Rings, Nothing, Unknown, Page),
    // netvsc_xdp_set
    known("hv_netvsc", Nothing, Nothing, Refuses, Page),
    // i40e_xdp_setup, i40e_calculate_vsi_rx_buf_len
    known("i40e", Link, Nothing, Unknown, Bytes(BUFFER_3K - 22)),
    // ice_xdp_setup_prog, ice_max_xdp_frame_size
    known("ice", Link, Nothing, Unknown, Bytes(BUFFER_3K - 26)),
    // igb_xdp_setup, igb_rx_bufsz
    known("igb", Link, Nothing, Unknown, Bytes(BUFFER_3K - 26)),
    // igc_xdp_set_prog; from 6.14 on a swap exchanges a pointer
    known("igc", Link, Link, Unknown, Bytes(1500)),
    // ixgbe_xdp_setup (ring_is_rsc_enabled is LRO), ixgbe_rx_bufsz
    known("ixgbe", Link, Nothing, Refuses, Bytes(BUFFER_3K - 22)),
    // ixgbevf_xdp_setup, ixgbevf_rx_bufsz
    known("ixgbevf", Link, Nothing, Unknown, Bytes(BUFFER_3K - 22)),
    // mana_xdp_set
    known("mana", Nothing, Nothing, Unknown, Page),
    // mlx4_xdp_set
    known("mlx4_core", Link, Nothing, Unknown, Page),
    // mlx5e_xdp_set, mlx5e_xdp_allowed
    known("mlx5_core", Rings, Nothing, Refuses, Page),
    // mtk_xdp_setup
    known("mtk_soc_eth", Link, Nothing, Refuses, Page),
    // mvneta_xdp_setup
    known("mvneta", Link, Nothing, Unknown, Page),
    // mvpp2_xdp_setup
    known("mvpp2", Link, Nothing, Unknown, Page),
    // netsec_xdp_setup
    known("netsec", Link, Link, Unknown, Bytes(1500)),
    // nfp_net_xdp_setup_drv
    known("nfp", Rings, Nothing, Unknown, Page),
    // nicvf_xdp_setup: MAX_XDP_MTU
    known("nicvf", Link, Link, Unknown, Bytes(1508)),
    // qede_xdp_set reloads for every program; qede_fix_features
    known("qede", Link, Link, TurnsOff, Page),
    // otx2_xdp_setup: MAX_XDP_MTU
    known("rvu_nicpf", Link, Link, Unknown, Bytes(1508)),
    // efx_xdp_setup_prog
    known("sfc", Nothing, Nothing, Unknown, Page),
    // tun_xdp_set; what does not fit runs in skb mode (tun_get_user, do_xdp_generic)
    known("tun", Nothing, Nothing, Unknown, Unbounded),
    // veth_xdp_set
    known("veth", Nothing, Nothing, Unknown, PageOfPeer),
    // xennet_xdp_set
    known("vif", Rings, Rings, Unknown, Page),
    // virtnet_xdp_set: disables NAPI of every queue, and sets the number of queues when switched
    known("virtio_net", Rings, Pause, TurnsOff, Page),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_in_order_and_once() {
        let names: Vec<_> = DRIVERS.iter().map(|driver| driver.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len());
        assert!(driver("veth").is_some() && driver("nobody").is_none());
    }

    #[test]
    fn a_swap_costs_no_more_than_switching() {
        for driver in DRIVERS {
            assert!(driver.swap <= driver.switch, "{}", driver.name);
        }
    }
}
