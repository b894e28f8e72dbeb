//! Records and descriptors over the manager's socket, one answer after the other.

use super::ManagerError;
use pointsman_imtl::layout::RECORD_BYTES;
use pointsman_imtl::{Record, Reply};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, send, socket_with,
};
use std::fmt::Debug;
use std::io::{self, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Something that the manager sent.
#[derive(Debug)]
pub(super) enum Came {
    Record(Record),
    /// A byte that starts no record, with what came beside it.
    Byte(u8, Vec<OwnedFd>),
}

#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    patience: Duration,
    /// Answers do not say what they answer: after one that did not come, none can be told.
    lost: bool,
}

impl Wire {
    pub(super) fn connect(socket: &Path, patience: Duration) -> Result<Self, ManagerError> {
        // The kernel takes zero for "for ever".
        let patience = patience.max(Duration::from_millis(1));
        let open = || -> io::Result<UnixStream> {
            let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
            let stream = socket_with(family, SocketType::STREAM, flags, None)?;
            // Before connecting: a manager that accepts nothing lets clients wait there.
            for direction in [Timeout::Send, Timeout::Recv] {
                set_socket_timeout(&stream, direction, Some(patience))?;
            }
            connect(&stream, &SocketAddrUnix::new(socket)?)?;
            Ok(stream.into())
        };
        let stream =
            open().map_err(|source| ManagerError::Connect { socket: socket.to_owned(), source })?;
        Ok(Self { stream, patience, lost: false })
    }

    /// Sends a request, all of it.
    pub(super) fn send(&mut self, record: &Record, what: &str) -> Result<(), ManagerError> {
        if self.lost {
            return Err(ManagerError::Lost { what: what.to_owned() });
        }
        let mut rest = &record.as_bytes()[..];
        while !rest.is_empty() {
            // A manager that is gone is an error, not a signal that ends the application.
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(what, errno.into())),
            }
        }
        Ok(())
    }

    /// The next record, as a reply. Late answers to heartbeats are dropped.
    pub(super) fn reply(&mut self, what: &str) -> Result<Reply, ManagerError> {
        match self.receive(what)? {
            Came::Record(record) => self.read(&record, what),
            Came::Byte(byte, _) => Err(self.odd(what, &format_args!("byte {byte:02x}"))),
        }
    }

    /// The answer to this heartbeat, or to one that a manager refuses. Silence loses nothing: an
    /// answer that comes later is known by its type.
    pub(super) fn heartbeat(&mut self, sequence: u32, what: &str) -> Result<Reply, ManagerError> {
        loop {
            let came = self.next(what).inspect_err(|error| {
                self.lost = !matches!(error, ManagerError::Silent { .. });
            });
            let record = match came? {
                Came::Record(record) => record,
                Came::Byte(byte, _) => {
                    return Err(self.odd(what, &format_args!("byte {byte:02x}")));
                }
            };
            match self.read(&record, what)? {
                Reply::HeartbeatAck(late) if late != sequence => {}
                reply => return Ok(reply),
            }
        }
    }

    /// What comes next, but for late answers to heartbeats.
    pub(super) fn receive(&mut self, what: &str) -> Result<Came, ManagerError> {
        loop {
            let came = self.next(what).inspect_err(|_| self.lost = true)?;
            match &came {
                Came::Record(record)
                    if matches!(Reply::decode(record), Ok(Reply::HeartbeatAck(_))) => {}
                _ => return Ok(came),
            }
        }
    }

    fn read(&mut self, record: &Record, what: &str) -> Result<Reply, ManagerError> {
        Reply::decode(record).map_err(|_| self.odd(what, record))
    }

    /// What came is no answer; from here on nothing is.
    pub(super) fn odd(&mut self, what: &str, found: &dyn Debug) -> ManagerError {
        self.lost = true;
        ManagerError::Odd { what: what.to_owned(), found: format!("{found:?}") }
    }

    fn next(&self, what: &str) -> Result<Came, ManagerError> {
        let failed = |error| self.failure(what, error);
        // The first byte tells what it is. What comes beside a byte comes with this one.
        let mut bytes = [0; RECORD_BYTES];
        let (first, descriptors) = self.first(&mut bytes[..1]).map_err(failed)?;
        if first == 0 {
            return Err(ManagerError::Ended { what: what.to_owned() });
        }
        if bytes[0] != pointsman_imtl::layout::MAGIC[0] {
            return Ok(Came::Byte(bytes[0], descriptors));
        }
        let odd = |found: String| ManagerError::Odd { what: what.to_owned(), found };
        (&self.stream).read_exact(&mut bytes[1..]).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => odd("with a part of a record".to_owned()),
            _ => self.failure(what, error),
        })?;
        Record::from_bytes(bytes).map(Came::Record).map_err(|error| odd(error.to_string()))
    }

    fn first(&self, byte: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(byte)];
            let got = recvmsg(&self.stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC);
            let bytes = match got {
                Ok(got) => got.bytes,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let rights = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            });
            return Ok((bytes, rights.flatten().collect()));
        }
    }

    fn failed(&mut self, what: &str, error: io::Error) -> ManagerError {
        self.lost = true;
        self.failure(what, error)
    }

    fn failure(&self, what: &str, error: io::Error) -> ManagerError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        let what = what.to_owned();
        match error.kind() {
            WouldBlock | TimedOut => ManagerError::Silent { what, patience: self.patience },
            BrokenPipe | ConnectionReset | UnexpectedEof => ManagerError::Ended { what },
            _ => ManagerError::Io { what, source: error },
        }
    }
}

/// Whether a descriptor is that of an XSKMAP. The kernel tells anybody the type of his own maps
/// (`bpf_map_show_fdinfo`); where there is no `/proc`, entering the map will tell.
pub(super) fn is_xskmap(descriptor: &OwnedFd) -> bool {
    /// `BPF_MAP_TYPE_XSKMAP` of `linux/bpf.h`.
    const XSKMAP: &str = "17";
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
    let Ok(info) = std::fs::read_to_string(path) else { return true };
    let kind = info.lines().find_map(|line| line.strip_prefix("map_type:"));
    kind.is_some_and(|kind| kind.trim() == XSKMAP)
}
