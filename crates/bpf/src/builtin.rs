//! The programs that come with Pointsman, compiled from `bpf/` when this crate is built.

use pointsman_model::document::{Builtin, InstanceProgram};

/// The object of a built-in program.
#[must_use]
pub fn builtin(which: Builtin) -> &'static [u8] {
    match which {
        Builtin::UdpPortFilter => include_bytes!(concat!(env!("OUT_DIR"), "/udp_port_filter.o")),
        Builtin::XskmapRedirect => include_bytes!(concat!(env!("OUT_DIR"), "/xskmap_redirect.o")),
        Builtin::CountingPass => include_bytes!(concat!(env!("OUT_DIR"), "/counting_pass.o")),
        Builtin::CidrBlocklist => include_bytes!(concat!(env!("OUT_DIR"), "/cidr_blocklist.o")),
    }
}

/// The XSKMAP redirect of instances, by the names that libxdp's AF_XDP sockets know: entry
/// `xsk_def_prog`. Its map `owners` has, by receive queue, the XSKMAP of whoever holds the queue;
/// `xsks_map` is for queues that nobody holds.
#[must_use]
pub fn xsk_redirect() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/xsk_def_prog.o"))
}

/// The port filter of instances: the built-in one with its verdicts fixed, and with its ports in a
/// map that takes no lookup, [`PORTS_OF_INSTANCES`].
#[must_use]
pub fn instance_filter() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/instance_filter.o"))
}

/// The map of [`instance_filter`]: one value, a byte for each port, by its number in network order.
pub const PORTS_OF_INSTANCES: &str = ".data.ports";

/// The object of a program that instances bring.
#[must_use]
pub fn instance_program(which: InstanceProgram) -> &'static [u8] {
    match which {
        InstanceProgram::PortFilter => instance_filter(),
        InstanceProgram::Redirect => xsk_redirect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::inspect_object;
    use crate::object::Object;
    use pointsman_model::Action;
    use pointsman_model::facts::MapDefinition;

    /// By this a daemon of another version keeps the ports of clients that live.
    #[test]
    fn the_ports_of_instances_are_the_only_variable_of_their_section() {
        let object = Object::open(super::instance_filter()).unwrap();
        let all = crate::maps::facts(&object);
        let is_it = |name: &str| name == super::PORTS_OF_INSTANCES;
        let map = all.iter().find(|map| is_it(map.name.as_str())).unwrap();
        let variables = map.definition.value.as_deref();
        assert_eq!(variables, Some("variables{u8[65536] ports@0;}"));
    }

    /// What users of libxdp look for, by name and meaning: it is in no other place of this crate.
    #[test]
    fn the_object_for_libxdp_has_what_mtls_users_look_for() {
        let object = include_bytes!(concat!(env!("OUT_DIR"), "/mtl.xdp.o"));
        let report = inspect_object(object).unwrap();
        assert_eq!(report.licence, "Dual BSD/GPL");
        let [program] = report.programs.as_slice() else { panic!("{:?}", report.programs) };
        assert_eq!(program.name, "mtl_dp_filter");
        let suggestion = program.suggestion.as_ref().unwrap();
        assert_eq!(suggestion.priority, 19);
        assert_eq!(suggestion.chain_call_actions, [Action::Drop].into_iter().collect());
        let map = report.maps.iter().find(|map| map.name.as_str() == "udp4_dp_filter").unwrap();
        let MapDefinition { kind, key_size, value_size, .. } = &map.definition;
        assert_eq!((kind.as_str(), *key_size, *value_size), ("hash", 2, 1));
    }
}
