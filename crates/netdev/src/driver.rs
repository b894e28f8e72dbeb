//! Which driver an interface has.

use pointsman_model::nic::Driver;
use std::fs;
use std::path::{Component, Path};

/// The device an interface belongs to, as the kernel names it: a bus such as `pci`, and a name on
/// it such as `0000:01:00.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The bus.
    pub bus: String,
    /// The name on the bus.
    pub name: String,
}

impl Device {
    /// Its driver, by the links of sysfs, which lies at `sys`. Devices are the same in all network
    /// namespaces; `/sys/class/net` is not, and may be another namespace's.
    #[must_use]
    pub fn driver(&self, sys: &Path) -> Option<Driver> {
        if !is_one_name(&self.bus) || !is_one_name(&self.name) {
            return None;
        }
        let link = sys.join("bus").join(&self.bus).join("devices").join(&self.name).join("driver");
        let name = fs::read_link(&link).ok()?.file_name()?.to_str()?.to_owned();
        let version = fs::read_to_string(link.join("module/version")).ok();
        let version = version.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Some(Driver { name, version })
    }
}

/// Whether a path made with it goes one step down and nowhere else.
fn is_one_name(text: &str) -> bool {
    let mut parts = Path::new(text).components();
    matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn device(bus: &str, name: &str) -> Device {
        Device { bus: bus.into(), name: name.into() }
    }

    #[test]
    fn drivers_are_found_by_bus_and_name() {
        let sys = tempfile::tempdir().unwrap();
        let path = |name: &str| sys.path().join(name);
        for folder in ["bus/pci/devices/0000:01:00.0", "bus/pci/drivers/ixgbe", "module/ixgbe"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        symlink("../../drivers/ixgbe", path("bus/pci/devices/0000:01:00.0/driver")).unwrap();
        symlink("../../../../module/ixgbe", path("bus/pci/drivers/ixgbe/module")).unwrap();
        let found = device("pci", "0000:01:00.0").driver(sys.path());
        assert_eq!(found, Some(Driver { name: "ixgbe".into(), version: None }));
        fs::write(path("module/ixgbe/version"), "5.19.6\n").unwrap();
        let found = device("pci", "0000:01:00.0").driver(sys.path()).unwrap();
        assert_eq!(found.version.as_deref(), Some("5.19.6"));
        assert_eq!(device("pci", "0000:02:00.0").driver(sys.path()), None);
        assert_eq!(device("usb", "1-1").driver(sys.path()), None);
    }

    #[test]
    fn names_do_not_lead_out_of_sysfs() {
        for odd in ["..", ".", "", "a/b", "/etc"] {
            assert_eq!(device(odd, "x").driver(Path::new("/sys")), None, "{odd}");
            assert_eq!(device("pci", odd).driver(Path::new("/sys")), None, "{odd}");
        }
    }
}
