//! What came of the last plan.

use crate::host::Scope;
use pointsman_model::HookId;
use pointsman_model::plan::{HookDiff, Note, Plan, Refusal, RefusalReason};
use pointsman_model::preflight::Warning;
use std::collections::BTreeSet;

/// What came of the last plan, as far as status needs it.
#[derive(Debug, Default)]
pub(super) struct LastPlan {
    /// Where the document in force looks.
    pub(super) scope: Scope,
    /// The hooks of the document in force.
    pub(super) wanted: BTreeSet<HookId>,
    pub(super) hooks: Vec<HookDiff>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) notes: Vec<Note>,
    pub(super) warnings: Vec<Warning>,
}

impl LastPlan {
    /// What a hook waits for.
    pub(super) fn pending(&self, hook: &HookId) -> Option<&String> {
        self.hooks.iter().find(|diff| diff.hook == *hook)?.pending.as_ref()
    }

    /// The hooks that wait.
    pub(super) fn waiting(&self) -> BTreeSet<HookId> {
        let waiting = self.hooks.iter().filter(|diff| diff.pending.is_some());
        waiting.map(|diff| diff.hook.clone()).collect()
    }

    /// Takes over what came of a plan for some hooks of the same document.
    pub(super) fn take_over_hooks(&mut self, plan: Plan, refusals: Vec<Refusal>) {
        let (scope, wanted) = (std::mem::take(&mut self.scope), std::mem::take(&mut self.wanted));
        self.take_over(scope, wanted, plan, refusals);
    }

    /// Takes over what came of a plan for some hooks; the others stay as they were.
    pub(super) fn take_over(
        &mut self,
        scope: Scope,
        wanted: BTreeSet<HookId>,
        plan: Plan,
        refusals: Vec<Refusal>,
    ) {
        let hooks: BTreeSet<_> = plan.hooks.iter().map(|diff| diff.hook.clone()).collect();
        let stays = |hook: Option<&HookId>| hook.is_some_and(|hook| !hooks.contains(hook));
        // What is wrong with a program was found when it was applied. A look reads the store alone,
        // and knows only that there was something.
        let found = |refusal: Refusal| {
            let same = |before: &&Refusal| {
                let key = |r: &Refusal| (r.hook.clone(), r.program.clone(), r.pointer.clone());
                before.reason == RefusalReason::ProgramUnusable
                    && refusal.reason == before.reason
                    && key(before) == key(&refusal)
            };
            self.refusals.iter().find(same).cloned().unwrap_or(refusal)
        };
        let refusals: Vec<_> = refusals.into_iter().map(found).collect();
        self.scope = scope;
        self.wanted = wanted;
        self.hooks.retain(|diff| stays(Some(&diff.hook)));
        self.refusals.retain(|refusal| stays(refusal.hook.as_ref()));
        self.notes.retain(|note| stays(note.hook.as_ref()));
        self.warnings.retain(|warning| stays(Some(&warning.hook)));
        self.warnings.extend(plan.warnings);
        self.hooks.extend(plan.hooks);
        self.refusals.extend(refusals);
        self.notes.extend(plan.notes);
    }
}
