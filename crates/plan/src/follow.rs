//! Pins follow their interfaces: a link stays with an interface that is renamed, and its pins keep
//! the name it had.

use pointsman_model::observed::Observed;
use pointsman_model::plan::{RenameHook, Step};
use pointsman_model::{HookId, InterfaceId};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Gives the pins of chains that run on interfaces the document knows the names that these have
/// now. What comes out is the host as it is after the steps.
///
/// A chain on an interface that the document does not know keeps its pins' name: as long as
/// nothing else bears that name, the document speaks of this chain.
pub(crate) fn follow<'a>(
    wanted: impl Fn(&HookId) -> bool,
    observed: &'a Observed,
) -> (Vec<Step>, Cow<'a, Observed>) {
    let mut observed = Cow::Borrowed(observed);
    let mut steps = Vec::new();
    // Every step puts the pins of one chain in their place for good, so this ends.
    while let Some(rename) = misnamed(&wanted, &observed) {
        let RenameHook { from, to } = &rename;
        let hooks = &mut observed.to_mut().hooks;
        let (moved, other) = (hooks.remove(from), hooks.remove(to));
        hooks.extend(moved.map(|pins| (to.clone(), pins)));
        hooks.extend(other.map(|pins| (from.clone(), pins)));
        steps.push(Step::RenameHook(rename));
    }
    (steps, observed)
}

/// What is remembered of hooks, under the names that they have after `renames`.
pub(crate) fn renamed<T: Clone>(
    by_hook: &BTreeMap<HookId, T>,
    renames: &[Step],
) -> BTreeMap<HookId, T> {
    let mut by_hook = by_hook.clone();
    for step in renames {
        if let Step::RenameHook(RenameHook { from, to }) = step {
            let (moved, other) = (by_hook.remove(from), by_hook.remove(to));
            by_hook.extend(moved.map(|value| (to.clone(), value)));
            by_hook.extend(other.map(|value| (from.clone(), value)));
        }
    }
    by_hook
}

fn misnamed(wanted: impl Fn(&HookId) -> bool, observed: &Observed) -> Option<RenameHook> {
    observed.hooks.iter().find_map(|(hook, pins)| {
        let (interface, _): (&InterfaceId, _) = observed.interface_of(pins.link.as_ref()?)?;
        let to = HookId { interface: interface.clone(), kind: hook.kind };
        (to != *hook && wanted(&to)).then(|| RenameHook { from: hook.clone(), to })
    })
}
