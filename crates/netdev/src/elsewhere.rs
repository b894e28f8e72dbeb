//! Single interfaces of other network namespaces, asked for from this one.

use crate::NetlinkError;
use crate::interfaces::request;
use netlink_packet_core::{DefaultNla, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Asks for single interfaces of other namespaces. Opening a socket costs more than asking, so it is
/// kept.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    socket: Socket,
    sequence: u32,
}

impl Elsewhere {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers while the question is sent: nothing is worth waiting for.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The MTU of an interface of a namespace that this one knows by a number.
    pub(crate) fn mtu(
        &mut self,
        interface_index: u32,
        namespace: i32,
    ) -> Result<u32, NetlinkError> {
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
