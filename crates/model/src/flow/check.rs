//! Whether a flow rule that somebody asks for makes sense, and is theirs to ask for.

use super::{
    AddressMatch, Field, Flow, FlowAction, FlowKind, FlowMatch, FlowRequest, FlowRule, Masked,
    Ports, Transport,
};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Which queues somebody may send packets to.
#[derive(Debug, Clone, Copy)]
pub enum QueueRights<'a> {
    /// Any that there is: the operator.
    Any,
    /// Those that an application holds.
    Held(&'a BTreeSet<u32>),
}

/// Why a rule cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowProblem {
    /// A number that is no kind of flow, or none that rules here can be of.
    #[error(
        "flow type {number} is none of TCP and UDP over IPv4 (1, 2) and IPv6 (5, 6), IPv4 (13) and \
         IPv6 (14)"
    )]
    UnknownType {
        /// The number of `linux/ethtool.h`.
        number: u32,
    },
    /// An address of the other IP version.
    #[error("{field} {address} does not fit a rule of type {}", kind.name())]
    OtherVersion {
        /// The field.
        field: &'static str,
        /// The address.
        address: String,
        /// The rule's kind.
        kind: FlowKind,
    },
    /// A field that packets of this kind do not have.
    #[error("a rule of type {} has no {field}", kind.name())]
    NoSuchField {
        /// The field.
        field: &'static str,
        /// The rule's kind.
        kind: FlowKind,
    },
    /// A number that the field cannot hold.
    #[error("{field} {value} is beyond its range: {range}")]
    Range {
        /// The field.
        field: &'static str,
        /// The number.
        value: u16,
        /// What it can hold.
        range: &'static str,
    },
    /// A mask for nothing.
    #[error("{field}_mask is given without {field}")]
    MaskAlone {
        /// The field.
        field: &'static str,
    },
    /// The value has bits that the mask leaves out.
    #[error("{field} {value} has bits outside of {field}_mask {mask}: write {}", value & mask)]
    OutsideMask {
        /// The field.
        field: &'static str,
        /// The number.
        value: u16,
        /// The mask.
        mask: u16,
    },
    /// Neither a queue nor drop.
    #[error("the rule says neither `queue` nor `drop`")]
    NoAction,
    /// Both.
    #[error("the rule says both `queue` and `drop`")]
    TwoActions,
    /// There is no such queue.
    #[error("queue {queue} does not exist: there are {queues} receive queues, from 0")]
    NoSuchQueue {
        /// The queue.
        queue: u32,
        /// How many there are.
        queues: u32,
    },
    /// It is not the application's.
    #[error("queue {queue} is not held by this application{}", held_hint(held))]
    NotHeld {
        /// The queue.
        queue: u32,
        /// Those that it holds.
        held: Vec<u32>,
    },
}

fn held_hint(held: &[u32]) -> String {
    match held {
        [] => ", which holds none: it has to get one first".into(),
        held => {
            let held: Vec<_> = held.iter().take(16).map(ToString::to_string).collect();
            format!(", which holds {}", held.join(", "))
        }
    }
}

/// The request of a client of libmtl's socket, which has IPv4 only, and in which zero is "any".
/// Addresses and ports are what they are, in nobody's byte order.
///
/// # Errors
/// [`FlowProblem::UnknownType`]
pub fn imtl_flow(
    flow_type: u32,
    [source, destination]: [Ipv4Addr; 2],
    [source_port, destination_port]: [u16; 2],
    queue: u32,
) -> Result<FlowRequest, FlowProblem> {
    let kind =
        FlowKind::from_number(flow_type).ok_or(FlowProblem::UnknownType { number: flow_type })?;
    let address = |address: Ipv4Addr| {
        (!address.is_unspecified()).then(|| AddressMatch::V4(Masked::exactly(address)))
    };
    let port = |port: u16| (port != 0).then_some(port);
    Ok(FlowRequest {
        src_ip: address(source),
        dst_ip: address(destination),
        src_port: port(source_port),
        dst_port: port(destination_port),
        ..FlowRequest::all(kind, FlowAction::Queue(queue))
    })
}

/// Checks a request against the interface's `queues` receive queues and what the asker may do.
///
/// # Errors
/// [`FlowProblem`]: the first thing that is wrong.
pub fn check_flow(
    request: &FlowRequest,
    queues: u32,
    rights: QueueRights<'_>,
) -> Result<FlowRule, FlowProblem> {
    let kind = request.kind;
    let transport = transport(request)?;
    let vlan = vlan(request)?;
    let class = value("tos", request.tos, request.tos_mask)?;
    let matching = match kind {
        FlowKind::Tcp4 | FlowKind::Udp4 | FlowKind::Ip4 => {
            let address = |field, address: Option<AddressMatch>| match address {
                None => Ok(Masked::any()),
                Some(AddressMatch::V4(address)) => Ok(address),
                Some(other) => Err(other_version(field, other, kind)),
            };
            FlowMatch::V4(Flow {
                source: address("src_ip", request.src_ip)?,
                destination: address("dst_ip", request.dst_ip)?,
                class,
                transport,
                vlan,
            })
        }
        FlowKind::Tcp6 | FlowKind::Udp6 | FlowKind::Ip6 => {
            let address = |field, address: Option<AddressMatch>| match address {
                None => Ok(Masked::any()),
                Some(AddressMatch::V6(address)) => Ok(address),
                Some(other) => Err(other_version(field, other, kind)),
            };
            FlowMatch::V6(Flow {
                source: address("src_ip", request.src_ip)?,
                destination: address("dst_ip", request.dst_ip)?,
                class,
                transport,
                vlan,
            })
        }
    };
    let action = action(request, queues, rights)?;
    Ok(FlowRule { matching, action })
}

fn other_version(field: &'static str, address: AddressMatch, kind: FlowKind) -> FlowProblem {
    FlowProblem::OtherVersion { field, address: address.to_string(), kind }
}

fn transport(request: &FlowRequest) -> Result<Transport, FlowProblem> {
    let kind = request.kind;
    let none = |field, is: bool| {
        if is { Err(FlowProblem::NoSuchField { field, kind }) } else { Ok(()) }
    };
    if !kind.has_ports() {
        let FlowRequest { src_port, src_port_mask, dst_port, dst_port_mask, .. } = request;
        none("src_port", src_port.is_some() || src_port_mask.is_some())?;
        none("dst_port", dst_port.is_some() || dst_port_mask.is_some())?;
        return Ok(Transport::Protocol(value("protocol", request.protocol, None)?));
    }
    none("protocol", request.protocol.is_some())?;
    let port = |field, port: Option<u16>, mask: Option<u16>| {
        if port == Some(0) && mask.is_none() {
            return Err(FlowProblem::Range { field, value: 0, range: "1 to 65535" });
        }
        value(field, port, mask)
    };
    let ports = Ports {
        source: port("src_port", request.src_port, request.src_port_mask)?,
        destination: port("dst_port", request.dst_port, request.dst_port_mask)?,
    };
    Ok(match kind {
        FlowKind::Tcp4 | FlowKind::Tcp6 => Transport::Tcp(ports),
        _ => Transport::Udp(ports),
    })
}

fn vlan(request: &FlowRequest) -> Result<Masked<u16>, FlowProblem> {
    const ID: u16 = 0x0fff;
    const PRIORITY: u16 = 0xe000;
    let (mut value, mut mask) = (0, 0);
    if let Some(id) = request.vlan {
        if id > ID {
            return Err(FlowProblem::Range { field: "vlan", value: id, range: "0 to 4095" });
        }
        (value, mask) = (id, ID);
    }
    if let Some(priority) = request.vlan_priority {
        if priority > 7 {
            let (field, value) = ("vlan_priority", priority.into());
            return Err(FlowProblem::Range { field, value, range: "0 to 7" });
        }
        (value, mask) = (value | u16::from(priority) << 13, mask | PRIORITY);
    }
    Ok(Masked::new(value, mask).expect("invariant: both numbers are within their bits"))
}

fn value<T: Field + Into<u16>>(
    field: &'static str,
    value: Option<T>,
    mask: Option<T>,
) -> Result<Masked<T>, FlowProblem> {
    match (value, mask) {
        (None, None) => Ok(Masked::any()),
        (None, Some(_)) => Err(FlowProblem::MaskAlone { field }),
        (Some(value), None) => Ok(Masked::exactly(value)),
        (Some(value), Some(mask)) => Masked::new(value, mask).ok_or_else(|| {
            FlowProblem::OutsideMask { field, value: value.into(), mask: mask.into() }
        }),
    }
}

fn action(
    request: &FlowRequest,
    queues: u32,
    rights: QueueRights<'_>,
) -> Result<FlowAction, FlowProblem> {
    let queue = match (request.queue, request.drop) {
        (None, false) => return Err(FlowProblem::NoAction),
        (Some(_), true) => return Err(FlowProblem::TwoActions),
        (None, true) => return Ok(FlowAction::Drop),
        (Some(queue), false) => queue,
    };
    if queue >= queues {
        return Err(FlowProblem::NoSuchQueue { queue, queues });
    }
    match rights {
        QueueRights::Held(held) if !held.contains(&queue) => {
            Err(FlowProblem::NotHeld { queue, held: held.iter().copied().collect() })
        }
        QueueRights::Any | QueueRights::Held(_) => Ok(FlowAction::Queue(queue)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn udp4(queue: u32) -> FlowRequest {
        FlowRequest::all(FlowKind::Udp4, FlowAction::Queue(queue))
    }

    #[track_caller]
    fn refused(request: &FlowRequest) -> String {
        check_flow(request, 4, QueueRights::Any).unwrap_err().to_string()
    }

    #[test]
    fn a_rule_of_libmtl_is_what_it_asks_for() {
        let any = Ipv4Addr::UNSPECIFIED;
        let held = BTreeSet::from([2]);
        let request = imtl_flow(2, [any, [239, 1, 1, 1].into()], [0, 20_000], 2).unwrap();
        let rule = check_flow(&request, 4, QueueRights::Held(&held)).unwrap();
        assert_eq!(rule.to_string(), "udp4 dst-ip 239.1.1.1 dst-port 20000 -> queue 2");
        // A reference that validates nothing passes these to the driver.
        for number in [0, 3, 0x12, 0x8000_0002, u32::MAX] {
            let error = imtl_flow(number, [any, any], [0, 0], 2).unwrap_err();
            assert_eq!(error, FlowProblem::UnknownType { number });
        }
        let other = imtl_flow(2, [any, any], [0, 0], 3).unwrap();
        let message = check_flow(&other, 4, QueueRights::Held(&held)).unwrap_err().to_string();
        assert_eq!(message, "queue 3 is not held by this application, which holds 2");
        let beyond = imtl_flow(2, [any, any], [0, 0], 63).unwrap();
        let message = check_flow(&beyond, 4, QueueRights::Held(&held)).unwrap_err().to_string();
        assert_eq!(message, "queue 63 does not exist: there are 4 receive queues, from 0");
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let v6 = Some("2001:db8::1".parse().unwrap());
        assert_eq!(
            refused(&FlowRequest { dst_ip: v6, ..udp4(1) }),
            "dst_ip 2001:db8::1 does not fit a rule of type udp4"
        );
        let ip4 = FlowRequest { kind: FlowKind::Ip4, dst_port: Some(1), ..udp4(1) };
        assert_eq!(refused(&ip4), "a rule of type ip4 has no dst_port");
        let protocol = FlowRequest { protocol: Some(1), ..udp4(1) };
        assert_eq!(refused(&protocol), "a rule of type udp4 has no protocol");
        let port = FlowRequest { dst_port: Some(0), ..udp4(1) };
        assert_eq!(refused(&port), "dst_port 0 is beyond its range: 1 to 65535");
        let alone = FlowRequest { src_port_mask: Some(1), ..udp4(1) };
        assert_eq!(refused(&alone), "src_port_mask is given without src_port");
        let outside =
            FlowRequest { dst_port: Some(0x1234), dst_port_mask: Some(0xff00), ..udp4(1) };
        assert_eq!(
            refused(&outside),
            "dst_port 4660 has bits outside of dst_port_mask 65280: write 4608"
        );
        let vlan = FlowRequest { vlan: Some(4096), ..udp4(1) };
        assert_eq!(refused(&vlan), "vlan 4096 is beyond its range: 0 to 4095");
        let neither = FlowRequest { queue: None, ..udp4(1) };
        assert_eq!(refused(&neither), "the rule says neither `queue` nor `drop`");
        let both = FlowRequest { drop: true, ..udp4(1) };
        assert_eq!(refused(&both), "the rule says both `queue` and `drop`");
    }

    #[test]
    fn masks_vlans_and_drop_are_taken() {
        let request = FlowRequest {
            src_ip: Some("2001:db8::/32".parse().unwrap()),
            dst_port: Some(0x1200),
            dst_port_mask: Some(0xff00),
            vlan: Some(100),
            vlan_priority: Some(5),
            tos: Some(0xb8),
            tos_mask: Some(0xfc),
            ..FlowRequest::all(FlowKind::Tcp6, FlowAction::Drop)
        };
        let rule = check_flow(&request, 1, QueueRights::Held(&BTreeSet::new())).unwrap();
        assert_eq!(
            rule.to_string(),
            "tcp6 src-ip 2001:db8::/ffff:ffff:: dst-port 4608/65280 tos 184/252 vlan 41060/61439 \
             -> drop"
        );
    }

    proptest! {
        /// Any request gets a rule of its kind or a reason, and a rule never reaches a queue that
        /// is not there or not the asker's.
        #[test]
        fn rules_stay_within_what_the_asker_has(
            kind in proptest::sample::select(FlowKind::ALL.as_slice()),
            ports: [Option<u16>; 4], bytes: [Option<u8>; 4], vlan: Option<u16>,
            queue in proptest::option::of(0u32..8), drop: bool, queues in 0u32..6,
            held in proptest::collection::btree_set(0u32..8, 0..4),
        ) {
            let request = FlowRequest {
                src_port: ports[0], src_port_mask: ports[1],
                dst_port: ports[2], dst_port_mask: ports[3],
                protocol: bytes[0], tos: bytes[1], tos_mask: bytes[2], vlan_priority: bytes[3],
                vlan, queue, drop,
                ..FlowRequest::all(kind.0, FlowAction::Drop)
            };
            if let Ok(rule) = check_flow(&request, queues, QueueRights::Held(&held)) {
                prop_assert_eq!(rule.matching.kind(), kind.0);
                match rule.action {
                    FlowAction::Drop => prop_assert!(drop && queue.is_none()),
                    FlowAction::Queue(to) => {
                        prop_assert!(Some(to) == queue && to < queues && held.contains(&to));
                    }
                }
            }
        }
    }
}
