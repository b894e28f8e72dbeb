//! A keeper that follows another, with a service manager that keeps descriptors in between.

use crate::scene::{Client, RECORD, await_end, echo, record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// As much of a service manager as there has to be.
struct Manager {
    directory: tempfile::TempDir,
    notify: UnixDatagram,
    store: BTreeMap<String, OwnedFd>,
    service: Child,
}

impl Manager {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(directory: tempfile::TempDir) -> Self {
        let notify = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let service = Self::command(&directory, Command::new(echo())).spawn().unwrap();
        let mut manager = Self { directory, notify, store: BTreeMap::new(), service };
        manager.until("READY=1");
        manager
    }

    fn command(directory: &tempfile::TempDir, mut command: Command) -> Command {
        let log = directory.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command
            .arg("keeper")
            .arg(directory.path())
            .env("NOTIFY_SOCKET", directory.path().join("notify"))
            .env("ECHO_FD_STORE", "1")
            .stdin(Stdio::null())
            .stderr(log);
        command
    }

    /// Takes what the service says, until it says this.
    fn until(&mut self, what: &str) {
        while self.take() != what {}
    }

    /// Takes one word, and does what it says about descriptors.
    fn take(&mut self) -> String {
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let length = recvmsg(&self.notify, into, &mut control, flags).expect("a word").bytes;
        let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                let name = name.expect("a name");
                assert!(text.starts_with("FDSTORE=1\n"), "{text}");
                self.store.extend(rights.map(|descriptor| (name.to_owned(), descriptor)));
            }
        }
        if text.starts_with("FDSTOREREMOVE=1\n") {
            self.store.remove(name.expect("a name")).expect("something to remove");
        }
        text
    }

    fn client(&self) -> Client {
        Client::connect(&self.directory.path().join("imtl.sock"))
    }

    fn end(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.service), signal).unwrap();
        self.service.wait().unwrap();
        // All it said before its end is here.
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while poll(&mut [PollFd::new(&self.notify, PollFlags::IN)], Some(&now)).unwrap() > 0 {
            self.take();
        }
    }

    /// Starts the service with what is kept. The shell gives the descriptors their numbers.
    fn start_again(&mut self) {
        self.start_unready();
        self.until("READY=1");
    }

    fn start_unready(&mut self) {
        let mut script = String::new();
        // Above all of them, so that none is overwritten before it is copied.
        let above = self.store.values().map(AsRawFd::as_raw_fd).max().unwrap() + 1;
        for (number, descriptor) in (3..).zip(self.store.values()) {
            fcntl_setfd(descriptor, FdFlags::empty()).unwrap();
            write!(script, "exec {}<&{}; ", number + above, descriptor.as_raw_fd()).unwrap();
        }
        for (number, _) in (3..).zip(&self.store) {
            write!(script, "exec {number}<&{0} {0}<&-; ", number + above).unwrap();
        }
        script.push_str("export LISTEN_PID=$$; exec \"$@\"");
        let names: Vec<_> = self.store.keys().map(String::as_str).collect();
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash"]).arg(echo());
        let mut command = Self::command(&self.directory, command);
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        self.service = command.spawn().unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            eprintln!("the keeper's log:\n{}", log.unwrap_or_default());
        }
    }
}

#[test]
fn clients_stay_over_a_restart_of_the_keeper_and_get_what_they_wait_for() {
    let mut manager = Manager::start();
    let mut idle = manager.client();
    idle.echo(&record(b"echo", 1));
    let mut waiting = manager.client();
    waiting.send(&record(b"LATE", 2));
    let mut halfway = manager.client();
    let request = record(b"echo", 3);
    halfway.send(&request[..50]);
    let mut gone = manager.client();
    gone.echo(&record(b"echo", 4));
    // Both were read, and not only sent, when this one is answered.
    idle.echo(&record(b"echo", 5));
    drop(gone);
    manager.end(Signal::TERM);
    assert!(manager.store.contains_key("state"), "{:?}", manager.store.keys());
    // Nobody listens, and nobody is refused.
    let mut meanwhile = manager.client();
    meanwhile.send(&record(b"echo", 6));
    for _ in 0..2 {
        manager.start_again();
        assert!(!manager.store.contains_key("state"), "it is right once");
        idle.echo(&record(b"echo", 7));
        manager.end(Signal::TERM);
    }
    manager.start_again();
    assert!(waiting.reply() == record(b"LATE", 2));
    halfway.send(&request[50..]);
    assert!(halfway.reply() == request);
    assert!(meanwhile.reply() == record(b"echo", 6));
    idle.send(&record(b"COUN", 0));
    let known = idle.reply();
    assert_eq!(known[4..12], 4_u64.to_ne_bytes(), "one is gone");
    manager.client().echo(&[9; RECORD]);
}

#[test]
fn after_a_killed_keeper_clients_see_the_end_and_the_socket_serves_on() {
    let mut manager = Manager::start();
    let mut client = manager.client();
    client.echo(&record(b"echo", 1));
    manager.end(Signal::KILL);
    let mut meanwhile = manager.client();
    meanwhile.send(&record(b"echo", 2));
    manager.start_again();
    // Nobody knows what it waits for, so it must not wait.
    assert!(client.ended());
    assert!(meanwhile.reply() == record(b"echo", 2));
}

#[test]
fn clients_stay_while_the_first_daemon_of_the_next_keeper_fails() {
    let mut manager = Manager::start();
    let mut client = manager.client();
    client.echo(&record(b"echo", 1));
    manager.end(Signal::TERM);
    let fail = manager.directory.path().join("fail");
    std::fs::write(&fail, "3").unwrap();
    manager.start_unready();
    while manager.log().matches("the daemon ended: exit status: 3").count() < 2 {
        assert!(manager.service.try_wait().unwrap().is_none(), "the keeper gave up");
    }
    std::fs::remove_file(fail).unwrap();
    manager.until("READY=1");
    client.echo(&record(b"echo", 2));
}

#[test]
fn an_interrupt_after_the_end_was_told_keeps_the_clients() {
    // It does not end before both signals were heard: to stop it would not be enough.
    let directory = tempfile::tempdir().unwrap();
    let deaf = directory.path().join("deaf");
    std::fs::write(&deaf, "").unwrap();
    let mut manager = Manager::start_in(directory);
    std::fs::remove_file(deaf).unwrap();
    let mut client = manager.client();
    client.echo(&record(b"echo", 1));
    let engine = manager.log();
    let engine = engine.rsplit_once("runs as pid ").unwrap().1.trim().parse().unwrap();
    let engine = Pid::from_raw(engine).unwrap();
    let keeper = Pid::from_child(&manager.service);
    for signal in [Signal::TERM, Signal::INT] {
        kill_process(keeper, signal).unwrap();
        manager.until("STOPPING=1");
    }
    kill_process(engine, Signal::KILL).unwrap();
    manager.service.wait().unwrap();
    manager.until("FDSTORE=1\nFDNAME=state");
    manager.start_again();
    client.echo(&record(b"echo", 2));
}

#[test]
fn a_service_manager_that_is_busy_gets_the_state_when_it_reads() {
    let mut manager = Manager::start();
    let mut client = manager.client();
    client.echo(&record(b"echo", 1));
    let engine = manager.log();
    let engine = engine.rsplit_once("runs as pid ").unwrap().1.trim().parse().unwrap();
    // As much as it takes without reading.
    let flood = UnixDatagram::unbound().unwrap();
    flood.connect(manager.directory.path().join("notify")).unwrap();
    flood.set_nonblocking(true).unwrap();
    while flood.send(b"busy").is_ok() {}
    kill_process(Pid::from_child(&manager.service), Signal::TERM).unwrap();
    await_end(Pid::from_raw(engine).unwrap());
    while !manager.log().contains("cannot notify the service manager") {
        std::thread::yield_now();
    }
    manager.until("FDSTORE=1\nFDNAME=state");
    manager.service.wait().unwrap();
    manager.start_again();
    client.echo(&record(b"echo", 2));
}

/// Whoever connects in a burst, or while others keep the service manager busy, is kept as well.
#[test]
fn connections_that_the_service_manager_was_too_busy_for_are_kept_at_the_end() {
    let mut manager = Manager::start();
    let flood = UnixDatagram::unbound().unwrap();
    flood.connect(manager.directory.path().join("notify")).unwrap();
    flood.set_nonblocking(true).unwrap();
    while flood.send(b"busy").is_ok() {}
    let mut clients: Vec<_> = (0..40).map(|_| manager.client()).collect();
    for (number, client) in (0..).zip(&mut clients) {
        client.echo(&record(b"echo", number));
    }
    let log = manager.log();
    assert_eq!(log.matches("too busy to keep").count(), 1, "told, and not for each: {log}");
    kill_process(Pid::from_child(&manager.service), Signal::TERM).unwrap();
    manager.until("FDSTORE=1\nFDNAME=state");
    manager.service.wait().unwrap();
    assert_eq!(manager.store.len(), 40 + 3, "and two listeners and the state");
    manager.start_again();
    for (number, client) in (0..).zip(&mut clients) {
        client.echo(&record(b"echo", 100 + number));
    }
    assert!(!manager.log().contains("did not take"), "{}", manager.log());
}

/// It is waited for once, not once for each of them.
#[test]
fn connections_that_the_service_manager_never_takes_are_counted() {
    let manager = Manager::start();
    let flood = UnixDatagram::unbound().unwrap();
    flood.connect(manager.directory.path().join("notify")).unwrap();
    flood.set_nonblocking(true).unwrap();
    while flood.send(b"busy").is_ok() {}
    let mut clients: Vec<_> = (0..3).map(|_| manager.client()).collect();
    for (number, client) in (0..).zip(&mut clients) {
        client.echo(&record(b"echo", number));
    }
    let keeper = Pid::from_child(&manager.service);
    kill_process(keeper, Signal::TERM).unwrap();
    await_end(keeper);
    let log = manager.log();
    assert!(log.contains("did not take the connections of 3 clients"), "{log}");
    assert!(clients.iter_mut().all(Client::ended));
}

/// What was kept is looked at before it is used: it may be another socket, or none.
#[test]
fn listening_sockets_that_are_not_what_they_were_are_made_anew_and_clients_stay() {
    use std::os::unix::net::{UnixListener, UnixStream};
    let mut manager = Manager::start();
    let mut client = manager.client();
    client.echo(&record(b"echo", 1));
    let path = manager.directory.path().join("imtl.sock");
    for round in 0..3_u64 {
        manager.end(Signal::TERM);
        let told = match round {
            // Somebody has removed its file.
            0 => {
                std::fs::remove_file(&path).unwrap();
                "cannot look at"
            }
            // Somebody has put another one there, and is gone.
            1 => {
                std::fs::remove_file(&path).unwrap();
                drop(UnixListener::bind(&path).unwrap());
                "not the one that lies there"
            }
            _ => {
                let other = UnixStream::pair().unwrap().0;
                manager.store.insert("imtl".into(), other.into());
                "bound elsewhere"
            }
        };
        manager.start_again();
        let log = manager.log();
        assert!(log.contains(told), "{told:?} is not in {log}");
        client.echo(&record(b"echo", 10 + round));
        manager.client().echo(&record(b"echo", 20 + round));
    }
    // The one that is right is taken, though names are mixed up: who connected meanwhile waits in
    // it.
    manager.end(Signal::TERM);
    let [imtl, leases] = ["imtl", "leases"].map(|name| manager.store.remove(name).unwrap());
    manager.store.extend([("imtl".to_owned(), leases), ("leases".to_owned(), imtl)]);
    let mut meanwhile = manager.client();
    meanwhile.send(&record(b"echo", 30));
    manager.start_again();
    assert!(meanwhile.reply() == record(b"echo", 30));
}
