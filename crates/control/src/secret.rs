//! Secrets: 256 random bits behind a prefix that says what they are for. Only their SHA-256 is
//! kept: a slow hash would protect nothing that cannot be guessed anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pointsman_model::Sha256;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fmt;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// An API token, `pmt_`: what its role says.
    Token,
    /// A one-time token, `pme_`: to be traded once for a credential.
    Enrolment,
    /// A courier's credential, `pmc_`.
    Credential,
    /// A session of the web pages, `pms_`: in a cookie.
    Session,
    /// What a form sends back to show that it is ours, `pmf_`.
    Form,
}

impl SecretKind {
    const ALL: [Self; 5] =
        [Self::Token, Self::Enrolment, Self::Credential, Self::Session, Self::Form];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "pmt_",
            Self::Enrolment => "pme_",
            Self::Credential => "pmc_",
            Self::Session => "pms_",
            Self::Form => "pmf_",
        }
    }
}

/// How many characters 256 bits are.
const DIGITS: usize = 43;

/// A secret, whole. Never logged: its `Debug` tells the kind alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    kind: SecretKind,
    text: String,
}

impl Secret {
    /// Makes a new one from the kernel's random numbers.
    ///
    /// # Panics
    /// The kernel has none, which it says of no kernel that can run this.
    #[must_use]
    pub fn new(kind: SecretKind) -> Self {
        let mut bits = [0_u8; 32];
        // Up to 256 bytes come whole once the kernel has been seeded (getrandom(2)).
        let filled = getrandom(&mut bits, GetRandomFlags::empty());
        assert_eq!(filled, Ok(bits.len()), "the kernel gives random numbers");
        Self { kind, text: format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bits)) }
    }

    /// Takes what somebody presents; `None`: it cannot be any secret of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let kind = SecretKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))?;
        let digits = &text.as_bytes()[kind.prefix().len()..];
        let good = digits.len() == DIGITS
            && digits.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        good.then(|| Self { kind, text: text.to_owned() })
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// What the database knows of it. Looking it up by this tells nobody's stopwatch anything of
    /// the secret: who cannot choose the hash cannot come closer to it step by step.
    #[must_use]
    pub fn hash(&self) -> String {
        Sha256::of(self.text.as_bytes()).to_string()
    }

    /// The secret itself: to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}...)", self.kind.prefix())
    }
}

/// Compares in a time that depends on lengths alone.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    use subtle::ConstantTimeEq as _;
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_are_long_and_come_back_from_their_text() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in SecretKind::ALL {
            for _ in 0..100 {
                let secret = Secret::new(kind);
                assert_eq!(secret.expose().len(), 4 + DIGITS);
                assert!(seen.insert(secret.hash()));
                assert_eq!(Secret::parse(secret.expose()), Some(secret.clone()));
                assert!(!format!("{secret:?}").contains(&secret.expose()[4..]));
            }
        }
    }

    #[test]
    fn what_is_no_secret_is_told_before_anything_is_asked() {
        let digits = "a".repeat(DIGITS);
        for wrong in ["", "pmt_", "pmt_short", "bearer", &format!("pmx_{digits}")] {
            assert_eq!(Secret::parse(wrong), None, "{wrong}");
        }
        for wrong in [format!("pmt_{digits}a"), format!("pmt_{}'", &digits[1..])] {
            assert_eq!(Secret::parse(&wrong), None, "{wrong}");
        }
        let split = format!("pmt_{}é", "a".repeat(DIGITS - 2));
        assert_eq!(Secret::parse(&split), None);
    }

    #[test]
    fn texts_are_compared_whole() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd") && !same("abc", "ab") && !same("", "a"));
    }
}
