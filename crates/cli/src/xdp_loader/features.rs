//! `xdp-loader features`.

use super::options::{Bad, Matches};
use super::{End, complain, interface, say};
use pointsman_bpf::dispatcher::{DispatcherError, features};
use serde_json::{Map, Value};

/// `NETDEV_XDP_ACT_*` of `linux/netdev.h`, bit by bit.
const NAMES: [&str; 7] =
    ["BASIC", "REDIRECT", "NDO_XMIT", "XSK_ZEROCOPY", "HW_OFFLOAD", "RX_SG", "NDO_XMIT_SG"];

pub(super) fn run(matches: &Matches<'_>) -> Result<End, Bad> {
    let device = matches.operands[0];
    let flags = match features(interface(device)?) {
        Ok(features) => features.flags,
        Err(error) => {
            complain(&format!("Error: {error}"));
            return Ok(End::Error(DispatcherError::Other(error).errno()));
        }
    };
    let found = NAMES
        .iter()
        .enumerate()
        .map(|(bit, name)| (format!("NETDEV_XDP_ACT_{name}"), flags & (1 << bit) != 0));
    if matches.has("json") {
        let object: Map<_, _> = found.map(|(name, has)| (name, Value::from(has))).collect();
        return Ok(say(&format!("{:#}\n", Value::from(object))));
    }
    let line = |(name, has): (String, bool)| {
        let gap = if name.len() + 1 < 23 { "\t\t" } else { "\t" };
        format!("{name}:{gap}{}\n", if has { "yes" } else { "no" })
    };
    Ok(say(&found.map(line).collect::<String>()))
}
