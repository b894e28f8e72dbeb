//! A client of the MTL Manager's protocol, for tests and loads.
//!
//! Written from the tables of `docs/imtl.md`, with literal numbers and without the codec: whoever
//! tests a daemon with this finds a mistake that the codec makes on both sides. It checks nothing by
//! itself and sends whatever it is told.
#![forbid(unsafe_code)]

pub mod request;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, Shutdown, recvmsg, shutdown,
};
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The bytes of every record.
pub const RECORD: usize = 118;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// libmtl: 1.0.
    Libmtl,
    /// `libmtlm_client`: 1.1.
    Mtlm,
}

/// Both dialects.
pub const DIALECTS: [Dialect; 2] = [Dialect::Libmtl, Dialect::Mtlm];

/// A record that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// 201 response, 202 queue, 203 flow, 204 heartbeat.
    pub kind: u32,
    /// The response; of a heartbeat, its number.
    pub value: i32,
    /// Whether all behind it is zero.
    pub clean: bool,
}

/// What came back for the map: a byte, with a descriptor perhaps.
#[derive(Debug)]
pub struct Map {
    /// The byte.
    pub byte: u8,
    /// What came beside it.
    pub descriptors: Vec<OwnedFd>,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    dialect: Dialect,
}

impl Client {
    /// Connects. A reply that does not come for a minute is an error rather than a hang.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn connect(socket: &Path, dialect: Dialect) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, dialect })
    }

    /// Connects and registers without interfaces.
    ///
    /// # Errors
    /// The kernel's answer, or a refusal.
    pub fn register(socket: &Path, dialect: Dialect) -> io::Result<Self> {
        let mut client = Self::connect(socket, dialect)?;
        let record = request::register(dialect, std::process::id(), "tests", &[]);
        match client.ask(&record)? {
            Reply { kind: 201, value: 0, clean: true } => Ok(client),
            reply => Err(io::Error::other(format!("REGISTER: {reply:?}"))),
        }
    }

    /// What it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Sends bytes as they are, all of them.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Takes one reply of 118 bytes.
    ///
    /// # Errors
    /// The kernel's answer; the end of the stream; bytes that are no reply.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut bytes = [0; RECORD];
        self.stream.read_exact(&mut bytes)?;
        parse(&bytes)
    }

    /// Sends one request and takes its reply.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::reply`].
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Reply> {
        self.send(request)?;
        self.reply()
    }

    /// Takes one reply as libmtl does: with one receive. A reply that comes in pieces is an error.
    ///
    /// # Errors
    /// As [`Client::reply`].
    pub fn reply_at_once(&mut self) -> io::Result<Reply> {
        let mut bytes = [0; RECORD];
        match self.stream.read(&mut bytes)? {
            RECORD => parse(&bytes),
            other => Err(io::Error::other(format!("a reply of {other} bytes"))),
        }
    }

    /// Takes the answer to a request for the map: one byte and what is beside it.
    ///
    /// # Errors
    /// The kernel's answer; the end of the stream.
    pub fn map(&mut self) -> io::Result<Map> {
        let mut byte = [0; 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        // A receive with a timeout is interrupted by a stop of the process, too (signal(7)).
        let got = rustix::io::retry_on_intr(|| {
            recvmsg(&self.stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)
        })?;
        if got.bytes != 1 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        Ok(Map { byte: byte[0], descriptors })
    }

    /// Sends a request for the map and takes its answer.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::map`].
    pub fn ask_map(&mut self, request: &[u8]) -> io::Result<Map> {
        self.send(request)?;
        self.map()
    }

    /// Whether the stream is at its end: waits for it.
    ///
    /// # Errors
    /// The kernel's answer; a timeout after a minute.
    pub fn ended(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => Ok(read == 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ended(),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Says no more, and still listens.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn say_no_more(&self) -> io::Result<()> {
        Ok(shutdown(&self.stream, Shutdown::Write)?)
    }

    /// The stream, for what this client cannot do.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Reads a reply.
///
/// # Errors
/// It does not start with the magic.
pub fn parse(bytes: &[u8; RECORD]) -> io::Result<Reply> {
    if &bytes[..4] != b"IMTL" {
        return Err(io::Error::other(format!("a reply that starts with {:02x?}", &bytes[..4])));
    }
    let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    Ok(Reply {
        kind: u32::from_be_bytes(word(4)),
        value: i32::from_be_bytes(word(12)),
        clean: bytes[16..].iter().all(|byte| *byte == 0),
    })
}
