//! What of a host a plan depends on.

use pointsman_model::HookId;
use pointsman_model::observed::{Observed, ObservedLink};
use std::collections::BTreeSet;

/// The part of `observed` that a plan for the hooks `wanted` depends on: our pins, the interfaces
/// of those hooks, and the interfaces that our links run on. [`plan`](crate::plan) gives the same
/// for it, so as long as it stays equal there is nothing to plan anew, however many other
/// interfaces come and go.
#[must_use]
pub fn relevant(observed: Observed, wanted: &BTreeSet<HookId>) -> Observed {
    let Observed { mut interfaces, unreachable, hooks, programs } = observed;
    let named: BTreeSet<_> =
        wanted.iter().chain(hooks.keys()).map(|hook| &hook.interface).collect();
    let links: Vec<&ObservedLink> = hooks.values().filter_map(|pins| pins.link.as_ref()).collect();
    interfaces.retain(|id, interface| {
        named.contains(id) || links.iter().any(|link| link.runs_on(interface))
    });
    Observed { interfaces, unreachable, hooks, programs }
}
