//! In which order connections are told, without a daemon.

use super::*;
use crate::ledger::RECORD;
use crate::wire;
use rustix::event::epoll::CreateFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::os::fd::AsFd as _;

fn flags() -> SocketFlags {
    SocketFlags::CLOEXEC | SocketFlags::NONBLOCK
}

/// Connections, with the clients' ends.
struct Scene {
    clients: Clients,
    theirs: Vec<OwnedFd>,
}

impl Scene {
    fn new(connections: usize) -> Self {
        let epoll = Rc::new(epoll::create(CreateFlags::CLOEXEC).unwrap());
        let clients = Clients::new(epoll, Shares::new(4096, Some(4096)), false).unwrap();
        let mut scene = Self { clients, theirs: Vec::new() };
        for _ in 0..connections {
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::STREAM, flags(), None).unwrap();
            assert_eq!(scene.clients.admit(ours, Kind::Imtl).unwrap(), Ok(()));
            scene.theirs.push(theirs);
        }
        scene
    }

    fn ask(&mut self, connection: u64, requests: usize) {
        let socket = &self.theirs[connection as usize - 1];
        rustix::io::write(socket, &vec![7; requests * RECORD]).unwrap();
        assert_eq!(self.clients.event(connection, EventFlags::IN), None);
    }

    /// What a daemon that takes everything is told.
    fn told(&mut self) -> Vec<(Tag, u64, u64)> {
        let mut told = Vec::new();
        loop {
            let mut batch = Batch::default();
            self.clients.tell(&mut batch);
            let (near, far) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags(), None).unwrap();
            if batch.is_empty() {
                return told;
            }
            batch.send(&near, SendFlags::DONTWAIT).unwrap();
            let mut buffer = wire::datagram_buffer();
            let received =
                wire::receive_with(far.as_fd(), &mut buffer, RecvFlags::DONTWAIT).unwrap();
            for message in wire::messages(&buffer[..received.length], received.descriptors) {
                let message = message.unwrap();
                told.push((message.tag, message.connection, message.sequence));
            }
        }
    }
}

#[test]
fn who_asks_much_waits_for_itself() {
    let mut scene = Scene::new(20);
    scene.clients.replay();
    assert_eq!(scene.told().last(), Some(&(Tag::Replayed, 0, 0)));
    for flooding in 1..20 {
        scene.ask(flooding, 64);
    }
    scene.ask(20, 1);
    let told = scene.told();
    let requests: Vec<_> = told.iter().filter(|(tag, ..)| *tag == Tag::Request).collect();
    assert_eq!(requests.len(), 19 * 64 + 1, "all of it is told");
    let good = requests.iter().position(|(_, connection, _)| *connection == 20).unwrap();
    assert_eq!(good, 19, "behind one request of each other");
    for connection in 1..20 {
        let of = requests.iter().filter(|(_, of, _)| *of == connection);
        assert!(of.map(|(.., sequence)| *sequence).eq(1..=64), "each in its order");
    }
    assert_eq!(scene.clients.unanswered, 19 * 64 + 1);
}

#[test]
fn what_was_unanswered_is_told_before_the_end_of_the_replay() {
    let mut scene = Scene::new(3);
    scene.clients.replay();
    scene.told();
    for connection in 1..=3 {
        scene.ask(connection, 5);
    }
    assert_eq!(scene.told().len(), 15);
    scene.clients.replay();
    assert_eq!(scene.clients.unanswered, 0);
    let told = scene.told();
    assert_eq!((told.len(), told.last()), (19, Some(&(Tag::Replayed, 0, 0))));
    assert_eq!(scene.clients.unanswered, 15);
}

#[test]
fn what_is_unanswered_is_counted_whatever_becomes_of_it() {
    let mut scene = Scene::new(3);
    scene.clients.replay();
    for connection in 1..=3 {
        scene.ask(connection, 5);
    }
    scene.told();
    assert_eq!(scene.clients.unanswered, 15);
    assert!(scene.clients.answer(1, 2, b"x", Vec::new()));
    assert!(!scene.clients.answer(1, 2, b"x", Vec::new()), "answered already");
    assert_eq!(scene.clients.unanswered, 14);
    scene.clients.close(1);
    assert_eq!(scene.clients.unanswered, 10);
    scene.clients.event(2, EventFlags::HUP);
    assert_eq!(scene.clients.unanswered, 5);
    scene.ask(3, 2);
    assert_eq!(scene.clients.unanswered, 5, "nobody was told of these");
    for sequence in 1..=5 {
        scene.clients.answer(3, sequence, b"x", Vec::new());
    }
    assert_eq!(scene.clients.unanswered, 0);
}
