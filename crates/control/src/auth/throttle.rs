//! Who presents wrong secrets again and again is not listened to for a while.
//!
//! Counted by address. Behind one address there may be many couriers, and one with an old
//! credential must not silence the others: secrets that were right before are always checked.

use crate::problem::Failure;
use pointsman_model::api::ProblemKind;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many wrong secrets in a row an address may present.
const BURST: u32 = 20;

/// How long it takes until it may present one more.
const REFILL: Duration = Duration::from_secs(6);

/// How many addresses are remembered. When there are more, those that have failed least are
/// forgotten.
const ADDRESSES: usize = 10_000;

/// How many secrets that were right are remembered.
const KNOWN: usize = 200_000;

/// Counts failures.
#[derive(Debug)]
pub struct Throttle {
    state: Mutex<State>,
    now: fn() -> Instant,
}

#[derive(Debug, Default)]
struct State {
    failures: HashMap<IpAddr, Bucket>,
    known: HashSet<String>,
}

/// What is left of an address's burst.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { state: Mutex::default(), now: Instant::now }
    }
}

impl Throttle {
    /// Whether a secret with this hash is looked at.
    ///
    /// # Errors
    /// 429, with the time after which trying again makes sense.
    pub fn admit(&self, from: Option<IpAddr>, hash: &str) -> Result<(), Failure> {
        let Some(from) = from.map(network) else { return Ok(()) };
        let now = (self.now)();
        let mut state = self.state();
        if state.known.contains(hash) {
            return Ok(());
        }
        let Some(bucket) = state.failures.get_mut(&from) else { return Ok(()) };
        bucket.refill(now);
        if bucket.left > 0 {
            return Ok(());
        }
        let wait = REFILL.saturating_sub(now.duration_since(bucket.since)).as_secs() + 1;
        let title = format!("too many wrong secrets came from here; try again in {wait} s");
        let failure = Failure::new(ProblemKind::Busy, title);
        let failure = failure.with_status(axum::http::StatusCode::TOO_MANY_REQUESTS);
        Err(Failure { retry_after: u32::try_from(wait).ok(), ..failure })
    }

    /// A secret was right.
    pub fn succeeded(&self, hash: String) {
        let mut state = self.state();
        if state.known.len() >= KNOWN {
            state.known.clear();
        }
        state.known.insert(hash);
    }

    /// A secret was wrong, or void by now.
    pub fn failed(&self, from: Option<IpAddr>, hash: &str) {
        let now = (self.now)();
        let mut state = self.state();
        state.known.remove(hash);
        let Some(from) = from.map(network) else { return };
        if state.failures.len() >= ADDRESSES && !state.failures.contains_key(&from) {
            state.forget(now);
        }
        let bucket = state.failures.entry(from).or_insert(Bucket { left: BURST, since: now });
        bucket.refill(now);
        bucket.left = bucket.left.saturating_sub(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room: the half that has most left goes.
    fn forget(&mut self, now: Instant) {
        let mut left: Vec<_> = self
            .failures
            .values_mut()
            .map(|bucket| {
                bucket.refill(now);
                bucket.left
            })
            .collect();
        left.sort_unstable();
        let least = left.get(left.len() / 2).copied().unwrap_or(BURST);
        self.failures.retain(|_, bucket| bucket.left < least);
        if self.failures.len() >= ADDRESSES {
            self.failures.clear();
        }
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.duration_since(self.since).as_secs() / REFILL.as_secs();
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        if more == 0 {
            return;
        }
        self.left = self.left.saturating_add(more).min(BURST);
        self.since = if self.left == BURST { now } else { self.since + REFILL * more };
    }
}

/// Who has one IPv6 address has 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(throttle: &Throttle, from: &str) -> bool {
        let from = Some(from.parse().unwrap());
        let admitted = throttle.admit(from, "wrong").is_ok();
        if admitted {
            throttle.failed(from, "wrong");
        }
        !admitted
    }

    #[test]
    fn many_wrong_secrets_silence_an_address_and_no_other() {
        let throttle = Throttle::default();
        assert!((0..BURST).all(|_| !fails(&throttle, "192.0.2.1")));
        assert!(fails(&throttle, "192.0.2.1"));
        assert!(!fails(&throttle, "192.0.2.2"));
        let failure = throttle.admit(Some("192.0.2.1".parse().unwrap()), "x").unwrap_err();
        assert_eq!(failure.problem.status, 429);
        assert!(failure.retry_after.is_some_and(|wait| (1..=7).contains(&wait)));
    }

    #[test]
    fn what_was_right_before_is_always_checked_until_it_is_wrong() {
        let throttle = Throttle::default();
        let from = Some("192.0.2.1".parse().unwrap());
        throttle.succeeded("good".into());
        while !fails(&throttle, "192.0.2.1") {}
        throttle.admit(from, "good").unwrap();
        throttle.failed(from, "good");
        throttle.admit(from, "good").unwrap_err();
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let throttle = Throttle::default();
        for host in 0..BURST {
            assert!(!fails(&throttle, &format!("2001:db8::{host:x}")));
        }
        assert!(fails(&throttle, "2001:db8::ffff:1"));
        assert!(!fails(&throttle, "2001:db8:0:1::1"));
    }

    #[test]
    fn time_heals_and_memory_is_bounded() {
        let now = Instant::now();
        let mut bucket = Bucket { left: 0, since: now };
        bucket.refill(now + REFILL / 2);
        assert_eq!(bucket.left, 0);
        bucket.refill(now + REFILL * 3 / 2);
        assert_eq!(bucket.left, 1);
        bucket.refill(now + REFILL * 2);
        assert_eq!(bucket.left, 2);
        bucket.refill(now + REFILL * 1000);
        assert_eq!(bucket.left, BURST);

        let throttle = Throttle::default();
        while !fails(&throttle, "192.0.2.1") {}
        for host in 0..u32::try_from(ADDRESSES).unwrap() * 3 {
            let from = IpAddr::from(std::net::Ipv4Addr::from(host));
            throttle.failed(Some(from), "wrong");
        }
        assert!(throttle.state().failures.len() <= ADDRESSES);
        assert!(fails(&throttle, "192.0.2.1"), "who failed most is remembered");
    }
}
