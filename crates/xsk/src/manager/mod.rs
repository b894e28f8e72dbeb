//! The handshake with whoever manages the host's interfaces: Pointsman's daemon, or an MTL Manager.
//!
//! In: interfaces, ports, queues that are asked for. Out: a queue that nobody else has, the
//! [`XskMap`] that a socket on it enters, datagrams of a port led there. All of it belongs to the
//! connection: what a [`Manager`] was given is taken back when it is dropped.
//!
//! ```no_run
//! # use pointsman_xsk::{Settings, Socket, Umem, UmemSettings, manager::{Manager, socket_path}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let interface = 2;
//! let mut manager = Manager::connect(&socket_path())?;
//! manager.register(&[interface])?;
//! let queue = manager.take_queue(interface)?;
//! let (umem, mut frames) = Umem::new(UmemSettings::default())?;
//! let mut socket = Socket::open(&umem, &Settings::new(interface, queue))?;
//! socket.receiver.fill(&mut frames);
//! manager.map(interface)?.insert(queue, &socket)?;
//! manager.add_port(interface, 20_000)?;
//! # Ok(()) }
//! ```
//!
//! Spoken is dialect 1.1 of `docs/imtl.md`, as `libmtlm_client` does: Pointsman gives reasons in
//! it, and the MTL Manager of 1.0 does not look at the bytes that tell the dialects apart. Only
//! addresses in flow rules mean something else to that one, so none is ever sent.

mod error;
mod wire;

pub use error::{ManagerError, Reason};

use crate::XskMap;
use pointsman_imtl::layout::MAX_INTERFACES;
use pointsman_imtl::{
    Dialect, Flow, Hostname, Interfaces, Registration, Reply, Request, WireAddress,
};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::{Came, Wire};

/// Where managers listen, unless told otherwise: `MTL_MANAGER_SOCK_PATH` of `mtl_mproto.h`.
pub const SOCKET: &str = "/var/run/imtl/mtl_manager.sock";

/// How long an answer may take, unless told otherwise. A manager of dialect 1.0 does not answer
/// what it has no answer to.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Where the manager listens: what the variable `MTL_MANAGER_SOCK_PATH` says, or [`SOCKET`].
#[must_use]
pub fn socket_path() -> PathBuf {
    let told = std::env::var_os("MTL_MANAGER_SOCK_PATH").filter(|path| !path.is_empty());
    told.map_or_else(|| SOCKET.into(), PathBuf::from)
}

/// A connection to the manager. Interfaces are named by the kernel's numbers in the network
/// namespace of the thread that connects.
#[derive(Debug)]
pub struct Manager {
    wire: Wire,
    /// Of the last heartbeat.
    sequence: u32,
}

impl Manager {
    /// Connects. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ManagerError::Connect`]
    pub fn connect(socket: &Path) -> Result<Self, ManagerError> {
        Self::connect_with(socket, PATIENCE)
    }

    /// The same, with an own idea of how long an answer may take.
    ///
    /// # Errors
    /// [`ManagerError::Connect`]
    pub fn connect_with(socket: &Path, patience: Duration) -> Result<Self, ManagerError> {
        Ok(Self { wire: Wire::connect(socket, patience)?, sequence: 0 })
    }

    /// Says who asks, and for which interfaces. It comes before everything but
    /// [`heartbeat`](Self::heartbeat), and may come again.
    ///
    /// # Errors
    /// [`ManagerError`]: more than eight interfaces, or one that is not there or not to be had.
    pub fn register(&mut self, interfaces: &[u32]) -> Result<(), ManagerError> {
        let count = interfaces.len();
        let wanted = Interfaces::new(interfaces)
            .ok_or(ManagerError::Interfaces { count, most: MAX_INTERFACES })?;
        let name = rustix::system::uname();
        let registration = Registration {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            uid: rustix::process::getuid().as_raw(),
            hostname: Hostname::new(name.nodename().to_bytes()),
            interfaces: wanted,
        };
        let what = format!("registering with interfaces {interfaces:?}");
        self.done(&Request::Register(registration), &what)
    }

    /// Asks for any free queue of an interface: its number, which is not 0. Queue 0 is the host's.
    ///
    /// # Errors
    /// [`ManagerError`]: none is left.
    pub fn take_queue(&mut self, interface: u32) -> Result<u32, ManagerError> {
        let what = format!("a queue of interface {interface}");
        match self.ask(&Request::GetQueue { interface_index: interface }, &what)? {
            Reply::QueueId(queue) if queue > 0 => Ok(queue.unsigned_abs()),
            Reply::QueueId(code) => Err(refused(what, code)),
            other => Err(self.wire.odd(&what, &other)),
        }
    }

    /// Gives a queue back before the connection ends.
    ///
    /// # Errors
    /// [`ManagerError`]: it was not given to this connection.
    pub fn give_queue(&mut self, interface: u32, queue: u32) -> Result<(), ManagerError> {
        let what = format!("giving back queue {queue} of interface {interface}");
        let Ok(queue) = u16::try_from(queue) else { return Err(no_such(what)) };
        self.done(&Request::PutQueue { interface_index: interface, queue }, &what)
    }

    /// Asks for the map that sockets on this interface enter.
    ///
    /// # Errors
    /// [`ManagerError`]: there is none, or what came is none.
    pub fn map(&mut self, interface: u32) -> Result<XskMap, ManagerError> {
        let what = format!("the XSKMAP of interface {interface}");
        self.wire.send(&Request::XskMap { interface_index: interface }.encode(DIALECT), &what)?;
        let (byte, mut descriptors) = match self.wire.receive(&what)? {
            Came::Byte(byte, descriptors) => (byte, descriptors),
            Came::Record(record) => return Err(self.wire.odd(&what, &record)),
        };
        match (byte, descriptors.pop()) {
            // Managers of dialect 1.0 have something harmless beside the byte where there is no map.
            (b' ', Some(map)) if descriptors.is_empty() => match wire::is_xskmap(&map) {
                true => Ok(map.into()),
                false => Err(ManagerError::Refused { what, reason: Reason::NoMap }),
            },
            (b'E', None) => Err(ManagerError::Refused { what, reason: Reason::NoMap }),
            (byte, last) => {
                let count = descriptors.len() + usize::from(last.is_some());
                Err(self.wire.odd(&what, &format_args!("byte {byte:02x} with {count} descriptors")))
            }
        }
    }

    /// Lets UDP datagrams to a port go on to sockets, instead of the kernel's stack.
    ///
    /// # Errors
    /// [`ManagerError`]: the interface is not this connection's.
    pub fn add_port(&mut self, interface: u32, port: u16) -> Result<(), ManagerError> {
        let what = format!("UDP port {port} of interface {interface}");
        self.done(&Request::AddUdpPort { interface_index: interface, port }, &what)
    }

    /// No longer. It ends with the connection as well.
    ///
    /// # Errors
    /// [`ManagerError`]: it was not added by this connection.
    pub fn delete_port(&mut self, interface: u32, port: u16) -> Result<(), ManagerError> {
        let what = format!("giving back UDP port {port} of interface {interface}");
        self.done(&Request::DelUdpPort { interface_index: interface, port }, &what)
    }

    /// Makes the card lead UDP datagrams over IPv4 to a port to a queue: the location of the rule.
    /// A card without such rules spreads them over all queues.
    ///
    /// # Errors
    /// [`ManagerError`]: the card cannot, its table is full, or the queue is not this connection's.
    pub fn steer(&mut self, interface: u32, port: u16, queue: u32) -> Result<u32, ManagerError> {
        /// `UDP_V4_FLOW` of `linux/ethtool.h`, the only type that clients of libmtl ask for.
        const UDP_V4_FLOW: u32 = 2;
        let what = format!("UDP port {port} of interface {interface} to queue {queue}");
        let Ok(queue) = u16::try_from(queue) else { return Err(no_such(what)) };
        let any = WireAddress::new(Ipv4Addr::UNSPECIFIED, DIALECT);
        let flow = Flow {
            interface_index: interface,
            queue,
            flow_type: UDP_V4_FLOW,
            source: any,
            destination: any,
            source_port: 0,
            destination_port: port,
        };
        match self.ask(&Request::AddFlow(flow), &what)? {
            Reply::FlowId(location) if location > 0 => Ok(location.unsigned_abs()),
            Reply::FlowId(code) => Err(refused(what, code)),
            other => Err(self.wire.odd(&what, &other)),
        }
    }

    /// Removes the rule at `location` before the connection ends.
    ///
    /// # Errors
    /// [`ManagerError`]: it is not this connection's.
    pub fn unsteer(&mut self, interface: u32, location: u32) -> Result<(), ManagerError> {
        let what = format!("removing rule {location} of interface {interface}");
        self.done(&Request::DelFlow { interface_index: interface, location }, &what)
    }

    /// Whether the manager is alive and answers. It need not be registered with.
    ///
    /// # Errors
    /// [`ManagerError::Silent`]: it did not answer. A manager of dialect 1.0 never does, so this
    /// error leaves the connection as good as it was.
    pub fn heartbeat(&mut self) -> Result<(), ManagerError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let what = format!("heartbeat {sequence}");
        self.wire.send(&Request::Heartbeat { sequence }.encode(DIALECT), &what)?;
        match self.wire.heartbeat(sequence, &what)? {
            // The manager of 1.1 refuses in the type of its own, as one that does not know it would.
            Reply::HeartbeatAck(_) => Ok(()),
            Reply::Response(code) if code < 0 => Err(refused(what, code)),
            other => Err(self.wire.odd(&what, &other)),
        }
    }

    /// Asks for what is answered by a record.
    fn ask(&mut self, request: &Request, what: &str) -> Result<Reply, ManagerError> {
        self.wire.send(&request.encode(DIALECT), what)?;
        self.wire.reply(what)
    }

    /// Asks for what is done or not.
    fn done(&mut self, request: &Request, what: &str) -> Result<(), ManagerError> {
        match self.ask(request, what)? {
            Reply::Response(0) => Ok(()),
            Reply::Response(code) if code < 0 => Err(refused(what, code)),
            other => Err(self.wire.odd(what, &other)),
        }
    }
}

const DIALECT: Dialect = Dialect::V1_1;

fn refused(what: impl Display, code: i32) -> ManagerError {
    ManagerError::Refused { what: what.to_string(), reason: Reason::of(code) }
}

/// A number that no queue has, so no manager has to be asked.
fn no_such(what: String) -> ManagerError {
    ManagerError::Refused { what, reason: Reason::Invalid }
}
