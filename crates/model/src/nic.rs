//! What decides how XDP works on an interface: its driver, its queues, and what the card does to
//! packets before a program sees them.
//!
//! Every field is optional: `None` is "the kernel or the driver does not say", never "no".

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is known of the card and the driver behind an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NicFacts {
    /// The driver.
    pub driver: Option<Driver>,
    /// What XDP can do there; kernels before 6.3 do not say.
    pub xdp: Option<XdpFeatures>,
    /// Its queues. Most virtual interfaces have none to speak of.
    pub channels: Option<Channels>,
    /// What the card does to packets on their way in.
    pub offloads: Option<Offloads>,
    /// The other end of a veth pair.
    pub peer: Option<Peer>,
}

/// A driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Driver {
    /// Its name in sysfs, such as `ixgbe`; of a virtual interface its kind, such as `veth`.
    pub name: String,
    /// The version of a module that has one of its own: most that come with the kernel do not.
    pub version: Option<String>,
}

/// What XDP can do on an interface: `NETDEV_XDP_ACT_*` of `linux/netdev.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct XdpFeatures {
    /// Native programs run, with the verdicts aborted, drop, pass and tx.
    pub basic: bool,
    /// The verdict redirect works.
    pub redirect: bool,
    /// Other interfaces can redirect to it.
    pub ndo_xmit: bool,
    /// AF_XDP sockets share memory with the card.
    pub xsk_zerocopy: bool,
    /// Programs can run on the card.
    pub hw_offload: bool,
    /// Packets of several buffers reach programs that take them.
    pub rx_sg: bool,
    /// Packets of several buffers can be redirected to it.
    pub ndo_xmit_sg: bool,
}

impl XdpFeatures {
    /// From the kernel's bits. Unknown ones are of later kernels and mean nothing here.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let bit = |at: u32| bits & (1 << at) != 0;
        Self {
            basic: bit(0),
            redirect: bit(1),
            ndo_xmit: bit(2),
            xsk_zerocopy: bit(3),
            hw_offload: bit(4),
            rx_sg: bit(5),
            ndo_xmit_sg: bit(6),
        }
    }

    /// The names of what there is, as the kernel's own tools write them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.all().into_iter().filter(|&(_, has)| has).map(|(name, _)| name)
    }

    /// Everything that there can be, in the order of the kernel's bits, and whether it is there.
    #[must_use]
    pub fn all(self) -> [(&'static str, bool); 7] {
        [
            ("basic", self.basic),
            ("redirect", self.redirect),
            ("ndo-xmit", self.ndo_xmit),
            ("xsk-zerocopy", self.xsk_zerocopy),
            ("hw-offload", self.hw_offload),
            ("rx-sg", self.rx_sg),
            ("ndo-xmit-sg", self.ndo_xmit_sg),
        ]
    }
}

/// Queues in use, and the most there can be. A combined channel is a receive and a transmit queue
/// with one interrupt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Channels {
    /// Channels that only receive.
    pub rx: u32,
    /// Channels that only send.
    pub tx: u32,
    /// Channels that do both.
    pub combined: u32,
    /// The most that only receive.
    pub max_rx: u32,
    /// The most that only send.
    pub max_tx: u32,
    /// The most that do both.
    pub max_combined: u32,
}

/// How queues are polled, by `Documentation/ABI/testing/sysfs-class-net`.
///
/// An application that polls its queue itself wants the interrupt kept off meanwhile: the kernel
/// then waits for `gro_flush_timeout` before it polls, and for `defer_hard_irqs` polls that found
/// nothing before it turns the interrupt on again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Polling {
    /// `napi_defer_hard_irqs`: how many polls in a row may find nothing; 0 turns it off.
    pub defer_hard_irqs: u32,
    /// `gro_flush_timeout`, in nanoseconds; 0 turns it off.
    pub gro_flush_timeout: u64,
}

/// What a card does to packets before anybody sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offloads {
    /// Merges packets into larger ones that cannot be taken apart again (`rx-lro`).
    pub lro: Offload,
    /// Merges packets so that they can be taken apart again (`rx-gro-hw`).
    pub gro_hw: Offload,
    /// Takes VLAN tags out of packets (`rx-vlan-hw-parse`).
    pub vlan: Offload,
    /// Takes service VLAN tags out of packets (`rx-vlan-stag-hw-parse`).
    pub service_vlan: Offload,
    /// Sends flows to queues by rules (`rx-ntuple-filter`).
    pub ntuple: Offload,
}

/// One thing that a card may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offload {
    /// Whether it does it now.
    pub on: bool,
    /// Whether `ethtool -K` can change that.
    pub changeable: bool,
}

/// The other end of a veth pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// Its transmit queues in use; only known in the same network namespace.
    pub tx_queues: Option<u32>,
}
