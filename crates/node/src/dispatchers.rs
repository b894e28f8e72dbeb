//! What the dispatchers on interfaces run, look after look.

use pointsman_bpf::dispatcher::{DISPATCHER_NAME, Dispatcher};
use pointsman_model::InterfaceId;
use pointsman_model::observed::{Attachment, ObservedDispatcher, ObservedInterface};
use std::collections::BTreeMap;

/// Reads dispatchers, each once: while it runs a dispatcher stays what it is.
#[derive(Debug)]
pub(crate) struct Dispatchers {
    at: Dispatcher,
    /// Those that can be changed, by the number of their interface and the kernel's id. What is in
    /// the way of others can go away.
    known: BTreeMap<(u32, u32), ObservedDispatcher>,
}

impl Dispatchers {
    pub(crate) fn new(at: Dispatcher) -> Self {
        Self { at, known: BTreeMap::new() }
    }

    /// Fills in what runs on `interfaces`, of whatever network namespaces.
    pub(crate) fn read(&mut self, interfaces: &mut BTreeMap<InterfaceId, ObservedInterface>) {
        let mut before = std::mem::take(&mut self.known);
        for interface in interfaces.values_mut() {
            let index = interface.index;
            let Some(Attachment { program_id, name, mode }) = &interface.attached else { continue };
            if name.as_deref() != Some(DISPATCHER_NAME) {
                continue;
            }
            let key = (index, *program_id);
            let pinned = |known: &ObservedDispatcher| {
                self.at.is_pinned(index, *program_id, known.components.len())
            };
            let found = before.remove(&key).filter(pinned);
            interface.dispatcher = found.or_else(|| self.at.observe(index, *program_id, *mode));
            if let Some(found) = interface.dispatcher.as_ref().filter(|it| it.fixed.is_none()) {
                self.known.insert(key, found.clone());
            }
        }
    }
}
