//! Which programs run in slots, in whatever network namespace.

use super::clean::parse;
use super::error::DispatcherError;
use super::lock::Dispatcher;
use super::{namespaces, netlink, sys};
use crate::{kernel, pins};
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

impl Dispatcher {
    /// Those of `ids` that stand in a dispatcher that is attached somewhere.
    ///
    /// # Errors
    /// The lock is held, or something cannot be looked at.
    pub fn running(&self, ids: &BTreeSet<u32>) -> Result<BTreeSet<u32>, DispatcherError> {
        // Whoever attaches a dispatcher has pinned it, and unpins the one before under the lock.
        let Some(_lock) = self.lock_if_there()? else { return Ok(BTreeSet::new()) };
        let mut holders = Vec::new();
        for name in pins::list(self.root())? {
            let Some((index, dispatcher)) = parse(&name) else { continue };
            let mut held = self.pinned_in(&name)?;
            held.retain(|id| ids.contains(id));
            if !held.is_empty() {
                holders.push((index, dispatcher, held));
            }
        }
        // Pins of dispatchers that run no more are left behind by crashes.
        let mut anywhere = None;
        let mut running = BTreeSet::new();
        for (index, dispatcher, mut held) in holders {
            let here = netlink::hook(index).ok().and_then(|hook| hook.software);
            let attached = match (here, &anywhere) {
                (Some((id, _)), _) if id == dispatcher => true,
                (_, Some(found)) => BTreeSet::contains(found, &dispatcher),
                (_, None) => anywhere.insert(namespaces::running()?).contains(&dispatcher),
            };
            if attached {
                running.append(&mut held);
            }
        }
        Ok(running)
    }

    /// The programs that are pinned in a dispatcher's directory.
    fn pinned_in(&self, directory: &str) -> Result<BTreeSet<u32>, DispatcherError> {
        let directory = self.root().join(directory);
        let mut programs = BTreeSet::new();
        for file in pins::list(&directory)?.iter().filter(|file| file.ends_with("-prog")) {
            if let Some(program) = kernel::open_pin(&directory.join(file))? {
                programs.insert(sys::details(program.as_fd())?.id);
            }
        }
        Ok(programs)
    }
}
