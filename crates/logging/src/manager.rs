//! Tells the service manager how the service stands, where there is one.

use sd_notify::NotifyState;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager (`sd_notify(3)`). Without `NOTIFY_SOCKET` this does nothing. A service
/// manager that does not listen, or takes no more, is no reason to stop working or to wait: then
/// what was to be told is lost, and that is logged.
pub fn tell(state: &[NotifyState<'_>]) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(name.as_bytes(), state) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

fn send(name: &[u8], state: &[NotifyState<'_>]) -> io::Result<()> {
    let lines: String = state.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.strip_prefix(b"@") {
        Some(name) => {
            socket.send_to_addr(lines.as_bytes(), &SocketAddr::from_abstract_name(name)?)?
        }
        None => socket.send_to(lines.as_bytes(), std::ffi::OsStr::from_bytes(name))?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_reads_nothing_is_not_waited_for() {
        let name = format!("pointsman-logging-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let name = [b"@", name.as_bytes()].concat();
        let full = (0..100_000).find_map(|_| send(&name, &[NotifyState::Watchdog]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"WATCHDOG=1\n");
        send(&name, &[NotifyState::Ready, NotifyState::Status("well")]).unwrap();
    }
}
