//! Clients of the daemon's own protocol, which hand their sockets over.

use super::{BATCH, LISTED, Stage, numbered};
use pointsman_bpf::sockets::Looker;
use pointsman_netns::netns::Pair;
use pointsman_netns::sockets::{self, Source};
use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A client of the daemon's own protocol.
pub(in super::super) struct Native(OwnedFd);

impl Native {
    pub(in super::super) fn connect(stage: &Stage) -> Self {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
        let path = stage.host.path("run/leases.sock");
        let open = || {
            let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
            connect(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            socket
        };
        Self(stage.pair.right.run(open))
    }

    pub(in super::super) fn ask(&self, request: &Value) -> Value {
        self.ask_with(request, &[])
    }

    fn ask_with(&self, request: &Value, beside: &[BorrowedFd<'_>]) -> Value {
        use rustix::net::{
            RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg,
        };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !beside.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(beside)));
        }
        let text = request.to_string();
        let bytes = [std::io::IoSlice::new(text.as_bytes())];
        sendmsg(&self.0, &bytes, &mut control, SendFlags::empty()).unwrap();
        let mut answer = vec![0; 64 << 10];
        let (length, _) = recv(&self.0, &mut answer[..], RecvFlags::empty()).unwrap();
        serde_json::from_slice(&answer[..length]).unwrap_or(Value::Null)
    }
}

impl Native {
    /// Claims `v1`, and takes a queue of it.
    fn with_queue(stage: &Stage) -> (Self, u32) {
        let native = Self::connect(stage);
        assert_eq!(native.ask(&json!({"claim": {"interface": "v1"}})), json!({"done": true}));
        let queue = native.ask(&json!({"queue": {"interface": "v1"}}))["queue"].as_u64();
        (native, u32::try_from(queue.unwrap()).unwrap())
    }
}

#[test]
fn a_client_without_rights_hands_its_socket_over() {
    let stage = Stage::set();
    let native = Native::connect(&stage);
    let on = json!({"interface": "v1"});
    let early = native.ask(&json!({"queue": on}));
    assert_eq!(early["refused"]["kind"], "not_registered", "{early:#}");
    assert_eq!(
        native.ask(&json!({"claim": {"interface": "v9"}}))["refused"]["kind"],
        "bad_request"
    );
    assert_eq!(native.ask(&json!({"claim": on})), json!({"done": true}));
    let queue = native.ask(&json!({"queue": on}))["queue"].as_u64().unwrap();
    let port = json!({"port": {"interface": "v1", "port": LISTED}});
    assert_eq!(native.ask(&port), json!({"done": true}));
    let mut mine = sockets::Client::open(&stage.pair, queue as u32);
    let place = |queue: u64| json!({"socket": {"interface": "v1", "queue": queue}});
    // Another queue, nothing beside it, two, and what is no such socket.
    let socket = mine.socket.receiver.as_fd();
    let refused = |answer: Value, kind: &str| assert_eq!(answer["refused"]["kind"], kind);
    refused(native.ask_with(&place(queue + 1), &[socket]), "not_held_there");
    refused(native.ask(&place(queue)), "bad_request");
    refused(native.ask_with(&place(queue), &[socket, socket]), "bad_request");
    let null = std::fs::File::open("/dev/null").unwrap();
    let kind = if Looker::new().is_ok() { "bad_request" } else { "card_failed" };
    refused(native.ask_with(&place(queue), &[null.as_fd()]), kind);
    assert_eq!(native.ask_with(&place(queue), &[socket]), json!({"done": true}));
    Source::open(&stage.pair, queue as u32).send(&numbered(LISTED, 0, BATCH));
    mine.wait_for(BATCH as usize);
    let rule = json!({"type": "udp4", "dst_port": 1, "queue": queue});
    let flow = native.ask(&json!({"flow": {"interface": "v1", "rule": rule}}));
    assert_eq!(flow["refused"]["kind"], "card_failed", "a veth has no rules: {flow:#}");
    let back = json!({"return_queue": {"interface": "v1", "queue": queue}});
    assert_eq!(native.ask(&back), json!({"done": true}));
    drop(native);
    stage.until_entries(&[]);
}

/// The kernel would take each of them, and then drop what comes.
#[test]
fn a_socket_that_is_bound_elsewhere_is_refused_by_what_it_is_and_what_was_asked_for() {
    if let Err(error) = Looker::new() {
        return pointsman_netns::skip("a socket that is bound elsewhere", &error.to_string());
    }
    let stage = Stage::set();
    let (native, queue) = Native::with_queue(&stage);
    let asked = format!("queue {queue} of interface number {}", stage.index);
    let place = json!({"socket": {"interface": "v1", "queue": queue}});
    let hand_over = |socket: BorrowedFd<'_>| native.ask_with(&place, &[socket]);
    let refused = |socket: BorrowedFd<'_>, what: &str| {
        let answer = hand_over(socket);
        assert_eq!(answer["refused"]["kind"], "bad_request", "{answer:#}");
        assert_eq!(answer["refused"]["message"], what);
    };
    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    refused(stream.as_fd(), "what was handed over is no AF_XDP socket");
    let unbound = rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
    let what = format!("the socket is not bound to an interface: bind it to {asked}");
    refused(unbound.as_fd(), &what);
    let neighbour = sockets::Client::open(&stage.pair, queue + 1);
    let what = format!(
        "the socket is bound to queue {} of interface number {}, and not to {asked}",
        queue + 1,
        stage.index
    );
    refused(neighbour.socket.receiver.as_fd(), &what);
    // The same numbers in another network namespace.
    let other = Pair::with_queues(5).unwrap();
    let index = other.right.index("v1");
    let far = sockets::Client::open(&other, queue);
    let answer = hand_over(far.socket.receiver.as_fd());
    let said = answer["refused"]["message"].as_str().unwrap_or_default();
    let begins = format!(
        "the socket is bound to queue {queue} of interface number {index} in another network \
         namespace, net:["
    );
    assert!(said.starts_with(&begins) && said.ends_with(&asked), "{answer:#}");
    // One whose interface is gone is bound to nothing any more.
    other.right.ip(&["link", "delete", "v1"]).unwrap();
    let what = format!("the socket is not bound to an interface: bind it to {asked}");
    refused(far.socket.receiver.as_fd(), &what);
    let mut own = sockets::Client::open(&stage.pair, queue);
    assert_eq!(hand_over(own.socket.receiver.as_fd()), json!({"done": true}));
    let port = json!({"port": {"interface": "v1", "port": LISTED}});
    assert_eq!(native.ask(&port), json!({"done": true}));
    Source::open(&stage.pair, queue).send(&numbered(LISTED, 0, BATCH));
    own.wait_for(BATCH as usize);
}
