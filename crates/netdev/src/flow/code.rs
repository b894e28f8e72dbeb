//! Flow rules as the kernel writes them, and back. Pure.

use super::layout::{ANY, DISCARD, Extension, FLOW_EXT, Fields, FlowSpec, SPECIAL, ip4, ip6};
use pointsman_model::flow::{
    Field, Flow, FlowAction, FlowKind, FlowMatch, FlowRule, Masked, Ports, Transport,
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Where the fields of a kind lie.
#[derive(Debug, Clone, Copy)]
struct Places {
    source: usize,
    destination: usize,
    source_port: usize,
    destination_port: usize,
    class: usize,
    protocol: usize,
}

const IP4: Places = Places {
    source: ip4::SOURCE,
    destination: ip4::DESTINATION,
    source_port: ip4::SOURCE_PORT,
    destination_port: ip4::DESTINATION_PORT,
    class: ip4::TOS,
    protocol: ip4::PROTOCOL,
};

const IP6: Places = Places {
    source: ip6::SOURCE,
    destination: ip6::DESTINATION,
    source_port: ip6::SOURCE_PORT,
    destination_port: ip6::DESTINATION_PORT,
    class: ip6::CLASS,
    protocol: ip6::PROTOCOL,
};

/// Writes a rule. Without a location the driver chooses one, if it can.
pub(crate) fn encode(rule: &FlowRule, location: Option<u32>) -> FlowSpec {
    let mut spec = FlowSpec {
        flow_type: rule.matching.kind().number(),
        ring_cookie: match rule.action {
            FlowAction::Queue(queue) => queue.into(),
            FlowAction::Drop => DISCARD,
        },
        location: location.unwrap_or(ANY),
        ..FlowSpec::default()
    };
    match &rule.matching {
        FlowMatch::V4(flow) => {
            put_flow(&mut spec, flow, IP4);
            if rule.matching.kind() == FlowKind::Ip4 {
                spec.values[ip4::VERSION] = ip4::VERSION_4;
            }
        }
        FlowMatch::V6(flow) => put_flow(&mut spec, flow, IP6),
    }
    spec
}

fn put_flow<A: Field>(spec: &mut FlowSpec, flow: &Flow<A>, at: Places) {
    put(spec, at.source, flow.source);
    put(spec, at.destination, flow.destination);
    put(spec, at.class, flow.class);
    match flow.transport {
        Transport::Tcp(ports) | Transport::Udp(ports) => {
            put(spec, at.source_port, ports.source);
            put(spec, at.destination_port, ports.destination);
        }
        Transport::Protocol(protocol) => put(spec, at.protocol, protocol),
    }
    if !flow.vlan.is_any() {
        spec.flow_type |= FLOW_EXT;
        spec.value_extension.vlan_tci = flow.vlan.value().to_be_bytes();
        spec.mask_extension.vlan_tci = flow.vlan.mask().to_be_bytes();
    }
}

fn put<T: Field>(spec: &mut FlowSpec, at: usize, field: Masked<T>) {
    let bytes = width::<T>();
    let write = |fields: &mut Fields, value: T| {
        fields[at..at + bytes].copy_from_slice(&value.bits().to_be_bytes()[16 - bytes..]);
    };
    write(&mut spec.values, field.value());
    write(&mut spec.masks, field.mask());
}

const fn width<T: Field>() -> usize {
    T::BITS as usize / 8
}

/// Reads a rule; `None`: it says something that no rule here can say.
pub(crate) fn decode(spec: &FlowSpec) -> Option<FlowRule> {
    let action = match spec.ring_cookie {
        DISCARD => FlowAction::Drop,
        // Above are the number of a virtual function and special meanings.
        cookie => FlowAction::Queue(cookie.try_into().ok()?),
    };
    let kind = FlowKind::from_number(spec.flow_type & !FLOW_EXT)?;
    let matching = match kind {
        FlowKind::Tcp4 | FlowKind::Udp4 | FlowKind::Ip4 => {
            FlowMatch::V4(get_flow::<Ipv4Addr>(spec, kind, IP4))
        }
        FlowKind::Tcp6 | FlowKind::Udp6 | FlowKind::Ip6 => {
            FlowMatch::V6(get_flow::<Ipv6Addr>(spec, kind, IP6))
        }
    };
    let rule = FlowRule { matching, action };
    // Whatever else is set is a condition that was not read.
    same_conditions(spec, &encode(&rule, None)).then_some(rule)
}

fn get_flow<A: Field>(spec: &FlowSpec, kind: FlowKind, at: Places) -> Flow<A> {
    let ports =
        || Ports { source: get(spec, at.source_port), destination: get(spec, at.destination_port) };
    let vlan = if spec.flow_type & FLOW_EXT == 0 {
        Masked::any()
    } else {
        let mask = u16::from_be_bytes(spec.mask_extension.vlan_tci);
        masked(u16::from_be_bytes(spec.value_extension.vlan_tci), mask)
    };
    Flow {
        source: get(spec, at.source),
        destination: get(spec, at.destination),
        class: get(spec, at.class),
        transport: match kind {
            FlowKind::Tcp4 | FlowKind::Tcp6 => Transport::Tcp(ports()),
            FlowKind::Udp4 | FlowKind::Udp6 => Transport::Udp(ports()),
            FlowKind::Ip4 | FlowKind::Ip6 => Transport::Protocol(get(spec, at.protocol)),
        },
        vlan,
    }
}

/// A field with its mask. Bits that are not looked at are nothing, whatever a driver left there.
fn get<T: Field>(spec: &FlowSpec, at: usize) -> Masked<T> {
    let read = |fields: &Fields| {
        let bytes = &fields[at..at + width::<T>()];
        T::from_bits(bytes.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte)))
    };
    masked(read(&spec.values), read(&spec.masks))
}

fn masked<T: Field>(value: T, mask: T) -> Masked<T> {
    let value = T::from_bits(value.bits() & mask.bits());
    Masked::new(value, mask).expect("invariant: no bit is outside of the mask")
}

/// Whether two rules look at the same bits for the same values.
fn same_conditions(one: &FlowSpec, other: &FlowSpec) -> bool {
    fn masked_bytes(values: &[u8], masks: &[u8]) -> Vec<u8> {
        values.iter().zip(masks).map(|(value, mask)| value & mask).collect()
    }
    let extended = |spec: &FlowSpec| {
        if spec.flow_type & FLOW_EXT == 0 {
            return (Extension::default(), Extension::default());
        }
        (spec.value_extension, spec.mask_extension)
    };
    let [one_extension, other_extension] = [one, other].map(extended);
    let bytes = |(value, mask): (Extension, Extension)| {
        let flat =
            |it: Extension| [&it.vlan_ethertype[..], &it.vlan_tci, &it.data.concat()].concat();
        let (value, mask) = (flat(value), flat(mask));
        (masked_bytes(&value, &mask), mask)
    };
    one.masks == other.masks
        && masked_bytes(&one.values, &one.masks) == masked_bytes(&other.values, &other.masks)
        && bytes(one_extension) == bytes(other_extension)
}

/// The size of a table and whether its driver chooses locations, from what the kernel says of it.
pub(crate) fn table_of(data: u64) -> (Option<u32>, bool) {
    let special = data & u64::from(SPECIAL) != 0;
    let size = u32::try_from(data & !u64::from(SPECIAL)).ok();
    (size.filter(|size| *size > 0), special)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field<T: Field + Arbitrary>() -> impl Strategy<Value = Masked<T>> {
        (any::<u128>(), prop_oneof![Just(0), Just(u128::MAX), any::<u128>()])
            .prop_map(|(value, mask)| masked(T::from_bits(value), T::from_bits(mask)))
    }

    fn ports() -> impl Strategy<Value = Ports> {
        (field(), field()).prop_map(|(source, destination)| Ports { source, destination })
    }

    fn flow<A: Field + Arbitrary>() -> impl Strategy<Value = Flow<A>> {
        let transport = prop_oneof![
            ports().prop_map(Transport::Tcp),
            ports().prop_map(Transport::Udp),
            field().prop_map(Transport::Protocol),
        ];
        (field(), field(), field(), transport, field()).prop_map(
            |(source, destination, class, transport, vlan)| Flow {
                source,
                destination,
                class,
                transport,
                vlan,
            },
        )
    }

    fn rule() -> impl Strategy<Value = FlowRule> {
        let matching = prop_oneof![flow().prop_map(FlowMatch::V4), flow().prop_map(FlowMatch::V6)];
        let action = prop_oneof![any::<u32>().prop_map(FlowAction::Queue), Just(FlowAction::Drop)];
        (matching, action).prop_map(|(matching, action)| FlowRule { matching, action })
    }

    proptest! {
        #[test]
        fn every_rule_is_read_as_it_was_written(rule in rule(), location: Option<u32>) {
            let spec = encode(&rule, location);
            prop_assert_eq!(decode(&spec), Some(rule));
            prop_assert_eq!(spec.location, location.unwrap_or(ANY));
        }

        /// Of what the kernel may hand out, either everything is read or nothing is.
        #[test]
        fn no_condition_is_left_out(
            kind in prop_oneof![0u32..0x14, any::<u32>()],
            values: [u8; 32], masks: [u8; 32], tail: [u8; 20],
            extension: [u8; 8], cookie in prop_oneof![0u64..64, any::<u64>(), Just(DISCARD)],
        ) {
            let mut spec = FlowSpec { flow_type: kind, ring_cookie: cookie, ..Default::default() };
            spec.values[..32].copy_from_slice(&values);
            spec.masks[..32].copy_from_slice(&masks);
            spec.masks[32..].copy_from_slice(&tail);
            spec.mask_extension.data[0].copy_from_slice(&extension[..4]);
            spec.mask_extension.vlan_tci.copy_from_slice(&extension[4..6]);
            if let Some(rule) = decode(&spec) {
                prop_assert!(same_conditions(&encode(&rule, None), &spec));
            }
        }
    }

    #[test]
    fn a_rule_of_libmtl_is_written_as_the_kernel_has_it() {
        let flow = Flow {
            source: Masked::exactly([10, 0, 0, 1].into()),
            destination: Masked::exactly([239, 1, 1, 1].into()),
            ..Flow::all(Transport::Udp(Ports {
                source: Masked::exactly(7),
                destination: Masked::exactly(20_000),
            }))
        };
        let rule = FlowRule { matching: FlowMatch::V4(flow), action: FlowAction::Queue(1) };
        let spec = encode(&rule, Some(3));
        assert_eq!((spec.flow_type, spec.ring_cookie, spec.location), (2, 1, 3));
        assert_eq!(spec.values[..13], [10, 0, 0, 1, 239, 1, 1, 1, 0, 7, 0x4e, 0x20, 0]);
        assert_eq!(spec.masks[..12], [0xff; 12]);
        assert!(spec.masks[12..].iter().chain(&spec.values[13..]).all(|byte| *byte == 0));
        assert_eq!((spec.value_extension, spec.padding), (Extension::default(), 0));
    }

    #[test]
    fn kinds_have_their_places() {
        let ip4 = Flow::all(Transport::Protocol(Masked::exactly(1)));
        let rule = FlowRule { matching: FlowMatch::V4(ip4), action: FlowAction::Drop };
        let spec = encode(&rule, None);
        assert_eq!((spec.flow_type, spec.ring_cookie, spec.location), (0x0d, DISCARD, ANY));
        assert_eq!(spec.values[12..15], [0, ip4::VERSION_4, 1]);
        assert_eq!(spec.masks[12..15], [0, 0, 0xff]);
        let mut ip6 = Flow::all(Transport::Tcp(Ports::any()));
        ip6.destination = masked("2001:db8::".parse().unwrap(), "ffff:ffff::".parse().unwrap());
        ip6.vlan = Masked::new(0x2064, 0xefff).unwrap();
        let rule = FlowRule { matching: FlowMatch::V6(ip6), action: FlowAction::Queue(2) };
        let spec = encode(&rule, Some(0));
        assert_eq!(spec.flow_type, FLOW_EXT | 0x05);
        assert_eq!(spec.values[16..20], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(spec.masks[16..21], [0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(spec.value_extension.vlan_tci, [0x20, 0x64]);
        assert_eq!(spec.mask_extension.vlan_tci, [0xef, 0xff]);
    }

    #[test]
    fn rules_that_say_more_are_not_taken_for_less() {
        let all = Flow::all(Transport::Udp(Ports::any()));
        let rule = FlowRule { matching: FlowMatch::V4(all), action: FlowAction::Queue(1) };
        let spec = encode(&rule, Some(1));
        let with = |change: fn(&mut FlowSpec)| {
            let mut other = spec;
            change(&mut other);
            decode(&other)
        };
        assert_eq!(with(|_| ()), Some(rule));
        // An RSS context, a MAC address, another kind.
        assert_eq!(with(|spec| spec.flow_type |= 0x2000_0000), None);
        assert_eq!(with(|spec| spec.flow_type |= 0x4000_0000), None);
        assert_eq!(with(|spec| spec.flow_type = 0x12), None);
        // A virtual function's queue, waking up.
        assert_eq!(with(|spec| spec.ring_cookie |= 1 << 32), None);
        assert_eq!(with(|spec| spec.ring_cookie = u64::MAX - 1), None);
        // Bits of the driver's own.
        assert_eq!(
            with(|spec| {
                spec.flow_type |= FLOW_EXT;
                spec.mask_extension.data[1] = [1; 4];
            }),
            None
        );
        // What is not looked at means nothing.
        assert_eq!(with(|spec| spec.values = [0x55; 52]), Some(rule));
        assert_eq!(with(|spec| spec.mask_extension.data[1] = [1; 4]), Some(rule));
    }

    #[test]
    fn tables_say_how_large_they_are_or_do_not() {
        assert_eq!(table_of(0), (None, false));
        assert_eq!(table_of(4), (Some(4), false));
        assert_eq!(table_of(u64::from(SPECIAL) | 1024), (Some(1024), true));
        assert_eq!(table_of(SPECIAL.into()), (None, true));
        assert_eq!(table_of(u64::MAX), (None, true));
    }
}
