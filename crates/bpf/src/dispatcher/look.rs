//! Dispatchers as somebody sees them who looks at all interfaces again and again.

use super::error::DispatcherError;
use super::lock::Dispatcher;
use super::place::is_pass;
use super::read::{Attached, AttachedBy, Attachment, Chain, Component, Legacy};
use super::{Version, sys};
use crate::error::Error;
use crate::pins;
use pointsman_model::observed::{AttachMode, ObservedComponent, ObservedDispatcher};
use rustix::io::Errno;

impl Dispatcher {
    /// What the program `id`, which is attached to an interface of whatever network namespace,
    /// runs; `None`: it is no dispatcher, or it is gone. One without pins in which nothing runs can be
    /// changed with [`Options::take_empty`](super::Options::take_empty).
    #[must_use]
    pub fn observe(
        &self,
        interface_index: u32,
        id: u32,
        mode: AttachMode,
    ) -> Option<ObservedDispatcher> {
        let lock = self.lock_if_there();
        let read = || match sys::open_program(id) {
            Ok(program) => self.read_program(interface_index, program, mode),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(Attached::Nothing),
            Err(e) => Err(Error::os(format!("open program {id}"), e).into()),
        };
        match lock.and_then(|_lock| read()) {
            Ok(attached) => told(attached.or_empty()),
            Err(e) => Some(closed(0, e.to_string())),
        }
    }

    /// Whether the pins of a dispatcher that was read are still there. All else of it never changes.
    #[must_use]
    pub fn is_pinned(&self, interface_index: u32, id: u32, slots: usize) -> bool {
        let files = pins::list(&self.directory(interface_index, id)).unwrap_or_default();
        let is_there = |file: String| files.binary_search(&file).is_ok();
        (0..slots)
            .all(|at| ["link", "prog"].iter().all(|kind| is_there(format!("prog{at}-{kind}"))))
    }
}

/// A dispatcher of which nothing but its being there is known.
fn closed(version: u32, why: String) -> ObservedDispatcher {
    ObservedDispatcher { version, fixed: Some(why), components: Vec::new() }
}

fn told(attached: Attached) -> Option<ObservedDispatcher> {
    match attached {
        Attached::Nothing => None,
        Attached::Legacy { why: why @ Legacy::Pins { version, partly, .. }, .. } => {
            let advice = match partly {
                true => {
                    "somebody removed some of its pins, and the rest runs on: `xdp-loader unload \
                     --all` takes it off"
                }
                false => {
                    "start the daemon with a --bpffs in the BPF filesystem of its loader, or \
                     unload it with that"
                }
            };
            Some(closed(version.number().into(), format!("{why}: {advice}")))
        }
        Attached::Legacy { .. } => None,
        Attached::Newer { program, version } => {
            let why = DispatcherError::Newer { program: program.id, version };
            Some(closed(version, why.to_string()))
        }
        Attached::Broken { program: Attachment { id: program, .. }, why } => {
            let why = DispatcherError::Broken { program, why };
            Some(closed(0, format!("{why}: unload it with the tool that loaded it")))
        }
        Attached::Chain(chain) => Some(ObservedDispatcher {
            version: chain.version.number().into(),
            fixed: fixed(&chain),
            components: chain.components.iter().map(component).collect(),
        }),
    }
}

/// Why a dispatcher that can be read cannot be changed.
fn fixed(chain: &Chain) -> Option<String> {
    let Chain { program, version, bound, components, .. } = chain;
    if *version < Version::V2 {
        let why = DispatcherError::Older { program: program.id, version: *version };
        return Some(why.to_string());
    }
    if let AttachedBy::Link(link) = program.attached_by() {
        let why = DispatcherError::AttachedByLink { program: program.id, link };
        return Some(why.to_string());
    }
    if *bound {
        return Some(format!(
            "the programs of the dispatcher (program {}) are bound to its device, and ours are \
             not: unload them, and load them without being bound",
            program.id
        ));
    }
    let still = components.iter().find(|component| !component.movable)?;
    Some(format!(
        "program {} ({}) in the dispatcher is not of type EXT with type information and cannot be \
         moved: unload it",
        still.name, still.id
    ))
}

fn component(component: &Component) -> ObservedComponent {
    ObservedComponent {
        id: component.id,
        name: component.name.clone(),
        tag: component.tag.clone(),
        priority: component.priority,
        actions: component.actions.known(),
        frags: component.frags,
        passes: is_pass(component),
    }
}
