//! What somebody asks for, before anybody checked it.

use super::{AddressMatch, FlowAction};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which kind of packets a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowKind {
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
    /// IPv4, whatever it carries.
    Ip4,
    /// IPv6, whatever it carries.
    Ip6,
}

impl FlowKind {
    /// All kinds, with the numbers that `linux/ethtool.h` gives them (`TCP_V4_FLOW` and so on).
    pub const ALL: [(Self, u32); 6] = [
        (Self::Tcp4, 0x01),
        (Self::Udp4, 0x02),
        (Self::Tcp6, 0x05),
        (Self::Udp6, 0x06),
        (Self::Ip4, 0x0d),
        (Self::Ip6, 0x0e),
    ];

    /// By the number of `linux/ethtool.h`; `None`: a kind that no rule here can have.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == number).map(|(kind, _)| kind)
    }

    /// The number of `linux/ethtool.h`.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Tcp4 => 0x01,
            Self::Udp4 => 0x02,
            Self::Tcp6 => 0x05,
            Self::Udp6 => 0x06,
            Self::Ip4 => 0x0d,
            Self::Ip6 => 0x0e,
        }
    }

    /// As it is written in documents, and as `ethtool -N` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "tcp4",
            Self::Udp4 => "udp4",
            Self::Tcp6 => "tcp6",
            Self::Udp6 => "udp6",
            Self::Ip4 => "ip4",
            Self::Ip6 => "ip6",
        }
    }

    /// Whether packets of this kind have ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        !matches!(self, Self::Ip4 | Self::Ip6)
    }
}

/// A rule that is asked for. What is left out is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowRequest {
    /// The kind of packets.
    #[serde(rename = "type")]
    pub kind: FlowKind,
    /// The source address, network, or address with a mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.0.0.0/8")]
    pub src_ip: Option<AddressMatch>,
    /// The destination address, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "239.1.1.1")]
    pub dst_ip: Option<AddressMatch>,
    /// The source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Its bits that are looked at; all, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port_mask: Option<u16>,
    /// The destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// Its bits that are looked at; all, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port_mask: Option<u16>,
    /// The number of the protocol that an `ip4` or `ip6` packet carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// The type of service, or traffic class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Its bits that are looked at; all, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos_mask: Option<u8>,
    /// The VLAN id, 0 to 4095.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The VLAN priority, 0 to 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan_priority: Option<u8>,
    /// The receive queue that the packets go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Whether the card drops them instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drop: bool,
}

impl FlowRequest {
    /// Every packet of a kind.
    #[must_use]
    pub fn all(kind: FlowKind, action: FlowAction) -> Self {
        let (queue, drop) = match action {
            FlowAction::Queue(queue) => (Some(queue), false),
            FlowAction::Drop => (None, true),
        };
        Self {
            kind,
            src_ip: None,
            dst_ip: None,
            src_port: None,
            src_port_mask: None,
            dst_port: None,
            dst_port_mask: None,
            protocol: None,
            tos: None,
            tos_mask: None,
            vlan: None,
            vlan_priority: None,
            queue,
            drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_their_numbers_belong_together() {
        for (kind, number) in FlowKind::ALL {
            assert_eq!((kind.number(), FlowKind::from_number(number)), (number, Some(kind)));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.name()));
        }
        for other in [0, 3, 4, 7, 0x10, 0x12, 0x8000_0002, u32::MAX] {
            assert_eq!(FlowKind::from_number(other), None);
        }
    }

    #[test]
    fn a_request_is_written_as_in_the_document() {
        let text = r#"{"type":"udp4","dst_ip":"239.1.1.1","dst_port":20000,"queue":2}"#;
        let request: FlowRequest = serde_json::from_str(text).unwrap();
        assert_eq!((request.kind, request.queue), (FlowKind::Udp4, Some(2)));
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert!(serde_json::from_str::<FlowRequest>(r#"{"type":"udp4","quue":2}"#).is_err());
    }
}
