//! What is remembered of a hook goes along when its interface, and so the hook, gets another name.

use crate::state::{Edition, State};
use pointsman_model::plan::{Plan, RenameHook, Step};
use pointsman_model::{HookId, InterfaceId};

/// The hooks that a plan gives other names.
pub(crate) fn renames(plan: &Plan) -> impl Iterator<Item = &RenameHook> {
    plan.steps.iter().filter_map(|step| match step {
        Step::RenameHook(rename) => Some(rename),
        _ => None,
    })
}

/// Exchanges two names.
pub(crate) fn exchange(hook: &mut HookId, one: &HookId, other: &HookId) {
    if hook == one {
        hook.clone_from(other);
    } else if hook == other {
        hook.clone_from(one);
    }
}

impl State {
    /// Gives what is remembered of two hooks each other's names: the last good editions, and
    /// bypasses.
    pub(crate) fn exchange(&mut self, one: &HookId, other: &HookId) {
        for good in self.last_good.iter_mut().filter(|good| [one, other].contains(&&good.hook)) {
            let before = good.hook.interface.clone();
            exchange(&mut good.hook, one, other);
            let named = good.named.take().unwrap_or(before);
            good.named = (named != good.hook.interface).then_some(named);
        }
        self.bypassed.iter_mut().for_each(|bypass| exchange(&mut bypass.hook, one, other));
        self.last_good.sort_by(|a, b| a.hook.cmp(&b.hook));
        self.bypassed.sort_by(|a, b| a.hook.cmp(&b.hook));
    }

    /// The name that the interface of `hook` has in the document of `edition`.
    pub(crate) fn named_in(&self, hook: &HookId, edition: &Edition) -> InterfaceId {
        let good = self.last_good.iter().find(|good| good.hook == *hook);
        let named = good.filter(|good| good.edition == *edition).and_then(|g| g.named.clone());
        named.unwrap_or_else(|| hook.interface.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Bypass;

    #[test]
    fn what_is_remembered_of_two_hooks_changes_places() {
        let hook = |name: &str| HookId::xdp(name.parse::<pointsman_model::InterfaceId>().unwrap());
        let bypass = |name| Bypass { hook: hook(name), since_unix_ms: 7, until: None, uid: None };
        let mut state = State { bypassed: vec![bypass("a"), bypass("c")], ..State::default() };
        state.exchange(&hook("a"), &hook("b"));
        let hooks = |state: &State| -> Vec<_> {
            state.bypassed.iter().map(|bypass| bypass.hook.interface.to_string()).collect()
        };
        assert_eq!(hooks(&state), ["b", "c"]);
        state.exchange(&hook("b"), &hook("c"));
        assert_eq!(hooks(&state), ["b", "c"], "both are bypassed");
    }
}
