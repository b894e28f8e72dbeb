//! Removing chains, and what is left of hooks.

use super::look::{exits, read};
use super::slots::slots_in;
use super::{Store, write};
use crate::error::Error;
use crate::pins;
use pointsman_model::HookId;
use pointsman_model::chain::{ChainId, ChainRecord};
use std::path::Path;

impl Store {
    /// Adds what a chain counted to its hook's totals, once, and unpins it.
    ///
    /// # Errors
    /// The chain is live, or the kernel's answer.
    pub fn retire_chain(&self, chain: &ChainId) -> Result<(), Error> {
        let path = self.chain(chain);
        let live = self.live(&chain.hook)?;
        // What was seen last may be another's doing meanwhile; counters that are gone do not return.
        let runs = !self.holders(&chain.hook, &slots_in(&path)?)?.is_empty();
        if live == Some(chain.sequence) || runs {
            let why = "is the chain that runs".into();
            return Err(Error::Pin { path: path.display().to_string(), why });
        }
        let mut totals = self.totals(&chain.hook);
        // A later number than the live chain's was never attached, and has counted nothing.
        let has_run = live.is_some_and(|live| chain.sequence < live);
        // Without counters its removal was interrupted, and it had not run before that.
        let has_counters =
            pins::exists(&path.join("counters")) || pins::exists(&path.join("slots"));
        if has_run
            && chain.sequence > totals.folded
            && has_counters
            && let Some(record) = read::<ChainRecord>(&path.join("record"))
        {
            wait_for_packets();
            totals.fold(chain.sequence, &record.spec, &exits(&path, &record));
            write(&self.hook(&chain.hook).join("totals"), &totals)?;
        }
        pins::remove_directory(&path)
    }

    /// Unpins what is left of a hook.
    ///
    /// # Errors
    /// The hook still has a link or a slot that runs, or the kernel's answer.
    pub fn release_hook(&self, hook: &HookId) -> Result<(), Error> {
        let path = self.hook(hook);
        let still = |what: &str| {
            let why = format!("still has {what}");
            Err(Error::Pin { path: path.display().to_string(), why })
        };
        if pins::exists(&path.join("link")) {
            return still("a link");
        }
        if !self.holders(hook, &self.all_slots(hook)?)?.is_empty() {
            return still("programs in a dispatcher");
        }
        pins::remove_directory(&path)?;
        self.held.slots().remove(hook);
        self.remove_if_empty(path.parent())
    }

    /// An emptied host leaves nothing behind but the root.
    pub(super) fn remove_if_empty(&self, directory: Option<&Path>) -> Result<(), Error> {
        let mut next = directory;
        while let Some(path) =
            next.filter(|path| path.starts_with(&self.root) && *path != self.root)
        {
            if !pins::list(path)?.is_empty() {
                break;
            }
            pins::remove_directory(path)?;
            next = path.parent();
        }
        Ok(())
    }
}

/// Waits until no packet runs through a chain that was replaced before this call. XDP programs
/// run in RCU read-side critical sections, and this command waits for all of them.
fn wait_for_packets() {
    let waited = rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global);
    if let Err(e) = waited {
        tracing::debug!("membarrier: {e}; the last packets of a retired chain may go uncounted");
    }
}
