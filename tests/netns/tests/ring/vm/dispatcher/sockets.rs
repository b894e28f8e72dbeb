//! AF_XDP sockets opened with libxdp's own functions, through our changes.

use pointsman_bpf::dispatcher::{Options, Program, XSK_NAME, xsk_program};
use pointsman_model::Action;
use pointsman_netns::dispatcher::{Stage, on, program};
use pointsman_netns::members::{member, rounding, slot};
use pointsman_netns::netns::{LEFT, RIGHT};
use pointsman_netns::peer_path;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// A socket on `v1`, in a process of its own.
pub(in crate::vm) struct Socket {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Socket {
    pub(in crate::vm) fn open(stage: &Stage) -> Self {
        let spawn = || {
            let mut command = stage.command(&peer_path("xsk_socket"), &["v1"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn")
        };
        let mut child = stage.pair.right.run(spawn);
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut socket = Self { child, answers };
        assert_eq!(socket.answer(), "open");
        socket
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    /// How many packets have come.
    fn count(&mut self) -> usize {
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(b"?\n").expect("asked");
        self.answer().parse().expect("a number")
    }

    /// Sends a few datagrams and fails unless all of them come.
    #[track_caller]
    pub(in crate::vm) fn receives(&mut self, stage: &Stage) {
        const DATAGRAMS: usize = 5;
        let wanted = self.count() + DATAGRAMS;
        stage.pair.left.run(|| {
            let sender = UdpSocket::bind((LEFT, 0)).expect("a sender");
            for _ in 0..DATAGRAMS {
                sender.send_to(b"frame", (RIGHT, 20_000)).expect("sent");
            }
        });
        let start = Instant::now();
        while self.count() < wanted {
            assert!(start.elapsed() < Duration::from_secs(10), "{} of {wanted}", self.count());
        }
        assert_eq!(self.count(), wanted);
    }

    /// Closes it as an application does.
    pub(in crate::vm) fn close(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("an end").success());
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel's ids of the programs that feed sockets.
fn feeders(stage: &Stage) -> Vec<u32> {
    let chain = stage.chain();
    chain.components.iter().filter(|c| c.name == XSK_NAME).map(|c| c.id).collect()
}

#[test]
fn a_socket_of_libxdps_receives_through_our_swaps() {
    let Some(stage) = Stage::set("sockets::theirs") else { return };
    let mut socket = Socket::open(&stage);
    socket.receives(&stage);
    let feeder = feeders(&stage);
    assert_eq!(feeder.len(), 1);
    let options = Options::default();
    let (first, last) = (program("verdict", "v_pass"), program("verdict", "v_opaque"));
    stage.add(&[(&first, 10, on(&[Action::Pass]))]).expect("before it");
    socket.receives(&stage);
    stage.add(&[(&last, 90, on(&[Action::Pass]))]).expect("behind it");
    socket.receives(&stage);
    let id = first.id().expect("loaded");
    stage.here(|d, index| d.reprioritise(index, &options, id, Some(95), None)).expect("moved");
    socket.receives(&stage);
    stage.here(|d, index| d.remove(index, &options, &[id])).expect("removed");
    socket.receives(&stage);
    // A shared slot before it comes, is upgraded, and goes.
    let opaque = member("verdict", "v_opaque");
    let fused = |count: usize| {
        let slots: Vec<_> = (0..count).map(|_| slot("opaque", &opaque)).collect();
        Program::fuse(&slots, rounding(), true).expect("fused")
    };
    let (shared, more) = (fused(2), fused(3));
    let actions = shared.answer().expect("fused").into();
    stage.add(&[(&shared, 5, actions)]).expect("a shared slot");
    socket.receives(&stage);
    let id = shared.id().expect("loaded");
    stage.here(|d, index| d.replace(index, &options, id, &more)).expect("upgraded");
    socket.receives(&stage);
    let id = more.id().expect("loaded");
    stage.here(|d, index| d.remove(index, &options, &[id])).expect("removed");
    socket.receives(&stage);
    assert!(more.counters().expect("counted").read().expect("read").end >= 5, "they went through");
    assert_eq!(feeders(&stage), feeder, "the same program all along");
    // The last socket takes its program away, and only that.
    socket.close();
    assert_eq!(stage.ours(), [(90, "v_opaque".into(), "XDP_PASS".into())]);
}

#[test]
fn sockets_of_libxdps_use_our_redirect_and_leave_it() {
    let Some(stage) = Stage::set("sockets::ours") else { return };
    let (redirect, filter) = (xsk_program().expect("the redirect"), program("verdict", "v_pass"));
    let both = [(&filter, 19, on(&[Action::Pass])), (&redirect, 20, on(&[Action::Pass]))];
    stage.add(&both).expect("added");
    let id = redirect.id().expect("loaded");
    for _ in 0..2 {
        let mut socket = Socket::open(&stage);
        assert_eq!(feeders(&stage), [id], "libxdp has found ours");
        socket.receives(&stage);
        socket.close();
    }
    assert_eq!(feeders(&stage), [id], "no socket takes it away");
}
