//! How publishing stands: what is published by itself fails where nobody looks.

use serde::Serialize;
use utoipa::ToSchema;

/// How publishing stands, as far as this process has seen. Dry runs do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublishStanding {
    /// When a publish went well last, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_unix_ms: Option<u64>,
    /// What is wrong since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<PublishTrouble>,
}

/// Publishing fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublishTrouble {
    /// The first time, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// The last time.
    pub last_unix_ms: u64,
    /// How often, in a row.
    pub times: u64,
    /// Why, the last time.
    pub message: String,
}

impl PublishStanding {
    /// Notes how a publish ended.
    pub(super) fn note(&mut self, now: u64, failure: Option<String>) {
        let Some(message) = failure else {
            *self = Self { success_unix_ms: Some(now), trouble: None };
            return;
        };
        let (since_unix_ms, times) =
            self.trouble.as_ref().map_or((now, 0), |before| (before.since_unix_ms, before.times));
        self.trouble =
            Some(PublishTrouble { since_unix_ms, last_unix_ms: now, times: times + 1, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_until_something_goes_well() {
        let mut standing = PublishStanding::default();
        standing.note(1, None);
        standing.note(2, Some("full".into()));
        standing.note(5, Some("away".into()));
        let trouble =
            PublishTrouble { since_unix_ms: 2, last_unix_ms: 5, times: 2, message: "away".into() };
        let expected = PublishStanding { success_unix_ms: Some(1), trouble: Some(trouble) };
        assert_eq!(standing, expected);
        standing.note(9, None);
        assert_eq!(standing, PublishStanding { success_unix_ms: Some(9), trouble: None });
        standing.note(10, Some("full".into()));
        assert_eq!(standing.trouble.map(|trouble| trouble.times), Some(1));
    }
}
