//! Where the host is looked at: where a document says, and where slots of ours still run.
//!
//! A BPF link ends from anywhere. Slots end only in the network namespace of their dispatcher, which
//! the document in force may not name any more.

use super::Engine;
use crate::host::{KernelError, Scope};
use crate::problem;
use pointsman_model::HookId;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::document::{NamespaceSpec, Namespaces};
use pointsman_model::observed::{Observed, ObservedHook};

impl Engine {
    pub(super) fn observe(&mut self, scope: &Scope) -> Result<Observed, Problem> {
        self.see(scope).map_err(|KernelError(why)| {
            let title = format!("cannot observe the host: {why}; nothing was changed");
            problem::plain(ProblemKind::Internal, 500, title)
        })
    }

    /// The host in `scope`, and in network namespaces beyond it in which slots of ours run.
    pub(super) fn see(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        let observed = self.kernel.observe(scope)?;
        let beyond = observed.hooks.iter().filter(|(_, hook)| runs_unseen(hook, &observed));
        let mut wider = scope.clone();
        self.add(beyond.map(|(hook, _)| hook), &mut wider.namespaces);
        if wider == *scope { Ok(observed) } else { self.kernel.observe(&wider) }
    }

    /// Adds where the network namespaces of `hooks` are found: where the document in force says, or
    /// else where `ip netns` makes them, as for any that a document does not say it of.
    pub(super) fn add<'a>(
        &self,
        hooks: impl Iterator<Item = &'a HookId>,
        namespaces: &mut Namespaces,
    ) {
        for name in hooks.filter_map(|hook| hook.interface.namespace.as_ref()) {
            let known = || self.last.scope.namespaces.get(name).cloned();
            let spec = || known().unwrap_or_else(|| NamespaceSpec::of(name));
            namespaces.entry(name.clone()).or_insert_with(spec);
        }
    }
}

fn runs_unseen(hook: &ObservedHook, observed: &Observed) -> bool {
    let slots = hook.link.as_ref().filter(|link| link.is_dispatcher() && !link.is_detached());
    slots.is_some_and(|link| observed.interface_of(link).is_none())
}
