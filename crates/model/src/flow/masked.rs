//! Values of which only some bits are looked at.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A header field that a card can compare bit by bit.
pub trait Field: Copy + Eq + fmt::Debug {
    /// How many bits it has.
    const BITS: u32;

    /// Its bits, the lowest to the right.
    fn bits(self) -> u128;

    /// From bits; those above [`BITS`](Self::BITS) are left out.
    fn from_bits(bits: u128) -> Self;
}

macro_rules! field {
    ($($type:ty => $number:ty),*) => {$(
        impl Field for $type {
            const BITS: u32 = <$number>::BITS;

            fn bits(self) -> u128 {
                <$number>::from(self).into()
            }

            fn from_bits(bits: u128) -> Self {
                // Cut to the field's width on purpose.
                (bits as $number).into()
            }
        }
    )*};
}

field!(u8 => u8, u16 => u16, Ipv4Addr => u32, Ipv6Addr => u128);

/// A value, and which of its bits a packet must have. No bit is set in the value that is not looked
/// at, so equal rules compare equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masked<T> {
    value: T,
    mask: T,
}

/// Text or bits that match no packet in any clear way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMatch {
    /// The value has bits that the mask leaves out.
    #[error("{value}/{mask} has bits outside of its mask: write {wanted}/{mask}")]
    Outside {
        /// The value.
        value: String,
        /// The mask.
        mask: String,
        /// The value without them.
        wanted: String,
    },
    /// It cannot be read.
    #[error("{text:?} is no {expected}")]
    Unreadable {
        /// The text, cut where it is long.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl<T: Field> Masked<T> {
    /// The bits of `value` that are set in `mask`; `None`: the value has others.
    #[must_use]
    pub fn new(value: T, mask: T) -> Option<Self> {
        (value.bits() & !mask.bits() == 0).then_some(Self { value, mask })
    }

    /// Any value.
    #[must_use]
    pub fn any() -> Self {
        Self { value: T::from_bits(0), mask: T::from_bits(0) }
    }

    /// One value.
    #[must_use]
    pub fn exactly(value: T) -> Self {
        Self { value, mask: T::from_bits(u128::MAX) }
    }

    /// The value.
    #[must_use]
    pub fn value(self) -> T {
        self.value
    }

    /// The bits that are looked at.
    #[must_use]
    pub fn mask(self) -> T {
        self.mask
    }

    /// Whether none is looked at.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.mask.bits() == 0
    }

    /// Whether all are.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self.mask == T::from_bits(u128::MAX)
    }

    /// Whether a packet with this value is meant.
    #[must_use]
    pub fn holds(self, value: T) -> bool {
        value.bits() & self.mask.bits() == self.value.bits()
    }
}

impl<T: Field + fmt::Display> fmt::Display for Masked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_exact() {
            return write!(f, "{}", self.value);
        }
        write!(f, "{}/{}", self.value, self.mask)
    }
}

/// As it lies in a journal.
#[derive(Serialize, Deserialize)]
struct Parts<T> {
    value: T,
    mask: T,
}

impl<T: Field + Serialize> Serialize for Masked<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Parts { value: self.value, mask: self.mask }.serialize(serializer)
    }
}

impl<'de, T: Field + Deserialize<'de>> Deserialize<'de> for Masked<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { value, mask } = Parts::<T>::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("the value has bits outside of its mask");
        Self::new(value, mask).ok_or_else(wrong)
    }
}

/// Which addresses: `ADDRESS`, `ADDRESS/PREFIX` or `ADDRESS/MASK`, of either IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AddressMatch {
    /// IPv4.
    V4(Masked<Ipv4Addr>),
    /// IPv6.
    V6(Masked<Ipv6Addr>),
}

const ADDRESS: &str = "address, such as 239.1.1.1, 10.0.0.0/8, 2001:db8::/32 or \
                       10.0.0.1/255.0.0.255";

impl From<IpAddr> for AddressMatch {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(Masked::exactly(address)),
            IpAddr::V6(address) => Self::V6(Masked::exactly(address)),
        }
    }
}

impl FromStr for AddressMatch {
    type Err = InvalidMatch;

    fn from_str(text: &str) -> Result<Self, InvalidMatch> {
        let unreadable = || InvalidMatch::Unreadable {
            text: text.chars().take(60).collect(),
            expected: ADDRESS,
        };
        let (address, mask) = match text.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| unreadable())?;
        match address {
            IpAddr::V4(address) => {
                let mask = mask_of::<Ipv4Addr>(mask).ok_or_else(unreadable)?;
                within(address, mask).map(Self::V4)
            }
            IpAddr::V6(address) => {
                let mask = mask_of::<Ipv6Addr>(mask).ok_or_else(unreadable)?;
                within(address, mask).map(Self::V6)
            }
        }
    }
}

/// A prefix's length, or a mask as an address.
fn mask_of<A: Field + FromStr>(text: Option<&str>) -> Option<A> {
    let Some(text) = text else { return Some(A::from_bits(u128::MAX)) };
    if let Ok(mask) = text.parse() {
        return Some(mask);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse::<u32>().ok().filter(|length| digits && *length <= A::BITS)?;
    let behind = A::BITS - length;
    Some(A::from_bits(u128::MAX.checked_shl(behind).unwrap_or(0)))
}

fn within<A: Field + fmt::Display>(value: A, mask: A) -> Result<Masked<A>, InvalidMatch> {
    Masked::new(value, mask).ok_or_else(|| InvalidMatch::Outside {
        value: value.to_string(),
        mask: mask.to_string(),
        wanted: A::from_bits(value.bits() & mask.bits()).to_string(),
    })
}

impl fmt::Display for AddressMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(masked) => masked.fmt(f),
            Self::V6(masked) => masked.fmt(f),
        }
    }
}

impl TryFrom<String> for AddressMatch {
    type Error = InvalidMatch;
    fn try_from(text: String) -> Result<Self, InvalidMatch> {
        text.parse()
    }
}

impl From<AddressMatch> for String {
    fn from(address: AddressMatch) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_in_all_notations() {
        let shown = |text: &str| text.parse::<AddressMatch>().map(|it| it.to_string());
        assert_eq!(shown("239.1.1.1").unwrap(), "239.1.1.1");
        assert_eq!(shown("10.0.0.0/8").unwrap(), "10.0.0.0/255.0.0.0");
        assert_eq!(shown("0.0.0.0/0").unwrap(), "0.0.0.0/0.0.0.0");
        assert_eq!(shown("10.0.0.1/32").unwrap(), "10.0.0.1");
        assert_eq!(shown("10.0.0.7/255.0.0.255").unwrap(), "10.0.0.7/255.0.0.255");
        assert_eq!(shown("2001:db8::/32").unwrap(), "2001:db8::/ffff:ffff::");
        assert_eq!(shown("::1/128").unwrap(), "::1");
        let message = shown("10.1.2.3/8").unwrap_err().to_string();
        assert_eq!(
            message,
            "10.1.2.3/255.0.0.0 has bits outside of its mask: write 10.0.0.0/255.0.0.0"
        );
        for wrong in ["", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/+8", "::/129", "::/255.0.0.0", "a"]
        {
            let error = shown(wrong).unwrap_err();
            assert!(matches!(error, InvalidMatch::Unreadable { .. }), "{wrong}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text: String) {
            let _ = text.parse::<AddressMatch>();
        }

        #[test]
        fn what_is_shown_is_read_again(value: u32, mask: u32) {
            let masked = Masked::new(Ipv4Addr::from(value & mask), Ipv4Addr::from(mask)).unwrap();
            let matched = AddressMatch::V4(masked);
            prop_assert_eq!(matched.to_string().parse::<AddressMatch>().unwrap(), matched);
            let wide = |bits: u32| Ipv6Addr::from(u128::from(bits) << 50);
            let matched = AddressMatch::V6(Masked::new(wide(value & mask), wide(mask)).unwrap());
            prop_assert_eq!(matched.to_string().parse::<AddressMatch>().unwrap(), matched);
        }

        #[test]
        fn only_values_within_the_mask_are_taken(value: u16, mask: u16, other: u16) {
            match Masked::new(value, mask) {
                Some(masked) => {
                    prop_assert_eq!(value & !mask, 0);
                    prop_assert_eq!(masked.holds(other), other & mask == value);
                    prop_assert!(masked.holds(value));
                }
                None => prop_assert_ne!(value & !mask, 0),
            }
        }
    }
}
