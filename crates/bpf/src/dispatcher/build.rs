//! A new dispatcher around a list of programs, not attached yet.

use super::DISPATCHER_NAME;
use super::config::{Config, FLAG_BOUND, FLAG_FRAGS, MAX_PROGRAMS, SlotConfig, Version};
use super::error::DispatcherError;
use super::lock::Dispatcher;
use super::probe;
use super::program::Program;
use super::read::Component;
use super::sys;
use crate::alone::verifier_error;
use crate::error::Error;
use crate::kernel::{Load, Place};
use crate::member::{self, Code};
use crate::object::Object;
use libbpf_sys::{BTF_KIND_FUNC, bpf_object__btf, bpf_object__btf_fd, btf__find_by_name_kind};
use rustix::io::Errno;
use std::ffi::CString;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A program on its way into a dispatcher.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// One that is loaded already.
    Kept(&'a Component),
    /// One of ours.
    New(&'a Program),
}

/// A program, and what the dispatcher is told about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) part: Part<'a>,
    pub(super) slot: SlotConfig,
}

/// A dispatcher with all its programs in place.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) id: u32,
    pub(super) program: OwnedFd,
    /// Per slot the link that holds it, and its program.
    pub(super) slots: Vec<(OwnedFd, OwnedFd)>,
}

/// The object of a dispatcher.
pub(super) fn object(version: Version, changes_packets: bool) -> &'static [u8] {
    match (version, changes_packets) {
        (Version::V1 | Version::V2, false) => {
            include_bytes!(concat!(env!("OUT_DIR"), "/xdp_dispatcher_2.o"))
        }
        (Version::V1 | Version::V2, true) => {
            include_bytes!(concat!(env!("OUT_DIR"), "/xdp_dispatcher_2_changes.o"))
        }
        (Version::V3, false) => include_bytes!(concat!(env!("OUT_DIR"), "/xdp_dispatcher_3.o")),
        (Version::V3, true) => {
            include_bytes!(concat!(env!("OUT_DIR"), "/xdp_dispatcher_3_changes.o"))
        }
    }
}

impl Dispatcher {
    /// Loads programs for slots and runs them nowhere. What is loaded for a function of another
    /// program keeps that alive until it first takes its place: that of a dispatcher that is thrown
    /// away. It can go into any other then.
    pub(crate) fn load(&self, programs: &[Program]) -> Result<(), DispatcherError> {
        if programs.len() > MAX_PROGRAMS {
            return Err(DispatcherError::TooMany { count: programs.len() });
        }
        let placed = |program| Placed { part: Part::New(program), slot: SlotConfig::default() };
        let parts: Vec<_> = programs.iter().map(placed).collect();
        build(self.version(), None, &parts).map(drop)
    }
}

/// Builds a dispatcher of `version` around `parts`, in the order given; bound to an interface if
/// there is one.
pub(super) fn build(
    version: Version,
    bound: Option<u32>,
    parts: &[Placed<'_>],
) -> Result<Built, DispatcherError> {
    let frags = parts.iter().all(|part| part.slot.flags & FLAG_FRAGS != 0) && probe::frags();
    let config = Config {
        version,
        frags,
        bound: bound.is_some(),
        slots: parts.iter().map(|part| configured(part, bound.is_some())).collect(),
    };
    let dispatcher = Loaded::load(&config, bound)?;
    let mut slots = Vec::with_capacity(parts.len());
    for (at, placed) in parts.iter().enumerate() {
        // A lone program takes the place of the dispatcher itself, as libxdp's do.
        let function = match parts.len() {
            1 => DISPATCHER_NAME.to_owned(),
            _ => format!("prog{at}"),
        };
        slots.push(dispatcher.put(placed.part, &function)?);
    }
    Ok(Built { id: dispatcher.id, program: dispatcher.program, slots })
}

fn configured(placed: &Placed<'_>, bound: bool) -> SlotConfig {
    let flags = placed.slot.flags & !FLAG_BOUND;
    SlotConfig { flags: if bound { flags | FLAG_BOUND } else { flags }, ..placed.slot }
}

/// A dispatcher whose slots are not filled yet.
struct Loaded {
    /// Knows the functions of the dispatcher by name.
    object: Object,
    program: OwnedFd,
    id: u32,
}

impl Loaded {
    fn load(config: &Config, bound: Option<u32>) -> Result<Self, DispatcherError> {
        let object = Object::open(object(config.version, probe::functions_must_change_packets()))?;
        for map in object.maps() {
            map.with_initial_value(|bytes| {
                let configuration = config.encode();
                if let Some(place) = bytes.get_mut(..configuration.len()) {
                    place.copy_from_slice(&configuration);
                }
            });
        }
        let selected = object.select(Some(DISPATCHER_NAME))?;
        member::configure(&object, selected)?;
        member::prepare(&object)?;
        let code = Code::of(object.select(Some(DISPATCHER_NAME))?)?;
        // SAFETY: the object is prepared; without types in the kernel it would not have been.
        let btf = unsafe {
            let fd = bpf_object__btf_fd(object.as_ptr());
            (fd >= 0).then(|| BorrowedFd::borrow_raw(fd))
        };
        let why = || "it takes no type information (BTF)".to_owned();
        let btf = btf.ok_or_else(|| DispatcherError::NoFreplace { why: why() })?;
        let load = Load {
            name: DISPATCHER_NAME,
            licence: object.licence(),
            instructions: &code.instructions,
            btf: Some(btf),
            functions: &code.functions,
            lines: &code.lines,
            frags: config.frags,
            place: bound.map_or(Place::Anywhere, Place::Bound),
        };
        let (program, _) = load.load().map_err(|refused| match (bound, refused.error.kind()) {
            // The verifier is not asked: flag and device are looked at before.
            (Some(_), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                let why = "the kernel refuses to bind one: this takes Linux 6.3 and a driver that \
                           gives metadata to programs";
                DispatcherError::Bound { why }
            }
            _ => verifier_error(DISPATCHER_NAME, &refused.error, &refused.log).into(),
        })?;
        let id = sys::details(program.as_fd())?.id;
        Ok(Self { object, program, id })
    }

    /// Puts a program in place of a function. Returns the link that holds it there, and it.
    fn put(&self, part: Part<'_>, function: &str) -> Result<(OwnedFd, OwnedFd), DispatcherError> {
        let (target, function) = (self.program.as_fd(), self.function(function)?);
        let (name, program) = match part {
            Part::Kept(component) if !component.movable => {
                let why = "it is not of type EXT with type information, and cannot be moved";
                let name = component.name.clone();
                return Err(DispatcherError::Component { name, why: why.into() });
            }
            Part::Kept(component) => (component.name.as_str(), component.program.as_fd()),
            Part::New(program) => (program.name(), program.load_for(target, function)?),
        };
        let link = sys::replace_function(program, target, function).map_err(|e| {
            // Before 5.10 a program cannot be moved from one target to another.
            let why = match Errno::from_io_error(&e) {
                Some(Errno::PERM) => "it refuses freplace".to_owned(),
                Some(Errno::INVAL) => format!("{name} cannot replace a function of it: {e}"),
                _ => return Error::os(format!("put {name} into its slot"), e).into(),
            };
            DispatcherError::NoFreplace { why }
        })?;
        let own = program.try_clone_to_owned();
        Ok((link, own.map_err(|e| Error::os(format!("hold program {name}"), e))?))
    }

    /// The BTF id of one of the dispatcher's functions.
    fn function(&self, name: &str) -> Result<u32, DispatcherError> {
        let text = CString::new(name).expect("invariant: names of functions have no zero byte");
        // SAFETY: the object is open, the name is zero-terminated.
        let id = unsafe {
            btf__find_by_name_kind(
                bpf_object__btf(self.object.as_ptr()),
                text.as_ptr(),
                BTF_KIND_FUNC,
            )
        };
        let missing = || Error::Prepare { message: format!("the dispatcher has no {name}") };
        Ok(u32::try_from(id).map_err(|_| missing())?)
    }
}
