//! Whether the daemon lives, asked as a client would: what a container's health check runs.
//!
//! A heartbeat goes through the keeper to the daemon and back: it is not answered while the daemon
//! hangs or is gone. It takes nothing, needs no REGISTER, and any user may ask who may connect.

use pointsman_imtl::layout::RECORD_BYTES;
use pointsman_imtl::{Dialect, Record, Reply, Request};
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an answer may take. A daemon that was killed is back in much less.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered, after this long.
    Answers(Duration),
    /// The keeper closed the connection: it has as many clients as it may have. Restarting it for
    /// that would end all of them.
    Full,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answers(after) => write!(f, "alive: answered after {} us", after.as_micros()),
            Self::Full => write!(f, "alive, and takes no more clients: raise --max-clients"),
        }
    }
}

/// It does not live, or what lives there is something else.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody listens.
    #[error("nobody serves {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No answer came.
    #[error("{} took a heartbeat and did not answer within {} ms", path.display(), patience.as_millis())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        patience: Duration,
    },
    /// Something else came.
    #[error("{} answered a heartbeat with {found}: another program serves there", path.display())]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What came.
        found: String,
    },
    /// The connection broke.
    #[error("{}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Sends a heartbeat to the socket and waits for its answer.
///
/// # Errors
/// [`HealthError`]: one line that names the socket.
pub fn check(socket: &Path, patience: Duration) -> Result<Health, HealthError> {
    let path = || socket.to_owned();
    let broken = |source| HealthError::Io { path: path(), source };
    let started = Instant::now();
    let mut stream = UnixStream::connect(socket)
        .map_err(|source| HealthError::Connect { path: path(), source })?;
    // Whoever answers is told apart from whoever answered another one by the number.
    let sequence = std::process::id();
    let request = Request::Heartbeat { sequence }.encode(Dialect::V1_1);
    stream.set_write_timeout(Some(patience)).map_err(broken)?;
    let mut answer = [0; RECORD_BYTES];
    let mut have = 0;
    let mut result = stream.write_all(request.as_bytes());
    while result.is_ok() && have < answer.len() {
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            result = Err(ErrorKind::TimedOut.into());
            break;
        }
        stream.set_read_timeout(Some(left)).map_err(broken)?;
        match stream.read(&mut answer[have..]) {
            Ok(0) => {
                return if have == 0 { Ok(Health::Full) } else { Err(strange(socket, "a piece")) };
            }
            Ok(more) => have += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => result = Err(error),
        }
    }
    match result {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return Err(HealthError::Silent { path: path(), patience });
        }
        // It was closed before it was read: the keeper does that to whom it has no room for.
        Err(error)
            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
        {
            return Ok(Health::Full);
        }
        Err(source) => return Err(broken(source)),
    }
    match Record::from_bytes(answer).map(|record| Reply::decode(&record)) {
        Ok(Ok(Reply::HeartbeatAck(number))) if number == sequence => {
            Ok(Health::Answers(started.elapsed()))
        }
        Ok(Ok(other)) => Err(strange(socket, &format!("{other:?}"))),
        Ok(Err(error)) => Err(strange(socket, &error.to_string())),
        Err(error) => Err(strange(socket, &error.to_string())),
    }
}

fn strange(socket: &Path, found: &str) -> HealthError {
    HealthError::Strange { path: socket.to_owned(), found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Asks a server that takes one connection, with its request if `answers`, and does this.
    fn ask(
        answers: bool,
        serve: impl FnOnce(UnixStream, &[u8]) + Send,
    ) -> Result<Health, HealthError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; RECORD_BYTES];
                if answers {
                    stream.read_exact(&mut request).unwrap();
                }
                serve(stream, &request);
            });
            check(&path, Duration::from_millis(300))
        })
    }

    fn acknowledgement(request: &[u8], number: u8) -> Vec<u8> {
        let mut record = request.to_vec();
        record[7] = 204;
        record[15] ^= number;
        record
    }

    #[test]
    fn its_own_heartbeat_has_to_come_back_in_whichever_pieces() {
        let health = ask(true, |mut stream, request| {
            for piece in acknowledgement(request, 0).chunks(50) {
                stream.write_all(piece).unwrap();
            }
        });
        assert!(matches!(health, Ok(Health::Answers(_))), "{health:?}");
        for found in [
            ask(true, |mut s, request| s.write_all(&acknowledgement(request, 1)).unwrap()),
            ask(true, |mut s, request| s.write_all(request).unwrap()),
            ask(true, |mut s, _| s.write_all(&[b'x'; RECORD_BYTES]).unwrap()),
            ask(true, |mut s, request| s.write_all(&request[..50]).unwrap()),
        ] {
            let text = found.unwrap_err().to_string();
            assert!(text.contains("another program"), "{text}");
        }
    }

    #[test]
    fn who_has_no_room_lives() {
        assert_eq!(ask(true, |_, _| {}).unwrap(), Health::Full);
        // With the request unread the kernel says that the connection was reset.
        assert_eq!(ask(false, |_, _| {}).unwrap(), Health::Full);
        assert!(Health::Full.to_string().contains("--max-clients"));
    }

    #[test]
    fn who_hangs_or_is_not_there_does_not_live() {
        let error = ask(true, |mut stream, _| {
            // Ends when the asker does.
            let _ = stream.read(&mut [0]);
        });
        assert!(matches!(error, Err(HealthError::Silent { .. })), "{error:?}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nobody");
        let text = check(&path, PATIENCE).unwrap_err().to_string();
        assert!(text.contains("nobody serves") && text.contains("nobody:"), "{text}");
    }
}
