//! A node that gives canned answers, and a terminal.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// A listener on a socket of its own that answers every request with one function.
pub(crate) struct FakeNode {
    directory: Option<TempDir>,
    socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

/// An answer, with its head.
pub(crate) struct Served(String);

impl Served {
    pub(crate) fn ok(body: &str) -> Self {
        Self::new("200 OK", "application/json", body)
    }

    pub(crate) fn problem(status: &str, body: &str) -> Self {
        Self::new(status, "application/problem+json", body)
    }

    fn new(status: &str, kind: &str, body: &str) -> Self {
        let length = body.len();
        Self(format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }
}

impl FakeNode {
    pub(crate) fn new(serve: impl Fn(&str) -> Served + Send + 'static) -> Self {
        Self::within(tempfile::tempdir().unwrap(), serve)
    }

    pub(crate) fn within(
        directory: TempDir,
        serve: impl Fn(&str) -> Served + Send + 'static,
    ) -> Self {
        let socket = directory.path().join("node.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let thread = std::thread::spawn(move || {
            while let Some((mut stream, request)) = next(&listener) {
                let Served(answer) = serve(&request);
                seen.lock().unwrap().push(request);
                // A command that was killed reads no answer.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { directory: Some(directory), socket, requests, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The requests that were answered, heads and bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Ends the node as one that crashed or was stopped; gives the directory of its socket.
    pub(crate) fn stop(mut self) -> TempDir {
        self.end();
        std::fs::remove_file(&self.socket).unwrap();
        self.directory.take().unwrap()
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // A connection without a request is the sign to stop.
        drop(UnixStream::connect(&self.socket));
        thread.join().unwrap();
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        // Where a test took away the socket's rights, root alone can still give the sign.
        if !std::thread::panicking() {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            let _ = std::fs::set_permissions(&self.socket, mode);
            self.end();
        }
    }
}

/// The next connection's request; `None`: it had none.
fn next(listener: &UnixListener) -> Option<(UnixStream, String)> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    Some((stream, head + &String::from_utf8(body).unwrap()))
}

/// A terminal of 80 columns and 24 rows: the side of a terminal emulator, and the side of a
/// program.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    let emulator = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&emulator).unwrap();
    unlockpt(&emulator).unwrap();
    let path = ptsname(&emulator, Vec::new()).unwrap();
    let program = open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    let program = program.unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&program, size).unwrap();
    (emulator, program)
}
