//! Hashing what comes in pieces.

use pointsman_model::Sha256;
use sha2::Digest as _;
use std::fmt::Write as _;

/// The hash of all that was given to `hasher`.
pub(crate) fn finished(hasher: sha2::Sha256) -> Sha256 {
    let mut digits = String::with_capacity(64);
    for byte in hasher.finalize() {
        write!(digits, "{byte:02x}").expect("invariant: writing to a string cannot fail");
    }
    digits.parse().expect("invariant: these are 64 hexadecimal digits")
}
