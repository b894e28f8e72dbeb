//! The types of messages: upstream's `mtl_message_type_t`.

use std::fmt;

/// What a client asks for, with the number of `mtl_message_type_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RequestKind {
    /// `MTL_MSG_TYPE_REGISTER`.
    Register = 101,
    /// `MTL_MSG_TYPE_HEARTBEAT`.
    Heartbeat = 102,
    /// `MTL_MSG_TYPE_GET_LCORE`.
    GetLcore = 103,
    /// `MTL_MSG_TYPE_PUT_LCORE`.
    PutLcore = 104,
    /// `MTL_MSG_TYPE_ADD_UDP_DP_FILTER`.
    AddUdpPort = 105,
    /// `MTL_MSG_TYPE_DEL_UDP_DP_FILTER`.
    DelUdpPort = 106,
    /// `MTL_MSG_TYPE_IF_XSK_MAP_FD`.
    XskMap = 107,
    /// `MTL_MSG_TYPE_IF_GET_QUEUE`.
    GetQueue = 108,
    /// `MTL_MSG_TYPE_IF_PUT_QUEUE`.
    PutQueue = 109,
    /// `MTL_MSG_TYPE_IF_ADD_FLOW`.
    AddFlow = 110,
    /// `MTL_MSG_TYPE_IF_DEL_FLOW`.
    DelFlow = 111,
}

impl RequestKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Register,
        Self::Heartbeat,
        Self::GetLcore,
        Self::PutLcore,
        Self::AddUdpPort,
        Self::DelUdpPort,
        Self::XskMap,
        Self::GetQueue,
        Self::PutQueue,
        Self::AddFlow,
        Self::DelFlow,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The request with this number; `None`: none has it. 0, 100 and 200 only mark where upstream
    /// starts to count.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Bytes of its body that mean something: the `sizeof` of the member of upstream's union.
    #[must_use]
    pub const fn body_bytes(self) -> u32 {
        match self {
            Self::Register => 106,
            Self::Heartbeat => 4,
            Self::GetLcore | Self::PutLcore => 2,
            Self::AddUdpPort | Self::DelUdpPort => 6,
            Self::XskMap | Self::GetQueue | Self::PutQueue | Self::AddFlow | Self::DelFlow => 26,
        }
    }

    /// Whether libmtl writes `body_len` of it in the host's byte order (`mt_instance_init`,
    /// `mt_instance_put_lcore`).
    pub(crate) const fn has_host_order_length(self) -> bool {
        matches!(self, Self::Register | Self::PutLcore)
    }

    /// The type of the record that answers it; `None`: a byte answers, beside a descriptor.
    #[must_use]
    pub const fn reply(self) -> Option<ReplyKind> {
        match self {
            Self::Heartbeat => Some(ReplyKind::HeartbeatAck),
            Self::XskMap => None,
            Self::GetQueue => Some(ReplyKind::QueueId),
            Self::AddFlow => Some(ReplyKind::FlowId),
            _ => Some(ReplyKind::Response),
        }
    }
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Register => "REGISTER",
            Self::Heartbeat => "HEARTBEAT",
            Self::GetLcore => "GET_LCORE",
            Self::PutLcore => "PUT_LCORE",
            Self::AddUdpPort => "ADD_UDP_DP_FILTER",
            Self::DelUdpPort => "DEL_UDP_DP_FILTER",
            Self::XskMap => "IF_XSK_MAP_FD",
            Self::GetQueue => "IF_GET_QUEUE",
            Self::PutQueue => "IF_PUT_QUEUE",
            Self::AddFlow => "IF_ADD_FLOW",
            Self::DelFlow => "IF_DEL_FLOW",
        })
    }
}

/// The type of a record that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ReplyKind {
    /// `MTL_MSG_TYPE_RESPONSE`.
    Response = 201,
    /// `MTL_MSG_TYPE_IF_QUEUE_ID`.
    QueueId = 202,
    /// `MTL_MSG_TYPE_IF_FLOW_ID`.
    FlowId = 203,
    /// `MTL_MSG_TYPE_HEARTBEAT_ACK`, of dialect 1.1.
    HeartbeatAck = 204,
}

impl ReplyKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Response, Self::QueueId, Self::FlowId, Self::HeartbeatAck];

    /// Bytes of a reply's body that mean something, the same for all.
    pub const BODY_BYTES: u32 = 4;

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The reply with this number; `None`: none has it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_upstreams() {
        let requests: Vec<u32> = RequestKind::ALL.iter().map(|kind| kind.number()).collect();
        assert_eq!(requests, (101..=111).collect::<Vec<u32>>());
        let replies: Vec<u32> = ReplyKind::ALL.iter().map(|kind| kind.number()).collect();
        assert_eq!(replies, (201..=204).collect::<Vec<u32>>());
        for no_request in [0, 100, 112, 200, 201, 204, u32::MAX, 101 << 24] {
            assert_eq!(RequestKind::from_number(no_request), None);
        }
        for no_reply in [0, 101, 111, 200, 205, u32::MAX] {
            assert_eq!(ReplyKind::from_number(no_reply), None);
        }
    }
}
