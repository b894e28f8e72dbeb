//! Connecting to a unix socket with a timeout.

use super::ClientError;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// Connects, and waits at most `timeout` for a place in the listener's queue.
///
/// The connect blocks: a non-blocking one on a unix socket fails at once while the queue is full,
/// and nothing tells when to try again. The kernel waits as long as the send timeout says.
pub(super) fn connect(path: &Path, timeout: Duration) -> Result<UnixStream, ClientError> {
    blocking(path, timeout)
        .map_err(|errno| {
            let socket = path.to_owned();
            match errno {
                Errno::NOENT => ClientError::Missing { socket },
                Errno::CONNREFUSED if !is_socket(path) => {
                    let source = io::Error::other("it is no socket");
                    ClientError::Connect { socket, source }
                }
                Errno::CONNREFUSED => ClientError::Refused { socket },
                Errno::ACCESS | Errno::PERM => ClientError::Denied { socket },
                Errno::AGAIN => ClientError::ConnectTimeout { socket, after: timeout },
                other => ClientError::Connect { socket, source: other.into() },
            }
        })
        .and_then(|stream| {
            let failed =
                |source: io::Error| ClientError::Connect { socket: path.to_owned(), source };
            stream.set_nonblocking(true).map_err(failed)?;
            UnixStream::from_std(stream).map_err(failed)
        })
}

/// The kernel answers "refused" for whatever lies there and is no socket.
fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn blocking(path: &Path, timeout: Duration) -> Result<StdUnixStream, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}
