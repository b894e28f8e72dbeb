//! Which programs run in slots, in whatever network namespace.

use super::clean::{Programs, parse};
use super::error::DispatcherError;
use super::lock::Dispatcher;
use super::{namespaces, netlink, sys};
use crate::error::Error;
use crate::{kernel, pins};
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::Path;

/// A dispatcher that is attached, with some of the programs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The interface, as its network namespace counts.
    pub interface_index: u32,
    /// The kernel's id of the dispatcher.
    pub dispatcher: u32,
    /// The programs that were asked for and are in it.
    pub programs: BTreeSet<u32>,
}

impl Dispatcher {
    /// The dispatchers with any of `programs` in them that are attached, in whatever network
    /// namespace.
    ///
    /// # Errors
    /// The lock is held, or something cannot be looked at.
    pub fn holders(&self, programs: &BTreeSet<u32>) -> Result<Vec<Holder>, DispatcherError> {
        // Whoever attaches a dispatcher has pinned it, and unpins the one before under the lock.
        let Some(_lock) = self.lock_if_there()? else { return Ok(Vec::new()) };
        let mut holders = Vec::new();
        for name in pins::list(self.root())? {
            let Some((interface_index, dispatcher)) = parse(&name) else { continue };
            let mut held = self.pinned_in(&name);
            held.retain(|id| programs.contains(id));
            if !held.is_empty() {
                holders.push(Holder { interface_index, dispatcher, programs: held });
            }
        }
        // Crashes leave pins of dispatchers that run no more.
        let mut everywhere = None;
        let mut attached = Vec::new();
        for holder in holders {
            let Holder { interface_index, dispatcher, .. } = holder;
            let here = netlink::hook(interface_index).ok().and_then(|hook| hook.software);
            let runs = match (here, &everywhere) {
                (Some((id, _)), _) if id == dispatcher => true,
                (_, Some(found)) => Programs::contains(found, &dispatcher),
                // What cannot be looked at counts for nothing here: in a container that would be
                // everything, and a chain would never come back to an interface made anew.
                (_, None) => {
                    everywhere.insert(namespaces::running()?.programs).contains(&dispatcher)
                }
            };
            if runs {
                attached.push(holder);
            }
        }
        Ok(attached)
    }

    /// The programs that are pinned in a dispatcher's directory with the links that keep them in it.
    /// What cannot be read is nothing of ours: our own pins are, and a stranger's must not stand in
    /// the way of all looks.
    fn pinned_in(&self, directory: &str) -> BTreeSet<u32> {
        let directory = self.root().join(directory);
        let skipped = |path: &Path, why: &Error| {
            tracing::debug!("{}: {why}; it is left out", path.display());
        };
        let files = pins::list(&directory).inspect_err(|e| skipped(&directory, e));
        let mut programs = BTreeSet::new();
        for file in files.unwrap_or_default() {
            let Some(slot) = file.strip_suffix("-prog") else { continue };
            if !pins::exists(&directory.join(format!("{slot}-link"))) {
                continue;
            }
            let path = directory.join(&file);
            match kernel::open_pin(&path) {
                Ok(Some(program)) => match sys::details(program.as_fd()) {
                    Ok(details) => drop(programs.insert(details.id)),
                    Err(e) => skipped(&path, &e),
                },
                Ok(None) => {}
                Err(e) => skipped(&path, &e),
            }
        }
        programs
    }
}
