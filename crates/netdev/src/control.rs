//! The `SIOCETHTOOL` call, for what generic netlink has no message for.

use pointsman_model::InterfaceName;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Asks and orders about one interface of the network namespace of the thread that opened it.
///
/// The kernel knows the interface by its name here: whoever holds this over a while, in which the
/// interface may be renamed, opens another.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    interface: InterfaceName,
}

/// A card or its driver does not do what it was asked for. The message names the interface.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The driver, or the way it is set up, has no such thing.
    #[error("{interface}: its driver cannot {what}")]
    Unsupported {
        /// The interface.
        interface: InterfaceName,
        /// What it cannot do.
        what: &'static str,
    },
    /// There is no such interface in this network namespace.
    #[error("interface {interface} does not exist")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// This process may not.
    #[error("{interface}: not allowed to {what}: this takes CAP_NET_ADMIN")]
    Denied {
        /// The interface.
        interface: InterfaceName,
        /// What it may not.
        what: &'static str,
    },
    /// No rule can be added.
    #[error("{interface}: its table of flow rules is full")]
    TableFull {
        /// The interface.
        interface: InterfaceName,
    },
    /// There can be no rule at this place.
    #[error(
        "{interface}: the driver takes no flow rule at location {location}, or not such a rule: it \
         may be beyond the table, or look at bits that the card cannot compare"
    )]
    BadLocation {
        /// The interface.
        interface: InterfaceName,
        /// The place.
        location: u32,
    },
    /// The driver takes no such rule, wherever it would be.
    #[error(
        "{interface}: the driver does not take the flow rule: the card cannot compare these bits, \
         or has no such queue"
    )]
    Refused {
        /// The interface.
        interface: InterfaceName,
    },
    /// There is none.
    #[error("{interface}: there is no flow rule at location {location}")]
    NoRule {
        /// The interface.
        interface: InterfaceName,
        /// The place.
        location: u32,
    },
    /// The same packets are in another rule, or there is a rule at this place.
    #[error("{interface}: there is such a flow rule already")]
    Exists {
        /// The interface.
        interface: InterfaceName,
    },
    /// It can be tried again.
    #[error("{interface}: the card is busy: cannot {what} now")]
    Busy {
        /// The interface.
        interface: InterfaceName,
        /// What it cannot do now.
        what: &'static str,
    },
    /// Whatever else the kernel says.
    #[error("{interface}: cannot {what}: {source}")]
    Os {
        /// The interface.
        interface: InterfaceName,
        /// What failed.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Control {
    /// Opens a socket for an interface by its name.
    ///
    /// # Errors
    /// No socket can be had. Whether there is such an interface shows when it is asked.
    pub fn open(interface: InterfaceName) -> Result<Self, ControlError> {
        match socket() {
            Ok(socket) => Ok(Self { socket, interface }),
            Err(source) => Err(ControlError::Os { interface, what: "open a socket", source }),
        }
    }

    /// The same by the kernel's number for the interface.
    ///
    /// # Errors
    /// No socket can be had, or there is no such interface.
    pub fn of_index(index: u32) -> Result<Self, ControlError> {
        let missing = || ControlError::NoInterface { interface: format!("number {index}") };
        let socket = socket().map_err(|_| missing())?;
        let name = netdevice::index_to_name(&socket, index).map_err(|_| missing())?;
        let interface = InterfaceName::new(name).map_err(|_| missing())?;
        Ok(Self { socket, interface })
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &InterfaceName {
        &self.interface
    }

    /// Hands a command to the driver.
    ///
    /// # Safety
    /// `command` points to a command of `linux/ethtool.h` that is as large as it says, in its
    /// number and its counts: the kernel reads and writes that far.
    pub(crate) unsafe fn call(&self, command: *mut libc::c_void) -> Result<(), Errno> {
        /// `linux/sockios.h`
        const SIOCETHTOOL: libc::c_ulong = 0x8946;
        let mut name = [0; libc::IFNAMSIZ];
        let bytes = self.interface.as_str().bytes();
        // The last byte stays the terminator: names are shorter, and the kernel looks for it.
        for (to, byte) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(bytes) {
            *to = libc::c_char::from_ne_bytes([byte]);
        }
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: command.cast() },
        };
        // SAFETY: the request is this frame's, and the caller vouches for the command.
        let done =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        if done < 0 {
            let error = io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        Ok(())
    }

    /// What an error means that means the same for all commands.
    pub(crate) fn failed(&self, what: &'static str, errno: Errno) -> ControlError {
        let interface = self.interface.clone();
        match errno {
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY => {
                ControlError::Unsupported { interface, what }
            }
            Errno::NODEV => ControlError::NoInterface { interface: interface.to_string() },
            Errno::PERM | Errno::ACCESS => ControlError::Denied { interface, what },
            Errno::BUSY | Errno::AGAIN => ControlError::Busy { interface, what },
            errno => ControlError::Os { interface, what, source: errno.into() },
        }
    }
}

/// The kernel's number for an interface of the network namespace of the calling thread; `None`: there
/// is no such interface.
///
/// # Errors
/// The kernel's answer.
pub fn interface_index(name: &InterfaceName) -> io::Result<Option<u32>> {
    match netdevice::name_to_index(socket()?, name.as_str()) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Any socket will do; one of the local family is there on every kernel.
fn socket() -> io::Result<OwnedFd> {
    let kind = SocketType::DGRAM;
    Ok(socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn of(name: &str) -> Control {
        Control::open(InterfaceName::new(name).unwrap()).unwrap()
    }

    #[test]
    fn interfaces_are_found_by_their_number() {
        let index = |name: &str| interface_index(&InterfaceName::new(name).unwrap()).unwrap();
        assert_eq!((index("lo"), index("pm-nobody")), (Some(1), None));
        assert_eq!(Control::of_index(1).unwrap().interface().as_str(), "lo");
        for wrong in [0, u32::MAX, i32::MAX as u32] {
            let error = Control::of_index(wrong).unwrap_err();
            assert_eq!(error.to_string(), format!("interface number {wrong} does not exist"));
        }
    }
}
