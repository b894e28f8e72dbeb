//! What a host's interfaces have to offer, as checks. Interfaces that are alike share one.

use super::drivers::{Buffer, Driver, Effect, Merging, driver, one_buffer};
use crate::chain::list;
use pointsman_model::InterfaceId;
use pointsman_model::api::{Check, Health};
use pointsman_model::nic::{Channels, Offload, Peer};
use pointsman_model::observed::ObservedInterface;
use std::collections::BTreeMap;

/// The most interfaces that one check names.
const NAMED: usize = 3;

/// Looks at interfaces, and at what is in the way of a chain in the driver. `page_size` is the
/// host's, in bytes.
#[must_use]
pub fn examine(
    interfaces: &BTreeMap<InterfaceId, ObservedInterface>,
    page_size: u32,
) -> Vec<Check> {
    let mut alike: BTreeMap<(bool, String, String), Vec<&InterfaceId>> = BTreeMap::new();
    for (name, interface) in interfaces.iter().filter(|(_, interface)| !interface.loopback) {
        let (mut consequences, remarks) = (in_the_way(interface, page_size), remarks(interface));
        let limited = !consequences.is_empty();
        consequences.extend(remarks);
        let consequence = match consequences.is_empty() {
            true if interface.native_xdp == Some(false) => "chains run in skb mode".to_owned(),
            true => "nothing is in a chain's way".to_owned(),
            false => consequences.join("; "),
        };
        let consequence = [vec![consequence], sockets_and_flows(interface)].concat().join("; ");
        alike.entry((limited, found(interface), consequence)).or_default().push(name);
    }
    let check = |((limited, found, consequence), names): ((bool, String, String), Vec<_>)| Check {
        name: title(&names),
        health: if limited { Health::Limited } else { Health::Ok },
        found,
        consequence,
    };
    let mut checks: Vec<_> = alike.into_iter().map(check).collect();
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    checks
}

/// The check of a host whose interfaces cannot be read, and why.
#[must_use]
pub fn unseen(why: &str) -> Check {
    Check {
        name: "interfaces".to_owned(),
        health: Health::Broken,
        found: why.to_owned(),
        consequence: "no chain can be planned".to_owned(),
    }
}

fn title(names: &[&InterfaceId]) -> String {
    match names {
        [only] => only.to_string(),
        few if few.len() <= NAMED => list(few),
        many => format!("{} and {} more", list_plain(&many[..NAMED]), many.len() - NAMED),
    }
}

fn list_plain(names: &[&InterfaceId]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn found(interface: &ObservedInterface) -> String {
    let nic = &interface.nic;
    let mut parts = Vec::new();
    parts.push(match &nic.driver {
        Some(driver) => match &driver.version {
            Some(version) => format!("{} {version}", driver.name),
            None => driver.name.clone(),
        },
        None => "driver unknown".to_owned(),
    });
    parts.push(match (interface.native_xdp, nic.xdp) {
        (Some(true), Some(xdp)) => {
            format!("native XDP ({})", xdp.names().collect::<Vec<_>>().join(", "))
        }
        (Some(true), None) => "native XDP".to_owned(),
        (Some(false), _) => "no native XDP".to_owned(),
        (None, _) => "the kernel does not say whether it has native XDP".to_owned(),
    });
    parts.push(format!("MTU {}", interface.mtu));
    parts.extend(nic.channels.and_then(queues));
    parts.extend(nic.offloads.map(|offloads| ntuple(offloads.ntuple).to_owned()));
    parts.join("; ")
}

fn ntuple(Offload { on, changeable }: Offload) -> &'static str {
    match (on, changeable) {
        (true, _) => "ntuple on",
        (false, true) => "ntuple off",
        (false, false) => "no ntuple",
    }
}

fn queues(channels: Channels) -> Option<String> {
    let Channels { rx, tx, combined, max_rx, max_tx, max_combined } = channels;
    let all = [
        (combined, max_combined, "queue pairs"),
        (rx, max_rx, "receive queues"),
        (tx, max_tx, "transmit queues"),
    ];
    let some = all.into_iter().filter(|(_, most, _)| *most > 0);
    let some: Vec<_> = some.map(|(n, most, what)| format!("{n} of {most} {what}")).collect();
    (!some.is_empty()).then(|| some.join(", "))
}

fn known(interface: &ObservedInterface) -> Option<&'static Driver> {
    interface.nic.driver.as_ref().and_then(|found| driver(&found.name))
}

/// What stands in a chain's way in native mode.
fn in_the_way(interface: &ObservedInterface, page_size: u32) -> Vec<String> {
    if interface.native_xdp == Some(false) {
        return Vec::new();
    }
    let mut all = Vec::new();
    let driver = known(interface);
    let limit = match driver {
        Some(driver) => driver.buffer.limit(page_size),
        None => Some(one_buffer(page_size)),
    };
    let (mtu, whose) = match (driver.map(|driver| driver.buffer), interface.nic.peer) {
        (Some(Buffer::PageOfPeer), Some(Peer { mtu: Some(mtu), .. })) => (mtu, "its peer's MTU is"),
        _ => (interface.mtu, "MTU"),
    };
    if let Some(limit) = limit.filter(|&limit| mtu > limit) {
        all.push(format!("{whose} above {limit}: every program must be built as xdp.frags"));
    }
    let turns_off = driver.is_some_and(|driver| driver.merging == Merging::TurnsOff);
    if let Some(offloads) = interface.nic.offloads {
        let both = [(offloads.lro, "LRO", "lro"), (offloads.gro_hw, "GRO-HW", "rx-gro-hw")];
        for (offload, name, flag) in both.into_iter().filter(|(offload, ..)| offload.on) {
            match (offload.changeable, turns_off) {
                (true, true) => {}
                (true, false) => all.push(format!(
                    "{name} is on: `ethtool -K DEV {flag} off` before a chain comes"
                )),
                (false, _) => all.push(format!("{name} is on and cannot be turned off here")),
            }
        }
    }
    all
}

/// What AF_XDP sockets and flow rules can have there.
fn sockets_and_flows(interface: &ObservedInterface) -> Vec<String> {
    let mut all = Vec::new();
    let features = interface.nic.xdp.filter(|features| features.basic);
    if let Some(features) = features {
        if !features.redirect {
            all.push("no program can redirect from here".to_owned());
        }
        all.push(match features.xsk_zerocopy {
            true => "AF_XDP sockets share memory with the card".to_owned(),
            false => "AF_XDP sockets get copies".to_owned(),
        });
    }
    all.extend(interface.nic.offloads.map(|offloads| {
        match (offloads.ntuple.on, offloads.ntuple.changeable) {
            (true, _) => "rules can send flows to queues".to_owned(),
            (false, true) => {
                "rules can send flows to queues after `ethtool -K DEV ntuple on`".to_owned()
            }
            (false, false) => "no rule can send a flow to a queue".to_owned(),
        }
    }));
    all
}

/// What is worth knowing before a chain comes.
fn remarks(interface: &ObservedInterface) -> Vec<String> {
    let mut all = Vec::new();
    if interface.nic.offloads.is_some_and(|all| all.vlan.on || all.service_vlan.on) {
        all.push("programs see no VLAN tags (rxvlan is on)".to_owned());
    }
    if interface.native_xdp == Some(false) {
        return all;
    }
    match known(interface).map(|known| known.switch) {
        None if interface.nic.driver.is_some() => {
            all.push("it is not known what the first chain costs".to_owned());
        }
        Some(Effect::Rings) => all.push("the first chain makes the rings anew".to_owned()),
        Some(Effect::Link) => all.push("the first chain takes the link down and up".to_owned()),
        _ => {}
    }
    all
}
