//! All interfaces of a network namespace, from one dump.

use crate::{Device, NetlinkError};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
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
        ObservedInterface {
            index,
            native_xdp,
            loopback,
            mtu,
            up,
            attached: None,
            dispatcher: None,
            nic,
        }
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

pub(crate) fn request(link: LinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
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
