//! The requests that break the glass.

use super::{Client, ClientError};
use pointsman_model::InterfaceId;
use pointsman_model::glass::{BypassReport, ConfirmReport, EventPage, Generations, RollbackReport};
use std::fmt::Write as _;
use std::time::Duration;

const BYPASS: &str = "POST /v1/bypass";
const CONFIRM: &str = "POST /v1/confirm";
const EVENTS: &str = "GET /v1/events";
const GENERATIONS: &str = "GET /v1/generations";
const ROLLBACK: &str = "POST /v1/rollback";

/// Whether a request changes the host.
pub(super) fn changes(request: &str) -> bool {
    matches!(request, BYPASS | CONFIRM | ROLLBACK)
}

impl Client {
    /// No timeout: giving up on an answer would not stop the node.
    pub(crate) async fn bypass(
        &self,
        interface: &InterfaceId,
        seconds: Option<u64>,
        off: bool,
    ) -> Result<BypassReport, ClientError> {
        let mut query = format!("?interface={}", encoded(&interface.to_string()));
        if let Some(seconds) = seconds {
            let _ = write!(query, "&for_seconds={seconds}");
        }
        if off {
            query += "&off=true";
        }
        self.call(BYPASS, &query, vec![], None).await
    }

    /// No timeout, as for [`Self::bypass`].
    pub(crate) async fn rollback(
        &self,
        generation: Option<u64>,
        gap: bool,
    ) -> Result<RollbackReport, ClientError> {
        let mut query = format!("?allow_gap={gap}");
        if let Some(generation) = generation {
            let _ = write!(query, "&generation={generation}");
        }
        self.call(ROLLBACK, &query, vec![], None).await
    }

    pub(crate) async fn confirm(
        &self,
        generation: Option<u64>,
    ) -> Result<ConfirmReport, ClientError> {
        let query =
            generation.map_or(String::new(), |generation| format!("?generation={generation}"));
        self.call(CONFIRM, &query, vec![], None).await
    }

    pub(crate) async fn generations(&self) -> Result<Generations, ClientError> {
        self.call(GENERATIONS, "", vec![], Some(self.answer_timeout)).await
    }

    /// The events after one; the node waits up to `wait_seconds` until there is one.
    pub(crate) async fn events(
        &self,
        after: Option<u64>,
        limit: u16,
        wait_seconds: u64,
    ) -> Result<EventPage, ClientError> {
        let mut query = format!("?limit={limit}&wait_seconds={wait_seconds}");
        if let Some(after) = after {
            let _ = write!(query, "&after={after}");
        }
        let timeout = self.answer_timeout + Duration::from_secs(wait_seconds);
        self.call(EVENTS, &query, vec![], Some(timeout)).await
    }
}

/// A value as a query takes it (RFC 3986, section 2.1). An interface's name may have any character
/// that is not a space, a slash or a colon.
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(byte.into());
            }
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn any_interface_goes_into_a_query() {
        assert_eq!(encoded("eth0.7"), "eth0.7");
        assert_eq!(encoded("blue/e&th%=#+é"), "blue%2Fe%26th%25%3D%23%2B%C3%A9");
    }
}
