//! A keeper in a directory of its own, and clients that know what they have to get.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with,
};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

pub(crate) const RECORD: usize = 118;

/// Far more than anything takes: a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn full() -> bool {
    std::env::var("POINTSMAN_FULL").is_ok_and(|full| full == "1")
}

/// A running keeper; killed when dropped, and its daemon with it.
pub(crate) struct Keeper {
    child: Child,
    notify: UnixDatagram,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) fn echo() -> PathBuf {
    // This test's executable lies in TARGET/debug/deps.
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/echo")
}

impl Keeper {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[])
    }

    pub(crate) fn start_in(directory: tempfile::TempDir, more: &[&str]) -> Self {
        let mut keeper = Self::start_unready(directory, more);
        keeper.ready();
        keeper
    }

    /// One that soon takes a daemon for one that hangs, or that does not end.
    pub(crate) fn impatient() -> Self {
        Self::impatient_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn impatient_in(directory: tempfile::TempDir) -> Self {
        let more = [("ECHO_SILENCE", "1"), ("ECHO_END", "1")];
        let mut keeper = Self::start_as(directory, &[], &more);
        keeper.ready();
        keeper
    }

    pub(crate) fn start_unready(directory: tempfile::TempDir, more: &[&str]) -> Self {
        Self::start_as(directory, more, &[])
    }

    fn start_as(directory: tempfile::TempDir, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let program = directory.path().join("program");
        if !program.exists() {
            std::os::unix::fs::symlink(echo(), &program).unwrap();
        }
        let path = directory.path().join("notify");
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(echo())
            .arg("keeper")
            .arg(directory.path())
            .args(more)
            .env("NOTIFY_SOCKET", &path)
            .env("ECHO_PROGRAM", program)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("examples/echo is built with the tests");
        Self { child, notify, directory }
    }

    /// Waits until the next daemon is ready.
    pub(crate) fn ready(&mut self) {
        self.told("READY=1");
    }

    /// Waits until the keeper tells the service manager this.
    pub(crate) fn told(&mut self, what: &str) {
        let mut bytes = [0; 256];
        loop {
            let length = self.notify.recv(&mut bytes).expect("a word to the service manager");
            if &bytes[..length] == what.as_bytes() {
                return;
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// The daemon that runs now: the last one the log names.
    pub(crate) fn engine(&self) -> Pid {
        let log = self.log();
        let line = log.lines().rev().find_map(|line| line.strip_prefix("the daemon runs as pid "));
        Pid::from_raw(line.unwrap().trim().parse().unwrap()).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.path("imtl.sock"))
    }

    pub(crate) fn native(&self) -> Native {
        Native::connect(&self.path("leases.sock"))
    }

    /// How many connections the daemon knows.
    pub(crate) fn count(&self, client: &mut Client) -> u64 {
        client.send(&record(b"COUN", 0));
        u64::from_ne_bytes(client.reply()[4..12].try_into().unwrap())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the keeper's log:\n{}", self.log());
        }
    }
}

/// Waits until a process has ended, if it still runs.
pub(crate) fn await_end(pid: Pid) {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let timeout = PATIENCE.try_into().unwrap();
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ended, 1, "process {pid:?} runs on");
}

/// A record that nobody else sends.
pub(crate) fn record(what: &[u8; 4], number: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(what);
    for at in (4..RECORD - 8).step_by(8) {
        record[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    record
}

/// A client of the stream socket.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Takes one record, which must come as one piece.
    pub(crate) fn reply(&mut self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        assert_eq!(self.0.read(&mut bytes).unwrap(), RECORD, "a reply comes at once");
        bytes
    }

    pub(crate) fn echo(&mut self, request: &[u8; RECORD]) {
        self.send(request);
        assert!(self.reply() == *request, "somebody else's answer");
    }

    pub(crate) fn ended(&mut self) -> bool {
        match self.0.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// Sends bytes, and descriptors beside them.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let bytes = IoSlice::new(bytes);
    sendmsg(socket, &[bytes], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// A client of the datagram socket.
pub(crate) struct Native(OwnedFd);

impl Native {
    pub(crate) fn connect(path: &Path) -> Self {
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        send(self.as_fd(), bytes, descriptors);
    }

    pub(crate) fn reply(&self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; 70_000];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let length = recvmsg(&self.0, into, &mut control, RecvFlags::empty()).unwrap().bytes;
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        bytes.truncate(length);
        (bytes, descriptors)
    }

    pub(crate) fn ended(&self) -> bool {
        self.reply().0.is_empty()
    }
}

impl AsFd for Native {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
