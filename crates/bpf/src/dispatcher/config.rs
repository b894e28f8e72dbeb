//! The dispatcher's configuration, as it lies in its read-only data. Pure.
//!
//! Layouts are those of `struct xdp_dispatcher_config` in libxdp 1.0 (version 1), 1.3 (2) and
//! 1.6 (3). Numbers are in the machine's byte order.

use pointsman_model::{Action, ActionSet};
use std::fmt;

/// How many programs a dispatcher has room for.
pub const MAX_PROGRAMS: usize = 10;
/// The first byte of a configuration that tells its own version (`XDP_DISPATCHER_MAGIC`).
pub const MAGIC: u8 = 236;
/// What an unfilled slot answers. The chain always goes on after it.
pub const CONTINUE: u32 = 31;
/// `BPF_F_XDP_HAS_FRAGS`, of a program in its slot's flags.
pub const FLAG_FRAGS: u32 = 1 << 5;
/// `BPF_F_XDP_DEV_BOUND_ONLY`, likewise.
pub const FLAG_BOUND: u32 = 1 << 6;

const ACTIONS: usize = 4;
const PRIORITIES: usize = ACTIONS + 4 * MAX_PROGRAMS;
const FLAGS: usize = PRIORITIES + 4 * MAX_PROGRAMS;
const BOUND: usize = FLAGS + 4 * MAX_PROGRAMS;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// libxdp 1.0 to 1.2: read, never changed.
    V1 = 1,
    /// libxdp 1.3 to 1.5.
    V2 = 2,
    /// libxdp 1.6: programs bound to a device.
    V3 = 3,
}

impl Version {
    /// The version of a number; `None`: one that is not known here.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// How long its configuration is, in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::V1 => FLAGS,
            Self::V2 => BOUND,
            Self::V3 => BOUND + 4,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// The verdicts after which a chain goes on: bit n for verdict n, 0 to 30. More than the kernel
/// knows, because libxdp lets programs use the others among themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Actions(u32);

impl Actions {
    /// The actions of these bits; the one of unfilled slots is nobody's action.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & !(1 << CONTINUE))
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Those among them that the kernel knows.
    #[must_use]
    pub fn known(self) -> ActionSet {
        Action::ALL.into_iter().filter(|action| self.0 & (1 << action.code()) != 0).collect()
    }

    /// The same with `known` for those that the kernel knows.
    #[must_use]
    pub fn with_known(self, known: ActionSet) -> Self {
        let others = self.0 & !Self::from(Action::ALL.into_iter().collect::<ActionSet>()).0;
        Self(others | Self::from(known).0)
    }

    /// Whether PASS is all there is: what a lone program means wherever it runs.
    #[must_use]
    pub fn is_pass(self) -> bool {
        self == Self::from(ActionSet::PASS)
    }
}

impl From<ActionSet> for Actions {
    fn from(actions: ActionSet) -> Self {
        Self(actions.iter().map(|action| 1 << action.code()).sum())
    }
}

/// What a dispatcher is told about the program in one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotConfig {
    /// Its priority: the lowest runs first.
    pub priority: u32,
    /// The verdicts after which the chain goes on.
    pub actions: Actions,
    /// [`FLAG_FRAGS`] and [`FLAG_BOUND`].
    pub flags: u32,
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The version, which says how it is laid out.
    pub version: Version,
    /// Whether the dispatcher takes packets of several buffers.
    pub frags: bool,
    /// Whether the dispatcher is bound to its device.
    pub bound: bool,
    /// The programs, in the order they run.
    pub slots: Vec<SlotConfig>,
}

/// Bytes that are no configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// It says that it has more programs than there are slots.
    #[error("it says {0} programs, and a dispatcher has room for {MAX_PROGRAMS}")]
    Count(u8),
    /// It has not the size of its version.
    #[error("it has {found} bytes, and version {version} has {}", version.size())]
    Size {
        /// The version it says it is.
        version: Version,
        /// Its size in bytes.
        found: usize,
    },
}

impl Config {
    /// Lays it out. Of more programs than there is room for, the first.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.version.size()];
        let count = self.slots.len().min(MAX_PROGRAMS) as u8;
        if self.version == Version::V1 {
            bytes[..2].copy_from_slice(&[count, self.frags.into()]);
        } else {
            let head = [MAGIC, self.version.number(), count, self.frags.into()];
            bytes[..4].copy_from_slice(&head);
        }
        for (at, slot) in self.slots.iter().take(MAX_PROGRAMS).enumerate() {
            let actions = slot.actions.bits() | 1 << CONTINUE;
            put(&mut bytes, ACTIONS + 4 * at, actions);
            put(&mut bytes, PRIORITIES + 4 * at, slot.priority);
            put(&mut bytes, FLAGS + 4 * at, slot.flags);
        }
        if let Some(bound) = bytes.get_mut(BOUND) {
            *bound = self.bound.into();
        }
        bytes
    }

    /// Reads bytes of `version`.
    ///
    /// # Errors
    /// [`BadConfig`]: they are none.
    pub fn decode(version: Version, bytes: &[u8]) -> Result<Self, BadConfig> {
        // Nobody has extended version 1 since, and its readers take longer ones.
        let fits = match version {
            Version::V1 => bytes.len() >= version.size(),
            _ => bytes.len() == version.size(),
        };
        if !fits {
            return Err(BadConfig::Size { version, found: bytes.len() });
        }
        let (count, frags) = match version {
            Version::V1 => (bytes[0], bytes[1]),
            _ => (bytes[2], bytes[3]),
        };
        if usize::from(count) > MAX_PROGRAMS {
            return Err(BadConfig::Count(count));
        }
        let slot = |at| SlotConfig {
            priority: get(bytes, PRIORITIES + 4 * at),
            actions: Actions::from_bits(get(bytes, ACTIONS + 4 * at)),
            flags: if version == Version::V1 { 0 } else { get(bytes, FLAGS + 4 * at) },
        };
        Ok(Self {
            version,
            frags: version != Version::V1 && frags != 0,
            bound: version == Version::V3 && bytes[BOUND] != 0,
            slots: (0..usize::from(count)).map(slot).collect(),
        })
    }
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
}

fn get(bytes: &[u8], at: usize) -> u32 {
    let place = bytes.get(at..at + 4).and_then(|place| place.try_into().ok());
    place.map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_config() -> impl Strategy<Value = Config> {
        let version = prop_oneof![Just(Version::V2), Just(Version::V3)];
        let slot =
            (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(priority, bits, flags)| {
                SlotConfig { priority, actions: Actions::from_bits(bits), flags }
            });
        let slots = prop::collection::vec(slot, 0..=MAX_PROGRAMS);
        (version, any::<bool>(), any::<bool>(), slots).prop_map(|(version, frags, bound, slots)| {
            Config { version, frags, bound: bound && version == Version::V3, slots }
        })
    }

    /// Whether a configuration of a version may be so long. Only version 1 was ever extended.
    fn fits(version: Version, length: usize) -> bool {
        length == version.size() || version == Version::V1 && length > version.size()
    }

    /// Often as long as a configuration.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let size = prop_oneof![Just(84usize), Just(124usize), Just(128usize), 0usize..200];
        let bytes = size.prop_flat_map(|size| prop::collection::vec(any::<u8>(), size));
        // And often with a count that can be.
        (bytes, any::<bool>(), 0u8..12).prop_map(|(mut bytes, likely, count)| {
            if likely && let [first, _, third, ..] = &mut bytes[..] {
                (*first, *third) = (count, count);
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn deciding_on_the_kernels_verdicts_leaves_all_others(bits: u32, known in 0u8..32) {
            let bit = |action: &Action| known & 1 << action.code() != 0;
            let known: ActionSet = Action::ALL.into_iter().filter(bit).collect();
            let decided = Actions::from_bits(bits).with_known(known);
            prop_assert_eq!(decided.known(), known);
            prop_assert_eq!(decided.bits() >> 5, Actions::from_bits(bits).bits() >> 5);
        }

        #[test]
        fn what_is_written_is_read(config in any_config()) {
            let bytes = config.encode();
            prop_assert_eq!(bytes.len(), config.version.size());
            prop_assert_eq!(Config::decode(config.version, &bytes), Ok(config));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any_bytes(), number in 1u32..4) {
            let version = Version::of(number).unwrap();
            let count = bytes.get(if version == Version::V1 { 0 } else { 2 }).copied();
            match Config::decode(version, &bytes) {
                Ok(config) => {
                    prop_assert!(fits(version, bytes.len()));
                    prop_assert_eq!(config.slots.len(), usize::from(count.unwrap()));
                    prop_assert!(config.slots.len() <= MAX_PROGRAMS);
                    // What is not understood is not kept; what is, stays.
                    let again = config.encode();
                    prop_assert_eq!(again.len(), version.size());
                    prop_assert_eq!(Config::decode(version, &again), Ok(config));
                }
                Err(BadConfig::Count(found)) => {
                    prop_assert!(fits(version, bytes.len()));
                    prop_assert!(Some(found) == count && usize::from(found) > MAX_PROGRAMS);
                }
                Err(BadConfig::Size { found, .. }) => {
                    prop_assert!(found == bytes.len() && !fits(version, found));
                }
            }
        }

        #[test]
        fn a_damaged_byte_is_refused_or_changes_what_it_stands_for(
            config in any_config(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = config.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let Ok(read) = Config::decode(config.version, &bytes) else {
                prop_assert!(at == 2 && usize::from(byte) > MAX_PROGRAMS);
                return Ok(());
            };
            let slots = read.slots.iter().zip(&config.slots);
            let damaged = slots.filter(|(read, slot)| read != slot).count();
            prop_assert!(damaged <= 1, "one byte is of one slot");
        }
    }

    /// Offsets as libxdp's header has them, and no arithmetic of ours.
    #[test]
    fn fields_lie_where_libxdp_has_them() {
        let slot = SlotConfig { priority: 7, actions: ActionSet::PASS.into(), flags: FLAG_FRAGS };
        let config = Config { version: Version::V3, frags: true, bound: true, slots: vec![slot] };
        let bytes = config.encode();
        assert_eq!(bytes.len(), 128);
        assert_eq!(bytes[..4], [236, 3, 1, 1]);
        assert_eq!(bytes[4..8], 0x8000_0004u32.to_ne_bytes());
        assert_eq!(bytes[44..48], 7u32.to_ne_bytes());
        assert_eq!(bytes[84..88], 0x20u32.to_ne_bytes());
        assert_eq!(bytes[124..], [1, 0, 0, 0]);
        let config = Config { version: Version::V2, bound: false, ..config };
        assert_eq!(config.encode().len(), 124);
    }

    #[test]
    fn the_first_version_has_neither_magic_nor_flags() {
        let mut bytes = vec![0; 84];
        bytes[0] = 1;
        bytes[4..8].copy_from_slice(&0x8000_0006u32.to_ne_bytes());
        bytes[44..48].copy_from_slice(&9u32.to_ne_bytes());
        let config = Config::decode(Version::V1, &bytes).unwrap();
        assert_eq!(config.slots, [SlotConfig { priority: 9, actions: Actions(6), flags: 0 }]);
        assert_eq!(config.encode(), bytes);
    }

    #[test]
    fn what_is_out_of_bounds_is_told() {
        let mut bytes = vec![0; 124];
        bytes[2] = 11;
        assert_eq!(Config::decode(Version::V2, &bytes), Err(BadConfig::Count(11)));
        bytes.push(0);
        let size = BadConfig::Size { version: Version::V2, found: 125 };
        assert_eq!(Config::decode(Version::V2, &bytes), Err(size));
    }

    #[test]
    fn only_pass_is_pass() {
        assert!(Actions::from_bits(1 << 31 | 4).is_pass());
        assert!(!Actions::from_bits(6).is_pass() && !Actions::default().is_pass());
        assert_eq!(Actions::from_bits(1 << 9 | 4).known(), ActionSet::PASS);
    }
}
