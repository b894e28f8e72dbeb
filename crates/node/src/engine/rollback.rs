//! Returning to an earlier generation, confirming one, and which there are.

use super::Engine;
use super::apply::{Entry, hooks};
use super::glass::{conflict, who};
use crate::host::Scope;
use crate::problem;
use crate::resolve::Origin;
use crate::state::Edition;
use pointsman_model::Sha256;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::event::EventKind;
use pointsman_model::glass::{ConfirmReport, GenerationInfo, Generations, RollbackReport};
use pointsman_model::plan::Note;
use pointsman_plan::Options;
use std::collections::BTreeSet;
use std::time::Instant;

/// What an operator asks of a generation.
#[derive(Debug, Clone, Copy)]
pub struct GenerationRequest {
    /// Which one; `None`: the one that suggests itself.
    pub generation: Option<u64>,
    /// What is allowed on the way there.
    pub options: Options,
    /// Who asks, where the socket tells.
    pub uid: Option<u32>,
    /// When the request arrived.
    pub arrived: Instant,
}

impl Engine {
    /// Returns to an earlier edition, with the objects it had.
    pub(super) fn rollback(
        &mut self,
        request: &GenerationRequest,
    ) -> Result<RollbackReport, Problem> {
        let before = self.state.state().clone();
        let Some(current) = before.current.clone() else {
            return Err(conflict("no document was ever accepted here"));
        };
        let Some(target) = before.rollback_target(request.generation).cloned() else {
            return Err(self.no_target(request.generation, &current));
        };
        let broken = |why| problem::plain(ProblemKind::Internal, 500, why);
        let document = self.wanted_document(&target).map_err(broken)?;
        let resolved = self.resolve(&document, Origin::Accepted(&target), false)?;
        let observed = self.observe(&Scope::of(&document))?;
        let mut plan = self.make_plan(&document, &resolved, &observed, request.options);
        self.cache.prune(&resolved, true);
        let (from, to) = (current.generation, target.generation);
        let note = |message| Note { hook: None, program: None, message };
        let mut next = before.clone();
        next.roll_back(&target, self.clock.now().unix_ms);
        let next_generation =
            next.left.iter().map(|mark| mark.generation).max().unwrap_or(to).saturating_add(1);
        plan.notes.push(note(format!(
            "generation {from} comes back only with `pointsman apply FILE`; a document of \
             generation {next_generation} or higher is taken as ever"
        )));
        if let Some(error) = self.force(next) {
            plan.notes.push(note(format!(
                "the rollback could not be recorded: the next start will go on with generation \
                 {from}: {error}"
            )));
        }
        self.refused = None;
        let entry = Entry {
            edition: &target,
            document: &document,
            resolved: &resolved,
            before: &before,
            takes_over: false,
            arrived: request.arrived,
        };
        let report = self.enter(&entry, plan);
        let message = format!(
            "from generation {from} to {to} as {} asked: {} refusals",
            who(request.uid),
            report.refusals.len()
        );
        self.event(EventKind::RolledBack, None, &message);
        if before.unconfirmed.is_none() && self.ignored.take().is_some() {
            // What was left alone may be in force now, or be left alone for another reason.
            self.document_changed(true);
        }
        Ok(RollbackReport { from, to, report })
    }

    fn no_target(&self, generation: Option<u64>, current: &Edition) -> Problem {
        let targets: Vec<_> =
            self.state.state().targets().iter().map(ToString::to_string).collect();
        let kept = match targets.as_slice() {
            [] => "no other generation is kept".to_owned(),
            kept => format!("kept are: {}", kept.join(", ")),
        };
        let current = current.generation;
        let title = match generation {
            Some(wanted) if wanted == current => {
                format!("generation {current} is in force already; {kept}")
            }
            Some(wanted) => format!("generation {wanted} is not kept on this node; {kept}"),
            None if self.state.state().unconfirmed.is_some() => format!(
                "nothing ran before generation {current}, which waits to be confirmed; \
                 `pointsman drain` removes it"
            ),
            None => format!("there is no good generation before {current}; {kept}"),
        };
        conflict(&title)
    }

    /// Keeps a document that waits to be confirmed.
    pub(super) fn confirm(
        &mut self,
        request: &GenerationRequest,
    ) -> Result<ConfirmReport, Problem> {
        let state = self.state.state();
        let current = state.current.as_ref().filter(|_| !state.drained);
        let current = current.map(|edition| edition.generation);
        let Some(waiting) = self.unconfirmed_status() else {
            return match (request.generation, current) {
                // Asked again, because the first answer did not arrive.
                (Some(wanted), Some(current)) if wanted == current => {
                    Ok(ConfirmReport { generation: current, remaining_ms: None })
                }
                (_, Some(current)) => Err(conflict(&format!(
                    "nothing waits to be confirmed: generation {current} is in force"
                ))),
                (_, None) => {
                    Err(conflict("nothing waits to be confirmed, and nothing is in force"))
                }
            };
        };
        let generation = waiting.generation;
        if let Some(wanted) = request.generation.filter(|wanted| *wanted != generation) {
            return Err(conflict(&format!(
                "generation {generation} waits to be confirmed, not generation {wanted}"
            )));
        }
        if waiting.remaining_ms == 0 {
            let title = format!("generation {generation} was not confirmed in time");
            return Err(conflict(&title));
        }
        let mut next = state.clone();
        next.unconfirmed = None;
        // What is known of the last plan is of another edition, or nothing, where this one could not
        // even be adopted.
        let document = next.current.as_ref().map(|edition| self.wanted_document(edition));
        if let Some(Ok(document)) = document
            && hooks(&document) == self.last.wanted
        {
            self.judge_good(&mut next, &self.last.wanted, &self.last.refusals);
        }
        // It must be on disk: else the next start would return after all.
        self.state.set(next).map_err(|error| {
            let title = format!(
                "{error}; generation {generation} is not confirmed and goes when its time is over"
            );
            problem::plain(ProblemKind::Storage, 507, title)
        })?;
        self.collect();
        let message = format!("generation {generation} stays, as {} says", who(request.uid));
        self.event(EventKind::Confirmed, None, &message);
        Ok(ConfirmReport { generation, remaining_ms: Some(waiting.remaining_ms) })
    }

    /// What can be returned to.
    pub(super) fn generations(&self) -> Generations {
        let state = self.state.state();
        let current = state.current.as_ref();
        let good =
            state.good.iter().map(|good| (&good.edition, good.at_unix_ms, true, good.rolled_back));
        let mut rows: Vec<_> = good.collect();
        let mut add = |edition, at| {
            if !rows.iter().any(|(known, ..)| *known == edition) {
                rows.push((edition, at, false, false));
            }
        };
        if let Some(window) = &state.unconfirmed
            && let Some(edition) = &window.before.edition
        {
            add(edition, window.before.at_unix_ms);
        }
        if let Some(edition) = current {
            add(edition, state.current_since_unix_ms);
        }
        let mut documents = BTreeSet::new();
        let mut objects = BTreeSet::new();
        let generations = rows.iter().map(|&(edition, at_unix_ms, good, rolled_back)| {
            let own: BTreeSet<Sha256> = edition.objects.values().map(|o| o.sha256).collect();
            let bytes = own.iter().map(|hash| self.objects.size(hash)).sum::<u64>();
            documents.insert(edition.document);
            objects.extend(own.iter().copied());
            GenerationInfo {
                generation: edition.generation,
                at_unix_ms,
                current: current == Some(edition) && !state.drained,
                good,
                rolled_back,
                document: edition.document,
                objects: own.len(),
                bytes: bytes + self.state.document_bytes(&edition.document),
            }
        });
        let generations = generations.collect();
        let bytes = objects.iter().map(|hash| self.objects.size(hash)).sum::<u64>()
            + documents.iter().map(|hash| self.state.document_bytes(hash)).sum::<u64>();
        Generations { generations, keep: self.keep, bytes }
    }
}
