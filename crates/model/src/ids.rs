//! Names and hashes, checked once where they enter.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use utoipa::ToSchema;

/// A name that breaks its rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: expected {expected}")]
pub struct InvalidName {
    /// What kind of name was expected.
    pub kind: &'static str,
    /// The text that was given.
    pub text: String,
    /// The rule, in words.
    pub expected: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $max:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the rules of this kind of name.
            ///
            /// # Errors
            /// [`InvalidName`] with the rule that was broken.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if !text.is_empty() && text.len() <= $max && check(&text) {
                    return Ok(Self(text));
                }
                Err(InvalidName { kind: $kind, text: clip(text), expected: $expected })
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// The host this document is for, as the fleet calls it.
    NodeName, "node name", "1 to 253 of A-Z a-z 0-9 . _ -, starting with a letter or digit", 253, label
);
name_type!(
    /// A program's name in the document. Maps and counters belong to this name.
    ProgramName, "program name", "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit", 64, label
);
name_type!(
    /// A network interface's name, by the kernel's rule (`dev_valid_name`, IFNAMSIZ 16).
    InterfaceName,
    "interface name",
    "1 to 15 bytes without '/', ':' or white space, not '.' or '..'",
    15,
    |text| text != "." && text != ".." && !text.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace())
);
name_type!(
    /// What the document calls a network namespace. Unless the document says otherwise, the one
    /// of this name under `/run/netns`, as `ip netns` makes them.
    NamespaceName, "network namespace name", "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit", 64, label
);
name_type!(
    /// The name of a function in an object: where a program starts.
    EntryName, "entry name", "a C function name of at most 127 characters", 127, identifier
);
name_type!(
    /// The name of a map in an object, such as `blocklist` or `.rodata`.
    MapName, "map name", "1 to 127 of A-Z a-z 0-9 . _ -", 127,
    |text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
);
name_type!(
    /// A fleet: the nodes that one control plane speaks for. Part of every signed record.
    FleetName, "fleet name", "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit", 64, label
);
name_type!(
    /// What an operator calls a policy.
    PolicyName, "policy name", "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit", 64, label
);
name_type!(
    /// The key of a node's label, such as `site`.
    LabelKey, "label key", "1 to 63 of A-Z a-z 0-9 . _ - /, starting with a letter or digit", 63,
    |text| label(&text.replace('/', "-"))
);
name_type!(
    /// The value of a node's label, such as `frankfurt`.
    LabelValue, "label value", "1 to 63 of A-Z a-z 0-9 . _ -, starting with a letter or digit", 63, label
);
name_type!(
    /// What an administrator calls an API token.
    TokenName, "token name", "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit", 64, label
);

fn label(text: &str) -> bool {
    text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn identifier(text: &str) -> bool {
    !text.as_bytes()[0].is_ascii_digit()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.$".contains(&b))
}

/// Keeps an error message readable when the offending text is huge.
fn clip(mut text: String) -> String {
    const LONGEST: usize = 80;
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The SHA-256 of an object file: its identity in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first twelve hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        let good = digits.len() == 64
            && digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
            && bytes.iter_mut().enumerate().all(|(at, byte)| {
                u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map(|value| *byte = value).is_ok()
            });
        if good {
            return Ok(Self(bytes));
        }
        Err(InvalidName {
            kind: "sha256",
            text: clip(text),
            expected: "64 lower-case hexadecimal digits",
        })
    }
}

impl std::str::FromStr for Sha256 {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

/// What makes two loads of a program the same: object, entry and globals. Programs with equal
/// fingerprints share their maps; a new fingerprint is an upgrade. 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[schema(value_type = String)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Computes the fingerprint of a program. `globals` are in their canonical JSON form, where
    /// equal values have equal text.
    #[must_use]
    pub fn new(object: &Sha256, entry: Option<&EntryName>, globals: &str) -> Self {
        let entry = entry.map_or("", EntryName::as_str);
        let whole = Sha256::of(format!("{object}\n{entry}\n{globals}").as_bytes()).to_string();
        Self(whole[..16].to_owned())
    }

    /// Takes a fingerprint read back from a pin's name.
    #[must_use]
    pub fn from_pin(text: &str) -> Option<Self> {
        let good = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        good.then(|| Self(text.to_owned()))
    }

    /// The fingerprint as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where in an interface's packet path a chain sits.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum HookKind {
    /// The driver's receive path, before a socket buffer exists.
    Xdp,
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xdp => f.write_str("xdp"),
        }
    }
}

/// An interface, by its name and the network namespace it is in. As text `NAME`, or
/// `NAMESPACE/NAME`: neither of the two can contain a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceId {
    /// The network namespace; `None`: the daemon's own.
    pub namespace: Option<NamespaceName>,
    /// The interface's name there.
    pub name: InterfaceName,
}

impl InterfaceId {
    /// The place of what is said about the interface in a document, as an RFC 6901 JSON pointer.
    #[must_use]
    pub fn pointer(&self) -> String {
        format!("/interfaces/{}", self.to_string().replace('~', "~0").replace('/', "~1"))
    }
}

impl From<InterfaceName> for InterfaceId {
    /// The interface of this name in the daemon's own network namespace.
    fn from(name: InterfaceName) -> Self {
        Self { namespace: None, name }
    }
}

impl TryFrom<String> for InterfaceId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            None => InterfaceName::new(text).map(Self::from),
            Some((namespace, name)) => Ok(Self {
                namespace: Some(NamespaceName::new(namespace)?),
                name: InterfaceName::new(name)?,
            }),
        }
    }
}

impl std::str::FromStr for InterfaceId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

impl From<InterfaceId> for String {
    fn from(interface: InterfaceId) -> Self {
        interface.to_string()
    }
}

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => self.name.fmt(f),
            Some(namespace) => f.pad(&format!("{namespace}/{}", self.name)),
        }
    }
}

/// One place where one chain runs: an interface and a hook on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct HookId {
    /// The interface: `NAME`, or `NAMESPACE/NAME`.
    #[schema(value_type = String)]
    pub interface: InterfaceId,
    /// The hook on it.
    pub kind: HookKind,
}

impl HookId {
    /// The XDP hook of `interface`.
    #[must_use]
    pub fn xdp(interface: impl Into<InterfaceId>) -> Self {
        Self { interface: interface.into(), kind: HookKind::Xdp }
    }
}

impl fmt::Display for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.interface, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "eth0.100", "a", "veth-é", "123456789012345"] {
            assert!(InterfaceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "eth0:1", "1234567890123456"] {
            assert!(InterfaceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces_of_other_namespaces_have_theirs_before_a_slash() {
        let interface: InterfaceId = "blue/eth0~1".parse().unwrap();
        assert_eq!(interface.namespace.as_ref().map(NamespaceName::as_str), Some("blue"));
        assert_eq!(interface.to_string(), "blue/eth0~1");
        assert_eq!(interface.pointer(), "/interfaces/blue~1eth0~01");
        let own: InterfaceId = "eth0".parse().unwrap();
        assert_eq!(own, InterfaceId::from(InterfaceName::new("eth0").unwrap()));
        for bad in ["/eth0", "blue/", "a/b/c", "../eth0", "blue//eth0", ""] {
            assert!(bad.parse::<InterfaceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hashes_round_trip_and_refuse_other_text() {
        let hash = Sha256::of(b"object");
        assert_eq!(hash.to_string().parse::<Sha256>().unwrap(), hash);
        for bad in ["", "9f86", &"A".repeat(64), &"é".repeat(32), &"g".repeat(64)] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_huge_name_makes_a_short_error() {
        let error = ProgramName::new("é".repeat(10_000)).unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }

    #[test]
    fn fingerprints_tell_object_entry_and_globals_apart() {
        let object = Sha256::of(b"a");
        let entry = EntryName::new("main").unwrap();
        let all = [
            Fingerprint::new(&object, Some(&entry), "{}"),
            Fingerprint::new(&object, None, "{}"),
            Fingerprint::new(&object, Some(&entry), "{\"a\":1}"),
            Fingerprint::new(&Sha256::of(b"b"), Some(&entry), "{}"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one));
            assert_eq!(Fingerprint::from_pin(one.as_str()).as_ref(), Some(one));
        }
    }
}
