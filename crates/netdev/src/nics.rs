//! What decides how XDP works on an interface, put together.

use crate::elsewhere::Elsewhere;
use crate::{Device, Ethtool, Interface, PeerLink};
use pointsman_model::nic::{Driver, NicFacts, Peer};
use pointsman_model::observed::ObservedInterface;
use pointsman_model::{InterfaceId, InterfaceName};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads the facts of interfaces. What can change while an interface lives is read each time, and
/// what cannot only once: three short questions an interface.
#[derive(Debug)]
pub struct Nics {
    sys: PathBuf,
    /// Opened when first asked.
    ethtool: Option<Ethtool>,
    /// The same.
    elsewhere: Option<Elsewhere>,
    /// Drivers by interface number: a device that gets another driver gets another interface.
    drivers: BTreeMap<u32, (Device, Option<Driver>)>,
}

impl Nics {
    /// With sysfs at `sys`.
    #[must_use]
    pub fn new(sys: &Path) -> Self {
        Self { sys: sys.to_owned(), ethtool: None, elsewhere: None, drivers: BTreeMap::new() }
    }

    /// What is known of `interface`, one of `all`. Whatever cannot be read is unknown.
    pub fn facts(
        &mut self,
        interface: &Interface,
        all: &BTreeMap<InterfaceName, Interface>,
    ) -> NicFacts {
        let driver = self.driver(interface);
        let peer = interface.peer.map(|peer| self.peer(peer, all));
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
    ) -> BTreeMap<InterfaceId, ObservedInterface> {
        let examine = |(name, interface): (&InterfaceName, &Interface)| {
            (name.clone().into(), interface.observed(self.facts(interface, all)))
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

    fn peer(&mut self, peer: PeerLink, all: &BTreeMap<InterfaceName, Interface>) -> Peer {
        let index = peer.interface_index;
        if let Some(namespace) = peer.namespace {
            if self.elsewhere.is_none() {
                self.elsewhere = Elsewhere::open().ok();
            }
            let asked = self.elsewhere.as_mut().and_then(|e| e.mtu(index, namespace).ok());
            return Peer { mtu: asked, tx_queues: None };
        }
        let there = all.values().find(|other| other.index == index);
        let channels = self.ethtool().and_then(|ethtool| ethtool.channels(index));
        Peer { mtu: there.map(|other| other.mtu), tx_queues: channels.map(|c| c.tx) }
    }

    fn ethtool(&mut self) -> Option<&mut Ethtool> {
        if self.ethtool.is_none() {
            self.ethtool = Ethtool::open().ok();
        }
        self.ethtool.as_mut()
    }
}
