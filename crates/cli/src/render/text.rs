//! Numbers, times and colours as text.

use crate::output::Look;
use pointsman_model::Verdicts;
use serde_json::Value;

/// What a piece of text means; a terminal shows it in a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Heading,
    Good,
    Warn,
    Bad,
    Faint,
}

impl Look {
    /// Colours `text` where colour is wanted.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Replaces control characters, which could write lines of their own on a terminal, and those that
/// turn the direction of text, which could show it as another (Unicode Technical Report 36, 3.5).
/// Line ends and tabs stay: verifier logs have them.
///
/// One byte stands for one character, so that no text grows beyond a limit on its length.
pub(crate) fn printable(text: &str) -> String {
    let turns = |c: char| {
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
    };
    let control = |c: char| (c.is_control() && c != '\n' && c != '\t') || turns(c);
    text.replace(control, "?")
}

/// Text that stands in a line with others, and must not begin one of its own.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t', '\u{2028}', '\u{2029}'], " ")
}

/// [`printable`] for all text in an answer.
pub(crate) fn printable_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(printable(&text)),
        Value::Array(items) => items.into_iter().map(printable_value).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (printable(&name), printable_value(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How much of `limit` a number is, in percent.
pub(crate) fn share(number: u64, limit: u32) -> String {
    let tenths = number.saturating_mul(1_000) / u64::from(limit.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// `1 program`, `2 programs`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Microseconds in the unit that keeps three digits or so.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        100_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

/// Seconds as `3 d 4 h`, `4 h 5 min`, `5 min 6 s` or `6 s`.
pub(crate) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Milliseconds since the Unix epoch as `2026-01-31 23:59:59.999 UTC`.
pub(crate) fn utc(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, milli) = (ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03} UTC")
}

/// Milliseconds since the Unix epoch as `2026-01-31 23:59 UTC`.
pub(crate) fn minute(unix_ms: u64) -> String {
    let whole = utc(unix_ms);
    let end = whole.rfind(':').expect("invariant: a time has colons");
    format!("{} UTC", &whole[..end])
}

/// How long ago something was, at most: clocks differ.
pub(crate) fn ago(now_unix_ms: u64, then_unix_ms: u64) -> String {
    format!("{} ago", uptime(now_unix_ms.saturating_sub(then_unix_ms) / 1_000))
}

/// The Gregorian date of a number of days since 1970-01-01.
///
/// Counts in years that begin in March, so that the leap day is the last day of its year, and in
/// eras of 400 years, which all have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    // From 0000-03-01, the begin of an era, to the epoch.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 31 30 31 30 31 days, twice, and then again from the start.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The names of verdicts in the order of [`Verdicts::to_array`].
pub(crate) const VERDICTS: [&str; Verdicts::LEN] =
    ["aborted", "drop", "pass", "tx", "redirect", "invalid"];

/// The verdicts that were given, with how often, in the kernel's order.
pub(crate) fn given(verdicts: Verdicts) -> impl Iterator<Item = (&'static str, u64)> {
    VERDICTS.into_iter().zip(verdicts.to_array()).filter(|&(_, count)| count > 0)
}

/// Indents every line of `text`.
pub(crate) fn indent(text: &str, by: &str) -> String {
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{by}{line}\n") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 999, 1_000, 12_345, 1_234_567, u64::MAX].map(grouped);
        assert_eq!(
            texts,
            ["0", "999", "1,000", "12,345", "1,234,567", "18,446,744,073,709,551,615"]
        );
    }

    #[test]
    fn shares_are_percent() {
        let texts = [(0, 1_000_000), (999, 1_000_000), (1_250_000, 1_000_000), (1, 0)];
        let texts = texts.map(|(number, limit)| share(number, limit));
        assert_eq!(texts, ["0.0 %", "0.0 %", "125.0 %", "100.0 %"]);
    }

    #[test]
    fn times_have_fitting_units() {
        let texts = [0, 999, 1_000, 12_345, 99_999, 123_456, 1_000_000, 61_239_999].map(micros);
        assert_eq!(
            texts,
            ["0 µs", "999 µs", "1.0 ms", "12.3 ms", "99.9 ms", "123 ms", "1.00 s", "61.23 s"]
        );
        let texts = [6, 66, 3_600, 90_061].map(uptime);
        assert_eq!(texts, ["6 s", "1 min 6 s", "1 h 0 min", "1 d 1 h"]);
        assert_eq!([ago(7_900, 1_000), ago(1_000, 7_900)], ["6 s ago", "0 s ago"]);
    }

    #[test]
    fn dates_are_the_calendars() {
        // `date -u -d @SECONDS` gives the same.
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_735_689_600, "2025-01-01 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(seconds * 1_000 + 5), format!("{date}.005 UTC"));
            assert_eq!(minute(seconds * 1_000 + 5), format!("{} UTC", &date[..16]));
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[31m\r\u{9b}é\n\tb"), "a?[31m??é\n\tb");
        assert_eq!(printable("a\u{202e}b\u{2066}\u{200f}"), "a?b??");
        assert_eq!(one_line("a\nb\tc\u{2028}\u{7}"), "a b c ?");
        let value = serde_json::json!({"a\u{7}": ["\u{8}", {"b": "\u{0}"}], "n": 1});
        let expected = serde_json::json!({"a?": ["?", {"b": "?"}], "n": 1});
        assert_eq!(printable_value(value), expected);
    }
}
