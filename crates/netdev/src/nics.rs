//! What decides how XDP works on an interface, put together.

use crate::{Device, Ethtool, Interface, peer_mtu};
use pointsman_model::InterfaceName;
use pointsman_model::nic::{Driver, NicFacts, Peer};
use pointsman_model::observed::ObservedInterface;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads the facts of interfaces. What can change while an interface lives is read each time, and
/// what cannot only once: three short questions an interface, about 20 microseconds.
#[derive(Debug)]
pub struct Nics {
    sys: PathBuf,
    /// Opened when first asked.
    ethtool: Option<Ethtool>,
    /// Drivers by interface number: a device that gets another driver gets another interface.
    drivers: BTreeMap<u32, (Device, Option<Driver>)>,
}

impl Nics {
    /// With sysfs at `sys`.
    #[must_use]
    pub fn new(sys: &Path) -> Self {
        Self { sys: sys.to_owned(), ethtool: None, drivers: BTreeMap::new() }
    }

    /// What is known of `interface`, one of `all`. Whatever cannot be read is unknown.
    pub fn facts(
        &mut self,
        interface: &Interface,
        all: &BTreeMap<InterfaceName, Interface>,
    ) -> NicFacts {
        let driver = self.driver(interface);
        let peer = interface.peer.map(|peer| match peer.namespace {
            Some(namespace) => {
                let mtu = peer_mtu(peer.interface_index, namespace).ok().flatten();
                Peer { mtu, tx_queues: None }
            }
            None => {
                let there = all.values().find(|other| other.index == peer.interface_index);
                let channels = self.ethtool().and_then(|e| e.channels(peer.interface_index));
                Peer { mtu: there.map(|other| other.mtu), tx_queues: channels.map(|c| c.tx) }
            }
        });
        let index = interface.index;
        NicFacts {
            driver,
            xdp: self.ethtool().and_then(|ethtool| ethtool.xdp_features(index)),
            channels: self.ethtool().and_then(|ethtool| ethtool.channels(index)),
            offloads: self.ethtool().and_then(|ethtool| ethtool.offloads(index)),
            peer,
        }
    }

    /// All interfaces with what is known of them, for a look at the host as a whole.
    pub fn examine(
        &mut self,
        all: &BTreeMap<InterfaceName, Interface>,
    ) -> BTreeMap<InterfaceName, ObservedInterface> {
        let examine = |(name, interface): (&InterfaceName, &Interface)| {
            (name.clone(), interface.observed(self.facts(interface, all)))
        };
        all.iter().map(examine).collect()
    }

    /// Forgets interfaces that are gone: their numbers may come again.
    pub fn forget_all_but(&mut self, all: &BTreeMap<InterfaceName, Interface>) {
        self.drivers.retain(|index, _| all.values().any(|interface| interface.index == *index));
    }

    fn driver(&mut self, interface: &Interface) -> Option<Driver> {
        let virtual_kind = || interface.kind.clone().map(|name| Driver { name, version: None });
        let Some(device) = &interface.device else { return virtual_kind() };
        match self.drivers.get(&interface.index) {
            Some((known, driver)) if known == device => driver.clone(),
            _ => {
                let driver = device.driver(&self.sys);
                self.drivers.insert(interface.index, (device.clone(), driver.clone()));
                driver
            }
        }
    }

    fn ethtool(&mut self) -> Option<&mut Ethtool> {
        if self.ethtool.is_none() {
            self.ethtool = Ethtool::open().ok();
        }
        self.ethtool.as_mut()
    }
}
