//! What clients ask for.

use crate::layout::{Bytes, heartbeat, interface, lcore, udp_dp_filter};
use crate::{Dialect, Record, Registration, RequestError, RequestKind, WireAddress};

/// A request. Numbers are as the client sent them; whether there is such an interface, queue or
/// core is for others to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Here I am.
    Register(Registration),
    /// I am still there.
    Heartbeat {
        /// To be echoed.
        sequence: u32,
    },
    /// Give me this core.
    GetLcore {
        /// A DPDK lcore id, which the client has chosen.
        lcore: u16,
    },
    /// I do not need this core any more.
    PutLcore {
        /// A DPDK lcore id.
        lcore: u16,
    },
    /// Let datagrams to this port go on to AF_XDP sockets.
    AddUdpPort {
        /// The interface, as the client's network namespace numbers it.
        interface_index: u32,
        /// The destination port.
        port: u16,
    },
    /// No longer.
    DelUdpPort {
        /// The interface.
        interface_index: u32,
        /// The destination port.
        port: u16,
    },
    /// Give me the map that sockets enter to receive.
    XskMap {
        /// The interface.
        interface_index: u32,
    },
    /// Give me any free queue.
    GetQueue {
        /// The interface.
        interface_index: u32,
    },
    /// I do not need this queue any more. libmtl gives back on its way out queues that it never
    /// had too, and calls them 0 (`mt_af_xdp.c`).
    PutQueue {
        /// The interface.
        interface_index: u32,
        /// The queue.
        queue: u16,
    },
    /// Steer packets to a queue.
    AddFlow(Flow),
    /// No longer.
    DelFlow {
        /// The interface.
        interface_index: u32,
        /// The location of the rule.
        location: u32,
    },
}

/// Which packets to steer where. 0 in an address or a port means any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The interface.
    pub interface_index: u32,
    /// The queue.
    pub queue: u16,
    /// As ethtool numbers types of flows. libmtl says 2, `UDP_V4_FLOW`; any number may come.
    pub flow_type: u32,
    /// The sender's address.
    pub source: WireAddress,
    /// The receiver's address.
    pub destination: WireAddress,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
}

impl Request {
    /// Reads a record that a client sent. What lies behind the fields of the request is whatever
    /// the client's stack held, and is not looked at.
    ///
    /// # Errors
    /// [`RequestError::Type`] or [`RequestError::InterfaceCount`].
    pub fn decode(record: &Record) -> Result<Self, RequestError> {
        let number = record.number();
        let kind = RequestKind::from_number(number).ok_or(RequestError::Type { found: number })?;
        let bytes = record.as_bytes();
        let interface_index = u32::from_be_bytes(interface::IFINDEX.read(bytes));
        let lcore = u16::from_be_bytes(lcore::LCORE.read(bytes));
        let port = u16::from_be_bytes(udp_dp_filter::PORT.read(bytes));
        Ok(match kind {
            RequestKind::Register => Self::Register(Registration::decode(bytes)?),
            RequestKind::Heartbeat => {
                Self::Heartbeat { sequence: u32::from_be_bytes(heartbeat::SEQ.read(bytes)) }
            }
            RequestKind::GetLcore => Self::GetLcore { lcore },
            RequestKind::PutLcore => Self::PutLcore { lcore },
            RequestKind::AddUdpPort => Self::AddUdpPort { interface_index, port },
            RequestKind::DelUdpPort => Self::DelUdpPort { interface_index, port },
            RequestKind::XskMap => Self::XskMap { interface_index },
            RequestKind::GetQueue => Self::GetQueue { interface_index },
            RequestKind::PutQueue => {
                let queue = u16::from_be_bytes(interface::QUEUE_ID.read(bytes));
                Self::PutQueue { interface_index, queue }
            }
            RequestKind::AddFlow => Self::AddFlow(Flow::decode(bytes)),
            RequestKind::DelFlow => {
                let location = u32::from_be_bytes(interface::FLOW_ID.read(bytes));
                Self::DelFlow { interface_index, location }
            }
        })
    }

    /// The record by which a client of `dialect` asks for it; zero behind the last field. The
    /// addresses of a flow are in the dialect's order already.
    #[must_use]
    pub fn encode(&self, dialect: Dialect) -> Record {
        let kind = self.kind();
        let body_len = match dialect {
            Dialect::V1_0 if kind.has_host_order_length() => kind.body_bytes().to_le_bytes(),
            _ => kind.body_bytes().to_be_bytes(),
        };
        let mut record = Record::new(kind.number(), body_len);
        let bytes = record.bytes_mut();
        match self {
            Self::Register(registration) => registration.encode(bytes),
            Self::Heartbeat { sequence } => heartbeat::SEQ.write(bytes, sequence.to_be_bytes()),
            Self::GetLcore { lcore } | Self::PutLcore { lcore } => {
                lcore::LCORE.write(bytes, lcore.to_be_bytes());
            }
            Self::AddUdpPort { interface_index, port }
            | Self::DelUdpPort { interface_index, port } => {
                udp_dp_filter::IFINDEX.write(bytes, interface_index.to_be_bytes());
                udp_dp_filter::PORT.write(bytes, port.to_be_bytes());
            }
            Self::XskMap { interface_index } | Self::GetQueue { interface_index } => {
                interface::IFINDEX.write(bytes, interface_index.to_be_bytes());
            }
            Self::PutQueue { interface_index, queue } => {
                interface::IFINDEX.write(bytes, interface_index.to_be_bytes());
                interface::QUEUE_ID.write(bytes, queue.to_be_bytes());
            }
            Self::AddFlow(flow) => flow.encode(bytes),
            Self::DelFlow { interface_index, location } => {
                interface::IFINDEX.write(bytes, interface_index.to_be_bytes());
                interface::FLOW_ID.write(bytes, location.to_be_bytes());
            }
        }
        record
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> RequestKind {
        match self {
            Self::Register(_) => RequestKind::Register,
            Self::Heartbeat { .. } => RequestKind::Heartbeat,
            Self::GetLcore { .. } => RequestKind::GetLcore,
            Self::PutLcore { .. } => RequestKind::PutLcore,
            Self::AddUdpPort { .. } => RequestKind::AddUdpPort,
            Self::DelUdpPort { .. } => RequestKind::DelUdpPort,
            Self::XskMap { .. } => RequestKind::XskMap,
            Self::GetQueue { .. } => RequestKind::GetQueue,
            Self::PutQueue { .. } => RequestKind::PutQueue,
            Self::AddFlow(_) => RequestKind::AddFlow,
            Self::DelFlow { .. } => RequestKind::DelFlow,
        }
    }
}

impl Flow {
    fn decode(bytes: &Bytes) -> Self {
        Self {
            interface_index: u32::from_be_bytes(interface::IFINDEX.read(bytes)),
            queue: u16::from_be_bytes(interface::QUEUE_ID.read(bytes)),
            flow_type: u32::from_be_bytes(interface::FLOW_TYPE.read(bytes)),
            source: WireAddress(interface::SRC_IP.read(bytes)),
            destination: WireAddress(interface::DST_IP.read(bytes)),
            source_port: u16::from_be_bytes(interface::SRC_PORT.read(bytes)),
            destination_port: u16::from_be_bytes(interface::DST_PORT.read(bytes)),
        }
    }

    fn encode(&self, bytes: &mut Bytes) {
        let Self {
            interface_index,
            queue,
            flow_type,
            source,
            destination,
            source_port,
            destination_port,
        } = self;
        interface::IFINDEX.write(bytes, interface_index.to_be_bytes());
        interface::QUEUE_ID.write(bytes, queue.to_be_bytes());
        interface::FLOW_TYPE.write(bytes, flow_type.to_be_bytes());
        interface::SRC_IP.write(bytes, source.0);
        interface::DST_IP.write(bytes, destination.0);
        interface::SRC_PORT.write(bytes, source_port.to_be_bytes());
        interface::DST_PORT.write(bytes, destination_port.to_be_bytes());
    }
}
