//! Words to the service manager (sd_notify(3)), where there is one, and what it kept for us
//! (sd_listen_fds(3)).

use crate::wire;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
};
use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

/// The first descriptor that a service manager passes (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// How long to wait for the service manager where what it is told must not be lost. Its own patience
/// with a service that ends is longer (`TimeoutStopSec=`).
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether there is a service manager.
pub(crate) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Tells the service manager how we are. Without `NOTIFY_SOCKET` there is none.
pub(crate) fn notify(state: &str) -> io::Result<()> {
    send::<OwnedFd>(state, &[], None)
}

/// Has the service manager keep a descriptor under a name, as long as its other end lives.
pub(crate) fn store(name: &str, descriptor: impl AsFd) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={name}"), &[descriptor], None)
}

/// The same for what must not be lost: waits a while for a service manager that is busy.
pub(crate) fn store_surely(name: &str, descriptor: impl AsFd) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={name}"), &[descriptor], Some(PATIENCE))
}

/// Has it let go of what it keeps under a name; waits a while for one that is busy.
pub(crate) fn forget(name: &str) -> io::Result<()> {
    send::<OwnedFd>(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[], Some(PATIENCE))
}

fn send<D: AsFd>(state: &str, descriptors: &[D], patience: Option<Duration>) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(&name)?,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    connect(&socket, &address)?;
    // A service manager that does not read must not hold us up for good.
    set_socket_timeout(&socket, Timeout::Send, patience)?;
    let flags = if patience.is_some() { SendFlags::empty() } else { SendFlags::DONTWAIT };
    wire::send_with(socket.as_fd(), state.as_bytes(), descriptors, flags)?;
    Ok(())
}

/// What the service manager kept and passes to us, by name. Call it once, at the start, before
/// anything else is opened.
#[must_use]
pub(crate) fn kept() -> Vec<(String, OwnedFd)> {
    let variable = |name| std::env::var(name).ok();
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Vec::new();
    }
    let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    (FIRST..).take(count).zip(names).map(|(number, name)| (name, take(number))).collect()
}

#[expect(unsafe_code, reason = "a descriptor that is inherited is a number at first")]
fn take(number: RawFd) -> OwnedFd {
    // SAFETY: `LISTEN_PID` says that these numbers were opened for this process, which owns them
    // from its start; nobody else here knows them, and `kept` is called once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    let flags = rustix::io::FdFlags::CLOEXEC;
    // It fails for what is not open, and whatever it is used for will, too.
    let _ = rustix::io::fcntl_setfd(&descriptor, flags);
    descriptor
}
