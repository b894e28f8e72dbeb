//! Options of a socket that have no functions in rustix.

use crate::XskError;
use crate::error::failed;
use rustix::io::Errno;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// The application's thread does the driver's work when it asks for packets, instead of an interrupt.
///
/// For this to help, the interface's `napi_defer_hard_irqs` and `gro_flush_timeout` have to keep the
/// interrupt off (`Documentation/networking/napi.rst`, "Busy polling").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long one call polls at most (`SO_BUSY_POLL`), in microseconds for the kernel.
    pub time: Duration,
    /// How many packets it takes at most (`SO_BUSY_POLL_BUDGET`).
    pub budget: u16,
}

impl BusyPoll {
    /// Sets all three options: `SO_PREFER_BUSY_POLL` and the two above (Linux 5.11).
    pub(crate) fn set(self, socket: BorrowedFd<'_>) -> Result<(), XskError> {
        const SO_BUSY_POLL: libc::c_int = 46;
        const SO_PREFER_BUSY_POLL: libc::c_int = 69;
        const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
        let time = libc::c_int::try_from(self.time.as_micros()).unwrap_or(libc::c_int::MAX);
        for (option, value) in [
            (SO_PREFER_BUSY_POLL, 1),
            (SO_BUSY_POLL, time),
            (SO_BUSY_POLL_BUDGET, self.budget.into()),
        ] {
            set(socket, libc::SOL_SOCKET, option, value)
                .map_err(|errno| failed("turn on busy polling", errno))?;
        }
        Ok(())
    }
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the pointer is to an integer of this frame, and the length is its own.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

pub(crate) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
