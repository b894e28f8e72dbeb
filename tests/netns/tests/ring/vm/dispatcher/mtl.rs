//! `mtl.xdp.o`, loaded by libxdp as the MTL Manager does, in the place of the original's.

use pointsman_model::Action;
use pointsman_netns::dispatcher::{Stage, path, well};
use pointsman_netns::packets::Frame;
use std::net::SocketAddr;
use std::path::Path;

#[test]
fn libxdp_finds_its_place_and_what_it_lists_goes_on() {
    let Some(stage) = Stage::set("mtl::libxdp") else { return };
    // In the place of `xsk_def_prog`, behind it: a program whose verdict tells that it was reached.
    well(&stage.xdp_loader(&["load", "-P", "20", "-n", "v_tx", "v1", &path("verdict")]));
    // Neither priority nor actions are given: those of the object count.
    well(&stage.xdp_loader(&["load", "v1", &path("mtl_xdp")]));
    let chain = [(19, "mtl_dp_filter", "XDP_DROP"), (20, "v_tx", "XDP_PASS")];
    let chain = chain.map(|(at, name, on)| (at, name.to_owned(), on.to_owned()));
    assert_eq!(stage.theirs(), chain);
    assert_eq!(stage.ours(), chain);

    let verdict = |to: &str| {
        let to: SocketAddr = to.parse().expect("an address");
        let from = if to.is_ipv4() { "192.0.2.9:7" } else { "[2001:db8::9]:7" };
        stage.verdict(&Frame::udp(from.parse().expect("an address"), to).build())
    };
    let to = ["192.0.2.1:20000", "[2001:db8::1]:20000", "192.0.2.1:20001"];
    let (pass, tx) = (Action::Pass.code(), Action::Tx.code());
    assert_eq!(to.map(verdict), [pass; 3], "a new map lists nothing");
    // As the manager writes it: a port in host order, 2 bytes, and 1 byte.
    let [low, high] = 20000_u16.to_le_bytes().map(|byte| byte.to_string());
    let set = |value| {
        let entry = ["key", low.as_str(), high.as_str(), "value", value];
        let map = ["map", "update", "name", "udp4_dp_filter"];
        well(&stage.run(Path::new("bpftool"), &[map.as_slice(), &entry].concat()));
    };
    set("1");
    assert_eq!(to.map(verdict), [tx, tx, pass]);
    // B-15: it lists a port no more by a 0 in its entry.
    set("0");
    assert_eq!(to.map(verdict), [pass; 3]);
    well(&stage.xdp_loader(&["unload", "v1", "-a"]));
}
