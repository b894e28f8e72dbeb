//! The start: what runs is adopted, what was accepted before is done again.

use super::apply::hooks;
use super::{Engine, LastPlan, outcome};
use crate::host::Scope;
use crate::resolve::Origin;
use crate::state::Edition;
use pointsman_model::chain::ChainRecord;
use pointsman_model::document::DocumentError;
use pointsman_model::observed::ObservedHook;
use pointsman_model::plan::{HookChange, Note};
use pointsman_model::{Document, HookId};
use pointsman_plan::{Options, narrow_to};
use std::collections::BTreeSet;
use std::time::Instant;

impl Engine {
    /// Does what the accepted document says, with the objects it was accepted with. Where the
    /// chains still run this changes nothing; after a reboot it attaches them.
    pub(super) fn adopt(&mut self) {
        let state = self.state.state();
        let Some(edition) = state.current.clone() else {
            tracing::info!("no document was accepted yet: what runs stays as it is");
            return self.serve_instances();
        };
        if state.drained {
            tracing::warn!(generation = edition.generation, "the node is drained: nothing runs");
            return;
        }
        match self.carry_on(&edition, Options::default()) {
            Ok(_) => drop(self.return_to_last_good(&edition, &BTreeSet::new())),
            Err(message) => {
                let pointer = String::new();
                let source = format!("accepted generation {}", edition.generation);
                self.refuse(&source, vec![DocumentError { pointer, message }]);
                if self.accepted_document(&edition).is_err() {
                    self.return_everywhere(&edition);
                }
            }
        }
    }

    /// Carries out an edition with the objects it was accepted with; gives the hooks of which
    /// something was refused.
    pub(super) fn carry_on(
        &mut self,
        edition: &Edition,
        options: Options,
    ) -> Result<BTreeSet<HookId>, String> {
        let start = Instant::now();
        let document = self.wanted_document(edition)?;
        // Nothing is stored, so nothing can fail for want of space.
        let resolved = self
            .resolve(&document, Origin::Accepted(edition), false)
            .map_err(|problem| problem.title)?;
        let scope = Scope::of(&document);
        let observed = self.observe(&scope).map_err(|problem| problem.title)?;
        let plan = self.make_plan(&document, &resolved, &observed, options);
        self.cache.prune(&resolved, true);
        let (results, _) = self.carry_out(&plan, &resolved, start);
        let failures = outcome::failures(&plan, &results);
        let refusals: Vec<_> = plan.refusals.iter().cloned().chain(failures).collect();
        let refused = refusals.iter().filter_map(|refusal| refusal.hook.clone()).collect();
        let wanted = hooks(&document);
        tracing::info!(
            generation = edition.generation,
            hooks = wanted.len(),
            steps = results.len(),
            refusals = refusals.len(),
            micros = start.elapsed().as_micros(),
            "accepted document adopted"
        );
        for refusal in &refusals {
            tracing::warn!(pointer = refusal.pointer, "refused: {}", refusal.message);
        }
        let mut next = self.state.state().clone();
        next.remember(&wanted, &self.done(&wanted, &plan, &refusals), edition);
        self.judge_good(&mut next, &wanted, &refusals);
        let mut notes = plan.notes;
        notes.extend(self.remember(next));
        let warnings = plan.warnings;
        self.last = LastPlan { scope, wanted, hooks: plan.hooks, refusals, notes, warnings };
        self.tell_pending(&BTreeSet::new());
        Ok(refused)
    }

    /// Does so for every hook that is refused, but for those that are left as they are. Gives the
    /// hooks that got a chain.
    pub(super) fn return_to_last_good(
        &mut self,
        current: &Edition,
        leave: &BTreeSet<HookId>,
    ) -> BTreeSet<HookId> {
        let refused = self.last.refusals.iter().filter_map(|refusal| refusal.hook.clone());
        let mut refused: BTreeSet<_> = refused.filter(|hook| !leave.contains(hook)).collect();
        refused.retain(|hook| self.return_one(hook, current));
        refused
    }

    /// Does so for every hook that has a last good chain: the document in force cannot even be read,
    /// so what it wants is not known.
    fn return_everywhere(&mut self, current: &Edition) {
        let hooks: Vec<_> =
            self.state.state().last_good.iter().map(|good| good.hook.clone()).collect();
        for hook in hooks {
            self.return_one(&hook, current);
        }
        let told = self.returned.iter().map(|(hook, message)| Note {
            hook: Some(hook.clone()),
            program: None,
            message: message.clone(),
        });
        self.last.notes.extend(told);
    }

    /// Where the document in force is refused and nothing of ours runs, what ran there last is
    /// better than nothing: the traffic of a host must not depend on when it was rebooted.
    pub(super) fn return_one(&mut self, hook: &HookId, current: &Edition) -> bool {
        let Some(edition) = self.state.state().last_good(hook).cloned() else { return false };
        if edition == *current {
            return false;
        }
        let generation = edition.generation;
        let returned = self.attach_last_good(hook, &edition);
        let message = match &returned {
            Ok(false) => return false,
            Ok(true) => format!(
                "generation {generation} runs on {hook} again, the last one that could be carried \
                 out there: what the document in force wants there is refused"
            ),
            Err(why) => format!(
                "generation {generation}, the last one that could be carried out on {hook}, could \
                 not be attached again either: {why}"
            ),
        };
        if self.returned.get(hook) != Some(&message) {
            tracing::warn!("{message}");
        }
        self.returned.insert(hook.clone(), message);
        returned.is_ok()
    }

    /// Attaches what `edition` wants on `hook`, and touches nothing else; `false`: a chain of ours
    /// runs there already, or its interface is not there.
    fn attach_last_good(&mut self, hook: &HookId, edition: &Edition) -> Result<bool, String> {
        let observed = self.observe(&Scope::default()).map_err(|problem| problem.title)?;
        let pins = observed.hooks.get(hook).filter(|pins| runs(pins));
        let live = pins.and_then(ObservedHook::live);
        // An empty chain runs there because the hook was bypassed until now.
        let empty = |record: &ChainRecord| record.spec.members.is_empty();
        let slots = pins.and_then(|pins| pins.link.as_ref()?.slots.as_ref());
        // Somebody took slots out of the dispatcher: what is left is not the chain.
        let parted = |record: &ChainRecord| {
            slots.is_some_and(|slots| slots.len() != record.spec.slots.len())
        };
        let stays = |record: Option<&ChainRecord>| {
            record.is_none_or(|record| !empty(record) && !parted(record))
        };
        if live.is_some_and(|(_, chain)| stays(chain.record.as_ref())) {
            return Ok(false);
        }
        self.bring_back(hook, edition, Options::default())
    }

    /// Makes `hook` run what `edition` wants there, and touches nothing else; `false`: its
    /// interface is not there.
    pub(super) fn bring_back(
        &mut self,
        hook: &HookId,
        edition: &Edition,
        options: Options,
    ) -> Result<bool, String> {
        let mut document = self.accepted_document(edition)?;
        // The only one, under the name that it has now.
        let named = self.state.state().named_in(hook, edition);
        let interface = document.interfaces.remove(&named);
        document.interfaces =
            interface.map(|wanted| (hook.interface.clone(), wanted)).into_iter().collect();
        let mut document = self.with_instances(document).map_err(|problem| problem.title)?;
        document.interfaces.retain(|interface, _| *interface == hook.interface);
        let observed = self.observe(&Scope::of(&document)).map_err(|problem| problem.title)?;
        let resolved = self
            .resolve(&document, Origin::Accepted(edition), false)
            .map_err(|problem| problem.title)?;
        let plan = self.make_plan(&document, &resolved, &observed, options);
        let plan = narrow_to(plan, hook);
        if let Some(refusal) = plan.refusals.first() {
            return Err(refusal.message.clone());
        }
        if plan.hooks.iter().any(|diff| diff.change == HookChange::Pending) {
            return Ok(false);
        }
        let (results, _) = self.carry_out(&plan, &resolved, Instant::now());
        match outcome::failures(&plan, &results).first() {
            Some(failure) => Err(failure.message.clone()),
            None => Ok(!plan.steps.is_empty()),
        }
    }

    pub(super) fn accepted_document(&self, edition: &Edition) -> Result<Document, String> {
        let text = self.state.document(&edition.document).map_err(|error| error.to_string())?;
        Document::parse(&text).map_err(|errors| match errors.first() {
            Some(error) => format!("the accepted document is not valid any more: {error}"),
            None => "the accepted document is not valid any more".to_owned(),
        })
    }
}

/// Whether a chain of ours runs on the hook.
fn runs(pins: &ObservedHook) -> bool {
    pins.live().is_some() && pins.link.as_ref().is_some_and(|link| !link.is_detached())
}
