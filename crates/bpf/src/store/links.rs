//! The links of hooks: pinned, and held open as well, so that a link that somebody unpins runs on.

use super::{Store, lock};
use crate::error::Error;
use crate::kernel::{Link, LinkInfo};
use crate::pins;
use pointsman_model::HookId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A hook's link, and whether it is pinned.
#[derive(Debug)]
pub(super) struct HookLink {
    pub(super) link: Arc<Link>,
    pub(super) info: LinkInfo,
    pub(super) pinned: bool,
}

/// What is held open beside the pins.
#[derive(Debug)]
pub(super) struct Held {
    links: Mutex<BTreeMap<HookId, Arc<Link>>>,
    /// The programs of slots that run in dispatchers, as was last seen or done.
    slots: Mutex<BTreeMap<HookId, BTreeSet<u32>>>,
    /// The hooks of which it could not be told what runs, and why, at the last look.
    unsettled: Mutex<BTreeMap<HookId, String>>,
    /// The root, locked for this process.
    root: Mutex<File>,
}

impl Held {
    pub(super) fn new(root: File) -> Self {
        Self {
            links: Mutex::default(),
            slots: Mutex::default(),
            unsettled: Mutex::default(),
            root: Mutex::new(root),
        }
    }

    /// The links by hook. One thread at a time uses a store, so nobody waits here.
    pub(super) fn links(&self) -> MutexGuard<'_, BTreeMap<HookId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots that run by hook.
    pub(super) fn slots(&self) -> MutexGuard<'_, BTreeMap<HookId, BTreeSet<u32>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What could not be told at the last look.
    pub(super) fn unsettled(&self) -> MutexGuard<'_, BTreeMap<HookId, String>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what is held for two hooks each other's names.
    pub(super) fn exchange(&self, one: &HookId, other: &HookId) {
        exchange(&mut self.links(), one, other);
        exchange(&mut self.slots(), one, other);
    }
}

fn exchange<T>(held: &mut BTreeMap<HookId, T>, one: &HookId, other: &HookId) {
    let (first, second) = (held.remove(one), held.remove(other));
    held.extend(first.map(|value| (other.clone(), value)));
    held.extend(second.map(|value| (one.clone(), value)));
}

impl Store {
    /// The link of a hook: the pinned one, or else the one that was pinned and still runs.
    pub(super) fn link(&self, hook: &HookId) -> Result<Option<HookLink>, Error> {
        let mut held = self.held.links();
        if let Some(link) = Link::open(&self.hook(hook).join("link"))? {
            let info = link.info()?;
            let link = Arc::new(link);
            held.insert(hook.clone(), Arc::clone(&link));
            return Ok(Some(HookLink { link, info, pinned: true }));
        }
        let Some(link) = held.get(hook).map(Arc::clone) else { return Ok(None) };
        let info = link.info()?;
        if info.interface_index == 0 {
            held.remove(hook);
            return Ok(None);
        }
        Ok(Some(HookLink { link, info, pinned: false }))
    }

    /// Pins the link of a hook that runs and is not pinned any more.
    ///
    /// # Errors
    /// There is none, or the kernel's answer.
    pub fn pin_link(&self, hook: &HookId) -> Result<(), Error> {
        let path = self.hook(hook).join("link");
        match self.link(hook)? {
            Some(HookLink { link, pinned: false, .. }) => {
                path.parent().map_or(Ok(()), pins::make_directory)?;
                link.pin(&path)
            }
            Some(_) => Ok(()),
            None => Err(Error::Pin {
                path: path.display().to_string(),
                why: "is gone, and the link with it".into(),
            }),
        }
    }

    /// Makes the root again if somebody removed it, and locks the new one.
    pub(super) fn keep_root(&self) -> Result<(), Error> {
        if pins::exists(&self.root) {
            return Ok(());
        }
        let mut root = self.held.root.lock().unwrap_or_else(PoisonError::into_inner);
        *root = lock(&self.root)?;
        Ok(())
    }
}
