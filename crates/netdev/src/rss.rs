//! Receive side scaling: the table by which a card spreads packets over its receive queues.
//!
//! A card hashes addresses and ports of a packet, and the hash picks an entry of the table, which is
//! the number of a queue.

use crate::{Control, ControlError};
use rustix::io::Errno;

/// `ETHTOOL_GRXFHINDIR` of `linux/ethtool.h`.
const GET: u32 = 0x38;
/// `ETHTOOL_SRXFHINDIR`
const SET: u32 = 0x39;

/// More entries than any card has: 2048 is the largest table known.
const MOST_ENTRIES: u32 = 1 << 16;

const READ: &str = "say how it spreads packets over its queues (RSS)";
const WRITE: &str = "change how it spreads packets over its queues (RSS)";

impl Control {
    /// The table of receive side scaling: a queue for each entry.
    ///
    /// # Errors
    /// [`ControlError::Unsupported`]: the card has none, as those with one queue; or another.
    pub fn rss_table(&self) -> Result<Vec<u32>, ControlError> {
        /// Its size changes with the number of queues on some cards.
        const TRIES: usize = 5;
        let failed = |errno| self.failed(READ, errno);
        for _ in 0..TRIES {
            let mut head = [GET, 0];
            self.words(&mut head).map_err(failed)?;
            let size = head[1].min(MOST_ENTRIES);
            if size == 0 {
                return Err(failed(Errno::OPNOTSUPP));
            }
            let mut whole = vec![0; 2 + size as usize];
            whole[..2].copy_from_slice(&[GET, size]);
            match self.words(&mut whole) {
                Ok(()) if whole[1] == size => return Ok(whole.split_off(2)),
                // The kernel takes only a table that is as large as the card's.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err(failed(Errno::AGAIN))
    }

    /// Replaces the table. It has to be as large as the card's.
    ///
    /// # Errors
    /// [`ControlError`]: the driver has a fixed table, or an entry names a queue that is not there.
    pub fn set_rss_table(&self, table: &[u32]) -> Result<(), ControlError> {
        // An empty one would ask for the default.
        let size = u32::try_from(table.len()).unwrap_or(0);
        if size == 0 || size > MOST_ENTRIES {
            return Err(self.failed(WRITE, Errno::INVAL));
        }
        let mut command = [&[SET, size], table].concat();
        self.words(&mut command).map_err(|errno| self.failed(WRITE, errno))
    }

    /// Gives the table back to the driver, which spreads packets over all queues evenly, and does so
    /// again when their number changes.
    ///
    /// # Errors
    /// [`ControlError`]: the driver has a fixed table.
    pub fn reset_rss_table(&self) -> Result<(), ControlError> {
        self.words(&mut [SET, 0]).map_err(|errno| self.failed(WRITE, errno))
    }

    /// Hands over `struct ethtool_rxfh_indir`: command, size, and as many entries.
    fn words(&self, command: &mut [u32]) -> Result<(), Errno> {
        let (_, room) = command.split_at(2);
        assert!(command[1] as usize <= room.len(), "invariant: there is room for all entries");
        // SAFETY: the command is a `struct ethtool_rxfh_indir` of as many entries as it says.
        unsafe { self.call(command.as_mut_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::ControlError;
    use crate::control::tests::of;

    #[test]
    fn a_driver_without_a_table_says_so() {
        let lo = of("lo");
        let message = lo.rss_table().unwrap_err().to_string();
        assert_eq!(
            message,
            "lo: its driver cannot say how it spreads packets over its queues (RSS)"
        );
        for refused in [lo.set_rss_table(&[0, 1]), lo.reset_rss_table()] {
            let error = refused.unwrap_err();
            // Without privileges the kernel answers before it looks at the driver.
            let known =
                matches!(error, ControlError::Unsupported { .. } | ControlError::Denied { .. });
            assert!(known, "{error}");
        }
        assert!(matches!(lo.set_rss_table(&[]), Err(ControlError::Os { .. })));
        assert!(matches!(of("pm-nobody").rss_table(), Err(ControlError::NoInterface { .. })));
    }
}
