//! Lengths of time, as people write them.

/// Reads a time such as `90s`, `10m`, `1h30m`, `30d`, in seconds; a bare number means seconds.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let expected = || "expected a time such as 90s, 10m, 1h30m or 30d".to_owned();
    let mut total = 0u64;
    let mut rest = text;
    // Larger units come before smaller ones, each at most once.
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| expected())?;
        let mut letters = rest[digits..].chars();
        let unit = match letters.next() {
            Some('d') => 24 * 60 * 60,
            Some('h') => 60 * 60,
            Some('m') => 60,
            Some('s') => 1,
            None if digits == text.len() => 1,
            _ => return Err(expected()),
        };
        if unit >= smallest {
            return Err(expected());
        }
        smallest = unit;
        let part = number.checked_mul(unit).ok_or_else(expected)?;
        total = total.checked_add(part).ok_or_else(expected)?;
        rest = letters.as_str();
    }
    if text.is_empty() { Err(expected()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5_400),
            ("1h1m1s", 3_661),
            ("24h", 86_400),
            ("30d", 2_592_000),
            ("1d1s", 86_401),
            ("0h90s", 90),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "s",
            "-1s",
            "1w",
            "1m1h",
            "1h1d",
            "1s1s",
            "1.5m",
            "1 m",
            "10ms",
            "é",
            "1é",
            "1m5",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
