//! A manager that says what it is told to.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

pub(crate) const RECORD: usize = 118;

/// What a manager says to one request.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// A record of this type, with this number.
    Record(u32, i32),
    /// These bytes.
    Bytes(Vec<u8>),
    /// The same, with a descriptor of `/dev/null` beside the first.
    WithNull(Vec<u8>),
    /// Nothing, and goes on listening.
    Nothing,
    /// The end of the connection.
    End,
}

/// The bytes of a record.
pub(crate) fn record(kind: u32, value: i32) -> Vec<u8> {
    let mut bytes = vec![0; RECORD];
    bytes[..4].copy_from_slice(b"IMTL");
    bytes[4..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..12].copy_from_slice(&4_u32.to_be_bytes());
    bytes[12..16].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// A manager for one client.
pub(crate) struct Fake {
    directory: tempfile::TempDir,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Fake {
    /// One that answers request after request with `script`, and listens until the client ends.
    pub(crate) fn saying(script: Vec<Says>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("manager.sock")).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            serve(&mut client, &script)
        });
        Self { directory, thread }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("manager.sock")
    }

    /// The requests that came, when the client has gone.
    pub(crate) fn heard(self) -> Vec<Vec<u8>> {
        self.thread.join().unwrap()
    }
}

/// Where nobody listens.
pub(crate) fn nowhere(directory: &Path) -> PathBuf {
    directory.join("manager.sock")
}

fn serve(client: &mut UnixStream, script: &[Says]) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    let mut script = script.iter();
    loop {
        let mut request = vec![0; RECORD];
        match client.read_exact(&mut request) {
            Ok(()) => heard.push(request),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return heard;
            }
            Err(e) => panic!("{e}"),
        }
        match script.next() {
            Some(Says::Record(kind, value)) => put(client, &record(*kind, *value), None),
            Some(Says::Bytes(bytes)) => put(client, bytes, None),
            Some(Says::WithNull(bytes)) => {
                put(client, bytes, Some(&File::open("/dev/null").unwrap()));
            }
            Some(Says::Nothing) | None => {}
            Some(Says::End) => return heard,
        }
    }
}

fn put(client: &UnixStream, bytes: &[u8], beside: Option<&File>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = beside.iter().map(|file| file.as_fd()).collect();
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    // The client may have gone already.
    let _ = sendmsg(client, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
}
