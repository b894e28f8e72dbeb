//! Interfaces as the kernel tells of them.
//!
//! In: nothing but the network namespace of the calling thread. Out: its interfaces with what is
//! attached to them, from one dump over route netlink ([`interfaces`]), and what is known of their
//! drivers, queues and offloads ([`Nics`]). Called by the node's kernel adapter and by `doctor`.
#![forbid(unsafe_code)]

mod driver;
mod ethtool;
mod generic;
mod nics;

pub use driver::Device;
pub use ethtool::Ethtool;
pub use nics::Nics;

use netlink_packet_core::{
    DefaultNla, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use pointsman_model::InterfaceName;
use pointsman_model::nic::NicFacts;
use pointsman_model::observed::{AttachMode, ObservedInterface};
use std::collections::BTreeMap;
use std::io;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// The XDP program attached to it: the kernel's id, and where.
    pub xdp: Option<(u32, AttachMode)>,
    /// What kind of virtual interface it is, such as `veth`; `None`: none, or a card.
    pub kind: Option<String>,
    /// The device it belongs to; `None`: it is virtual, or the kernel is older than 5.14.
    pub device: Option<Device>,
    /// The other end of a veth pair.
    pub peer: Option<PeerLink>,
}

impl Interface {
    /// The interface as a planner sees it, without what is attached to it.
    #[must_use]
    pub fn observed(&self, nic: NicFacts) -> ObservedInterface {
        let native_xdp = nic.xdp.map(|xdp| xdp.basic);
        let Self { index, loopback, mtu, up, xdp: _, kind: _, device: _, peer: _ } = *self;
        ObservedInterface { index, native_xdp, loopback, mtu, up, attached: None, nic }
    }
}

/// Where the other end of a veth pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLink {
    /// The kernel's number for it, in its own network namespace.
    pub interface_index: u32,
    /// The number by which this namespace knows that one; `None`: it is this one.
    pub namespace: Option<i32>,
}

/// The interfaces could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call failed.
    #[error("netlink: {0}")]
    Os(#[from] io::Error),
    /// The kernel's answer makes no sense.
    #[error("netlink: {0}")]
    Malformed(#[from] netlink_packet_core::DecodeError),
}

/// All interfaces of the calling thread's network namespace.
///
/// # Errors
/// The kernel refuses, or its answer cannot be read.
pub fn interfaces() -> Result<BTreeMap<InterfaceName, Interface>, NetlinkError> {
    /// A host that changes faster than this is told of as it was lately.
    const TRIES: usize = 5;
    let mut tries = 1;
    loop {
        let (found, interrupted) = dump()?;
        if !interrupted || tries == TRIES {
            return Ok(found);
        }
        tries += 1;
    }
}

/// Asks for single interfaces of other namespaces. Opening a socket costs more than asking, so it is
/// kept.
#[derive(Debug)]
struct Elsewhere {
    socket: Socket,
    sequence: u32,
}

impl Elsewhere {
    fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers while the question is sent: nothing is worth waiting for.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The MTU of an interface of a namespace that this one knows by a number.
    fn mtu(&mut self, interface_index: u32, namespace: i32) -> Result<u32, NetlinkError> {
        /// `IFLA_TARGET_NETNSID` (Linux 5.0): answer for that namespace. Takes CAP_NET_ADMIN there.
        const TARGET: u16 = 46;
        let mut link = LinkMessage::default();
        link.header.index = interface_index;
        let target = DefaultNla::new(TARGET, namespace.to_ne_bytes().to_vec());
        link.attributes.push(LinkAttribute::Other(target));
        link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(link, NLM_F_REQUEST, self.sequence), 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)?;
            if message.header.sequence_number != self.sequence {
                // An answer to a question that was given up.
                continue;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
                        LinkAttribute::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                    return mtu.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into());
                }
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                _ => {}
            }
        }
    }
}

/// One dump, and whether interfaces came or went meanwhile, so that it may lack some.
fn dump() -> Result<(BTreeMap<InterfaceName, Interface>, bool), NetlinkError> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&dump_request(), 0)?;
    let mut found = BTreeMap::new();
    let mut interrupted = false;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
            // Messages are padded to four bytes; a length of zero would never end.
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok((found, interrupted)),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    found.extend(interface(&link));
                }
                _ => {}
            }
        }
    }
}

fn dump_request() -> Vec<u8> {
    let mut link = LinkMessage::default();
    // Statistics are the larger part of an answer, and nobody looks at them here.
    link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    request(link, NLM_F_REQUEST | NLM_F_DUMP, 0)
}

fn request(link: LinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(link));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn interface(link: &LinkMessage) -> Option<(InterfaceName, Interface)> {
    let (mut name, mut bus, mut device) = (None, None, None);
    let (mut link_to, mut namespace) = (None, None);
    let mut interface = Interface {
        index: link.header.index,
        loopback: link.header.flags.contains(LinkFlags::Loopback),
        mtu: 0,
        up: link.header.flags.contains(LinkFlags::Up),
        xdp: None,
        kind: None,
        device: None,
        peer: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = InterfaceName::new(text.as_str()).ok(),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => interface.xdp = attached(xdp),
            LinkAttribute::LinkInfo(info) => interface.kind = kind(info),
            LinkAttribute::ParentDevBusName(text) => bus = Some(text.clone()),
            LinkAttribute::ParentDevName(text) => device = Some(text.clone()),
            LinkAttribute::Link(index) => link_to = Some(*index),
            LinkAttribute::LinkNetNsId(number) => namespace = Some(*number),
            _ => {}
        }
    }
    interface.device = bus.zip(device).map(|(bus, name)| Device { bus, name });
    // Of other kinds it is what they lie on, such as a VLAN's card.
    let veth = interface.kind.as_deref() == Some("veth");
    interface.peer = link_to
        .filter(|&index| veth && index != 0)
        .map(|interface_index| PeerLink { interface_index, namespace });
    Some((name?, interface))
}

fn kind(info: &[LinkInfo]) -> Option<String> {
    info.iter().find_map(|part| match part {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// Which program runs, and where. With several (native and offloaded) the driver's.
fn attached(xdp: &[LinkXdp]) -> Option<(u32, AttachMode)> {
    let mode = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple) => Some(AttachMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(AttachMode::Skb),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(AttachMode::Offload),
        _ => None,
    })?;
    let of_mode = xdp.iter().find_map(|attribute| match (attribute, mode) {
        (LinkXdp::DrvProgId(id), AttachMode::Native)
        | (LinkXdp::SkbProgId(id), AttachMode::Skb)
        | (LinkXdp::HwProgId(id), AttachMode::Offload) => Some(*id),
        _ => None,
    });
    let any = || {
        xdp.iter().find_map(|attribute| match attribute {
            LinkXdp::ProgId(id) => Some(*id),
            _ => None,
        })
    };
    let id = of_mode.or_else(any).filter(|&id| id != 0)?;
    Some((id, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let found = interfaces().unwrap();
        let lo = &found[&InterfaceName::new("lo").unwrap()];
        assert!(lo.loopback && lo.index >= 1 && lo.mtu >= 1280, "{lo:?}");
    }

    #[test]
    fn the_drivers_program_comes_before_others() {
        let both = [
            LinkXdp::Attached(XdpAttached::Multiple),
            LinkXdp::SkbProgId(3),
            LinkXdp::DrvProgId(7),
        ];
        assert_eq!(attached(&both), Some((7, AttachMode::Native)));
        assert_eq!(attached(&[LinkXdp::Attached(XdpAttached::None)]), None);
        let skb = [LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(9)];
        assert_eq!(attached(&skb), Some((9, AttachMode::Skb)));
    }
}
