//! What runs on an interface.

use super::config::{Actions, Config, FLAG_FRAGS, MAX_PROGRAMS, SlotConfig, Version};
use super::error::DispatcherError;
use super::lock::{Dispatcher, Lock};
use super::names;
use super::netlink;
use super::order::Rank;
use super::place::is_pass;
use super::recognise::{Broken, NoDispatcher, Recognised, Seen, recognise, rule_out};
use super::sys::{self, Details};
use crate::error::Error;
use crate::kernel;
use crate::pins;
use libbpf_sys::BPF_PROG_TYPE_EXT;
use pointsman_model::observed::AttachMode;
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// What is attached to an interface, as far as dispatchers go.
#[derive(Debug)]
pub enum Attached {
    /// Nothing.
    Nothing,
    /// One program that nothing can join.
    Legacy {
        /// The program.
        program: Attachment,
        /// Why nothing can.
        why: Legacy,
    },
    /// A dispatcher of a version that is not known here.
    Newer {
        /// The program.
        program: Attachment,
        /// Its version.
        version: u32,
    },
    /// A dispatcher that cannot be read.
    Broken {
        /// The program.
        program: Attachment,
        /// What is wrong with it.
        why: Broken,
    },
    /// A dispatcher with its programs.
    Chain(Box<Chain>),
}

/// An attached program.
#[derive(Debug)]
pub struct Attachment {
    /// The kernel's id.
    pub id: u32,
    /// Its whole name.
    pub name: String,
    /// Sixteen hexadecimal digits.
    pub tag: String,
    /// Where in the receive path.
    pub mode: AttachMode,
    pub(super) interface_index: u32,
    pub(super) program: OwnedFd,
}

/// What holds a program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachedBy {
    /// Nobody: it was attached over netlink and stays until it is replaced.
    Netlink,
    /// A BPF link, of this id.
    Link(u32),
}

/// Why nothing can join a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Legacy {
    /// It is no dispatcher.
    #[error(transparent)]
    NoDispatcher(#[from] NoDispatcher),
    /// It runs on the network card.
    #[error("it runs on the network card")]
    Offloaded,
    /// Its pins are not here: it was made with another BPF filesystem, or they were removed.
    #[error("the pins of its programs cannot be read: {why}")]
    Pins {
        /// The version of the protocol that it says.
        version: Version,
        /// Whether some of them are here.
        partly: bool,
        /// What is wrong with them.
        why: String,
    },
}

/// A dispatcher with its programs.
#[derive(Debug)]
pub struct Chain {
    /// The dispatcher.
    pub program: Attachment,
    /// The version of the protocol.
    pub version: Version,
    /// Whether it takes packets of several buffers.
    pub frags: bool,
    /// Whether it is bound to its device.
    pub bound: bool,
    /// The programs, in the order they run.
    pub components: Vec<Component>,
    /// How many slots are pinned.
    pub(super) slots: usize,
}

/// A program in a slot.
#[derive(Debug)]
pub struct Component {
    /// The kernel's id: what it is known by as long as it lives.
    pub id: u32,
    /// Its whole name.
    pub name: String,
    /// Sixteen hexadecimal digits.
    pub tag: String,
    /// Its priority.
    pub priority: u32,
    /// The verdicts after which the chain goes on.
    pub actions: Actions,
    /// Whether it takes packets of several buffers.
    pub frags: bool,
    /// Whether it can be carried along: of type EXT and with type information.
    pub movable: bool,
    /// The kernel's ids of its maps.
    pub maps: Vec<u32>,
    /// How often it ran while the kernel kept count (`kernel.bpf_stats_enabled`).
    pub runs: u64,
    /// And for how long in all.
    pub run_nanoseconds: u64,
    pub(super) flags: u32,
    pub(super) raw_tag: [u8; 8],
    pub(super) loaded_at: u64,
    pub(super) program: OwnedFd,
}

impl Attachment {
    /// What holds it.
    #[must_use]
    pub fn attached_by(&self) -> AttachedBy {
        let link = sys::xdp_link(self.id, self.interface_index);
        link.map_or(AttachedBy::Netlink, |(id, _)| AttachedBy::Link(id))
    }
}

impl Component {
    /// A loaded program, and what a dispatcher is told about it.
    pub(crate) fn of(program: OwnedFd, slot: &SlotConfig) -> Result<Self, Error> {
        let details = sys::details(program.as_fd())?;
        Ok(Self {
            id: details.id,
            name: whole_name(&details),
            tag: hex(details.tag),
            priority: slot.priority,
            actions: slot.actions,
            frags: slot.flags & FLAG_FRAGS != 0,
            movable: details.kind == BPF_PROG_TYPE_EXT && details.types != 0,
            runs: details.runs,
            run_nanoseconds: details.run_nanoseconds,
            flags: slot.flags,
            raw_tag: details.tag,
            loaded_at: details.loaded_at,
            maps: details.maps,
            program,
        })
    }

    /// Whether it is our program that passes everything.
    #[must_use]
    pub fn passes(&self) -> bool {
        is_pass(self)
    }

    /// Whether its type information knows a function called `name`.
    pub(super) fn knows(&self, name: &str) -> bool {
        let functions = sys::types_of(self.id).map(|btf| sys::functions(&btf));
        functions.unwrap_or_default().iter().any(|function| function == name)
    }

    pub(super) fn rank(&self) -> Rank<'_> {
        Rank {
            priority: self.priority,
            name: &self.name,
            loaded: Some((self.raw_tag, self.loaded_at)),
            instructions: 0,
        }
    }
}

impl Dispatcher {
    /// Reads what runs on an interface of this thread's network namespace.
    ///
    /// # Errors
    /// There is no such interface, the lock is held, or the kernel refuses.
    pub fn read(&self, interface_index: u32) -> Result<Attached, DispatcherError> {
        let lock = self.lock_if_there()?;
        self.read_locked(interface_index, lock.as_ref())
    }

    /// The same with the lock held. Pins change under the lock alone, so what is attached cannot
    /// lose its pins meanwhile.
    pub(super) fn read_locked(
        &self,
        interface_index: u32,
        _lock: Option<&Lock>,
    ) -> Result<Attached, DispatcherError> {
        /// A program that is gone was replaced: the next look finds its successor.
        const TRIES: usize = 10;
        for _ in 0..TRIES {
            let Some((id, mode)) = attached(interface_index)? else {
                return Ok(Attached::Nothing);
            };
            match sys::open_program(id) {
                Ok(program) => return self.read_program(interface_index, program, mode),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => {}
                Err(e) => return Err(Error::os(format!("open program {id}"), e).into()),
            }
        }
        Err(DispatcherError::Race { tries: TRIES as u32 })
    }

    pub(super) fn read_program(
        &self,
        interface_index: u32,
        program: OwnedFd,
        mode: AttachMode,
    ) -> Result<Attached, DispatcherError> {
        let details = sys::details(program.as_fd())?;
        let seen =
            Seen { name: &details.name, has_types: details.types != 0, maps: details.maps.len() };
        let ruled_out = match mode {
            AttachMode::Offload => Some(Legacy::Offloaded),
            _ => rule_out(&seen).map(Legacy::from),
        };
        let program = Attachment {
            id: details.id,
            name: whole_name(&details),
            tag: hex(details.tag),
            mode,
            interface_index,
            program,
        };
        if let Some(why) = ruled_out {
            return Ok(Attached::Legacy { program, why });
        }
        let map = sys::seen_map(details.maps[0])?;
        let in_types = || sys::metadata(&sys::types_of(details.id)?, "dispatcher_version");
        let config = match recognise(&map, in_types) {
            Recognised::Dispatcher(config) => config,
            Recognised::Other(why) => return Ok(Attached::Legacy { program, why: why.into() }),
            Recognised::Newer(version) => return Ok(Attached::Newer { program, version }),
            Recognised::Broken(why) => return Ok(Attached::Broken { program, why }),
        };
        match self.components(&program, &config) {
            Ok(components) => {
                let Config { version, frags, bound, .. } = config;
                let slots = components.len();
                let chain = Chain { program, version, frags, bound, components, slots };
                Ok(Attached::Chain(Box::new(chain)))
            }
            Err(e) => {
                let partly = pins::exists(&self.directory(program.interface_index, program.id));
                let why = Legacy::Pins { version: config.version, partly, why: e.to_string() };
                Ok(Attached::Legacy { program, why })
            }
        }
    }

    fn components(&self, program: &Attachment, config: &Config) -> Result<Vec<Component>, Error> {
        let directory = self.directory(program.interface_index, program.id);
        let component = |(at, slot): (usize, &SlotConfig)| {
            let [path, link] =
                ["prog", "link"].map(|kind| directory.join(format!("prog{at}-{kind}")));
            let missing = |path: &Path| Error::Pin {
                path: path.display().to_string(),
                why: "is not there".into(),
            };
            let program = kernel::open_pin(&path)?.ok_or_else(|| missing(&path))?;
            // Without it the slot ended, and what is pinned runs there no more.
            if !pins::exists(&link) {
                return Err(missing(&link));
            }
            Component::of(program, slot)
        };
        config.slots.iter().enumerate().map(component).collect()
    }
}

impl Attached {
    /// The same, with a dispatcher in which nothing runs any more as an empty one. Whoever removes
    /// the pins of a dispatcher ends the links of its programs; the kernel then lets every packet
    /// through it, and nobody can do anything with it but replace it.
    pub(super) fn or_empty(self) -> Self {
        match self {
            Self::Legacy { program, why: Legacy::Pins { version, .. } }
                if !sys::is_replaced_in(program.id) =>
            {
                let components = Vec::new();
                // Of all slots that there can be: some pins may be left.
                let (frags, bound, slots) = (false, false, MAX_PROGRAMS);
                Self::Chain(Box::new(Chain { program, version, frags, bound, components, slots }))
            }
            other => other,
        }
    }
}

/// The program on an interface: in the driver, behind the socket buffer, or on the card.
fn attached(interface_index: u32) -> Result<Option<(u32, AttachMode)>, DispatcherError> {
    let hook = netlink::hook(interface_index).map_err(|e| match e {
        Error::Os { source, .. } if Errno::from_io_error(&source) == Some(Errno::NODEV) => {
            DispatcherError::NoInterface { interface_index }
        }
        e => e.into(),
    })?;
    Ok(hook.software.or(hook.offloaded.map(|id| (id, AttachMode::Offload))))
}

/// The whole name of a program, of which the kernel may have kept the beginning.
fn whole_name(details: &Details) -> String {
    if details.name.len() < names::KERNEL_NAME || details.types == 0 {
        return details.name.clone();
    }
    let functions = sys::types_of(details.id).map(|btf| sys::functions(&btf)).unwrap_or_default();
    names::whole(&details.name, functions.iter().map(String::as_str))
}

fn hex(tag: [u8; 8]) -> String {
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}
