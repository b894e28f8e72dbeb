//! Flow rules: which packets a network card sends to which of its receive queues, or drops.
//!
//! In: what somebody asks for ([`FlowRequest`], text and numbers that may not fit together). Out,
//! once checked ([`check_flow`]): a [`FlowRule`] that cannot contradict itself. What a rule can say
//! is what `linux/ethtool.h` has room for (`struct ethtool_rx_flow_spec`).

mod check;
mod masked;
mod request;

pub use check::{FlowProblem, QueueRights, check_flow, imtl_flow};
pub use masked::{AddressMatch, Field, InvalidMatch, Masked};
pub use request::{FlowKind, FlowRequest};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A rule of a card: these packets, that action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRule {
    /// Which packets.
    pub matching: FlowMatch,
    /// What becomes of them.
    pub action: FlowAction,
}

/// What becomes of the packets of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowAction {
    /// They go to this receive queue.
    Queue(u32),
    /// The card drops them.
    Drop,
}

/// Which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowMatch {
    /// IPv4 packets.
    V4(Flow<Ipv4Addr>),
    /// IPv6 packets.
    V6(Flow<Ipv6Addr>),
}

/// What is looked at in packets of one IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "A: Field + Serialize", deserialize = "A: Field + Deserialize<'de>"))]
pub struct Flow<A> {
    /// The source address.
    pub source: Masked<A>,
    /// The destination address.
    pub destination: Masked<A>,
    /// Type of service, or traffic class.
    pub class: Masked<u8>,
    /// What the IP packet carries.
    pub transport: Transport,
    /// The tag control information of the VLAN tag: three bits of priority, one that allows
    /// dropping, twelve bits of VLAN id.
    pub vlan: Masked<u16>,
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    Tcp(Ports),
    /// UDP.
    Udp(Ports),
    /// Anything, or anything with this protocol number.
    Protocol(Masked<u8>),
}

/// Ports of TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The source port.
    pub source: Masked<u16>,
    /// The destination port.
    pub destination: Masked<u16>,
}

impl<A: Field> Flow<A> {
    /// Every packet of the IP version that carries `transport`.
    #[must_use]
    pub fn all(transport: Transport) -> Self {
        Self {
            source: Masked::any(),
            destination: Masked::any(),
            class: Masked::any(),
            transport,
            vlan: Masked::any(),
        }
    }
}

impl Ports {
    /// Any ports.
    #[must_use]
    pub fn any() -> Self {
        Self { source: Masked::any(), destination: Masked::any() }
    }
}

impl FlowMatch {
    /// The kind of flow, by the number of the IP version and what is carried.
    #[must_use]
    pub fn kind(&self) -> FlowKind {
        match self {
            Self::V4(Flow { transport, .. }) => match transport {
                Transport::Tcp(_) => FlowKind::Tcp4,
                Transport::Udp(_) => FlowKind::Udp4,
                Transport::Protocol(_) => FlowKind::Ip4,
            },
            Self::V6(Flow { transport, .. }) => match transport {
                Transport::Tcp(_) => FlowKind::Tcp6,
                Transport::Udp(_) => FlowKind::Udp6,
                Transport::Protocol(_) => FlowKind::Ip6,
            },
        }
    }
}

impl fmt::Display for FlowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.matching, self.action)
    }
}

impl fmt::Display for FlowAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(queue) => write!(f, "queue {queue}"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

impl fmt::Display for FlowMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())?;
        match self {
            Self::V4(flow) => flow.fmt(f),
            Self::V6(flow) => flow.fmt(f),
        }
    }
}

/// Only what is looked at, each with a space before it.
impl<A: Field + fmt::Display> fmt::Display for Flow<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, class, transport, vlan } = self;
        show(f, "src-ip", source)?;
        show(f, "dst-ip", destination)?;
        match transport {
            Transport::Tcp(ports) | Transport::Udp(ports) => {
                show(f, "src-port", &ports.source)?;
                show(f, "dst-port", &ports.destination)?;
            }
            Transport::Protocol(protocol) => show(f, "protocol", protocol)?,
        }
        show(f, "tos", class)?;
        show(f, "vlan", vlan)
    }
}

fn show<T: Field + fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    what: &Masked<T>,
) -> fmt::Result {
    if what.is_any() { Ok(()) } else { write!(f, " {name} {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_shown_with_what_it_looks_at() {
        let mut flow = Flow::<Ipv4Addr>::all(Transport::Udp(Ports {
            source: Masked::any(),
            destination: Masked::exactly(20_000),
        }));
        flow.source = Masked::new([10, 0, 0, 0].into(), [255, 0, 0, 0].into()).unwrap();
        flow.vlan = Masked::new(100, 0xfff).unwrap();
        let rule = FlowRule { matching: FlowMatch::V4(flow), action: FlowAction::Queue(3) };
        assert_eq!(
            rule.to_string(),
            "udp4 src-ip 10.0.0.0/255.0.0.0 dst-port 20000 vlan 100/4095 -> queue 3"
        );
        let all = FlowMatch::V6(Flow::all(Transport::Protocol(Masked::exactly(58))));
        let rule = FlowRule { matching: all, action: FlowAction::Drop };
        assert_eq!(rule.to_string(), "ip6 protocol 58 -> drop");
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<FlowRule>(&text).unwrap(), rule);
    }
}
