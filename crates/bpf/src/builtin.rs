//! The programs that come with Pointsman, compiled from `bpf/` when this crate is built.

use pointsman_model::document::Builtin;

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
