//! What cards will not do of a document, as far as their drivers tell before they are asked.

use super::Engine;
use crate::host::Scope;
use pointsman_model::observed::Observed;
use pointsman_model::plan::Note;
use pointsman_model::{Document, InterfaceId};
use std::collections::BTreeSet;

impl Engine {
    /// A note on each of these. The status tells what came of it, so no plan is held back.
    pub(super) fn outlook(&mut self, document: &Document, mut observed: Observed) -> Vec<Note> {
        let said = document.interfaces.iter();
        let said = said.filter(|(_, spec)| spec.queues.is_some() || !spec.flows.is_empty());
        let names: BTreeSet<InterfaceId> = said.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        self.kernel.read_nics(&mut observed, &names, &Scope::of(document));
        let mut notes = Vec::new();
        for name in names {
            let known = document.interfaces.get(&name).zip(observed.interfaces.get(&name));
            let Some((spec, interface)) = known else { continue };
            for (place, why) in pointsman_plan::nic::outlook(spec, &interface.nic) {
                let message = format!("{}{place}: {why}", name.pointer());
                notes.push(Note { hook: None, program: None, message });
            }
        }
        notes
    }
}
