//! Pointsman's own protocol for leases: a JSON object in each datagram, and one in each answer.
//!
//! ```text
//! {"lease": {"cpus": 3, "near": "eth0", "whole_cores": true}}  ->  {"leased": [{"id": 5, "cpu": 5}, ..]}
//! {"return": {"ids": [5]}}, {"return": {}} for all             ->  {"done": true}
//! {"claim": {"interface": "eth0"}}                            ->  {"done": true}
//! {"queue": {"interface": "eth0"}}                            ->  {"queue": 3}
//! {"port": {"interface": "eth0", "port": 20000}}              ->  {"done": true}
//! {"map": {"interface": "eth0"}}                              ->  {"map": true}, and a descriptor
//! {"socket": {"interface": "eth0", "queue": 3}}, a descriptor ->  {"done": true}
//! {"flow": {"interface": "eth0", "rule": {"type": "udp4", ..}}} ->  {"flow": 1023}
//! {"return_flow": {"interface": "eth0", "location": 1023}}    ->  {"done": true}
//! {"return_queue": {"interface": "eth0", "queue": 3}}, {"return_port": {"interface", "port"}}
//! what cannot be                                               ->  {"refused": {"kind": "too_few", .., "message": "..."}}
//! ```

use crate::{Kept, Lease, Why};
use pointsman_model::flow::FlowRequest;
use serde::{Deserialize, Serialize};

/// The most CPUs of one request: with the seven others of each core, on the widest machines, the
/// answer still fits into a datagram of 64 KiB.
pub const MOST_CPUS: u32 = 200;

/// The longest part of an error that quotes what a client sent, in characters.
const LONGEST_QUOTE: usize = 200;

/// Text of a client's, short and printable ASCII, all else escaped: it goes into logs and back, and
/// no terminal must turn it round or break its line.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars().take(LONGEST_QUOTE) {
        match c {
            ' '..='~' => clean.push(c),
            _ => clean.extend(c.escape_default()),
        }
    }
    clean
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// CPUs, wherever they are best.
    Lease(LeaseRequest),
    /// To give some back.
    Return(ReturnRequest),
    /// Packets from an interface by AF_XDP: first of all that is about one.
    Claim(On),
    /// A receive queue.
    Queue(On),
    /// To give it back.
    ReturnQueue(QueueRequest),
    /// That datagrams to this port go on to sockets, over IPv4 and IPv6.
    Port(PortRequest),
    /// No longer.
    ReturnPort(PortRequest),
    /// The map that the client's own sockets enter.
    Map(On),
    /// A flow rule that sends packets to a queue that the client holds, or has the card drop them.
    Flow(FlowOrder),
    /// To take one away.
    ReturnFlow(ReturnFlowRequest),
    /// To have the AF_XDP socket that comes beside put at its queue.
    Socket(QueueRequest),
}

/// Something of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct On {
    /// The interface, as the client's network namespace calls it.
    pub interface: String,
}

/// A receive queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRequest {
    /// The interface.
    pub interface: String,
    /// The queue.
    pub queue: u32,
}

/// A destination port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRequest {
    /// The interface.
    pub interface: String,
    /// The port.
    pub port: u16,
}

/// A flow rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowOrder {
    /// The interface.
    pub interface: String,
    /// Which packets, and what becomes of them.
    pub rule: FlowRequest,
}

/// A flow rule that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnFlowRequest {
    /// The interface.
    pub interface: String,
    /// Where it is.
    pub location: u32,
}

/// Whether a request is one beside which a descriptor comes.
#[must_use]
pub fn takes_descriptors(bytes: &[u8]) -> bool {
    matches!(read(bytes), Ok(Request::Socket(_)))
}

/// Which CPUs are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// How many to run on.
    pub cpus: u32,
    /// The interface to be near, of the daemon's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
    /// Whether the other CPUs of the cores are kept idle.
    #[serde(default)]
    pub whole_cores: bool,
}

/// What is given back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnRequest {
    /// These; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u32>>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<'a> {
    /// These are the client's now.
    Leased(&'a [Lease]),
    /// This receive queue is the client's now.
    Queue(u32),
    /// The rule is at this location.
    Flow(u32),
    /// The map comes beside.
    Map(bool),
    /// Done.
    Done(bool),
    /// No.
    Refused {
        /// Why, for programs.
        #[serde(flatten)]
        why: &'a Why,
        /// Why, for people.
        message: String,
    },
}

/// Reads a request.
///
/// # Errors
/// [`Why::BadRequest`] with what is wrong.
pub fn read(bytes: &[u8]) -> Result<Request, Why> {
    let request: Request = serde_json::from_slice(bytes).map_err(|error| {
        let error = quoted(&error.to_string());
        Why::BadRequest { what: format!("the request is not understood: {error}") }
    })?;
    if let Request::Lease(LeaseRequest { cpus, .. }) = &request
        && !(1..=MOST_CPUS).contains(cpus)
    {
        let what = format!("expected 1 to {MOST_CPUS} CPUs, found {cpus}");
        return Err(Why::BadRequest { what });
    }
    Ok(request)
}

/// What leaves as the answer.
#[must_use]
pub fn write(kept: &Kept) -> Vec<u8> {
    let answer = match kept {
        Kept::Done => Answer::Done(true),
        Kept::Leased(leases) => Answer::Leased(leases),
        Kept::Queue(queue) => Answer::Queue(*queue),
        Kept::Flow(location) => Answer::Flow(*location),
        Kept::Map(_) => Answer::Map(true),
        Kept::Refused(why) => Answer::Refused { why, message: why.to_string() },
    };
    serde_json::to_vec(&answer).expect("invariant: answers have string keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let asked =
            read(br#"{"lease": {"cpus": 3, "near": "eth0", "whole_cores": true}}"#).unwrap();
        let near = Some("eth0".into());
        assert_eq!(asked, Request::Lease(LeaseRequest { cpus: 3, near, whole_cores: true }));
        assert_eq!(read(br#"{"return": {}}"#).unwrap(), Request::Return(ReturnRequest::default()));
        for bad in [
            &b"\xff"[..],
            b"",
            b"{}",
            b"[]",
            br#"{"lease": {"cpus": 0}}"#,
            br#"{"lease": {}}"#,
            br#"{"lease": {"cpus": 201}}"#,
            br#"{"lease": {"cpus": 1, "x": 1}}"#,
            br#"{"lease": {"cpus": 1}, "return": {}}"#,
            br#"{"return": {"ids": [-1]}}"#,
        ] {
            assert!(matches!(read(bad), Err(Why::BadRequest { .. })), "{bad:?}");
        }
    }

    #[test]
    fn the_largest_answer_fits_into_a_datagram() {
        let lease = Lease { id: 8191, cpu: Some(8191), idle: true };
        let most = Kept::Leased(vec![lease; 8 * MOST_CPUS as usize]);
        assert!(write(&most).len() <= 64 << 10, "{}", write(&most).len());
        let name = "\u{1}\n\u{202e}".repeat(20_000);
        let why = Why::BadRequest { what: quoted(&name) };
        assert!(write(&Kept::Refused(why)).len() < 4096);
    }

    #[test]
    fn what_is_quoted_is_printable_ascii() {
        let hostile = "eth0\u{202e}\u{2028}\u{1b}[2J\n\u{85}\u{200b}é'";
        let said = quoted(hostile);
        assert_eq!(said, r"eth0\u{202e}\u{2028}\u{1b}[2J\n\u{85}\u{200b}\u{e9}'");
        assert_eq!(quoted(&"x".repeat(1000)).len(), LONGEST_QUOTE);
    }

    #[test]
    fn answers_say_it_for_programs_and_for_people() {
        let text = |kept: &Kept| String::from_utf8(write(kept)).unwrap();
        let leased = Kept::Leased(vec![Lease { id: 5, cpu: Some(5), idle: true }]);
        assert_eq!(text(&leased), r#"{"leased":[{"id":5,"cpu":5,"idle":true}]}"#);
        assert_eq!(text(&Kept::Done), r#"{"done":true}"#);
        let few = Kept::Refused(Why::TooFew { wanted: 3, available: 1 });
        assert_eq!(
            text(&few),
            r#"{"refused":{"kind":"too_few","wanted":3,"available":1,"message":"CPUs asked for: 3, that fit and are free: 1"}}"#
        );
    }
}
