//! The host's clocks.

use pointsman_model::deadline::Moment;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest boot id that is believed, in bytes: a UUID has 36.
const MAX_BOOT_ID: usize = 64;

/// Tells the time. A trait, so that a test can set clocks and reboot hosts.
pub trait Clock: Send {
    /// Now.
    fn now(&self) -> Moment;
}

/// The clocks of this host.
#[derive(Debug, Clone)]
pub struct HostClock {
    boot: Option<String>,
}

impl HostClock {
    /// The clocks of the host whose process file system is at `proc`.
    #[must_use]
    pub fn new(proc: &Path) -> Self {
        let path = proc.join("sys/kernel/random/boot_id");
        let boot = crate::store::read_virtual(&path, MAX_BOOT_ID)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map(|text| text.trim().to_owned());
        if let Err(error) = &boot {
            tracing::warn!(
                "cannot read {}: {error}; deadlines go by the wall clock alone",
                path.display()
            );
        }
        Self { boot: boot.ok().filter(|boot| !boot.is_empty()) }
    }
}

impl Clock for HostClock {
    fn now(&self) -> Moment {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(since_boot.tv_nsec).unwrap_or(0);
        Moment {
            unix_ms: unix_ms(),
            boot_ms: seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000),
            boot: self.boot.clone(),
        }
    }
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_is_known_by_its_id_and_missing_where_that_is() {
        let here = HostClock::new(Path::new("/proc"));
        let (first, second) = (here.now(), here.now());
        assert!(first.boot.as_ref().is_some_and(|boot| boot.len() == 36), "{first:?}");
        assert!(first.boot_ms > 0 && first.boot_ms <= second.boot_ms);
        let nowhere = HostClock::new(Path::new("/nonexistent"));
        assert_eq!(nowhere.now().boot, None);
    }
}
