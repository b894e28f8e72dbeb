//! The maps by which instances get packets: which ports go on, and whose sockets a queue feeds.
//!
//! The two programs of instances have them (`bpf/instance_filter.c`, `bpf/xsk_def_prog.c`). A map is
//! known here by the kernel's number for it, and is held open while it is used.

mod held;
mod look;

use crate::error::Error;
use crate::maps::set_entries;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapInfo, MapType};
use libbpf_sys as sys;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

pub use look::{Bound, Found, Looker};

/// Places of a map of sockets, and of the map of owners: receive queues are below this.
pub const QUEUES: u32 = 1024;

/// As many ports as there are.
const PORTS: u32 = 1 << 16;

/// The ports that go on to sockets, a byte for each: 1 is listed.
#[derive(Debug)]
pub enum Ports {
    /// As one value, which the program reads without a lookup: [`instance_filter`].
    ///
    /// [`instance_filter`]: crate::instance_filter
    InOne(MapHandle),
    /// A value for each, as the built-in filter has them.
    Each(MapHandle),
}

/// By receive queue: whose sockets it feeds.
#[derive(Debug)]
pub struct Owners(MapHandle);

/// The sockets of one owner.
#[derive(Debug)]
pub struct Sockets(MapHandle);

fn open(id: u32, what: &str, form: (MapType, u32, u32, u32)) -> Result<MapHandle, Error> {
    let failed = |why: String| Error::Map { map: what.to_owned(), why };
    let map = MapHandle::from_map_id(id).map_err(|e| failed(e.to_string()))?;
    let found = (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
    if found != form {
        return Err(failed(format!(
            "type, key, value and entries are {found:?}, expected {form:?}: it is not one that \
             instances can use"
        )));
    }
    Ok(map)
}

fn failed(what: &str, error: &libbpf_rs::Error) -> Error {
    Error::Map { map: what.to_owned(), why: error.to_string() }
}

impl Ports {
    const WHAT: &str = "ports";

    /// Opens the map of this number: that of the filter of instances, or that of the built-in
    /// filter where an operator has placed it.
    ///
    /// # Errors
    /// There is none, or it has another form.
    pub fn open(id: u32) -> Result<Self, Error> {
        match open(id, Self::WHAT, (MapType::Array, 4, 1, PORTS)) {
            Ok(map) => Ok(Self::Each(map)),
            // What is neither is told by what instances have.
            Err(_) => open(id, Self::WHAT, (MapType::Array, 4, PORTS, 1)).map(Self::InOne),
        }
    }

    /// Lists a port, or takes it out.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn list(&self, port: u16, listed: bool) -> Result<(), Error> {
        match self {
            Self::InOne(map) => {
                let mut value = value(map)?;
                value[place(port)] = listed.into();
                write(map, &value)
            }
            Self::Each(map) => {
                let key = u32::from(port).to_ne_bytes();
                let set = map.update(&key, &[listed.into()], MapFlags::ANY);
                set.map_err(|e| failed(Self::WHAT, &e))
            }
        }
    }

    /// Lists these ports and no others. A port that stays listed is so all the time.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn list_all(&self, ports: &BTreeSet<u16>) -> Result<(), Error> {
        match self {
            Self::InOne(map) => {
                // A packet meets each byte as it was or as it will be.
                let mut value = vec![0; PORTS as usize];
                ports.iter().for_each(|port| value[place(*port)] = 1);
                write(map, &value)
            }
            Self::Each(map) => {
                let entry = |port: &u16| (u32::from(*port).to_ne_bytes().to_vec(), vec![1]);
                set_entries(map, Self::WHAT, &ports.iter().map(entry).collect::<Vec<_>>())
            }
        }
    }

    /// The ports that are listed.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn listed(&self) -> Result<BTreeSet<u16>, Error> {
        let is_listed = |value: &[u8]| value != [0];
        let all = 0..=u16::MAX;
        match self {
            Self::InOne(map) => {
                let value = value(map)?;
                Ok(all.filter(|port| is_listed(&value[place(*port)..][..1])).collect())
            }
            Self::Each(map) => {
                let mut ports = BTreeSet::new();
                for port in all {
                    let key = u32::from(port).to_ne_bytes();
                    let value = map.lookup(&key, MapFlags::ANY);
                    let value = value.map_err(|e| failed(Self::WHAT, &e))?;
                    if value.is_some_and(|value| is_listed(&value)) {
                        ports.insert(port);
                    }
                }
                Ok(ports)
            }
        }
    }
}

/// Where a port is in the one value: packets have it in network order.
fn place(port: u16) -> usize {
    usize::from(port.to_be())
}

/// The one value of a map with all ports.
fn value(map: &MapHandle) -> Result<Vec<u8>, Error> {
    let found = map.lookup(&[0; 4], MapFlags::ANY).map_err(|e| failed(Ports::WHAT, &e))?;
    Ok(found.unwrap_or_else(|| vec![0; PORTS as usize]))
}

fn write(map: &MapHandle, value: &[u8]) -> Result<(), Error> {
    map.update(&[0; 4], value, MapFlags::ANY).map_err(|e| failed(Ports::WHAT, &e))
}

impl Owners {
    const WHAT: &str = "owners";

    /// Opens the map of this number.
    ///
    /// # Errors
    /// There is none, or it has another form.
    pub fn open(id: u32) -> Result<Self, Error> {
        open(id, Self::WHAT, (MapType::ArrayOfMaps, 4, 4, QUEUES)).map(Self)
    }

    /// Feeds a queue from these sockets; `None`: from those that all share. When it returns, no
    /// program that saw another owner runs any more.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set(&self, queue: u32, sockets: Option<&Sockets>) -> Result<(), Error> {
        let key = queue.to_ne_bytes();
        let set = match sockets {
            Some(Sockets(map)) => {
                let value = map.as_fd().as_raw_fd().to_ne_bytes();
                self.0.update(&key, &value, MapFlags::ANY)
            }
            // Not looked at before: until Linux 6.8 that waits as long as this does.
            None => match self.0.delete(&key) {
                Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
                deleted => deleted,
            },
        };
        set.map_err(|e| failed(Self::WHAT, &e))
    }

    /// The queues that are not fed from the shared sockets. To ask for each its [`Self::number`]
    /// would take seconds.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn held(&self) -> Result<BTreeSet<u32>, Error> {
        held::held(self.0.as_fd())
    }

    /// The kernel's number for the map of sockets that feeds a queue; `None`: it is the shared one.
    /// Until Linux 6.8 this waits for all programs that are running.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn number(&self, queue: u32) -> Result<Option<u32>, Error> {
        let found = self.0.lookup(&queue.to_ne_bytes(), MapFlags::ANY);
        let found = found.map_err(|e| failed(Self::WHAT, &e))?;
        let number = found.and_then(|value| value.try_into().ok()).map(u32::from_ne_bytes);
        Ok(number.filter(|number| *number != 0))
    }
}

impl Sockets {
    const WHAT: &str = "xsks_map";

    /// A new one without sockets, by this name: at most 15 bytes.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn create(name: &str) -> Result<Self, Error> {
        let options = sys::bpf_map_create_opts {
            sz: size_of::<sys::bpf_map_create_opts>() as sys::size_t,
            ..Default::default()
        };
        let made = MapHandle::create(MapType::Xskmap, Some(name), 4, 4, QUEUES, &options);
        made.map(Self).map_err(|e| failed(Self::WHAT, &e))
    }

    /// Opens the map of this number.
    ///
    /// # Errors
    /// There is none, or it has another form.
    pub fn open(id: u32) -> Result<Self, Error> {
        open(id, Self::WHAT, (MapType::Xskmap, 4, 4, QUEUES)).map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.name().to_string_lossy().into_owned()
    }

    /// The kernel's number for it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn number(&self) -> Result<u32, Error> {
        let info = MapInfo::new(self.0.as_fd()).map_err(|e| failed(Self::WHAT, &e))?;
        Ok(info.info.id)
    }

    /// A descriptor of it, to be handed over.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn hand_over(&self) -> std::io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Puts a socket at the place of a queue.
    ///
    /// # Errors
    /// The kernel's answer: it is no AF_XDP socket, or not one that was bound.
    pub fn put(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        let value = socket.as_raw_fd().to_ne_bytes();
        let put = self.0.update(&queue.to_ne_bytes(), &value, MapFlags::ANY);
        put.map_err(|e| failed(Self::WHAT, &e))
    }
}
