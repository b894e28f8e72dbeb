//! Keys. Both kinds are minisign's, so that its tool can be used in their place.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::str::FromStr;

#[cfg(feature = "sign")]
pub use crate::sign::{SigningKey, SigningKeyError};

/// The key that records are verified with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    base64: String,
    id: KeyId,
    inner: minisign_verify::PublicKey,
}

/// The id of a key. It is a number, so it is the same with and without digits that only pad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

/// A text that is no id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 16 hexadecimal digits")]
pub struct InvalidKeyId;

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        // The length is not for the number alone: a sign is no digit.
        if !(1..=16).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidKeyId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidKeyId)
    }
}

impl fmt::Display for KeyId {
    /// As minisign shows it: in hexadecimal digits, and none that only pad (`PRIX64` in minisign.c).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:X}", self.0))
    }
}

/// A text that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a public key of minisign: expected the line of 56 base64 characters that \
     starts with RW, not the comment above it"
)]
pub struct InvalidKey {
    text: String,
}

impl PublicKey {
    /// From the second line of a minisign public key file.
    ///
    /// # Errors
    /// [`InvalidKey`]: it is something else.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        let invalid = || InvalidKey { text: text.chars().take(80).collect() };
        let inner = minisign_verify::PublicKey::from_base64(text).map_err(|_| invalid())?;
        // Two bytes say the algorithm, eight the id, the rest is the key.
        let bytes = STANDARD.decode(text).map_err(|_| invalid())?;
        let id = bytes.get(2..).and_then(|rest| rest.first_chunk()).ok_or_else(invalid)?;
        Ok(Self { base64: text.to_owned(), id: KeyId(u64::from_le_bytes(*id)), inner })
    }

    /// As it stands in the second line of a minisign public key file.
    #[must_use]
    pub fn to_base64(&self) -> &str {
        &self.base64
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its id as minisign shows it.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.id.to_string()
    }

    /// What `minisign -p` takes as a file.
    #[must_use]
    pub fn to_file_text(&self) -> String {
        format!("untrusted comment: minisign public key {}\n{}\n", self.key_id(), self.base64)
    }

    pub(crate) fn inner(&self) -> &minisign_verify::PublicKey {
        &self.inner
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::from_base64(text)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.base64)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.base64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From minisign's own documentation; its file names the id.
    const KNOWN: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    const SHORT: &str = "RWRjVOM+xo5yBotH96Ug5lMzNpz8mWXJbwnTzSw1827Aw+kslgh6/pNc";

    #[test]
    fn a_key_is_known_by_the_id_that_minisign_shows() {
        let key = PublicKey::from_base64(KNOWN).unwrap();
        assert_eq!(key.key_id(), "E7620F1842B4E81F");
        assert_eq!(key.to_base64(), KNOWN);
        assert!(key.to_file_text().ends_with(&format!("E7620F1842B4E81F\n{KNOWN}\n")));
        // Made by minisign 0.11, which writes an id that begins with a zero without it.
        assert_eq!(PublicKey::from_base64(SHORT).unwrap().key_id(), "6728EC63EE35463");
    }

    #[test]
    fn ids_are_compared_as_numbers() {
        let id = PublicKey::from_base64(SHORT).unwrap().id();
        for same in ["6728EC63EE35463", "06728EC63EE35463", "06728ec63ee35463", &id.to_string()] {
            assert_eq!(same.parse(), Ok(id), "{same}");
        }
        assert_ne!("6728EC63EE35464".parse(), Ok(id));
        assert_eq!("0".parse::<KeyId>().unwrap().to_string(), "0");
        for none in ["", "+1", "-1", " 1", "0x1", "g", "00123456789ABCDEF", "é"] {
            assert_eq!(none.parse::<KeyId>(), Err(InvalidKeyId), "{none}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let cut = &KNOWN[..KNOWN.len() - 4];
        let comment = format!("untrusted comment: minisign public key\n{KNOWN}");
        let (spaced, other) = (format!("{KNOWN}\n"), KNOWN.replacen("RWQ", "QUF", 1));
        for text in ["", "RWQ", cut, &comment, &spaced, &other, &"R".repeat(10_000)] {
            let error = PublicKey::from_base64(text).unwrap_err().to_string();
            assert!(error.contains("is not a public key of minisign"), "{error}");
            assert!(error.len() < 300, "{error}");
        }
    }
}
