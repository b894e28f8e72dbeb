//! Whether a program is a dispatcher, from what the kernel tells of it. Pure.
//!
//! The rules and their order are those of libxdp (`xdp_multiprog__fill_from_fd` and
//! `check_dispatcher_version`), with one bound more: a configuration cannot say more programs
//! than there are slots.

use super::DISPATCHER_NAME;
use super::config::{BadConfig, Config, MAGIC, Version};

/// `BPF_F_RDONLY_PROG`.
const READ_ONLY: u32 = 1 << 7;

/// What the kernel tells of an attached program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it has type information.
    pub has_types: bool,
    /// How many maps it refers to.
    pub maps: usize,
}

/// What the kernel tells of the map with its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMap {
    /// Bytes of a key.
    pub key_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// The first value.
    pub value: Vec<u8>,
}

/// Why a program is no dispatcher. It can be shown, and nothing can join it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDispatcher {
    /// It has no type information.
    #[error("it has no BTF")]
    NoTypes,
    /// It has another name.
    #[error("it is not called {DISPATCHER_NAME}")]
    Name,
    /// It refers to no map, or to several.
    #[error("it refers to {0} maps, a dispatcher to one")]
    Maps(usize),
    /// Neither its configuration nor its types say a version.
    #[error("it says no version of the protocol")]
    NoVersion,
}

/// Why a dispatcher cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its map cannot hold a configuration.
    #[error(
        "its map cannot hold a configuration: keys of {key_size} bytes, values of {value_size}, \
         {max_entries} entries, flags {flags:#x}"
    )]
    Map {
        /// Bytes of a key; 4 would be right.
        key_size: u32,
        /// Bytes of a value; at least 2.
        value_size: usize,
        /// Entries; 1.
        max_entries: u32,
        /// `BPF_F_*`; with `BPF_F_RDONLY_PROG`.
        flags: u32,
    },
    /// Its configuration is none.
    #[error("its configuration: {0}")]
    Config(#[from] BadConfig),
}

/// What a program turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognised {
    /// A dispatcher.
    Dispatcher(Config),
    /// A program that knows nothing of the protocol.
    Other(NoDispatcher),
    /// A dispatcher of a version that is not known here: its layout may be another.
    Newer(u32),
    /// A dispatcher, or what says so, that cannot be read.
    Broken(Broken),
}

/// Whether the program's own facts rule out a dispatcher, before its map is looked at.
#[must_use]
pub fn rule_out(seen: &Seen<'_>) -> Option<NoDispatcher> {
    if !seen.has_types {
        return Some(NoDispatcher::NoTypes);
    }
    if seen.name != DISPATCHER_NAME {
        return Some(NoDispatcher::Name);
    }
    (seen.maps != 1).then_some(NoDispatcher::Maps(seen.maps))
}

/// Reads the map of a program that [`rule_out`] lets through. `in_types` is asked for the version
/// that the program's types say, if the configuration says none.
#[must_use]
pub fn recognise(map: &SeenMap, in_types: impl FnOnce() -> Option<u32>) -> Recognised {
    let SeenMap { key_size, max_entries, flags, value } = map;
    if *key_size != 4 || *max_entries != 1 || flags & READ_ONLY == 0 || value.len() < 2 {
        let value_size = value.len();
        let (key_size, max_entries, flags) = (*key_size, *max_entries, *flags);
        return Recognised::Broken(Broken::Map { key_size, value_size, max_entries, flags });
    }
    let number = match value[0] {
        MAGIC => Some(value[1].into()),
        _ => in_types(),
    };
    let Some(number) = number else { return Recognised::Other(NoDispatcher::NoVersion) };
    match Version::of(number) {
        Some(version) => match Config::decode(version, value) {
            Ok(config) => Recognised::Dispatcher(config),
            Err(bad) => Recognised::Broken(bad.into()),
        },
        None if number == 0 => Recognised::Other(NoDispatcher::NoVersion),
        None => Recognised::Newer(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen() -> Seen<'static> {
        Seen { name: DISPATCHER_NAME, has_types: true, maps: 1 }
    }

    fn map(value: Vec<u8>) -> SeenMap {
        SeenMap { key_size: 4, max_entries: 1, flags: READ_ONLY, value }
    }

    fn value(version: Version) -> Vec<u8> {
        Config { version, frags: false, bound: false, slots: vec![] }.encode()
    }

    /// Its kind in one word, and the version of what is read.
    fn kind(value: Vec<u8>, in_types: Option<u32>) -> (&'static str, u8) {
        match recognise(&map(value), || in_types) {
            Recognised::Dispatcher(config) => ("lists", config.version.number()),
            Recognised::Other(_) => ("legacy", 0),
            Recognised::Newer(number) => ("newer", number as u8),
            Recognised::Broken(_) => ("error", 0),
        }
    }

    /// What libxdp 1.3.1 and 1.6.3 answered when they were shown these.
    #[test]
    fn the_acceptance_matrix() {
        let with = |mut value: Vec<u8>, byte: u8| {
            value.push(byte);
            value
        };
        let mut unmarked = value(Version::V2);
        unmarked[..2].fill(0);
        assert_eq!(kind(value(Version::V3), Some(3)), ("lists", 3));
        assert_eq!(kind(value(Version::V2), Some(2)), ("lists", 2));
        assert_eq!(kind(value(Version::V1), Some(1)), ("lists", 1));
        assert_eq!(kind(with(value(Version::V2), 0), Some(2)), ("error", 0));
        assert_eq!(kind(with(value(Version::V3), 0), Some(3)), ("error", 0));
        assert_eq!(kind(value(Version::V2), None), ("lists", 2));
        assert_eq!(kind(unmarked.clone(), Some(2)), ("lists", 2));
        assert_eq!(kind(unmarked.clone(), None), ("legacy", 0));
        assert_eq!(kind(unmarked, Some(4)), ("newer", 4));
        let mut next = value(Version::V3);
        next[1] = 4;
        assert_eq!(kind(next, None), ("newer", 4));
        let second = Seen { maps: 2, ..seen() };
        assert_eq!(rule_out(&second), Some(NoDispatcher::Maps(2)));
        let other = Seen { name: "xdp_dispatch", ..seen() };
        assert_eq!(rule_out(&other), Some(NoDispatcher::Name));
        assert_eq!(rule_out(&Seen { has_types: false, ..seen() }), Some(NoDispatcher::NoTypes));
        assert_eq!(rule_out(&seen()), None);
    }

    #[test]
    fn a_map_that_can_hold_no_configuration_is_an_error() {
        let good = map(value(Version::V2));
        for bad in [
            SeenMap { key_size: 8, ..good.clone() },
            SeenMap { max_entries: 2, ..good.clone() },
            SeenMap { flags: 0, ..good.clone() },
            SeenMap { value: vec![MAGIC], ..good.clone() },
        ] {
            assert!(matches!(recognise(&bad, || Some(2)), Recognised::Broken(Broken::Map { .. })));
        }
    }

    /// Bytes that are mostly a configuration, or were one.
    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        let size = prop_oneof![Just(84usize), Just(124usize), Just(128usize), 0usize..140];
        let bytes = size.prop_flat_map(|size| prop::collection::vec(any::<u8>(), size));
        (bytes, prop::option::of((0u8..6, 0u8..12))).prop_map(|(mut bytes, marked)| {
            if let (Some((version, count)), [first, second, third, ..]) = (marked, &mut bytes[..]) {
                (*first, *second, *third) = (MAGIC, version, count);
            }
            bytes
        })
    }

    fn any_map() -> impl Strategy<Value = SeenMap> {
        let odd = |usual: u32| prop_oneof![9 => Just(usual), 1 => any::<u32>()];
        let parts = (odd(4), odd(1), odd(READ_ONLY), any_value());
        parts.prop_map(|(key_size, max_entries, flags, value)| SeenMap {
            key_size,
            max_entries,
            flags,
            value,
        })
    }

    proptest! {
        #[test]
        fn any_map_is_recognised_as_something(map in any_map(), types in any::<Option<u32>>()) {
            let mut asked = false;
            let found = recognise(&map, || { asked = true; types });
            let marked = map.value.first() == Some(&MAGIC);
            prop_assert!(!(asked && marked), "its own word wins");
            let said = if marked { map.value.get(1).map(|&v| v.into()) } else { types };
            match found {
                Recognised::Dispatcher(config) => {
                    prop_assert_eq!(Some(u32::from(config.version.number())), said);
                    prop_assert_eq!(map.value.len(), config.version.size());
                }
                Recognised::Newer(number) => {
                    prop_assert!(Some(number) == said && number > Version::V3.number().into());
                }
                Recognised::Other(why) => {
                    prop_assert_eq!(why, NoDispatcher::NoVersion);
                    prop_assert!(said.is_none_or(|said| said == 0));
                }
                Recognised::Broken(Broken::Map { .. }) => prop_assert!(!asked),
                Recognised::Broken(Broken::Config(_)) => {
                    prop_assert!(said.is_some_and(|said| Version::of(said).is_some()));
                }
            }
        }

        #[test]
        fn only_what_has_all_of_it_can_be_a_dispatcher(
            name in prop_oneof![Just(DISPATCHER_NAME.to_owned()), any::<String>()],
            has_types in any::<bool>(),
            maps in 0usize..4,
        ) {
            let can = name == DISPATCHER_NAME && has_types && maps == 1;
            prop_assert_eq!(rule_out(&Seen { name: &name, has_types, maps }).is_none(), can);
        }
    }
}
