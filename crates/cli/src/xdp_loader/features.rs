//! `xdp-loader features`.

use super::load::number_of;
use super::options::{Bad, Matches};
use super::{End, complain, interface, say};
use pointsman_model::nic::XdpFeatures;
use pointsman_netdev::{Ethtool, NetlinkError};
use serde_json::{Map, Value};

pub(super) fn run(matches: &Matches<'_>) -> Result<End, Bad> {
    let device = matches.operands[0];
    let index = interface(device)?;
    let features = match Ethtool::open() {
        // As the original: what the kernel does not tell is not there.
        Ok(mut ethtool) => ethtool.xdp_features(index).unwrap_or_default(),
        Err(error) => {
            complain(&format!("Error: {error}"));
            return Ok(match error {
                NetlinkError::Os(error) => End::Error(number_of(&error)),
                NetlinkError::Malformed(_) => End::Failed,
            });
        }
    };
    let found = names(features);
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

/// `NETDEV_XDP_ACT_*` of `linux/netdev.h`.
fn names(features: XdpFeatures) -> impl Iterator<Item = (String, bool)> {
    let name = |name: &str| format!("NETDEV_XDP_ACT_{}", name.to_uppercase().replace('-', "_"));
    features.all().into_iter().map(move |(short, has)| (name(short), has))
}
