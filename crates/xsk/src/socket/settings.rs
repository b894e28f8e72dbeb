//! What a socket is to be.

use crate::{BusyPoll, XskError};

/// Whether packets are copied between the driver's memory and the application's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Copying {
    /// Not where the driver can do without; [`super::Socket::is_zero_copy`] says which it is.
    #[default]
    Auto,
    /// Always.
    Copy,
    /// Never: a driver that cannot is an error.
    ZeroCopy,
}

/// What a socket is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The kernel's number for the interface, in the network namespace of the calling thread.
    pub interface_index: u32,
    /// The queue of the interface.
    pub queue: u32,
    /// Entries of the receive ring, a power of two; 0: the socket does not receive.
    pub receive_ring: u32,
    /// Entries of the transmit ring, likewise.
    pub transmit_ring: u32,
    /// Entries of the ring by which frames go to the kernel for packets to come. A power of two.
    pub fill_ring: u32,
    /// Entries of the ring by which frames of sent packets come back. A power of two.
    pub completion_ring: u32,
    /// Whether packets are copied.
    pub copying: Copying,
    /// Whether the kernel may sleep until it is woken, which saves work on both sides. Without, the
    /// driver polls all the time in zero-copy mode.
    pub need_wakeup: bool,
    /// Whether packets of several buffers are taken (`XDP_USE_SG`, Linux 6.6).
    pub several_buffers: bool,
    /// Whether the application's thread polls the driver itself.
    pub busy_poll: Option<BusyPoll>,
}

impl Settings {
    /// Rings of 2048 entries on a queue, and otherwise what suits most.
    #[must_use]
    pub fn new(interface_index: u32, queue: u32) -> Self {
        Self {
            interface_index,
            queue,
            receive_ring: 2048,
            transmit_ring: 2048,
            fill_ring: 2048,
            completion_ring: 2048,
            copying: Copying::Auto,
            need_wakeup: true,
            several_buffers: false,
            busy_poll: None,
        }
    }
}

/// What makes no sense, before the kernel is asked.
pub(super) fn check(settings: &Settings) -> Result<(), XskError> {
    let &Settings { receive_ring, transmit_ring, fill_ring, completion_ring, .. } = settings;
    let zero_or_power = |size: &u32| *size == 0 || size.is_power_of_two();
    if let Some(&size) = [receive_ring, transmit_ring].iter().find(|size| !zero_or_power(size)) {
        return Err(XskError::RingSize { size });
    }
    if let Some(&size) = [fill_ring, completion_ring].iter().find(|size| !size.is_power_of_two()) {
        return Err(XskError::RingSize { size });
    }
    if receive_ring == 0 && transmit_ring == 0 { Err(XskError::NoRing) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_that_make_no_sense_are_named() {
        let settings = Settings::new(1, 0);
        let message = |settings| check(&settings).unwrap_err().to_string();
        let three = message(Settings { receive_ring: 3, ..settings });
        assert_eq!(three, "a ring of 3 entries: a power of two is needed");
        assert!(message(Settings { fill_ring: 0, ..settings }).contains("have to be there"));
        let none = message(Settings { receive_ring: 0, transmit_ring: 0, ..settings });
        assert_eq!(none, "a socket needs a receive ring or a transmit ring");
    }
}
