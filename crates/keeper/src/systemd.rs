//! Words to the service manager (sd_notify(3)), where there is one.

use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with,
};
use std::io;
use std::os::unix::ffi::OsStrExt as _;

/// Tells the service manager how we are. Without `NOTIFY_SOCKET` there is none.
pub(crate) fn notify(state: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(&name)?,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    // A service manager that does not read must not hold us up.
    sendto(&socket, state.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT, &address)?;
    Ok(())
}
