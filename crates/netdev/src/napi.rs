//! How single queues are polled, over the generic netlink family `netdev`: which NAPI instance polls
//! a queue and by which interrupt (Linux 6.8), and settings of its own for each (Linux 6.13).
//!
//! Older kernels have the settings for whole interfaces only: [`Sysfs::set_polling`]. Numbers of
//! messages and attributes are of `linux/netdev.h`.
//!
//! [`Sysfs::set_polling`]: crate::Sysfs::set_polling

use crate::Ethtool;
use crate::NetlinkError;
use crate::generic::{attribute, find, u32_of, u64_of};
use pointsman_model::nic::Polling;
use std::io;

/// What polls a receive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Napi {
    /// The kernel's number for it. It changes when the interface is set down or its queues change.
    pub id: u32,
    /// The interrupt that starts it; `None`: it has none, or the driver does not say.
    pub interrupt: Option<u32>,
    /// How it polls; `None`: this kernel has no settings for single queues.
    pub polling: Option<Polling>,
}

/// How a queue is polled could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NapiError {
    /// This kernel has no settings for single queues.
    #[error(
        "this kernel sets polling for whole interfaces only: for single queues it takes Linux 6.13"
    )]
    Unsupported,
    /// There is no such NAPI instance any more.
    #[error(
        "there is no NAPI instance {id} here: the interface was set down, or its queues changed"
    )]
    Gone {
        /// Its number.
        id: u32,
    },
    /// The kernel says no.
    #[error("cannot change how NAPI instance {id} polls: {error}{why}")]
    Refused {
        /// Its number.
        id: u32,
        /// What the kernel said.
        #[source]
        error: NetlinkError,
        /// Why, in its words, after a colon; or nothing.
        why: String,
    },
}

impl Ethtool {
    /// What polls a receive queue; `None`: the kernel or the driver does not say, or the interface
    /// is down.
    pub fn napi(&mut self, interface_index: u32, queue: u32) -> Option<Napi> {
        const GET_QUEUE: u8 = 10;
        const GET_NAPI: u8 = 11;
        /// `NETDEV_QUEUE_TYPE_RX`
        const RECEIVE: u32 = 0;
        let number = |kind, number: u32| attribute(kind, &number.to_ne_bytes());
        let queue = [number(1, queue), number(2, interface_index), number(3, RECEIVE)].concat();
        let family = self.netdev?;
        let answer = self.generic.ask(family, GET_QUEUE, queue).ok()?;
        let id = find(&answer, 4).and_then(u32_of)?;
        let answer = self.generic.ask(family, GET_NAPI, number(2, id)).ok()?;
        Some(parse(id, &answer))
    }

    /// Changes how a NAPI instance polls, and with it all queues that it polls.
    ///
    /// # Errors
    /// [`NapiError`]
    pub fn set_napi_polling(&mut self, id: u32, wanted: Polling) -> Result<(), NapiError> {
        const SET: u8 = 14;
        let Some(family) = self.netdev else { return Err(NapiError::Unsupported) };
        let message = [
            attribute(2, &id.to_ne_bytes()),
            attribute(5, &wanted.defer_hard_irqs.to_ne_bytes()),
            attribute(6, &wanted.gro_flush_timeout.to_ne_bytes()),
        ];
        let Err(refused) = self.generic.order(family, SET, message.concat()) else { return Ok(()) };
        let kind = match &refused.error {
            NetlinkError::Os(error) => error.kind(),
            NetlinkError::Malformed(_) => io::ErrorKind::InvalidData,
        };
        match kind {
            io::ErrorKind::Unsupported => Err(NapiError::Unsupported),
            io::ErrorKind::NotFound => Err(NapiError::Gone { id }),
            _ => {
                let why = refused.why.map(|why| format!(": {why}")).unwrap_or_default();
                Err(NapiError::Refused { id, error: refused.error, why })
            }
        }
    }
}

fn parse(id: u32, answer: &[u8]) -> Napi {
    // Numbers of as many bytes as they need.
    let any = |value: &[u8]| u64_of(value).or_else(|| u32_of(value).map(u64::from));
    let defer = find(answer, 5).and_then(u32_of);
    let flush = find(answer, 6).and_then(any);
    let polling = defer
        .zip(flush)
        .map(|(defer_hard_irqs, gro_flush_timeout)| Polling { defer_hard_irqs, gro_flush_timeout });
    Napi { id, interrupt: find(answer, 3).and_then(u32_of), polling }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loopback_is_polled_by_nobody() {
        let mut ethtool = Ethtool::open().unwrap();
        assert_eq!(ethtool.napi(1, 0), None);
        assert_eq!(ethtool.napi(u32::MAX, 0), None);
        // Privileges are asked for first, and then whether there is such an instance.
        assert!(ethtool.set_napi_polling(u32::MAX, Polling::default()).is_err());
    }

    #[test]
    fn timeouts_come_in_as_many_bytes_as_they_need() {
        let with = |flush: &[u8]| [attribute(5, &2u32.to_ne_bytes()), attribute(6, flush)].concat();
        let polling = |flush| Some(Polling { defer_hard_irqs: 2, gro_flush_timeout: flush });
        assert_eq!(parse(7, &with(&200_000u32.to_ne_bytes())).polling, polling(200_000));
        assert_eq!(parse(7, &with(&(1u64 << 40).to_ne_bytes())).polling, polling(1 << 40));
        let irq = attribute(3, &121u32.to_ne_bytes());
        assert_eq!(parse(7, &irq), Napi { id: 7, interrupt: Some(121), polling: None });
    }

    proptest! {
        #[test]
        fn any_answer_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            prop_assert_eq!(parse(1, &bytes).id, 1);
        }
    }
}
