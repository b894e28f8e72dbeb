//! Requests in either protocol: from bytes to what is asked, and from what was decided to bytes.

use super::counter::Counter;
use super::interfaces::{Later, Wants};
use pointsman_imtl::Descriptor;
use pointsman_keeper::link::ToKeeper;
use pointsman_lease::choose::Wish;
use pointsman_lease::imtl::{Looks, Meaning, Taken};
use pointsman_lease::native::{
    self, FlowOrder, LeaseRequest, PortRequest, QueueRequest, Request, ReturnFlowRequest,
    ReturnRequest,
};
use pointsman_lease::{Ask, Change, Kept, Record, Why, imtl};
use pointsman_model::lease::Protocol;
use pointsman_netdev::interface_node;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As is decided about it.
    Decide,
    /// With a refusal, unless it was carried out before: daemons crashed over it.
    Refuse,
}

/// A request that was understood, until it is answered.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) connection: u64,
    pub(super) sequence: u64,
    kind: String,
    speech: Speech,
}

/// How its client is answered.
#[derive(Debug)]
enum Speech {
    Imtl(Box<Taken>),
    Native,
}

impl Counter {
    /// The descriptors of a request that may have some; `None`: this one may not. Who sent some
    /// where none belong is disconnected.
    pub(super) fn belonging(
        &mut self,
        connection: u64,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Option<Vec<OwnedFd>> {
        let client = self.desk.clients().get(&connection);
        let native = client.is_some_and(|client| client.protocol == Protocol::Native);
        if descriptors.is_empty() || native && native::takes_descriptors(bytes) {
            return Some(descriptors);
        }
        self.closer.close(descriptors);
        if self.people.get(&connection).is_some_and(|person| !person.lost) {
            self.lose(connection, "it sent descriptors, and no request has any");
        }
        None
    }

    pub(super) fn request(
        &mut self,
        connection: u64,
        sequence: u64,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        way: Way,
    ) {
        // A connection that was closed for want of credentials has no answers to wait for.
        let Some(person) = self.people.get_mut(&connection) else { return };
        // Nor has one whose stream is lost.
        if person.lost {
            return;
        }
        person.requests += 1;
        person.asked = Instant::now();
        let native = self.desk.clients().get(&connection).map(|client| client.protocol);
        // What waits goes first: requests of a connection are carried out in their order.
        if self.waits(connection) {
            return self
                .later(connection, Later { sequence, bytes: bytes.to_vec(), descriptors, way });
        }
        if native == Some(Protocol::Native) {
            self.native((connection, sequence), bytes, descriptors, way);
        } else {
            self.imtl(connection, sequence, bytes, way);
        }
    }

    fn imtl(&mut self, connection: u64, sequence: u64, bytes: &[u8], way: Way) {
        let person = self.people.get(&connection);
        // Under a document that is not understood nobody registers, whatever is there.
        let matters = way == Way::Decide
            && self.unclear.is_none()
            && self.desk.needs_interfaces(connection, sequence);
        let missing = |interfaces: &[u32]| {
            let person = person.filter(|_| matters)?;
            person.missing_interface(interfaces)
        };
        let taken = match imtl::take(bytes, sequence, self.desk.learned(connection), missing) {
            Ok(taken) => taken,
            Err(lost) => {
                self.metrics.count("garbage", true);
                self.lose(connection, &lost.to_string());
                return;
            }
        };
        self.note_oddity(connection, &taken);
        if let Some(told) = taken.told {
            let change = Change::Dialect(told);
            let _ = self.commit(&Record { connection, sequence: 0, change, refused: None });
        }
        let (kind, meaning) = match &taken.meaning {
            Meaning::Heartbeat => ("HEARTBEAT".to_owned(), Err(Kept::Done)),
            Meaning::Wrong(error) => {
                let what = error.to_string();
                ("unknown".to_owned(), Err(Kept::Refused(Why::BadRequest { what })))
            }
            Meaning::Asks(kind, ask) => (kind.to_string(), Ok(Wants::Ask(ask.clone()))),
            Meaning::Looks(kind, looks) => (kind.to_string(), Ok(Wants::Look(looks.clone()))),
        };
        let speech = Speech::Imtl(Box::new(taken));
        let front = Front { connection, sequence, kind, speech };
        match meaning {
            Ok(wants) => self.meet(front, wants, way),
            Err(kept) => self.finish(front, &kept, Vec::new()),
        }
    }

    /// Answers a request. `map`: the descriptor that it asked for, where it did.
    pub(super) fn finish(&mut self, front: Front, kept: &Kept, map: Vec<OwnedFd>) {
        let Front { connection, sequence, kind, speech } = front;
        self.tally(connection, &kind, kept);
        let (bytes, descriptors) = match speech {
            Speech::Native => (native::write(kept), map),
            Speech::Imtl(taken) => {
                let Some(frame) = taken.answer(kept) else {
                    // Nothing that is asked lacks an answer; a client that waits for ever would be
                    // worse.
                    self.answers.push(ToKeeper::Close { connection });
                    return;
                };
                let descriptors = match frame.descriptor() {
                    Some(Descriptor::XskMap) => map,
                    Some(Descriptor::Harmless) => self.null(),
                    None => Vec::new(),
                };
                (frame.data().to_vec(), descriptors)
            }
        };
        self.answers.push(ToKeeper::Reply { connection, sequence, bytes, descriptors });
    }

    fn native(
        &mut self,
        (connection, sequence): (u64, u64),
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        way: Way,
    ) {
        let speech = Speech::Native;
        let front = |kind: &str| Front { connection, sequence, kind: kind.into(), speech };
        let understood = match way {
            // To understand it may be what is fatal.
            Way::Refuse => {
                let kept = self.desk.decide_fatal(connection, sequence);
                return self.finish(front("unknown"), &kept, Vec::new());
            }
            Way::Decide => native::read(bytes),
        };
        let understood =
            understood.and_then(|request| self.understood(connection, request, descriptors));
        match understood {
            Ok((kind, wants)) => self.meet(front(kind), wants, way),
            Err(why) => self.finish(front("unknown"), &Kept::Refused(why), Vec::new()),
        }
    }

    fn understood(
        &mut self,
        connection: u64,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(&'static str, Wants), Why> {
        let person = self.people.get(&connection);
        let index = |name: &str| {
            let index = person.and_then(|person| person.index_of(name));
            let what = || format!("there is no interface {}", native::quoted(name));
            index.ok_or_else(|| Why::BadRequest { what: what() })
        };
        Ok(match request {
            Request::Lease(LeaseRequest { cpus: count, near, whole_cores }) => {
                self.look_at_cpus();
                let near = match near {
                    Some(name) => self.node_of(&name)?,
                    None => None,
                };
                ("lease", Wants::Ask(Ask::Choose(Wish { count, near, whole_cores })))
            }
            Request::Return(ReturnRequest { ids }) => ("return", Wants::Ask(Ask::GiveBack(ids))),
            Request::Claim(on) => ("claim", Wants::Claim(index(&on.interface)?)),
            Request::Queue(on) => {
                ("queue", Wants::Look(Looks::Queue { index: index(&on.interface)? }))
            }
            Request::ReturnQueue(QueueRequest { interface, queue }) => {
                ("return_queue", Wants::Ask(Ask::PutQueue { index: index(&interface)?, queue }))
            }
            Request::Port(PortRequest { interface, port }) => {
                ("port", Wants::Ask(Ask::AddPort { index: index(&interface)?, port }))
            }
            Request::ReturnPort(PortRequest { interface, port }) => {
                ("return_port", Wants::Ask(Ask::DelPort { index: index(&interface)?, port }))
            }
            Request::Flow(FlowOrder { interface, rule }) => {
                ("flow", Wants::Flow { index: index(&interface)?, rule: Box::new(rule) })
            }
            Request::ReturnFlow(ReturnFlowRequest { interface, location }) => {
                ("return_flow", Wants::Ask(Ask::DelFlow { index: index(&interface)?, location }))
            }
            Request::Map(on) => ("map", Wants::Ask(Ask::Map { index: index(&on.interface)? })),
            Request::Socket(QueueRequest { interface, queue }) => {
                let index = index(&interface)?;
                match (descriptors.pop(), descriptors.is_empty()) {
                    (Some(socket), true) => ("socket", Wants::Socket { index, queue, socket }),
                    (socket, _) => {
                        self.closer.close((socket, descriptors));
                        let what = "expected one descriptor beside the request: the socket";
                        return Err(Why::BadRequest { what: what.into() });
                    }
                }
            }
        })
    }

    fn node_of(&self, interface: &str) -> Result<Option<u32>, Why> {
        let node = interface_node(&self.roots.sys, interface);
        let known = pointsman_model::InterfaceName::new(interface).is_ok()
            && self.roots.sys.join("class/net").join(interface).exists();
        if known {
            return Ok(node);
        }
        let what = format!("there is no interface {} to be near", native::quoted(interface));
        Err(Why::BadRequest { what })
    }

    /// Closes a connection, once.
    pub(super) fn lose(&mut self, connection: u64, why: &str) {
        if let Some(person) = self.people.get_mut(&connection) {
            person.lost = true;
        }
        self.say(connection, Instant::now(), format!("instance {connection} is closed: {why}"));
        self.answers.push(ToKeeper::Close { connection });
    }

    fn null(&self) -> Vec<OwnedFd> {
        let null = self.null.as_ref().and_then(|null| null.try_clone().ok());
        null.map(OwnedFd::from).into_iter().collect()
    }
}
