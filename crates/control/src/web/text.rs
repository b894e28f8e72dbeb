//! Times, queries and numbers as pages show them.

use crate::health::duration;
use std::fmt::Write as _;

/// A moment: what people read, and what machines read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct When {
    /// `2026-11-29 09:33:23 UTC`
    pub(super) full: String,
    /// `2026-11-29T09:33:23Z`
    pub(super) machine: String,
    /// `5 min ago`
    pub(super) ago: String,
}

impl When {
    pub(super) fn new(unix_ms: u64, now: u64) -> Self {
        let seconds = unix_ms / 1000;
        let (year, month, day) = date(seconds / 86_400);
        let day = format!("{year:04}-{month:02}-{day:02}");
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let time = format!("{hour:02}:{minute:02}:{second:02}");
        let ago = match now.checked_sub(unix_ms) {
            Some(past) => format!("{} ago", duration(past)),
            None => format!("in {}", duration(unix_ms - now)),
        };
        Self { full: format!("{day} {time} UTC"), machine: format!("{day}T{time}Z"), ago }
    }

    pub(super) fn maybe(unix_ms: Option<u64>, now: u64) -> Option<Self> {
        unix_ms.map(|unix_ms| Self::new(unix_ms, now))
    }
}

/// The date of a day since 1970-01-01, in the Gregorian calendar: eras of 400 years have the same
/// number of days, and a year that begins in March ends with the day that may be missing.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// A query of these parameters with its `?`; those without a value are left out.
pub(super) fn query(parameters: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.push_str(&encoded(value));
    }
    query
}

/// A text as a part of an address (RFC 3986, section 2.3: what is unreserved stays).
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// A size in bytes.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// A number with its digits in threes.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_calendars_do() {
        let full = |seconds: u64| When::new(seconds * 1000, seconds * 1000).full;
        assert_eq!(full(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(full(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(full(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(full(1_709_251_200), "2024-03-01 00:00:00 UTC");
        assert_eq!(full(4_107_542_400), "2100-03-01 00:00:00 UTC");
        let when = When::new(1_700_000_000_000, 1_700_000_060_000);
        assert_eq!(
            (when.machine.as_str(), when.ago.as_str()),
            ("2023-11-14T22:13:20Z", "60 s ago")
        );
        assert_eq!(When::new(5_000, 0).ago, "in 5 s");
        let _ = When::new(u64::MAX, 0);
    }

    #[test]
    fn what_goes_into_an_address_stays_one_parameter() {
        assert_eq!(query(&[("a", ""), ("b", "")]), "");
        assert_eq!(
            query(&[("a", "x y&c=<é"), ("b", ""), ("d", "1")]),
            "?a=x%20y%26c%3D%3C%C3%A9&d=1"
        );
    }

    #[test]
    fn long_numbers_are_in_groups() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(
            (size(5), size(20_480), size(16 << 20)),
            ("5 B".into(), "20 KiB".into(), "16 MiB".into())
        );
    }
}
